"""Receivers: whether their destinations confirm notifications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import RECEIVER_JSON_EXAMPLE, build_list_page_json_example
from watchdog.api.serializers.lists import ListPageJson
from watchdog.api.serializers.receivers import ReceiverJson, serialize_receiver
from watchdog.store.read.destinations import list_destination_summaries
from watchdog.store.read.status import Connection
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_read_operation
from watchdog.web.routes.api_v1.parameters import PageParameters
from watchdog.web.routes.api_v1.responses import CursorPaginatedListEndpoint, ListPage, cut_list_page
from watchdog.web.routes.operators import OperatorRouteContext

RECEIVER_LIST_ENDPOINT: CursorPaginatedListEndpoint[ReceiverJson] = CursorPaginatedListEndpoint(
    "/api/v1/receivers", (str,), lambda receiver: (receiver["destination"],), lambda receiver: receiver
)


def add_notification_receiver_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/receivers",
        summary="List the destinations of receivers, by name",
        shape=ListPageJson[ReceiverJson],
        example=build_list_page_json_example(RECEIVER_LIST_ENDPOINT.path, RECEIVER_JSON_EXAMPLE),
    )
    async def list_receivers(request: Request, parameters: Annotated[PageParameters, Query()]) -> Response:
        after, addresses = RECEIVER_LIST_ENDPOINT.decode_cursor_position(parameters), context.destination_addresses
        page = await context.run_query(lambda c: load_receiver_list_page(c, addresses, parameters, after))
        return await RECEIVER_LIST_ENDPOINT.respond(request, parameters, page)


def load_receiver_list_page(
    connection: Connection, addresses: Mapping[str, str], parameters: PageParameters, after: CursorPosition | None
) -> ListPage[ReceiverJson]:
    """`addresses`: of the destinations of this process; those of other processes are listed as well."""
    rows = [
        serialize_receiver(summary, addresses.get(summary.name, ""))
        for summary in list_destination_summaries(connection, addresses)
        if after is None or summary.name > str(after[0])
    ]
    return cut_list_page(rows[: parameters.limit + 1], parameters.limit)
