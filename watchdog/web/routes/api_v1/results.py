"""Results of a probe, with their evidence."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import RESULT_DETAIL_JSON_EXAMPLE, build_list_page_json_example
from watchdog.api.serializers.lists import ListPageJson
from watchdog.api.serializers.results import ResultDetailJson, serialize_result_details
from watchdog.domain.model import Outcome
from watchdog.store.read.history import ResultDetails, list_results_with_details
from watchdog.store.read.status import Connection
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_read_operation
from watchdog.web.routes.api_v1.parameters import Instant, ListPageParameters
from watchdog.web.routes.api_v1.probes import ProbeId, load_probe_status
from watchdog.web.routes.api_v1.responses import CursorPaginatedListEndpoint, ListPage, cut_list_page
from watchdog.web.routes.operators import OperatorRouteContext


class ResultListParameters(ListPageParameters):
    """Only the results that match every filter."""

    since: Annotated[Instant | None, Field(alias="from")] = None
    """The first slot."""
    until: Annotated[Instant | None, Field(alias="to")] = None
    """Slots before this instant."""
    outcome: Outcome | None = None


def get_result_list_position(details: ResultDetails) -> CursorPosition:
    return (details.row.slot,)


def add_result_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/probes/{probe_id}/results",
        summary="List the results of a probe with their evidence, newest first",
        shape=ListPageJson[ResultDetailJson],
        example=build_list_page_json_example("/api/v1/probes/api/results", RESULT_DETAIL_JSON_EXAMPLE),
    )
    async def list_results(
        request: Request, probe_id: ProbeId, parameters: Annotated[ResultListParameters, Query()]
    ) -> Response:
        results: CursorPaginatedListEndpoint[ResultDetails] = CursorPaginatedListEndpoint(
            f"/api/v1/probes/{probe_id}/results", (int,), get_result_list_position, serialize_result_details
        )
        after = results.decode_cursor_position(parameters)
        page = await context.run_query(lambda c: load_result_list_page(c, probe_id, parameters, after))
        return await results.respond_with_loaded_page(request, parameters, page)


def load_result_list_page(
    connection: Connection, probe_id: str, parameters: ResultListParameters, after: CursorPosition | None
) -> ListPage[ResultDetails]:
    """Raises HttpErrorResponseError for an unknown probe."""
    results = list_results_with_details(
        connection,
        load_probe_status(connection, probe_id).probe.database_id,
        limit=parameters.limit + 1,
        before=None if after is None else int(after[0]),
        since=parameters.since,
        until=parameters.until,
        outcome=parameters.outcome,
    )
    return cut_list_page(results, parameters.limit)
