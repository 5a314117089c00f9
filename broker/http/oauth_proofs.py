"""How callers of the OAuth endpoints prove themselves: the ways of RFC 6749, 2.3, RFC 7523 and RFC 8705."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from broker.errors import BrokerError, ProofFailure, Reason
from broker.http.credentials import Bearer, client_certificate, read_authorization
from broker.model.proof import AssertionProof, BearerProof, Proof, SecretProof
from broker.model.sensitive import Sensitive

Form = Mapping[str, str]

CLIENT_CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - the grant type's name
GRANT_TYPES = (CLIENT_CREDENTIALS, JWT_BEARER, TOKEN_EXCHANGE)

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
AUTHENTICATION_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth")

_TOKEN_TYPES = "urn:ietf:params:oauth:token-type:"  # noqa: S105 - the beginning of their names
SUBJECT_TOKEN_TYPES = frozenset({_TOKEN_TYPES + kind for kind in ("jwt", "id_token", "access_token")})
ISSUED_TOKEN_TYPES = frozenset({_TOKEN_TYPES + kind for kind in ("jwt", "access_token")})
DEFAULT_ISSUED_TYPE = _TOKEN_TYPES + "access_token"

_CREDENTIALS = ("client_secret", "client_assertion", "client_assertion_type")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A proof, or what is wrong with it; ``grant_error`` is OAuth's word for a wrong one that was the grant itself."""

    proof: Proof | ProofFailure
    grant_error: str | None = None


def proof_of_grant(request: web.BaseRequest, form: Form) -> Claimed:
    """Return what a request to the token endpoint brings. Raises BrokerError where the form is not consistent."""
    match form.get("grant_type"):
        case None:
            raise _invalid("The parameter 'grant_type' is missing.")
        case "client_credentials":
            return Claimed(client_proof(request, form))
        case grant_type if grant_type == JWT_BEARER:
            return Claimed(_in_the_form(request, form, "assertion"), "invalid_grant")
        case grant_type if grant_type == TOKEN_EXCHANGE:
            _check_exchange(form)
            return Claimed(_in_the_form(request, form, "subject_token"), "invalid_request")
    raise BrokerError(Reason.GRANT_TYPE_UNSUPPORTED, f"The grant types here are: {', '.join(GRANT_TYPES)}.")


def client_proof(request: web.BaseRequest, form: Form, *, bearer: bool = False) -> Proof | ProofFailure:
    """Return how a client authenticates, in one way. ``bearer`` allows a Bearer header beside ``client_id``."""
    headers = request.headers.getall("Authorization", ())
    ways = [bool(headers), "client_secret" in form, "client_assertion" in form or "client_assertion_type" in form]
    if sum(ways) > 1:
        raise _invalid("Authenticate in one way: HTTP Basic, client_secret, or client_assertion.")
    if headers:
        return _by_header(read_authorization(headers), form, bearer=bearer)
    if "client_secret" in form:
        return SecretProof(_client_id(form), Sensitive(form["client_secret"]))
    if ways[2]:
        return _assertion(form)
    certificate = client_certificate(request)
    return ProofFailure.MISSING if certificate is None else certificate.proof(_client_id(form))


def _by_header(brought: SecretProof | Bearer | ProofFailure, form: Form, *, bearer: bool) -> Proof | ProofFailure:
    if isinstance(brought, Bearer):
        if not bearer:
            raise _invalid(f"A Bearer token proves nothing here: send it as the assertion of grant_type {JWT_BEARER}.")
        return brought.proof(_client_id(form))
    if isinstance(brought, SecretProof) and form.get("client_id", brought.client) != brought.client:
        raise _invalid("The client_id is not the Authorization header's.")
    return brought


def _assertion(form: Form) -> AssertionProof:
    if form.get("client_assertion_type") != ASSERTION_TYPE or "client_assertion" not in form:
        raise _invalid(f"A client_assertion comes with client_assertion_type {ASSERTION_TYPE}.")
    return AssertionProof(form.get("client_id", ""), Sensitive(form["client_assertion"]))


def _in_the_form(request: web.BaseRequest, form: Form, name: str) -> BearerProof:
    if "Authorization" in request.headers or any(parameter in form for parameter in _CREDENTIALS):
        raise _invalid(f"The {name} is the proof: leave other credentials out.")
    if name not in form:
        raise _invalid(f"The parameter {name!r} is missing.")
    return BearerProof(_client_id(form), Sensitive(form[name]))


def _check_exchange(form: Form) -> None:
    """Hold the types of an exchange against what is done here (RFC 8693, 2.1): no delegation, JWTs only."""
    if form.get("subject_token_type") not in SUBJECT_TOKEN_TYPES:
        raise _invalid(f"The subject_token_type must be one of: {', '.join(sorted(SUBJECT_TOKEN_TYPES))}.")
    if form.get("requested_token_type", DEFAULT_ISSUED_TYPE) not in ISSUED_TOKEN_TYPES:
        raise _invalid(f"The requested_token_type must be one of: {', '.join(sorted(ISSUED_TOKEN_TYPES))}.")
    if "actor_token" in form:
        raise _invalid("There is no delegation here: leave actor_token out.")


def _client_id(form: Form) -> str:
    if "client_id" not in form:
        raise _invalid("The parameter 'client_id' is missing: it says which client is meant (namespace/name).")
    return form["client_id"]


def _invalid(detail: str) -> BrokerError:
    return BrokerError(Reason.INVALID_REQUEST, detail)
