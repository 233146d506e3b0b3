"""Maintenance windows: those in effect, planned and ended, and maintenance that people begin and end."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

from fastapi import Body, Path, Query
from pydantic import ConfigDict, Field, StrictBool, StrictInt
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import (
    ENDED_MAINTENANCE_EXAMPLE,
    MAINTENANCE_EXAMPLE,
    STARTED_MAINTENANCE_EXAMPLE,
    build_list_page_json_example,
)
from watchdog.api.serializers.lists import ListPageJson
from watchdog.api.serializers.maintenance import (
    MaintenanceWindowJson,
    StartedMaintenanceJson,
    serialize_maintenance_window,
    serialize_started_maintenance,
)
from watchdog.domain.acts import OperatorInterfaceKind
from watchdog.domain.maintenance_windows import (
    MAX_MAINTENANCE_DURATION_MS,
    MaintenanceWindow,
    MaintenanceWindowState,
)
from watchdog.service.acts import MaintenanceRequest, begin_maintenance, end_maintenance
from watchdog.store.read.maintenance import list_maintenance_windows, load_maintenance_window
from watchdog.store.read.status import Connection
from watchdog.web.auth.acts import get_actor
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation, declare_read_operation
from watchdog.web.routes.api_v1.parameters import (
    MAX_FILTER_CHARS,
    ActOnBehalfOfParameters,
    Instant,
    ListPageParameters,
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

WindowId = Annotated[
    str, Path(max_length=MAX_FILTER_CHARS, description="The id of a maintenance window.", examples=["m-4f0c2a91be"])
]


class MaintenanceListParameters(ListPageParameters):
    """Only the windows that match the filter."""

    state: MaintenanceWindowState | None = None


class MaintenanceMatchBody(ProbeMatchBody):
    """Which probes are in maintenance. A probe must match every field that is given."""

    all: StrictBool = False
    """Every probe, except Watchdog itself. Then no other field may be given."""


class MaintenanceBody(TimedActBody):
    """Give either `until` (when it ends) or `duration_ms` (how long, from the start)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"examples": [{"match": {"group": "Core"}, "duration_ms": 7_200_000, "comment": "upgrade"}]}
    )
    match: MaintenanceMatchBody
    starts_at: Instant | None = None
    """When it starts; null: now."""
    duration_ms: Annotated[StrictInt, Field(ge=1, le=MAX_MAINTENANCE_DURATION_MS)] | None = None

    def to_maintenance_request(self, now: int) -> MaintenanceRequest:
        matcher, starts_at = self.match.to_probe_matcher(), self.starts_at
        ends_at = self.compute_end(now if starts_at is None else starts_at)
        return MaintenanceRequest(
            matcher, ends_at, self.comment, selects_everything=self.match.all, starts_at=starts_at
        )


MaintenanceListEntry: TypeAlias = tuple[MaintenanceWindow, int]
"""A window, and the instant that its state is as of."""


def get_maintenance_position(entry: MaintenanceListEntry) -> CursorPosition:
    window, _ = entry
    return window.starts_at, window.id


MAINTENANCE_LIST_ENDPOINT: CursorPaginatedListEndpoint[MaintenanceListEntry] = CursorPaginatedListEndpoint(
    "/api/v1/maintenance", (int, str), get_maintenance_position, lambda entry: serialize_maintenance_window(*entry)
)


def add_maintenance_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    add_maintenance_read_routes(router, context)

    @declare_act_operation(
        router,
        "/maintenance",
        summary="Put some probes into maintenance, now or at a planned time: no incident of theirs opens",
        shape=StartedMaintenanceJson,
        example=STARTED_MAINTENANCE_EXAMPLE,
    )
    async def begin_maintenance_by_api(
        request: Request, _: Annotated[NoQueryParameters, Query()], body: Annotated[MaintenanceBody, Body()]
    ) -> StartedMaintenanceJson:
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        (window, probe_count), now = await context.run_act(
            lambda database, now: (begin_maintenance(database, body.to_maintenance_request(now), actor, now), now)
        )
        return serialize_started_maintenance(window, probe_count, now)

    @declare_act_operation(
        router,
        "/maintenance/{window_id}",
        method="DELETE",
        summary="End maintenance in effect, or cancel planned maintenance; what is still wrong opens with the next run",
        shape=MaintenanceWindowJson,
        example=ENDED_MAINTENANCE_EXAMPLE,
    )
    async def end_window(
        request: Request, window_id: WindowId, parameters: Annotated[ActOnBehalfOfParameters, Query()]
    ) -> MaintenanceWindowJson:
        actor = get_actor(request, OperatorInterfaceKind.API, parameters.on_behalf_of)
        ended, now = await context.run_act(
            lambda database, now: (end_maintenance(database, window_id, actor, now), now)
        )
        return serialize_maintenance_window(ended, now)


def add_maintenance_read_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/maintenance",
        summary="List maintenance windows: the next time of each comes before what is in effect and what ended",
        shape=ListPageJson[MaintenanceWindowJson],
        example=build_list_page_json_example(MAINTENANCE_LIST_ENDPOINT.path, MAINTENANCE_EXAMPLE),
    )
    async def get_maintenance_windows(
        request: Request, parameters: Annotated[MaintenanceListParameters, Query()]
    ) -> Response:
        after, now = MAINTENANCE_LIST_ENDPOINT.decode_cursor_position(parameters), context.clock()
        page = await context.run_query(lambda c: load_maintenance_list_page(c, parameters, after, now))
        return await MAINTENANCE_LIST_ENDPOINT.respond_with_loaded_page(request, parameters, page)

    @declare_read_operation(
        router,
        "/maintenance/{window_id}",
        summary="Show a maintenance window",
        shape=MaintenanceWindowJson,
        example=MAINTENANCE_EXAMPLE,
    )
    async def get_maintenance_window(
        request: Request, window_id: WindowId, _: Annotated[NoQueryParameters, Query()]
    ) -> Response:
        window, now = await context.run_query(lambda c: load_maintenance_window(c, window_id)), context.clock()
        if window is None:
            raise HttpErrorResponseError(
                404, "There is no maintenance window with this id. /api/v1/maintenance lists them."
            )
        return await respond_with_object(request, lambda: serialize_maintenance_window(window, now))


def load_maintenance_list_page(
    connection: Connection, parameters: MaintenanceListParameters, after: CursorPosition | None, now: int
) -> ListPage[MaintenanceListEntry]:
    windows = list_maintenance_windows(
        connection,
        now,
        limit=parameters.limit + 1,
        state=parameters.state,
        after=None if after is None else (int(after[0]), str(after[1])),
    )
    return cut_list_page([(window, now) for window in windows], parameters.limit)
