"""Running probes on request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Query
from starlette.requests import Request

from watchdog.api.examples import RUN_REQUEST_EXAMPLE
from watchdog.api.serializers.acts import RunRequestJson, serialize_run_request
from watchdog.domain.acts import OperatorInterfaceKind
from watchdog.service.acts import request_run
from watchdog.web.auth.acts import get_actor
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation
from watchdog.web.routes.api_v1.parameters import NO_COMMENT, ActBody, NoQueryParameters
from watchdog.web.routes.api_v1.probes import ProbeId, load_probe_status
from watchdog.web.routes.operators import OperatorRouteContext


def add_requested_run_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_act_operation(
        router,
        "/probes/{probe_id}/run-now",
        summary="Run a probe within about a second; the schedule does not move",
        shape=RunRequestJson,
        example=RUN_REQUEST_EXAMPLE,
    )
    async def handle_run_request(
        request: Request,
        probe_id: ProbeId,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[ActBody, Body()] = NO_COMMENT,
    ) -> RunRequestJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        await context.run_query(lambda c: load_probe_status(c, probe_id))
        requested = await context.run_act(
            lambda database, now: request_run(database, probe_id, actor, body.comment, now)
        )
        return serialize_run_request(probe_id, requested.slot)
