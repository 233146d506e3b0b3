"""Silences: those in effect and those that ended, their beginning and their end."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from fastapi import Body, Header, Path, Query
from pydantic import ConfigDict, StrictBool
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import (
    ENDED_SILENCE_EXAMPLE,
    INCIDENT_SILENCE_EXAMPLE,
    SILENCE_EXAMPLE,
    STARTED_SILENCE_EXAMPLE,
    build_list_page_json_example,
)
from watchdog.api.serializers.acts import (
    SilenceJson,
    StartedSilenceJson,
    serialize_silence,
    serialize_started_silence,
)
from watchdog.api.serializers.lists import ListPageJson
from watchdog.domain.acts import OperatorInterfaceKind
from watchdog.domain.silencing import (
    Silence,
    SilenceMatcher,
)
from watchdog.service.acts import SilenceRequest, begin_silence, end_silence, silence_until_resolved
from watchdog.store.read.acts import list_silences, load_silence
from watchdog.store.read.status import Connection
from watchdog.web.auth.acts import get_actor
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.incidents import IncidentId
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation, declare_read_operation
from watchdog.web.routes.api_v1.parameters import (
    MAX_FILTER_CHARS,
    NO_COMMENT,
    ActBody,
    ActOnBehalfOfParameters,
    ListPageParameters,
    MatchText,
    NoQueryParameters,
    ProbeMatchBody,
    TimedActBody,
)
from watchdog.web.routes.api_v1.responses import (
    CursorPaginatedListEndpoint,
    ListPage,
    cut_list_page,
    respond_with_object,
)
from watchdog.web.routes.operators import OperatorRouteContext

SilenceId = Annotated[
    str, Path(max_length=MAX_FILTER_CHARS, description="The id of a silence.", examples=["s-4f0c2a91be"])
]
IdempotencyKey = Annotated[
    str,
    Header(
        max_length=MAX_FILTER_CHARS,
        description="A request with a key that has been used before begins no other silence. Choose a random one.",
    ),
]


class SilenceListParameters(ListPageParameters):
    """Only the silences that match the filter."""

    state: Literal["in_effect", "ended"] | None = None


class SilenceMatchBody(ProbeMatchBody):
    """Which incidents are silenced. An incident must match every field that is given."""

    subject: MatchText | None = None
    """Of the incident, such as a job. `*` stands for any text, `\\*` for a star, `\\` for a backslash."""
    all: StrictBool = False
    """Every incident, except Watchdog's own faults. Then no other field may be given."""

    def to_silence_matcher(self) -> SilenceMatcher:
        return SilenceMatcher(self.to_probe_matcher(), self.subject or "")


class SilenceBody(TimedActBody):
    """Give either `until` (when it ends) or `duration_ms` (how long)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"examples": [{"match": {"group": "Search"}, "duration_ms": 7_200_000, "comment": "upgrade"}]}
    )
    match: SilenceMatchBody

    def to_silence_request(self, now: int, idempotency_key: str) -> SilenceRequest:
        matcher = self.match.to_silence_matcher()
        return SilenceRequest(
            matcher,
            self.compute_end(now),
            self.comment,
            selects_everything=self.match.all,
            idempotency_key=idempotency_key,
        )


def get_silence_position(silence: Silence) -> CursorPosition:
    return silence.started_at, silence.id


SILENCE_LIST_ENDPOINT: CursorPaginatedListEndpoint[Silence] = CursorPaginatedListEndpoint(
    "/api/v1/silences", (int, str), get_silence_position, serialize_silence
)


def add_silence_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    add_silence_read_routes(router, context)
    add_incident_silence_route(router, context)

    @declare_act_operation(
        router,
        "/silences",
        summary="Hold back the notifications of some incidents for a time",
        shape=StartedSilenceJson,
        example=STARTED_SILENCE_EXAMPLE,
    )
    async def silence(
        request: Request,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[SilenceBody, Body()],
        idempotency_key: IdempotencyKey = "",
    ) -> StartedSilenceJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        started = await context.run_act(
            lambda database, now: begin_silence(database, body.to_silence_request(now, idempotency_key), actor, now)
        )
        return serialize_started_silence(*started)

    @declare_act_operation(
        router,
        "/silences/{silence_id}",
        method="DELETE",
        summary="End a silence; what it held back about open incidents is sent",
        shape=SilenceJson,
        example=ENDED_SILENCE_EXAMPLE,
    )
    async def unsilence(
        request: Request, silence_id: SilenceId, parameters: Annotated[ActOnBehalfOfParameters, Query()]
    ) -> SilenceJson:
        actor = get_actor(request, OperatorInterfaceKind.API, parameters.on_behalf_of)
        ended = await context.run_act(lambda database, now: end_silence(database, silence_id, actor, now))
        return serialize_silence(ended)


def add_incident_silence_route(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_act_operation(
        router,
        "/incidents/{incident_id}/silence",
        summary="Hold back the notifications of an open incident until it is resolved; safe to repeat",
        shape=SilenceJson,
        example=INCIDENT_SILENCE_EXAMPLE,
    )
    async def silence_incident(
        request: Request,
        incident_id: IncidentId,
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[ActBody, Body()] = NO_COMMENT,
    ) -> SilenceJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        silence = await context.run_act(
            lambda database, now: silence_until_resolved(database, incident_id, actor, body.comment, now)
        )
        return serialize_silence(silence)


def add_silence_read_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/silences",
        summary="List silences, newest first",
        shape=ListPageJson[SilenceJson],
        example=build_list_page_json_example(SILENCE_LIST_ENDPOINT.path, SILENCE_EXAMPLE),
    )
    async def get_silences(request: Request, parameters: Annotated[SilenceListParameters, Query()]) -> Response:
        after = SILENCE_LIST_ENDPOINT.decode_cursor_position(parameters)
        page = await context.run_query(lambda c: load_silence_list_page(c, parameters, after))
        return await SILENCE_LIST_ENDPOINT.respond_with_loaded_page(request, parameters, page)

    @declare_read_operation(
        router, "/silences/{silence_id}", summary="Show a silence", shape=SilenceJson, example=SILENCE_EXAMPLE
    )
    async def get_silence(
        request: Request, silence_id: SilenceId, _: Annotated[NoQueryParameters, Query()]
    ) -> Response:
        silence = await context.run_query(lambda c: load_silence(c, silence_id))
        if silence is None:
            raise HttpErrorResponseError(404, "There is no silence with this id. /api/v1/silences lists them.")
        return await respond_with_object(request, lambda: serialize_silence(silence))


def load_silence_list_page(
    connection: Connection, parameters: SilenceListParameters, after: CursorPosition | None
) -> ListPage[Silence]:
    silences = list_silences(
        connection,
        limit=parameters.limit + 1,
        is_in_effect={"in_effect": True, "ended": False}.get(parameters.state or ""),
        after=None if after is None else (int(after[0]), str(after[1])),
    )
    return cut_list_page(silences, parameters.limit)
