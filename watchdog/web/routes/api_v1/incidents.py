"""Incidents: open and resolved ones, and one with its evidence."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import INCIDENT_DETAIL_JSON_EXAMPLE, INCIDENT_JSON_EXAMPLE, build_list_page_json_example
from watchdog.api.serializers.incidents import (
    IncidentDetailJson,
    IncidentJson,
    serialize_incident,
    serialize_incident_detail,
)
from watchdog.api.serializers.lists import ListPageJson
from watchdog.domain.model import Severity
from watchdog.store.read import status
from watchdog.store.read.incident_details import IncidentDetails, load_incident_details
from watchdog.store.read.status import Connection, IncidentRecord
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_read_operation
from watchdog.web.routes.api_v1.parameters import MAX_FILTER_CHARS, FilterText, ListPageParameters, NoQueryParameters
from watchdog.web.routes.api_v1.probes import load_probe_status
from watchdog.web.routes.api_v1.responses import (
    CursorPaginatedListEndpoint,
    ListPage,
    cut_list_page,
    respond_with_object,
)
from watchdog.web.routes.operators import OperatorRouteContext

IncidentId = Annotated[
    str,
    Path(max_length=MAX_FILTER_CHARS, description="The id of an incident.", examples=["4f2a90c1d3e85b7764a1b0c2"]),
]
UNKNOWN_INCIDENT_TEXT = (
    "There is no incident with this id; resolved ones are deleted after a while. /api/v1/incidents lists the others."
)


class IncidentListParameters(ListPageParameters):
    """Only the incidents that match every filter."""

    state: Literal["open", "resolved"] | None = None
    severity: Severity | None = None
    probe: FilterText = ""
    """The id of a probe."""


INCIDENT_LIST_ENDPOINT: CursorPaginatedListEndpoint[IncidentRecord] = CursorPaginatedListEndpoint(
    "/api/v1/incidents",
    (int, str),
    lambda record: (record.incident.opened_at, record.incident.id),
    serialize_incident,
)


def add_incident_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/incidents",
        summary="List incidents, newest first",
        shape=ListPageJson[IncidentJson],
        example=build_list_page_json_example(INCIDENT_LIST_ENDPOINT.path, INCIDENT_JSON_EXAMPLE),
    )
    async def list_incidents(request: Request, parameters: Annotated[IncidentListParameters, Query()]) -> Response:
        after = INCIDENT_LIST_ENDPOINT.decode_cursor_position(parameters)
        page = await context.run_query(lambda c: load_incident_list_page(c, parameters, after))
        return await INCIDENT_LIST_ENDPOINT.respond_with_loaded_page(request, parameters, page)

    @declare_read_operation(
        router,
        "/incidents/{incident_id}",
        summary="Show an incident with its evidence and notifications",
        shape=IncidentDetailJson,
        example=INCIDENT_DETAIL_JSON_EXAMPLE,
    )
    async def get_incident(
        request: Request, incident_id: IncidentId, _: Annotated[NoQueryParameters, Query()]
    ) -> Response:
        now = context.clock()
        details = await context.run_query(lambda c: load_known_incident_details(c, incident_id, now))
        return await respond_with_object(request, lambda: serialize_incident_detail(details))


def load_incident_list_page(
    connection: Connection, parameters: IncidentListParameters, after: CursorPosition | None
) -> ListPage[IncidentRecord]:
    """Raises HttpErrorResponseError for an unknown probe."""
    probe = parameters.probe and load_probe_status(connection, parameters.probe).probe
    records = status.list_incidents(
        connection,
        probe_database_ids=[probe.database_id] if probe else None,
        is_open={"open": True, "resolved": False}.get(parameters.state or ""),
        severity=parameters.severity,
        after=None if after is None else (int(after[0]), str(after[1])),
        limit=parameters.limit + 1,
    )
    return cut_list_page(records, parameters.limit)


def load_known_incident_details(connection: Connection, incident_id: str, now: int) -> IncidentDetails:
    """Raises HttpErrorResponseError for an unknown incident."""
    details = load_incident_details(connection, incident_id, now)
    if details is None:
        raise HttpErrorResponseError(404, UNKNOWN_INCIDENT_TEXT)
    return details
