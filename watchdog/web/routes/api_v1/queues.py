"""Queues, as they were last read."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import QUEUE_JSON_EXAMPLE, build_list_page_json_example
from watchdog.api.serializers.lists import ListPageJson
from watchdog.api.serializers.queues import QueueJson, QueueStatus, serialize_queue
from watchdog.store.read.queue_stats import load_newest_queue_sample, load_queue_threshold_records
from watchdog.store.read.status import Connection, ProbeStatus
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_read_operation
from watchdog.web.routes.api_v1.parameters import ListPageParameters
from watchdog.web.routes.api_v1.probes import ProbeListParameters, get_probe_list_position, load_probe_list_page
from watchdog.web.routes.api_v1.responses import CursorPaginatedListEndpoint, ListPage
from watchdog.web.routes.operators import OperatorRouteContext

QUEUE_LIST_ENDPOINT: CursorPaginatedListEndpoint[QueueStatus] = CursorPaginatedListEndpoint(
    "/api/v1/queues", (str, int), lambda reading: get_probe_list_position(reading.probe), serialize_queue
)


def add_queue_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/queues",
        summary="List queues, by the name of their probe",
        shape=ListPageJson[QueueJson],
        example=build_list_page_json_example(QUEUE_LIST_ENDPOINT.path, QUEUE_JSON_EXAMPLE),
    )
    async def list_queues(request: Request, parameters: Annotated[ListPageParameters, Query()]) -> Response:
        after = QUEUE_LIST_ENDPOINT.decode_cursor_position(parameters)
        page = await context.run_query(lambda c: load_queue_list_page(c, parameters, after))
        return await QUEUE_LIST_ENDPOINT.respond_with_loaded_page(request, parameters, page)


def load_queue_list_page(
    connection: Connection, parameters: ListPageParameters, after: CursorPosition | None
) -> ListPage[QueueStatus]:
    of_queues = ProbeListParameters(kind="queue", limit=parameters.limit)
    probes = load_probe_list_page(connection, of_queues, after)
    return ListPage([_load_queue_reading(connection, status) for status in probes.rows], probes.has_more)


def _load_queue_reading(connection: Connection, status: ProbeStatus) -> QueueStatus:
    probe = status.probe
    sample = load_newest_queue_sample(connection, probe.database_id)
    return QueueStatus(probe, status.state, sample, load_queue_threshold_records(connection, probe.database_id))
