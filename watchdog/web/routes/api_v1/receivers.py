"""Receivers: whether their destinations confirm notifications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Body, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import RECEIVER_JSON_EXAMPLE, RECEIVER_TEST_EXAMPLE, build_list_page_json_example
from watchdog.api.serializers.lists import ListPageJson
from watchdog.api.serializers.receivers import (
    ReceiverJson,
    ReceiverTestJson,
    serialize_destination_summary,
    serialize_receiver_test,
)
from watchdog.domain.acts import OperatorInterfaceKind
from watchdog.store.read.destinations import list_destination_summaries
from watchdog.store.read.status import Connection
from watchdog.web.auth.acts import get_actor
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation, declare_read_operation
from watchdog.web.routes.api_v1.parameters import ActBody, FilterText, ListPageParameters, NoQueryParameters
from watchdog.web.routes.api_v1.responses import CursorPaginatedListEndpoint, ListPage, cut_list_page
from watchdog.web.routes.operators import OperatorRouteContext

MAX_RECEIVER_NAME_CHARS = 200
RECEIVER_LIST_HINT = "/api/v1/receivers lists them."


class ReceiverTestBody(ActBody):
    """The destinations to test."""

    destination: FilterText = ""
    """Such as oncall/slack; empty: every destination of the receiver."""


DEFAULT_RECEIVER_TEST_BODY = ReceiverTestBody()
RECEIVER_LIST_ENDPOINT: CursorPaginatedListEndpoint[ReceiverJson] = CursorPaginatedListEndpoint(
    "/api/v1/receivers", (str,), lambda receiver: (receiver["destination"],), lambda receiver: receiver
)


def add_receiver_list_and_test_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/receivers",
        summary="List the destinations of receivers, by name",
        shape=ListPageJson[ReceiverJson],
        example=build_list_page_json_example(RECEIVER_LIST_ENDPOINT.path, RECEIVER_JSON_EXAMPLE),
    )
    async def list_receivers(request: Request, parameters: Annotated[ListPageParameters, Query()]) -> Response:
        after, addresses = RECEIVER_LIST_ENDPOINT.decode_cursor_position(parameters), context.destination_addresses
        page = await context.run_query(lambda c: load_receiver_list_page(c, addresses, parameters, after))
        return await RECEIVER_LIST_ENDPOINT.respond_with_loaded_page(request, parameters, page)

    @declare_act_operation(
        router,
        "/receivers/{receiver}/test",
        summary="Send a test alert and its end to a receiver or one of its destinations",
        shape=ReceiverTestJson,
        example=RECEIVER_TEST_EXAMPLE,
    )
    async def send_test_alerts(
        request: Request,
        receiver: Annotated[str, Path(max_length=MAX_RECEIVER_NAME_CHARS)],
        _: Annotated[NoQueryParameters, Query()],
        body: Annotated[ReceiverTestBody, Body()] = DEFAULT_RECEIVER_TEST_BODY,
    ) -> ReceiverTestJson:
        tester, chosen = context.receiver_tester, body.destination or receiver
        if tester is None or not tester.has_destination(chosen) or receiver != chosen.partition("/")[0]:
            raise HttpErrorResponseError(404, f"This process has no such receiver or destination. {RECEIVER_LIST_HINT}")
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        return serialize_receiver_test(receiver, await tester.test(chosen, actor, body.comment, context.run_act))


def load_receiver_list_page(
    connection: Connection, addresses: Mapping[str, str], parameters: ListPageParameters, after: CursorPosition | None
) -> ListPage[ReceiverJson]:
    """`addresses`: of the destinations of this process; those of other processes are listed as well."""
    rows = [
        serialize_destination_summary(summary, addresses.get(summary.name, ""))
        for summary in list_destination_summaries(connection, addresses)
        if after is None or summary.name > str(after[0])
    ]
    return cut_list_page(rows[: parameters.limit + 1], parameters.limit)
