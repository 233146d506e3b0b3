"""One probe's page: its state, the cards of its kind, its results, incidents and configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain import reasons
from watchdog.domain.formatting import DAY_MS, format_duration_rounded
from watchdog.domain.model import HealthState, Incident, Outcome, ProbeInfo
from watchdog.domain.requested_runs import MAX_REQUESTED_RUN_AGE_MS, can_run_on_request
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE, job, stale
from watchdog.domain.silencing import Silence
from watchdog.domain.text import capitalize_first
from watchdog.service.check_in_addresses import CheckInAddress
from watchdog.store.read import history, status
from watchdog.store.read.acts import load_silences_by_incident
from watchdog.store.read.requested_runs import load_unclaimed_requested_run_slot
from watchdog.store.read.running_config import load_probe_config_yaml_text
from watchdog.store.read.status import Connection, IncidentRecord, ProbeStatus, ResultRow, WatchdogStatus
from watchdog.web.cards.base import LoadedProbeCard, ProbeCardLoadContext
from watchdog.web.cards.registry import load_probe_page_cards
from watchdog.web.chart_window import ChartRangeLink, ChartUrlQuery, build_chart_range_links
from watchdog.web.markup import PAGE_HEALTH_STATE_LABELS
from watchdog.web.pages.act_form import (
    EMPTY_ACT_FORM,
    ActForm,
    ActFormButtonWithPath,
    list_timed_act_buttons_of_probe,
)
from watchdog.web.pages.acts import build_maintenance_banner, build_pause_banner, build_silence_banners, describe_acts
from watchdog.web.pages.banner import PageBanner
from watchdog.web.pages.results import HEALTH_STATE_BY_OUTCOME, ResultsCard, ResultsUrlQuery, load_results_card
from watchdog.web.pages.state_timeline import StateTimeline, load_state_timeline
from watchdog.web.times import render_timestamp

LABEL_BY_OUTCOME = {
    Outcome.PASS: "Passed", Outcome.FAIL: "Failed", Outcome.ERROR: "No verdict", Outcome.MISSED: "Not run",
}  # fmt: skip
PROBE_PAGE_INCIDENTS_PERIOD_MS = 30 * DAY_MS
MAX_INCIDENTS_ON_PROBE_PAGE = 10
MAX_PENDING_FINDINGS_ON_PROBE_PAGE = 5
MAX_INCIDENTS_LOADED_FOR_PROBE_PAGE = 500
"""Incidents that mark results."""
NEXT_RUN_SHOWN_LATE_AFTER_MS = 5_000
"""A run this long overdue counts as late."""


class ProbePageUrlQuery(NamedTuple):
    """What the URL of the page asks for."""

    results: ResultsUrlQuery = ResultsUrlQuery()
    chart: ChartUrlQuery = ChartUrlQuery()


class LatestResult(NamedTuple):
    """The newest result of any outcome, in words."""

    state: HealthState
    """The glyph and colour of its outcome."""
    label: str
    """ "Passed", "Failed"."""
    message: str
    """Why it did not pass; empty if it did."""
    duration: int | None
    """In ms; None: there was no response, or no run."""
    slot: int


@dataclass(frozen=True, slots=True)
class ProbePage:
    """What the page of a probe shows."""

    probe: ProbeInfo
    service_status: WatchdogStatus
    state: HealthState
    state_label: str
    next_due: int | None
    next_run_text: str
    can_resume: bool
    """A person has paused it."""
    can_run_now: bool
    """On request."""
    act_buttons: tuple[ActFormButtonWithPath, ...]
    """Of the form for acts that last for a time."""
    form: ActForm
    banners: tuple[PageBanner, ...]
    latest_result: LatestResult | None
    """None: the probe has never run."""
    cards: tuple[LoadedProbeCard, ...]
    """Their charts, and the timeline, show the part of the history that the URL names."""
    chart_range_links: tuple[ChartRangeLink, ...]
    """To other parts; none if the probe has never run."""
    timeline: StateTimeline | None
    results: ResultsCard
    failed_count: int
    """Failed runs of the last day."""
    incidents: tuple[IncidentRecord, ...]
    created_at: int
    configuration: Markup


def load_probe_page(
    connection: Connection,
    probe_id: str,
    query: ProbePageUrlQuery,
    now: int,
    *,
    check_in_address: CheckInAddress | None = None,
) -> ProbePage | None:
    """None: the running configuration has no probe with this id. `check_in_address`: as the person may see it."""
    statuses = status.list_probe_statuses(connection, probe_id, now=now)
    if not statuses:
        return None
    probe_status, probe = statuses[0], statuses[0].probe
    runs = history.list_results_between(connection, probe.database_id, now - DAY_MS, now + 1)
    incidents = status.list_incidents(
        connection, probe_database_ids=[probe.database_id], only_current=True, limit=MAX_INCIDENTS_LOADED_FOR_PROBE_PAGE
    )
    latest = probe_status.latest_result
    # without runs, no part of the history has anything to show
    chart_query = query.chart if latest else ChartUrlQuery(other_parameters=query.chart.other_parameters)
    context = ProbeCardLoadContext(connection, probe_status, runs, now, chart_query, check_in_address=check_in_address)
    is_run_requested = _is_run_requested(connection, probe.database_id, now)
    in_period = (record for record in incidents if record.incident.opened_at >= now - PROBE_PAGE_INCIDENTS_PERIOD_MS)
    return ProbePage(
        probe=probe,
        service_status=status.load_watchdog_status(connection),
        state=probe_status.state,
        state_label=format_probe_state_with_duration(probe_status, now),
        next_due=None if is_run_requested else probe_status.next_due,
        next_run_text="run requested" if is_run_requested else _format_next_run_sentence(probe_status, now),
        can_resume=probe_status.pause is not None and not probe_status.pause.is_in_configuration,
        can_run_now=can_run_on_request(probe.kind),
        act_buttons=list_timed_act_buttons_of_probe(probe.id, can_pause=probe_status.pause is None),
        form=EMPTY_ACT_FORM,
        banners=_load_banners(connection, probe_status, now),
        latest_result=None if latest is None else build_latest_result(latest),
        cards=load_probe_page_cards(context),
        chart_range_links=tuple(build_chart_range_links(context.chart_window, query.chart, now)) if latest else (),
        timeline=load_state_timeline(context),
        results=load_results_card(connection, probe.database_id, query.results, incidents),
        failed_count=sum(run.outcome is Outcome.FAIL for run in runs),
        incidents=tuple(in_period)[:MAX_INCIDENTS_ON_PROBE_PAGE],
        created_at=probe_status.created_at,
        configuration=highlight_yaml(load_probe_config_yaml_text(connection, probe.database_id)),
    )


def _load_banners(connection: Connection, probe_status: ProbeStatus, now: int) -> tuple[PageBanner, ...]:
    """Maintenance, then what is wrong, then silences."""
    silences = load_silences_by_incident(connection, [incident.id for incident in probe_status.open_incidents])
    return (
        *build_maintenance_banner(connection, probe_status.probe.database_id, now),
        *build_probe_banners(probe_status, now, silences),
        *build_silence_banners(probe_status.silences, now),
    )


def _is_run_requested(connection: Connection, probe_database_id: int, now: int) -> bool:
    """Whether a person waits for a run."""
    requested_slot = load_unclaimed_requested_run_slot(connection, probe_database_id)
    return requested_slot is not None and now - requested_slot <= MAX_REQUESTED_RUN_AGE_MS


def build_latest_result(result: ResultRow) -> LatestResult:
    message = result.message or (reasons.get_reason_title(result.reason) if result.reason else "")
    state, label = HEALTH_STATE_BY_OUTCOME[result.outcome], LABEL_BY_OUTCOME[result.outcome]
    return LatestResult(state, label, message, result.duration, result.slot)


def format_probe_state_with_duration(status: ProbeStatus, now: int) -> str:
    """ "Degraded for 42 min", "No data yet", "Up"."""
    if status.state is HealthState.UP:
        return "Up"
    if status.pause is not None:
        return f"{PAGE_HEALTH_STATE_LABELS[status.state]} for {format_duration_rounded(now - status.pause.started_at)}"
    if not status.open_incidents:
        return PAGE_HEALTH_STATE_LABELS[status.state] if status.latest_result else "No data yet"
    deciding = [i.since for i in status.open_incidents if INCIDENT_HEALTH_STATE_BY_RULE[i.rule] is status.state]
    if not deciding:  # its newest run failed because of Watchdog's own network
        return PAGE_HEALTH_STATE_LABELS[status.state]
    since = min(deciding)
    return f"{PAGE_HEALTH_STATE_LABELS[status.state]} for {format_duration_rounded(now - since)}"


def _format_next_run_sentence(status: ProbeStatus, now: int) -> str:
    """ "next run in 38 s", "first run in 12 s", "next run is late"."""
    if status.next_due is None:
        return ""
    run = "first run" if status.latest_result is None else "next run"
    if status.next_due > now:
        return f"{run} in {format_duration_rounded(max(status.next_due - now, 1000))}"
    return f"{run} {'is late' if now - status.next_due > NEXT_RUN_SHOWN_LATE_AFTER_MS else 'now'}"


def build_probe_banners(
    status: ProbeStatus, now: int, silences: Mapping[str, Sequence[Silence]]
) -> tuple[PageBanner, ...]:
    """That it is paused, each open incident; or what may open one, or that it has not run yet. `silences`: those in
    effect, by incident."""
    banners = [] if status.pause is None else [build_pause_banner(status.pause, now)]
    banners += [
        _build_current_incident_banner(incident, describe_acts(incident, silences.get(incident.id, ()), now), now)
        for incident in status.open_incidents
    ]
    if status.pending_findings and not banners:
        first, *others = (
            finding.describe() for finding in status.pending_findings[:MAX_PENDING_FINDINGS_ON_PROBE_PAGE]
        )
        banners.append(PageBanner(HealthState.UNKNOWN, f"No incident yet: {first}", "; ".join(others)))
    if status.latest_result is None and not banners:
        next_run = _format_next_run_sentence(status, now) or "no run is scheduled"
        text = "The first result appears here with its phases and evidence."
        banners.append(PageBanner(HealthState.UNKNOWN, f"No run yet: {next_run}", text))
    return tuple(banners)


def _build_current_incident_banner(incident: Incident, marks: Iterable[str], now: int) -> PageBanner:
    title = _format_incident_message_as_of_now(incident, now)
    if incident.rule != job.ALERT_RULE_NAME:  # a message about a job starts with the job's name, which keeps its case
        title = capitalize_first(title)
    since = Markup("Since {}").format(render_timestamp(incident.since, now, seconds=True))
    text = Markup(" · ").join((since, incident.severity, f"{incident.rule} {incident.subject}".strip(), *marks))
    return PageBanner(INCIDENT_HEALTH_STATE_BY_RULE[incident.rule], title, text, incident.id)


def _format_incident_message_as_of_now(incident: Incident, now: int) -> str:
    """The incident's message; about missing results, with the time without any as of now."""
    if incident.rule == stale.ALERT_RULE_NAME:
        return stale.build_stale_finding(now - incident.since).message
    return incident.message


_HIGHLIGHTED_YAML_KEY_PATTERN = re.compile(r"(\s*(?:- )?)([\w.\"'*-]+)(:(?:\s.*)?)", re.ASCII)


def highlight_yaml(yaml_text: str) -> Markup:
    """YAML with its keys highlighted."""
    lines = []
    for line in yaml_text.rstrip().splitlines():
        match = _HIGHLIGHTED_YAML_KEY_PATTERN.fullmatch(line)
        lines.append(Markup('{}<span class="k">{}</span>{}').format(*match.groups()) if match else Markup.escape(line))
    return Markup("\n").join(lines)
