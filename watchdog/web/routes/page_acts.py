"""What operators do on pages: acknowledge, close, silence, pause, run now, begin maintenance and test receivers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from watchdog.config_types import parse_config_duration_ms
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.model import Severity
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import SilenceMatcher
from watchdog.service.acts import (
    MaintenanceRequest,
    SilenceRequest,
    StartedMaintenance,
    StartedSilence,
    acknowledge_incident,
    begin_maintenance,
    begin_silence,
    close_incident,
    end_maintenance,
    end_silence,
    pause_probe,
    remove_acknowledgement,
    request_run,
    resend_undelivered_notifications,
    resume_probe,
    silence_until_resolved,
)
from watchdog.service.receiver_tests import ReceiverTester, ReceiverTestResult
from watchdog.store.database import Database
from watchdog.store.read.acts import encode_silence_matcher
from watchdog.store.read.status import Connection, list_incidents, list_probe_infos, load_watchdog_status
from watchdog.web.auth.acts import get_actor, require_csrf_safe_act, require_operator
from watchdog.web.errors import HttpErrorResponseError, PageNotFoundError
from watchdog.web.forms import MAX_FORM_BYTES, read_form
from watchdog.web.pages.maintenance import load_maintenance_page
from watchdog.web.pages.receivers import ReceiverTestPage, build_receiver_test_path
from watchdog.web.pages.silences import load_silences_page
from watchdog.web.routes.operators import UNKNOWN_INCIDENT_PAGE_TEXT, OperatorRouteContext
from watchdog.web.templating import NO_STORE_HEADERS

RECEIVER_TEST_PATH = "/receivers/test"
CSRF_TOKEN_FIELD = "csrf_token"
UNTIL_RESOLVED_DURATION = "until resolved"
"""The duration of a silence in the form of an incident."""
DURATION_ADVICE = "Write how long it lasts as 30m, 4h or 2d."


def create_page_act_router(context: OperatorRouteContext) -> APIRouter:
    """Only operators may send the forms. The response is a redirect to the page that shows the change; for a test, it
    is a page with the results."""
    router = APIRouter(dependencies=[Depends(context.authenticate)])
    add_incident_forms(router, context)
    add_silence_forms(router, context)
    add_probe_forms(router, context)
    add_maintenance_forms(router, context)
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
        await context.run_act(
            lambda db, now: resend_undelivered_notifications(db, incident_id, destination, actor, comment, now=now)
        )
        return redirect_to_page("/incidents/", incident_id)

    @router.post("/incidents/{incident_id}/silence")
    async def silence_incident(request: Request, incident_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        if form.get("duration") == UNTIL_RESOLVED_DURATION:
            comment = form.get("comment", "")
            await context.run_act(lambda db, now: silence_until_resolved(db, incident_id, actor, comment, now))
        else:
            matcher = await context.run_query(lambda c: build_matcher_of_incident(c, incident_id))
            await silence(context, form, actor, matcher)
        return redirect_to_page("/incidents/", incident_id)


def add_silence_forms(router: APIRouter, context: OperatorRouteContext) -> None:
    @router.post("/probes/{probe_id}/silence")
    async def silence_probe(request: Request, probe_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        await context.run_query(lambda c: require_probe(c, probe_id))
        await silence(context, form, actor, SilenceMatcher(ProbeMatcher(probe=probe_id)))
        return redirect_to_page("/probes/", probe_id)

    @router.get("/silences")
    async def show_silences(request: Request, started: str = "") -> Response:
        now = context.clock()
        content = await context.run_query(lambda c: load_silences_page(c, now, started))
        return await context.render_page(request, "silences.j2", "silences", content, now)

    @router.post("/silences")
    async def silence_selection(request: Request) -> Response:
        form, actor = await read_act_form(request, context)
        matcher = parse_silence_matcher(form)
        started = await silence(context, form, actor, matcher, selects_everything="all" in form)
        return redirect_to_page("/silences?started=", started.silence.id)

    @router.post("/silences/{silence_id}/end")
    async def unsilence(request: Request, silence_id: str) -> Response:
        _, actor = await read_act_form(request, context)
        await context.run_act(lambda db, now: end_silence(db, silence_id, actor, now))
        return redirect_to_page("/silences")


def add_probe_form(
    router: APIRouter, context: OperatorRouteContext, name: str, act: Callable[[Database, str, Actor, str, int], object]
) -> None:
    """A form about a probe that has only a comment."""

    @router.post(f"/probes/{{probe_id}}/{name}", name=name)
    async def run_probe_act(request: Request, probe_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        await context.run_query(lambda c: require_probe(c, probe_id))
        comment = form.get("comment", "")
        await context.run_act(lambda db, now: act(db, probe_id, actor, comment, now))
        return redirect_to_page("/probes/", probe_id)


def add_probe_forms(router: APIRouter, context: OperatorRouteContext) -> None:
    @router.post("/probes/{probe_id}/pause")
    async def pause(request: Request, probe_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        await context.run_query(lambda c: require_probe(c, probe_id))
        duration_ms = parse_duration_ms(form) if "duration" in form else None
        comment = form.get("comment", "")
        await context.run_act(
            lambda db, now: pause_probe(
                db, probe_id, None if duration_ms is None else now + duration_ms, actor, comment, now=now
            )
        )
        return redirect_to_page("/probes/", probe_id)

    for name, act in {"resume": resume_probe, "run-now": request_run}.items():
        add_probe_form(router, context, name, act)


def add_maintenance_forms(router: APIRouter, context: OperatorRouteContext) -> None:
    @router.get("/maintenance")
    async def show_maintenance(request: Request, started: str = "") -> Response:
        now = context.clock()
        content = await context.run_query(lambda c: load_maintenance_page(c, now, started))
        return await context.render_page(request, "maintenance.j2", "maintenance", content, now)

    @router.post("/maintenance")
    async def begin_for_selection(request: Request) -> Response:
        form, actor = await read_act_form(request, context)
        matcher = parse_probe_matcher(form)
        started = await put_into_maintenance(context, form, actor, matcher, selects_everything="all" in form)
        return redirect_to_page("/maintenance?started=", started.window.id)

    @router.post("/probes/{probe_id}/maintenance")
    async def begin_for_probe(request: Request, probe_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        await context.run_query(lambda c: require_probe(c, probe_id))
        await put_into_maintenance(context, form, actor, ProbeMatcher(probe=probe_id))
        return redirect_to_page("/probes/", probe_id)

    @router.post("/maintenance/{window_id}/end")
    async def end_window(request: Request, window_id: str) -> Response:
        _, actor = await read_act_form(request, context)
        await context.run_act(lambda db, now: end_maintenance(db, window_id, actor, now))
        return redirect_to_page("/maintenance")


def add_receiver_test_forms(router: APIRouter, context: OperatorRouteContext) -> None:
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


async def read_act_form(
    request: Request, context: OperatorRouteContext, max_bytes: int = MAX_FORM_BYTES
) -> tuple[Mapping[str, str], Actor]:
    """The fields, and who sends them. Raises WebRequestRefusedError for a reader, and for a form of another site."""
    require_operator(request)
    form = await read_form(request, max_bytes)
    require_csrf_safe_act(request, context.authenticator, form.get(CSRF_TOKEN_FIELD, ""))
    return form, get_actor(request, OperatorInterfaceKind.PAGE)


async def silence(
    context: OperatorRouteContext,
    form: Mapping[str, str],
    actor: Actor,
    matcher: SilenceMatcher,
    *,
    selects_everything: bool = False,
) -> StartedSilence:
    """For the `duration` of the form. Raises HttpErrorResponseError if it is not a duration. A form that is sent twice
    begins one silence."""
    duration_ms = parse_duration_ms(form)
    comment, request_id = form.get("comment", ""), form.get("request_id", "")
    key = f"{request_id} {duration_ms} {encode_silence_matcher(matcher)}" if request_id else ""
    return await context.run_act(
        lambda db, now: begin_silence(
            db, SilenceRequest(matcher, now + duration_ms, comment, selects_everything, key), actor, now
        )
    )


async def put_into_maintenance(
    context: OperatorRouteContext,
    form: Mapping[str, str],
    actor: Actor,
    matcher: ProbeMatcher,
    *,
    selects_everything: bool = False,
) -> StartedMaintenance:
    """Begin maintenance, for the `duration` of the form. Raises HttpErrorResponseError if it is not a duration."""
    duration_ms = parse_duration_ms(form)
    comment = form.get("comment", "")
    return await context.run_act(
        lambda db, now: begin_maintenance(
            db,
            MaintenanceRequest(matcher, now + duration_ms, comment, selects_everything=selects_everything),
            actor,
            now,
        )
    )


def parse_duration_ms(form: Mapping[str, str]) -> int:
    """Raises HttpErrorResponseError."""
    try:
        return parse_config_duration_ms(form.get("duration", "").strip())
    except ValueError:
        raise HttpErrorResponseError(422, f"The duration is missing or not valid. {DURATION_ADVICE}") from None


def require_probe(connection: Connection, probe_id: str) -> None:
    """Raises PageNotFoundError."""
    if not any(probe.id == probe_id for probe in list_probe_infos(connection)):
        raise PageNotFoundError(f"There is no probe with the id {probe_id}. /probes lists all probes.")


def require_tester(context: OperatorRouteContext, destination: str) -> ReceiverTester:
    """Raises PageNotFoundError."""
    tester = context.receiver_tester
    if tester is None or not tester.has_destination(destination):
        raise PageNotFoundError("This process has no such receiver. /receivers lists them.")
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


def build_matcher_of_incident(connection: Connection, incident_id: str) -> SilenceMatcher:
    """Selects the incidents of its probe about its subject. Raises PageNotFoundError."""
    records = list_incidents(connection, incident=incident_id)
    if not records:
        raise PageNotFoundError(UNKNOWN_INCIDENT_PAGE_TEXT.format(incident_id))
    record = records[0]
    return SilenceMatcher.of_incident(record.probe.id, record.incident.subject)


def parse_silence_matcher(form: Mapping[str, str]) -> SilenceMatcher:
    """Of the form on the page of silences. Raises HttpErrorResponseError."""
    return SilenceMatcher(parse_probe_matcher(form), form.get("subject", "").strip())


def parse_probe_matcher(form: Mapping[str, str]) -> ProbeMatcher:
    """Of a form that selects probes. Raises HttpErrorResponseError."""
    severity = form.get("severity", "")
    if severity and severity not in tuple(Severity):
        raise HttpErrorResponseError(422, f"There is no such severity. Choose {', '.join(Severity)}.")
    tags = frozenset(tag.strip() for tag in form.get("tags", "").split(",")) - {""}
    group, kind, probe = (form.get(name, "").strip() for name in ("group", "kind", "id"))
    return ProbeMatcher(Severity(severity) if severity else None, tags, group, kind, probe)


def redirect_to_page(path: str, id: str = "") -> Response:
    """303, so that to reload the page does not send the form again."""
    return RedirectResponse(f"{path}{quote(id, safe='')}", 303, headers=NO_STORE_HEADERS)
