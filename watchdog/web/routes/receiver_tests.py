"""Testing a receiver on pages: a question, and then what became of the test alerts. Without scripts."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from watchdog.service.receiver_tests import ReceiverTester, ReceiverTestResult
from watchdog.store.read.status import load_watchdog_status
from watchdog.web.auth.acts import require_operator
from watchdog.web.errors import PageNotFoundError
from watchdog.web.pages.receivers import ReceiverTestPage, build_receiver_test_path
from watchdog.web.routes.operators import OperatorRouteContext
from watchdog.web.routes.page_acts import read_act_form

RECEIVER_TEST_PATH = "/receivers/test"


def create_receiver_test_router(context: OperatorRouteContext) -> APIRouter:
    """Only operators see these pages."""
    router = APIRouter(dependencies=[Depends(context.authenticate)])

    @router.get(RECEIVER_TEST_PATH)
    async def ask_before_test(request: Request, destination: str = "") -> Response:
        require_operator(request)
        require_tester(context, destination)
        return await render_receiver_test_page(context, request, destination)

    @router.post(RECEIVER_TEST_PATH)
    async def send_test_alerts(request: Request) -> Response:
        form, actor = await read_act_form(request, context)
        destination = form.get("destination", "")
        results = await require_tester(context, destination).test(destination, actor, "", context.run_act)
        return await render_receiver_test_page(context, request, destination, results)

    return router


def require_tester(context: OperatorRouteContext, destination: str) -> ReceiverTester:
    """Raises PageNotFoundError."""
    tester = context.receiver_tester
    if tester is None or not tester.has_destination(destination):
        raise PageNotFoundError("This process has no such receiver. The page of receivers lists them.")
    return tester


async def render_receiver_test_page(
    context: OperatorRouteContext, request: Request, destination: str, results: list[ReceiverTestResult] | None = None
) -> Response:
    """`results`: None: it is not tested yet."""
    page = ReceiverTestPage(
        service_status=await context.run_query(load_watchdog_status),
        destination=destination,
        address=context.destination_addresses.get(destination, ""),
        path=build_receiver_test_path(destination),
        results=tuple(results or ()),
    )
    return await context.render_page(request, "receiver_test.j2", "receivers", page, context.clock())
