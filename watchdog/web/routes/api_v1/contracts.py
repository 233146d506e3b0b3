"""The contracts of MCP servers: how a server differs from what was accepted, and accepting that."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.contract_examples import ACCEPTED_CONTRACT_DRIFT_EXAMPLE, PROBE_CONTRACT_EXAMPLE
from watchdog.api.serializers.contracts import (
    AcceptedContractDriftJson,
    ProbeContractJson,
    serialize_accepted_contract_drift,
    serialize_probe_contract,
)
from watchdog.domain.acts import OperatorInterfaceKind
from watchdog.domain.mcp_contract.stored import StoredContract
from watchdog.service.acts import accept_contract
from watchdog.store.read.contracts import load_probe_contract
from watchdog.store.read.status import Connection
from watchdog.web.auth.acts import get_actor
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation, declare_read_operation
from watchdog.web.routes.api_v1.parameters import MAX_FILTER_CHARS, ActBody, NoQueryParameters
from watchdog.web.routes.api_v1.probes import ProbeId, load_probe_status
from watchdog.web.routes.api_v1.responses import respond_with_object
from watchdog.web.routes.operators import OperatorRouteContext


class AcceptContractBody(ActBody):
    """Which contract is accepted."""

    digest: Annotated[str, Field(max_length=MAX_FILTER_CHARS)] = ""
    """`drift.digest` of the contract that you have read: if the server has changed again since then, the act is
    refused. Empty: what the server offers now."""


ACCEPT_NEWEST_CONTRACT_BODY = AcceptContractBody()


def add_contract_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/probes/{probe_id}/contract",
        summary="Show how an MCP server differs from its accepted contract",
        shape=ProbeContractJson,
        example=PROBE_CONTRACT_EXAMPLE,
    )
    async def get_contract(request: Request, probe_id: ProbeId, _: Annotated[NoQueryParameters, Query()]) -> Response:
        stored = await context.run_query(lambda c: load_stored_contract(c, probe_id))
        return await respond_with_object(request, lambda: serialize_probe_contract(probe_id, stored))

    @declare_act_operation(
        router,
        "/probes/{probe_id}/accept-contract",
        summary="Accept what an MCP server offers now, with effect from the next run of the probe",
        shape=AcceptedContractDriftJson,
        example=ACCEPTED_CONTRACT_DRIFT_EXAMPLE,
    )
    async def accept_contract_of_probe(
        request: Request,
        probe_id: ProbeId,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[AcceptContractBody, Body()] = ACCEPT_NEWEST_CONTRACT_BODY,
    ) -> AcceptedContractDriftJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        await context.run_query(lambda c: load_probe_status(c, probe_id))
        accepted = await context.run_act(
            lambda database, now: accept_contract(database, probe_id, body.digest, actor, body.comment, now=now)
        )
        return serialize_accepted_contract_drift(accepted)


def load_stored_contract(connection: Connection, probe_id: str) -> StoredContract:
    """Empty if none is stored. Raises HttpErrorResponseError for an unknown probe."""
    contract = load_probe_contract(connection, load_probe_status(connection, probe_id).probe.database_id)
    return StoredContract() if contract is None else contract.stored
