"""What operators do on pages that lasts for a time: silence, pause and maintenance, and their end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from watchdog.domain.acts import Actor, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.maintenance_windows import MAX_MAINTENANCE_DURATION_MS, MAX_MAINTENANCE_LEAD_MS
from watchdog.domain.model import Severity
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import EVERY_PROBE_MATCHER, MAX_SILENCE_DURATION_MS, SilenceMatcher
from watchdog.service.act_input import (
    ACT_END_FIELD,
    ACT_START_FIELD,
    parse_act_end,
    parse_act_start,
    require_end_within_limit,
    require_start_within_limit,
)
from watchdog.service.acts import (
    MaintenanceRequest,
    SilenceRequest,
    StartedMaintenance,
    StartedSilence,
    begin_maintenance,
    begin_silence,
    end_maintenance,
    end_silence,
    pause_probe,
    silence_until_resolved,
)
from watchdog.store.read.acts import encode_silence_matcher
from watchdog.store.read.selections import (
    count_bad_probes_in_maintenance_window,
    count_incidents_sent_at_end_of_silence,
)
from watchdog.store.read.status import Connection, list_incidents, load_watchdog_status
from watchdog.web.errors import PageNotFoundError
from watchdog.web.pages.act_confirmation import (
    build_maintenance_end_confirmation,
    build_maintenance_everything_confirmation,
    build_pause_without_end_confirmation,
    build_silence_end_confirmation,
    build_silence_everything_confirmation,
)
from watchdog.web.pages.act_form import EMPTY_ACT_FORM, ActForm, ActFormButtonWithPath, ActFormPage
from watchdog.web.pages.maintenance import load_maintenance_page
from watchdog.web.pages.silences import load_silences_page
from watchdog.web.routes.act_forms import (
    build_probe_path,
    is_confirmed,
    load_probe_by_id_or_raise,
    read_act_form,
    redirect_to_page,
    render_confirmation_page,
    respond_or_show_form_again,
)
from watchdog.web.routes.operators import UNKNOWN_INCIDENT_PAGE_TEXT, OperatorRouteContext

UNTIL_RESOLVED_DURATION = "until resolved"
"""The duration of a silence in the form of an incident, or its end if the form is shown again."""
DEFAULT_FORM_TIMEZONE = "UTC"
"""In which pages show times without the script."""


def add_timed_act_routes(router: APIRouter, context: OperatorRouteContext) -> None:
    add_silence_forms(router, context)
    add_forms_of_subjects(router, context)
    add_maintenance_forms(router, context)


def add_silence_forms(router: APIRouter, context: OperatorRouteContext) -> None:
    async def show_page(request: Request, form: ActForm, started: str = "") -> Response:
        now = context.clock()
        content = await context.run_query(lambda c: load_silences_page(c, now, started, form))
        return await context.render_page(request, "silences.j2", "silences", content, now)

    @router.get("/silences")
    async def show_silences(request: Request, started: str = "") -> Response:
        return await show_page(request, EMPTY_ACT_FORM, started)

    @router.post("/silences")
    async def silence_selection(request: Request) -> Response:
        form, actor = await read_act_form(request, context)

        async def act() -> Response:
            matcher, now = parse_silence_matcher(form), context.clock()
            is_valid = matcher.is_empty == ("all" in form)
            if is_valid and matcher.matches_every_incident and not is_confirmed(form):
                ends_at = parse_silence_end(form, now)
                confirmation = build_silence_everything_confirmation(ends_at, now)
                shown_form = replace_times(form, ends_at)
                return await render_confirmation_page(context, request, shown_form, confirmation)
            started = await silence(context, form, actor, matcher, selects_everything="all" in form)
            return redirect_to_page("/silences?started=", started.silence.id)

        return await respond_or_show_form_again(form, act, lambda entered: show_page(request, entered))

    @router.post("/silences/{silence_id}/end")
    async def unsilence(request: Request, silence_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        if not is_confirmed(form):
            now = context.clock()
            count = await context.run_query(lambda c: count_incidents_sent_at_end_of_silence(c, silence_id, now))
            if count:
                return await render_confirmation_page(
                    context, request, form, build_silence_end_confirmation(silence_id, count)
                )
        await context.run_act(lambda db, now: end_silence(db, silence_id, actor, now))
        return redirect_to_page("/silences")


def add_forms_of_subjects(router: APIRouter, context: OperatorRouteContext) -> None:
    """On the pages of incidents and probes."""
    add_incident_silence_form(router, context)

    async def silence_probe(form: Mapping[str, str], actor: Actor, probe_id: str) -> object:
        return await silence(context, form, actor, SilenceMatcher(ProbeMatcher(probe=probe_id)))

    async def begin_maintenance_of_probe(form: Mapping[str, str], actor: Actor, probe_id: str) -> object:
        return await put_into_maintenance(context, form, actor, ProbeMatcher(probe=probe_id))

    async def pause(form: Mapping[str, str], actor: Actor, probe_id: str) -> object:
        end, comment = StatedEnd.of_form(form), form.get("comment", "")
        return await context.run_act(
            lambda db, now: pause_probe(db, probe_id, end.compute(now) if end.text else None, actor, comment, now=now)
        )

    add_probe_act_form(router, context, "silence", "Silence", silence_probe)
    add_probe_act_form(router, context, "maintenance", "Maintenance", begin_maintenance_of_probe)
    add_probe_act_form(router, context, "pause", "Pause", pause)


def add_incident_silence_form(router: APIRouter, context: OperatorRouteContext) -> None:
    @router.post("/incidents/{incident_id}/silence")
    async def silence_incident(request: Request, incident_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        comment = form.get("comment", "")

        async def act() -> Response:
            if StatedEnd.of_form(form).text == UNTIL_RESOLVED_DURATION:
                await context.run_act(lambda db, now: silence_until_resolved(db, incident_id, actor, comment, now))
            else:
                matcher = await context.run_query(lambda c: build_matcher_of_incident(c, incident_id))
                await silence(context, form, actor, matcher)
            return redirect_to_page("/incidents/", incident_id)

        async def show(entered: ActForm) -> Response:
            return await show_form_alone(context, request, entered, "Silence", f"Incident {incident_id}")

        return await respond_or_show_form_again(form, act, show)


def add_probe_act_form(
    router: APIRouter,
    context: OperatorRouteContext,
    name: str,
    label: str,
    run_probe_act: Callable[[Mapping[str, str], Actor, str], Awaitable[object]],
) -> None:
    """`name`: of its address. `label`: of its button."""

    @router.post(f"/probes/{{probe_id}}/{name}", name=f"{name} of probe")
    async def respond(request: Request, probe_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        probe = await context.run_query(lambda c: load_probe_by_id_or_raise(c, probe_id))

        async def act() -> Response:
            if name == "pause" and not StatedEnd.of_form(form).text and not is_confirmed(form):
                confirmation = build_pause_without_end_confirmation(probe, build_probe_path(probe_id))
                return await render_confirmation_page(context, request, form, confirmation)
            await run_probe_act(form, actor, probe_id)
            return redirect_to_page("/probes/", probe_id)

        async def show(entered: ActForm) -> Response:
            return await show_form_alone(context, request, entered, label, f"Probe {probe_id}")

        return await respond_or_show_form_again(form, act, show)


def add_maintenance_forms(router: APIRouter, context: OperatorRouteContext) -> None:
    async def show_page(request: Request, form: ActForm, started: str = "") -> Response:
        now = context.clock()
        content = await context.run_query(lambda c: load_maintenance_page(c, now, started, form))
        return await context.render_page(request, "maintenance.j2", "maintenance", content, now)

    @router.get("/maintenance")
    async def show_maintenance(request: Request, started: str = "") -> Response:
        return await show_page(request, EMPTY_ACT_FORM, started)

    @router.post("/maintenance")
    async def begin_for_selection(request: Request) -> Response:
        form, actor = await read_act_form(request, context)

        async def act() -> Response:
            matcher, now = parse_probe_matcher(form), context.clock()
            if "all" in form and matcher == EVERY_PROBE_MATCHER and not is_confirmed(form):
                starts_at, ends_at = parse_maintenance_times(form, now)
                confirmation = build_maintenance_everything_confirmation(starts_at, ends_at, now)
                shown_form = replace_times(form, ends_at, starts_at)
                return await render_confirmation_page(context, request, shown_form, confirmation)
            started = await put_into_maintenance(context, form, actor, matcher, selects_everything="all" in form)
            return redirect_to_page("/maintenance?started=", started.window.id)

        return await respond_or_show_form_again(form, act, lambda entered: show_page(request, entered))

    @router.post("/maintenance/{window_id}/end")
    async def end_window(request: Request, window_id: str) -> Response:
        form, actor = await read_act_form(request, context)
        if not is_confirmed(form):
            now = context.clock()
            count = await context.run_query(lambda c: count_bad_probes_in_maintenance_window(c, window_id, now))
            if count:
                return await render_confirmation_page(
                    context, request, form, build_maintenance_end_confirmation(window_id, count)
                )
        await context.run_act(lambda db, now: end_maintenance(db, window_id, actor, now))
        return redirect_to_page("/maintenance")


class StatedEnd(NamedTuple):
    """When an act ends, as a person states it."""

    text: str
    """ "4h", "22:00"."""
    timezone: str
    """Of the times that the page shows: the IANA name of a zone."""

    @classmethod
    def of_form(cls, form: Mapping[str, str]) -> StatedEnd:
        """Of a button, else of the field."""
        text = form.get("duration", "").strip() or form.get("end", "").strip()
        return cls(text, form.get("timezone") or DEFAULT_FORM_TIMEZONE)

    def compute(self, now: int) -> int:
        """Epoch ms. `now`: when the act starts. Raises OperatorActRefusedError if it is no duration and no time."""
        return parse_act_end(self.text, self.timezone, now)


async def silence(
    context: OperatorRouteContext,
    form: Mapping[str, str],
    actor: Actor,
    matcher: SilenceMatcher,
    *,
    selects_everything: bool = False,
) -> StartedSilence:
    """A form that is sent twice begins one silence. Raises OperatorActRefusedError."""
    end, comment, request_id = StatedEnd.of_form(form), form.get("comment", ""), form.get("request_id", "")
    key = f"{request_id} {end.text} {encode_silence_matcher(matcher)}" if request_id else ""
    return await context.run_act(
        lambda db, now: begin_silence(
            db, SilenceRequest(matcher, end.compute(now), comment, selects_everything, key), actor, now
        )
    )


def parse_silence_end(form: Mapping[str, str], now: int) -> int:
    """When it ends, in epoch ms. Raises OperatorActRefusedError."""
    ends_at = StatedEnd.of_form(form).compute(now)
    require_end_within_limit(ends_at, now, MAX_SILENCE_DURATION_MS, "silence")
    return ends_at


def parse_maintenance_times(form: Mapping[str, str], now: int) -> tuple[int | None, int]:
    """When it starts and ends, in epoch ms. No start: now. Raises OperatorActRefusedError."""
    end = StatedEnd.of_form(form)
    starts_at = parse_act_start(form.get("start", ""), end.timezone, now)
    if starts_at is not None:
        require_start_within_limit(starts_at, now, MAX_MAINTENANCE_LEAD_MS, "maintenance window")
    ends_at = end.compute(now if starts_at is None else starts_at)
    require_end_within_limit(ends_at, now, MAX_MAINTENANCE_DURATION_MS, "maintenance window", starts_at=starts_at)
    return starts_at, ends_at


def replace_times(form: Mapping[str, str], ends_at: int, starts_at: int | None = None) -> Mapping[str, str]:
    """The form with the instants that are shown for confirmation: "22:00" may be that of the next day when it is read
    again. `starts_at`: None: when it is confirmed."""
    others = {name: text for name, text in form.items() if name not in ("duration", ACT_START_FIELD)}
    start = {} if starts_at is None else {ACT_START_FIELD: format_iso8601(starts_at)}
    return {**others, ACT_END_FIELD: format_iso8601(ends_at), **start}


async def put_into_maintenance(
    context: OperatorRouteContext,
    form: Mapping[str, str],
    actor: Actor,
    matcher: ProbeMatcher,
    *,
    selects_everything: bool = False,
) -> StartedMaintenance:
    """Begin or plan maintenance. Raises OperatorActRefusedError."""
    comment = form.get("comment", "")

    def build_maintenance_request(now: int) -> MaintenanceRequest:
        starts_at, ends_at = parse_maintenance_times(form, now)
        return MaintenanceRequest(matcher, ends_at, comment, selects_everything=selects_everything, starts_at=starts_at)

    return await context.run_act(lambda db, now: begin_maintenance(db, build_maintenance_request(now), actor, now))


async def show_form_alone(
    context: OperatorRouteContext, request: Request, form: ActForm, label: str, subject: str
) -> Response:
    """A form of the page of a probe or an incident, which was refused. `subject`: whose page it is, in words."""
    path = quote(request.url.path)
    back_path = path.rpartition("/")[0]
    page = ActFormPage(
        service_status=await context.run_query(load_watchdog_status),
        title=f"{label}: {subject}",
        back_path=back_path,
        back_label=subject,
        buttons=(ActFormButtonWithPath(label, path),),
        form=form,
    )
    section = back_path.split("/")[1]
    return await context.render_page(request, "act_form.j2", section, page, context.clock())


def build_matcher_of_incident(connection: Connection, incident_id: str) -> SilenceMatcher:
    """Selects the incidents of its probe about its subject. Raises PageNotFoundError."""
    records = list_incidents(connection, incident=incident_id)
    if not records:
        raise PageNotFoundError(UNKNOWN_INCIDENT_PAGE_TEXT.format(incident_id))
    record = records[0]
    return SilenceMatcher.of_incident(record.probe.id, record.incident.subject)


def parse_silence_matcher(form: Mapping[str, str]) -> SilenceMatcher:
    """Of the form on the page of silences. Raises OperatorActRefusedError."""
    return SilenceMatcher(parse_probe_matcher(form), form.get("subject", "").strip())


def parse_probe_matcher(form: Mapping[str, str]) -> ProbeMatcher:
    """Of a form that selects probes. Raises OperatorActRefusedError."""
    severity = form.get("severity", "")
    if severity and severity not in tuple(Severity):
        message = f"there is no such severity: choose {', '.join(Severity)}"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message, field="severity")
    tags = frozenset(tag.strip() for tag in form.get("tags", "").split(",")) - {""}
    group, kind, probe = (form.get(name, "").strip() for name in ("group", "kind", "id"))
    return ProbeMatcher(Severity(severity) if severity else None, tags, group, kind, probe)
