"""Who calls: from the request to an authenticated client."""

from typing import Any

from aiohttp import web

from broker.errors import BrokerError, ProofError, ProofFailure, Reason
from broker.http.body import read_form, read_object
from broker.http.credentials import Bearer, Certificate, read_credentials
from broker.http.oauth_proofs import client_proof
from broker.http.remote import Networks, remote_address
from broker.model.proof import Proof, SecretProof
from broker.model.sensitive import Sensitive
from broker.services.authenticate import Authenticator, Caller


class Callers:
    """Authenticates requests. ``trusted_proxies`` are believed about their callers' addresses."""

    def __init__(self, authenticator: Authenticator, trusted_proxies: Networks, body_timeout_seconds: float) -> None:
        self._authenticator = authenticator
        self._trusted_proxies = trusted_proxies
        self.body_timeout_seconds = body_timeout_seconds

    def remote(self, request: web.BaseRequest) -> str:
        """Return the caller's address."""
        return remote_address(request, self._trusted_proxies)

    async def prove(
        self, request: web.BaseRequest, proof: Proof | ProofFailure, remote: str, client: str = ""
    ) -> Caller:
        """Return whom a proof proves. Raises BrokerError; ``client`` is who is meant where there is no proof.

        What the request then says of its caller is for the log: ``client`` was proved, ``claimed_client`` was not.
        """
        try:
            caller = await self._proved(proof, remote, client)
        except BrokerError:
            request["claimed_client"] = client if isinstance(proof, ProofFailure) else proof.client
            raise
        request["client"] = caller.client.id
        return caller

    async def _proved(self, proof: Proof | ProofFailure, remote: str, client: str) -> Caller:
        if isinstance(proof, ProofFailure):
            raise self._authenticator.failed(ProofError(proof), client, remote)
        return await self._authenticator.authenticate(proof, remote)

    async def with_object(self, request: web.BaseRequest, remote: str) -> tuple[Caller, dict[str, Any]]:
        """Return the caller, and the request's JSON object.

        The body is looked at after the proof, but where only the body says which client the proof is for.
        Raises BrokerError.
        """
        brought = read_credentials(request)
        if isinstance(brought, SecretProof | ProofFailure):
            caller = await self.prove(request, brought, remote)
            return caller, await read_object(request, self.body_timeout_seconds)
        document = await read_object(request, self.body_timeout_seconds)
        return await self._named(request, brought, document.get("client"), "the body's field", remote), document

    async def with_query(self, request: web.BaseRequest, remote: str) -> Caller:
        """Return the caller of a request without a body: the query's ``client`` says which client is meant."""
        brought, client = read_credentials(request), request.query.get("client")
        if not isinstance(brought, SecretProof | ProofFailure):
            return await self._named(request, brought, client, "the query's parameter", remote)
        caller = await self.prove(request, brought, remote)
        if client not in {None, str(caller.client.id)}:
            raise BrokerError(
                Reason.INVALID_REQUEST, "The parameter 'client' names another client than the one that authenticated."
            )
        return caller

    async def with_token(self, request: web.BaseRequest, remote: str) -> tuple[Caller, Sensitive]:
        """Return the caller of an OAuth endpoint, and the token in its form that it asks about (RFC 7009, RFC 7662).

        Raises BrokerError.
        """
        form = await read_form(request, self.body_timeout_seconds)
        caller = await self.prove(request, client_proof(request, form, bearer=True), remote, form.get("client_id", ""))
        if "token" not in form:
            raise BrokerError(Reason.INVALID_REQUEST, "The parameter 'token' is missing.")
        return caller, Sensitive(form["token"])

    async def _named(
        self, request: web.BaseRequest, brought: Bearer | Certificate, client: object, where: str, remote: str
    ) -> Caller:
        try:
            return await self.prove(request, brought.proof(client if isinstance(client, str) else ""), remote)
        except ProofError as error:
            if isinstance(client, str) or error.failure is not ProofFailure.UNKNOWN_CLIENT:
                raise
            raise BrokerError(
                Reason.INVALID_REQUEST,
                f"A Bearer token or certificate does not say which client is meant: name it in {where} 'client'.",
            ) from None
