"""Notifications and their deliveries: those that wait, fail, were sent or given up."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import DELIVERY_JSON_EXAMPLE, build_list_page_json_example
from watchdog.api.serializers.deliveries import DeliveryJson, serialize_delivery
from watchdog.api.serializers.lists import ListPageJson
from watchdog.domain.model import DeliveryState
from watchdog.store.read.deliveries import list_deliveries
from watchdog.store.read.status import Connection, DeliveryRecord
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_read_operation
from watchdog.web.routes.api_v1.parameters import FilterText, ListPageParameters
from watchdog.web.routes.api_v1.responses import CursorPaginatedListEndpoint, ListPage, cut_list_page
from watchdog.web.routes.operators import OperatorRouteContext


class DeliveryListParameters(ListPageParameters):
    """Only the notifications that match every filter."""

    state: DeliveryState | None = None
    failing: bool | None = None
    """Whether they wait and their last attempt failed."""
    destination: FilterText = ""
    incident: FilterText = ""
    """The id of an incident."""


def get_delivery_list_position(delivery: DeliveryRecord) -> CursorPosition:
    return delivery.created_at, delivery.incident, delivery.destination, delivery.seq


DELIVERY_LIST_ENDPOINT: CursorPaginatedListEndpoint[DeliveryRecord] = CursorPaginatedListEndpoint(
    "/api/v1/deliveries", (int, str, str, int), get_delivery_list_position, serialize_delivery
)


def add_delivery_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/deliveries",
        summary="List notifications and their deliveries, newest first",
        shape=ListPageJson[DeliveryJson],
        example=build_list_page_json_example(DELIVERY_LIST_ENDPOINT.path, DELIVERY_JSON_EXAMPLE),
    )
    async def get_deliveries(request: Request, parameters: Annotated[DeliveryListParameters, Query()]) -> Response:
        after = DELIVERY_LIST_ENDPOINT.decode_cursor_position(parameters)
        page = await context.run_query(lambda c: load_delivery_list_page(c, parameters, after))
        return await DELIVERY_LIST_ENDPOINT.respond_with_loaded_page(request, parameters, page)


def load_delivery_list_page(
    connection: Connection, parameters: DeliveryListParameters, after: CursorPosition | None
) -> ListPage[DeliveryRecord]:
    deliveries = list_deliveries(
        connection,
        limit=parameters.limit + 1,
        state=parameters.state,
        failing=parameters.failing,
        destination=parameters.destination,
        incident=parameters.incident,
        after=None if after is None else (int(after[0]), str(after[1]), str(after[2]), int(after[3])),
    )
    return cut_list_page(deliveries, parameters.limit)
