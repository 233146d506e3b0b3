"""Pausing and resuming probes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from fastapi import Body, Query
from pydantic import ConfigDict, Field, StrictInt, model_validator
from starlette.requests import Request

from watchdog.api.examples import PROBE_PAUSE_EXAMPLE
from watchdog.api.serializers.acts import ProbePauseJson, serialize_probe_pause
from watchdog.domain.acts import OperatorInterfaceKind
from watchdog.domain.pausing import MAX_PAUSE_DURATION_MS
from watchdog.service.acts import pause_probe, resume_probe
from watchdog.web.auth.acts import get_actor
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation
from watchdog.web.routes.api_v1.parameters import NO_COMMENT, ActBody, Instant, NoQueryParameters
from watchdog.web.routes.api_v1.probes import ProbeId, load_probe_status
from watchdog.web.routes.operators import OperatorRouteContext


class PauseBody(ActBody):
    """Give `until` (when it ends) or `duration_ms` (how long). Without either, until the probe is resumed."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"examples": [{"duration_ms": 7_200_000, "comment": "the server is moved"}]}
    )
    until: Instant | None = None
    duration_ms: Annotated[StrictInt, Field(ge=1, le=MAX_PAUSE_DURATION_MS)] | None = None

    @model_validator(mode="after")
    def _forbid_two_ends(self) -> Self:
        if self.until is not None and self.duration_ms is not None:
            raise ValueError("give until (when it ends) or duration_ms (how long), not both")
        return self

    def compute_end(self, now: int) -> int | None:
        """None: the probe is paused until someone resumes it."""
        return self.until if self.duration_ms is None else now + self.duration_ms


WITHOUT_END = PauseBody()


def add_pause_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_act_operation(
        router,
        "/probes/{probe_id}/pause",
        summary="Stop running a probe; if it is paused, the end and the comment change",
        shape=ProbePauseJson,
        example=PROBE_PAUSE_EXAMPLE,
    )
    async def handle_pause_request(
        request: Request,
        probe_id: ProbeId,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[PauseBody, Body()] = WITHOUT_END,
    ) -> ProbePauseJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        await context.run_query(lambda c: load_probe_status(c, probe_id))
        paused = await context.run_act(
            lambda database, now: pause_probe(database, probe_id, body.compute_end(now), actor, body.comment, now=now)
        )
        return serialize_probe_pause(paused.probe_id, paused.pause)

    @declare_act_operation(
        router,
        "/probes/{probe_id}/resume",
        summary="Run a paused probe again, from its next slot on",
        shape=ProbePauseJson,
        example={**PROBE_PAUSE_EXAMPLE, "pause": None},
    )
    async def resume(
        request: Request,
        probe_id: ProbeId,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[ActBody, Body()] = NO_COMMENT,
    ) -> ProbePauseJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        await context.run_query(lambda c: load_probe_status(c, probe_id))
        ended = await context.run_act(lambda database, now: resume_probe(database, probe_id, actor, body.comment, now))
        return serialize_probe_pause(ended.probe_id, None)
