"""What is refused before anything is made. Pure."""

import re
from typing import Any

from broker.cli.errors import CommandError, usage
from broker.cli.manifests import BrokerAccount, NewClient, token_client
from broker.model.access import parse_action
from broker.model.client import DNS_LABEL, DNS_SUBDOMAIN, Grant
from broker.model.decision import Rules, grant_problem
from broker.model.limits import NamespaceLimits
from broker.registration.manifest import read_registration

_AUDIENCE = re.compile(r"[\x21-\x7e]{1,256}", re.ASCII)


def check(new: NewClient) -> None:
    """Raise CommandError for a client that the broker would not serve, or that cannot be meant."""
    _check_names(new)
    for text in (*new.grant.expect.allow, *new.grant.expect.deny):
        try:
            parse_action(text)
        except ValueError as error:
            raise usage(f"expectation {error}") from None
    if not new.digest and not new.proofs and not new.grant.vault:
        raise usage("a client without a secret or another proof needs --vault, or nobody could use it.")
    resource: dict[str, Any] = token_client(new)
    resource["metadata"]["uid"] = ""
    registration = read_registration(resource)
    if registration.client is None:
        reason = registration.fault.message if registration.fault else "it is not valid"
        raise usage(f"the TokenClient would be refused: {reason}.")
    for grant in registration.client.grants:
        problem = never_granted(new.id.namespace, grant, new.broker)
        if problem:
            raise CommandError(problem)


def never_granted(namespace: str, grant: Grant, broker: BrokerAccount) -> str | None:
    """Return why no broker serves a grant, or None. What its operator limits besides is not known here."""
    rules = Rules(broker.namespace, api_audience="", limits=_unlimited)
    problem = grant_problem(namespace, grant, rules)
    return problem.detail if problem else None


def _unlimited(_namespace: str) -> NamespaceLimits:
    return NamespaceLimits(strong_accounts=True, unbound_tokens=True)


def _check_names(new: NewClient) -> None:
    labels = {
        "client": new.id.name,
        "namespace": new.id.namespace,
        "grant": new.grant.name,
        "broker's namespace": new.broker.namespace,
    }
    for what, name in labels.items():
        if not DNS_LABEL.fullmatch(name):
            raise usage(f"the {what} {name!r} is not a name of at most 63 characters a-z, 0-9 and '-'.")
    for what, name in {"service account": new.account.name, "broker's account": new.broker.name}.items():
        if not DNS_SUBDOMAIN.fullmatch(name):
            raise usage(f"the {what} {name!r} is not a name of characters a-z, 0-9, '-' and '.'.")
    for name in (*new.rights.cluster_roles, *new.rights.wide_roles):
        if not name or "/" in name or "%" in name or name in {".", ".."}:
            raise usage(f"{name!r} is not the name of a ClusterRole.")
    for audience in new.grant.audiences:
        if not _AUDIENCE.fullmatch(audience):
            raise usage(f"one of the audiences, {audience!r}, is not 1 to 256 visible ASCII characters.")
