"""What ``--can`` asks about, and the Role that would allow it, where an account may have that. Pure."""

import shlex
from dataclasses import dataclass

from broker.cli.errors import usage
from broker.cli.manifests import Manifest
from broker.model.access import Action, PolicyRule, Rules, WrittenAction, parse_action
from broker.model.strength import Strength, strong_reasons

_NAMESPACE = ("-n", "--namespace")
_EVERYWHERE = ("-A", "--all-namespaces")


@dataclass(frozen=True, slots=True)
class Wish:
    """An action in a namespace; an empty one is the whole cluster."""

    action: Action
    namespace: str

    def attributes(self) -> Manifest:
        """Return it as a SubjectAccessReview's spec has it."""
        return dict(self.action.attributes(self.namespace))

    @property
    def inside(self) -> str:
        """The namespace that a Role would have to be in, or nothing where only a ClusterRole will do."""
        return self.action.inside(self.namespace)

    def strong(self) -> tuple[Strength, ...]:
        """Return why an account that may do it is strong; empty where it is not."""
        action = self.action
        names = (action.name,) if action.name else ()
        return strong_reasons(Rules((PolicyRule((action.verb,), (action.group,), (action.combined,), names),)))

    def __str__(self) -> str:
        where = "" if self.action.url else f" in {self.inside or 'the whole cluster'}"
        return f"{self.action}{where}"

    def mend(self, namespace: str, account: str) -> str:
        """Return the commands that would let an account do it, or why none should."""
        strong = self.strong()
        if strong:
            return (
                f"let something else do it: the account would be strong, for it may {strong[0].what}, which "
                f"{strong[0].why}.\nThe broker serves no strong account, and ends its tokens, unless its operator "
                f"allows them in the namespace {namespace} (limits in its configuration)."
            )
        role, who = f"{account}-{self.action.verb}", f"--serviceaccount={namespace}:{account}"
        if not self.inside:
            return (
                f"kubectl create clusterrole {role} {self._allow()}\n"
                f"kubectl create clusterrolebinding {role} --clusterrole={role} {who}"
            )
        return (
            f"kubectl create role {role} -n {self.inside} {self._allow()}\n"
            f"kubectl create rolebinding {role} -n {self.inside} --role={role} {who}"
        )

    def _allow(self) -> str:
        verb, action = f"--verb={self.action.verb}", self.action
        if action.url:
            return shlex.join([verb, f"--non-resource-url={action.url}"])
        resource = f"{action.resource}.{action.group}" if action.group else action.resource
        whole = f"{resource}/{action.subresource}" if action.subresource else resource
        return shlex.join([verb, f"--resource={whole}", *([f"--resource-name={action.name}"] if action.name else [])])


@dataclass(frozen=True, slots=True)
class WrittenWish:
    """As somebody wrote it: the resource is still a word, and the namespace may be left to the kubeconfig."""

    written: WrittenAction
    namespace: str | None


def parse_wish(text: str) -> WrittenWish:
    """Return what words like ``get pods -n x`` ask. Raises CommandError(usage)."""
    try:
        words, namespace = _namespace(shlex.split(text))
        return WrittenWish(parse_action(" ".join(words)), namespace)
    except ValueError as error:
        raise usage(f"--can: {error}") from None


def _namespace(words: list[str]) -> tuple[list[str], str | None]:
    """Take the namespace out of the words: empty for all of them, None where nothing was said."""
    for position, word in enumerate(words):
        if word in _EVERYWHERE:
            return words[:position] + words[position + 1 :], ""
        if word in _NAMESPACE and position + 1 < len(words):
            return words[:position] + words[position + 2 :], words[position + 1]
        if word.startswith("--namespace="):
            return words[:position] + words[position + 1 :], word.partition("=")[2]
    return words, None
