"""What operators do on pages with one click: acknowledge, close, send again, run now, resume, accept contracts and
test receivers."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from watchdog.domain.acts import Actor
from watchdog.service.acts import (
    accept_contract,
    acknowledge_incident,
    close_incident,
    remove_acknowledgement,
    request_run,
    resend_undelivered_notifications,
    resume_probe,
)
from watchdog.service.receiver_tests import DestinationTestResult, ReceiverTester
from watchdog.store.database import Database
from watchdog.store.read.selections import count_failed_notifications
from watchdog.store.read.status import load_watchdog_status
from watchdog.web.auth.acts import require_operator_role
from watchdog.web.errors import PageNotFoundError
from watchdog.web.pages.act_confirmation import build_resending_confirmation, build_run_with_effect_confirmation
from watchdog.web.pages.receivers import ReceiverTestPage, build_receiver_test_path
from watchdog.web.routes.act_forms import (
    build_probe_path,
    is_confirmed,
    load_probe_by_id_or_raise,
    read_act_form,
    redirect_to_page,
    render_confirmation_page,
)
from watchdog.web.routes.operators import OperatorRouteContext
from watchdog.web.routes.timed_acts import add_timed_act_routes

RECEIVER_TEST_PAGE_PATH = "/receivers/test"


def create_page_act_router(context: OperatorRouteContext) -> APIRouter:
    """Only operators may send the forms. The response is a redirect to the page that shows the change; for a test, it
    is a page with the results."""
    router = APIRouter(dependencies=[Depends(context.authenticate)])
    add_incident_forms(router, context)
    add_probe_act_forms(router, context)
    add_timed_act_routes(router, context)
    add_receiver_test_forms(router, context)
    return router


def add_incident_form(
    router: APIRouter, context: OperatorRouteContext, name: str, act: Callable[[Database, str, Actor, str, int], object]
) -> None:
    """A form about an incident that has only a comment."""

    @router.post(f"/incidents/{{incident_id}}/{name}", name=name)
    async def run_incident_act(request: Request, incident_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        comment = form.get("comment", "")
        await context.run_act(lambda db, now: act(db, incident_id, actor, comment, now))
        return redirect_to_page("/incidents/", incident_id)


def add_incident_forms(router: APIRouter, context: OperatorRouteContext) -> None:
    acts = {
        "acknowledge": acknowledge_incident,
        "unacknowledge": remove_acknowledgement,
        "close": close_incident,
    }
    for name, act in acts.items():
        add_incident_form(router, context, name, act)

    @router.post("/incidents/{incident_id}/resend")
    async def resend(request: Request, incident_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        destination, comment = form.get("destination", ""), form.get("comment", "")
        if not is_confirmed(form):
            count = await context.run_query(lambda c: count_failed_notifications(c, incident_id, destination))
            address = context.destination_addresses.get(destination, "")
            if count:
                confirmation = build_resending_confirmation(incident_id, destination, address, count)
                return await render_confirmation_page(context, request, form, confirmation)
        await context.run_act(
            lambda db, now: resend_undelivered_notifications(db, incident_id, destination, actor, comment, now=now)
        )
        return redirect_to_page("/incidents/", incident_id)


def add_probe_act_form(
    router: APIRouter, context: OperatorRouteContext, name: str, act: Callable[[Database, str, Actor, str, int], object]
) -> None:
    """A form about a probe that has only a comment."""

    @router.post(f"/probes/{{probe_id}}/{name}", name=name)
    async def handle_probe_act_form(request: Request, probe_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        await context.run_query(lambda c: load_probe_by_id_or_raise(c, probe_id))
        comment = form.get("comment", "")
        await context.run_act(lambda db, now: act(db, probe_id, actor, comment, now))
        return redirect_to_page("/probes/", probe_id)


def add_probe_act_forms(router: APIRouter, context: OperatorRouteContext) -> None:
    add_probe_act_form(router, context, "resume", resume_probe)

    @router.post("/probes/{probe_id}/run-now")
    async def run_now(request: Request, probe_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        probe = await context.run_query(lambda c: load_probe_by_id_or_raise(c, probe_id))
        if context.has_run_effect(probe_id) and not is_confirmed(form):
            confirmation = build_run_with_effect_confirmation(probe, build_probe_path(probe_id))
            return await render_confirmation_page(context, request, form, confirmation)
        comment = form.get("comment", "")
        await context.run_act(lambda db, now: request_run(db, probe_id, actor, comment, now))
        return redirect_to_page("/probes/", probe_id)

    @router.post("/probes/{probe_id}/accept-contract")
    async def accept_contract_of_probe(request: Request, probe_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        await context.run_query(lambda c: load_probe_by_id_or_raise(c, probe_id))
        digest, comment = form.get("digest", ""), form.get("comment", "")
        await context.run_act(lambda db, now: accept_contract(db, probe_id, digest, actor, comment, now=now))
        return redirect_to_page("/probes/", probe_id)


def add_receiver_test_forms(router: APIRouter, context: OperatorRouteContext) -> None:
    @router.get(RECEIVER_TEST_PAGE_PATH)
    async def show_receiver_test_page(request: Request, destination: str = "") -> Response:
        require_operator_role(request)
        require_receiver_tester_of_destination(context, destination)
        return await render_receiver_test_page(context, request, destination)

    @router.post(RECEIVER_TEST_PAGE_PATH)
    async def send_test_alerts(request: Request) -> Response:
        form, actor = await read_act_form(request, context)
        destination = form.get("destination", "")
        results = await require_receiver_tester_of_destination(context, destination).test(
            destination, actor, "", context.run_act
        )
        return await render_receiver_test_page(context, request, destination, results)


def require_receiver_tester_of_destination(context: OperatorRouteContext, destination: str) -> ReceiverTester:
    """Raises PageNotFoundError."""
    tester = context.receiver_tester
    if tester is None or not tester.has_destination(destination):
        raise PageNotFoundError("This process has no such receiver. /receivers lists them.")
    return tester


async def render_receiver_test_page(
    context: OperatorRouteContext,
    request: Request,
    destination: str,
    results: list[DestinationTestResult] | None = None,
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
