"""The operator pages: probes, incidents, jobs, receivers and undelivered notifications, with evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import uuid4

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from watchdog.domain.model import Severity
from watchdog.domain.watermark import is_watermark_current
from watchdog.service.acts import ActRunner
from watchdog.service.check_in_addresses import CheckInAddress
from watchdog.service.config_check import RunningConfigActions
from watchdog.service.managed_probes import ManagedProbeEditor
from watchdog.service.receiver_tests import ReceiverTester
from watchdog.store.read.query import STORE_READ_QUERY_TIMEOUT_S, QueryResultT, StoreReadRunner
from watchdog.store.read.status import Connection, WatchdogStatus
from watchdog.web.auth.access import Authenticator, has_operator_access
from watchdog.web.auth.acts import make_csrf_token
from watchdog.web.chart_window import parse_chart_url_query
from watchdog.web.compression import compress_response_body_if_accepted
from watchdog.web.errors import PageNotFoundError
from watchdog.web.pages import incident, incidents, jobs, probe, probes, receivers, undelivered
from watchdog.web.pages.results import ResultFilter, ResultsUrlQuery
from watchdog.web.pages.search import MAX_SEARCH_TEXT_CHARS
from watchdog.web.routes.event_streams import EventStreams
from watchdog.web.templating import LIVE_PAGE_HEADERS, NO_STORE_HEADERS, PageRenderer

MAX_NUMBER_PARAMETER_DIGITS = 15
UNKNOWN_INCIDENT_PAGE_TEXT = (
    "There is no incident {}. Resolved incidents are deleted after a while. /incidents lists the others."
)


class OperatorPage(Protocol):
    """What every operators' page shows, besides its own content."""

    @property
    def service_status(self) -> WatchdogStatus: ...


@dataclass(frozen=True, slots=True)
class OperatorRouteContext:
    """What the routes behind an API key share."""

    run_read_query: StoreReadRunner
    run_act: ActRunner
    clock: Callable[[], int]
    authenticator: Authenticator
    renderer: PageRenderer
    streams: EventStreams
    destination_addresses: Mapping[str, str]
    """ "oncall/slack" -> "#oncall"; contains no secrets."""
    list_notes: Callable[[bool], Sequence[str]] = lambda _: ()
    """What else operators should know about the process, with or without the names of probes."""
    config_warnings: Sequence[str] = ()
    """What in the configuration has no effect, a line each; contains no secrets."""
    config_actions: RunningConfigActions | None = None
    """None: this process has none."""
    receiver_tester: ReceiverTester | None = None
    """None: this process sends no notifications."""
    check_in_addresses: Mapping[str, CheckInAddress] = field(default_factory=dict)
    """Of the heartbeats in the configuration of this process, by probe id, with their tokens."""
    has_run_effect: Callable[[str], bool] = lambda _: False
    """Whether a run of the probe with this id may change something at its target."""

    @property
    def managed_probes(self) -> ManagedProbeEditor | None:
        """Edits the managed file; None: this process does not."""
        return None if self.config_actions is None else self.config_actions.managed_probes

    async def authenticate(self, request: Request) -> None:
        """Notes the key on the request. Raises WebRequestRefusedError."""
        api_key = self.authenticator.authenticate(request)
        request.state.key_name = api_key.name if api_key else ""
        request.state.is_operator = has_operator_access(api_key)

    def find_check_in_address(self, request: Request, probe_id: str) -> CheckInAddress | None:
        """With the token for operators only; None: the configuration of this process has no such heartbeat."""
        address = self.check_in_addresses.get(probe_id)
        return address if address is None or request.state.is_operator else address.mask()

    async def run_query(self, query: Callable[[Connection], QueryResultT]) -> QueryResultT:
        """Raises one of STORE_READ_QUERY_ERRORS."""
        async with asyncio.timeout(STORE_READ_QUERY_TIMEOUT_S):
            return await self.run_read_query(query)

    async def render_page(
        self, request: Request, template: str, active_section: str, page: OperatorPage, now: int
    ) -> Response:
        """Renders and compresses in a thread, since a page of hundreds of rows takes a while."""
        content, encoding_headers = await asyncio.to_thread(
            self._render_and_compress_page,
            request,
            template,
            now,
            page=page,
            active_section=active_section,
            service_status=page.service_status,
            scheduling_gap=describe_scheduling_stall(page.service_status, now),
            config_warnings=self.config_warnings,
            member_notes=self.list_notes(request.state.is_operator),
            key_name=request.state.key_name,
            may_act=request.state.is_operator,
            editable_probe_ids=self._list_editable_probes(request),
            csrf_token=make_csrf_token(request, self.authenticator),
            request_id=uuid4().hex,
        )
        return Response(
            content, media_type="text/html", headers=NO_STORE_HEADERS | LIVE_PAGE_HEADERS | encoding_headers
        )

    def _list_editable_probes(self, request: Request) -> frozenset[str] | None:
        """The ids of the probes in the managed file; None: there is none, or a reader asks."""
        return self.managed_probes.probe_ids if self.managed_probes and request.state.is_operator else None

    def _render_and_compress_page(
        self, request: Request, template: str, now: int, **context: Any
    ) -> tuple[bytes, dict[str, str]]:
        return compress_response_body_if_accepted(request, self.renderer.render(template, now, **context).encode())


def create_operator_router(context: OperatorRouteContext) -> APIRouter:
    router = APIRouter(dependencies=[Depends(context.authenticate)])

    @router.get("/probes")
    async def show_probes(request: Request, page: int = 1) -> Response:
        now, probe_filter = context.clock(), parse_probe_filter_leniently(request.query_params)
        content = await context.run_query(lambda c: probes.load_probes_page(c, probe_filter, page, now))
        return await context.render_page(request, "probes.j2", "probes", content, now)

    @router.get("/probes/{probe_id}")
    async def show_probe(request: Request, probe_id: str) -> Response:
        now = context.clock()
        query = parse_probe_page_url_query(request, now)
        address = context.find_check_in_address(request, probe_id)
        content = await context.run_query(
            lambda c: probe.load_probe_page(c, probe_id, query, now, check_in_address=address)
        )
        if content is None:
            raise PageNotFoundError(f"There is no probe with the id {probe_id}. /probes lists all probes.")
        return await context.render_page(request, "probe.j2", "probes", content, now)

    @router.get("/incidents")
    async def show_incidents(request: Request, page: int = 1, before: str = "") -> Response:
        now, incident_filter = context.clock(), parse_incident_filter_leniently(request.query_params)
        after = incidents.IncidentListPosition.parse_url_value(before)
        content = await context.run_query(
            lambda c: incidents.load_incidents_page(c, incident_filter, now, page_number=page, after=after)
        )
        return await context.render_page(request, "incidents.j2", "incidents", content, now)

    @router.get("/incidents/{incident_id}")
    async def show_incident_page(request: Request, incident_id: str) -> Response:
        now, addresses = context.clock(), context.destination_addresses
        content = await context.run_query(lambda c: incident.load_incident_detail_page(c, incident_id, addresses, now))
        if content is None:
            raise PageNotFoundError(UNKNOWN_INCIDENT_PAGE_TEXT.format(incident_id))
        return await context.render_page(request, "incident.j2", "incidents", content, now)

    @router.get("/jobs")
    async def show_jobs_page(request: Request, q: str = "", verdict: str = "", page: int = 1) -> Response:
        now, job_filter = context.clock(), jobs.JobsPageFilter(q[:MAX_SEARCH_TEXT_CHARS], verdict)
        content = await context.run_query(lambda c: jobs.load_jobs_page(c, job_filter, page, now))
        return await context.render_page(request, "jobs.j2", "jobs", content, now)

    add_delivery_pages(router, context)
    return router


def add_delivery_pages(router: APIRouter, context: OperatorRouteContext) -> None:
    @router.get("/receivers")
    async def show_receivers(request: Request) -> Response:
        now, addresses = context.clock(), context.destination_addresses
        content = await context.run_query(
            lambda c: receivers.load_receivers_page(c, addresses, can_test=context.receiver_tester is not None)
        )
        return await context.render_page(request, "receivers.j2", "receivers", content, now)

    @router.get("/undelivered")
    async def show_undelivered(request: Request) -> Response:
        now, addresses = context.clock(), context.destination_addresses
        content = await context.run_query(lambda c: undelivered.load_undelivered_notifications_page(c, addresses))
        return await context.render_page(request, "undelivered.j2", "receivers", content, now)


def parse_probe_filter_leniently(parameters: Mapping[str, str]) -> probes.ProbesPageFilter:
    """`?q=`, `?state=`, `?kind=`, `?sort=`. Ignores an unknown order."""
    sort = parameters.get("sort", "")
    return probes.ProbesPageFilter(
        search=parameters.get("q", "")[:MAX_SEARCH_TEXT_CHARS],
        state=parameters.get("state", ""),
        kind=parameters.get("kind", ""),
        sort=sort if sort in probes.PROBES_PAGE_ORDERS else "",
    )


def parse_incident_filter_leniently(parameters: Mapping[str, str]) -> incidents.IncidentsPageFilter:
    """`?q=`, `?state=`, `?severity=`, `?probe=`. Ignores unknown states and severities."""
    state, severity = parameters.get("state", ""), parameters.get("severity", "")
    return incidents.IncidentsPageFilter(
        search=parameters.get("q", "")[:MAX_SEARCH_TEXT_CHARS],
        state=state if state in ("open", "resolved") else "",
        severity=severity if severity in tuple(Severity) else "",
        probe=parameters.get("probe", ""),
    )


def describe_scheduling_stall(service_status: WatchdogStatus, now: int) -> str:
    """That no runs are being scheduled, and since when; empty while they are."""
    if is_watermark_current(service_status.watermark, now):
        return ""
    return probes.format_watchdog_last_scheduling_sentence(service_status, now)


def parse_number_parameter_or_none(request: Request, name: str) -> int | None:
    """A slot, an instant or an id in the URL. None: it is missing or not valid."""
    value = request.query_params.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= MAX_NUMBER_PARAMETER_DIGITS else None


def parse_probe_page_url_query(request: Request, now: int) -> probe.ProbePageUrlQuery:
    """`?all`, `?failed`, `?before=SLOT`, `?open=SLOT`; `?range=7d`, `?from=MS&to=MS`. Ignores invalid values."""
    parameters = request.query_params
    result_filter: ResultFilter = "failed" if "failed" in parameters else "all" if "all" in parameters else "changes"
    results = ResultsUrlQuery(
        result_filter,
        parse_number_parameter_or_none(request, "before"),
        parse_number_parameter_or_none(request, "open"),
    )
    start, stop = parse_number_parameter_or_none(request, "from"), parse_number_parameter_or_none(request, "to")
    chart = parse_chart_url_query(parameters.get("range", ""), start, stop, now)
    return probe.ProbePageUrlQuery(
        replace(results, other_parameters=chart.parameters), chart._replace(other_parameters=results.parameters)
    )
