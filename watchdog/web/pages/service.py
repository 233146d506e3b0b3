"""Watchdog itself: whether it is ready, what it runs, when it did not run, and who did what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from watchdog.domain.acts import OperatorAuditLogEntry
from watchdog.domain.formatting import DAY_MS
from watchdog.domain.membership import WatchdogProcessRecord, list_process_conflict_notes
from watchdog.domain.model import HealthState, Incident
from watchdog.domain.reasons import get_reason_advice
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_ID
from watchdog.domain.uptime_clock import DowntimeGap
from watchdog.service.background_tasks import BackgroundTask
from watchdog.service.config_reload import FinishedConfigReload
from watchdog.store.read.acts import list_acts
from watchdog.store.read.history import list_downtime_gaps
from watchdog.store.read.members import load_database_ids_of_active_probes, load_live_watchdog_processes
from watchdog.store.read.status import Connection, WatchdogStatus, list_incidents, load_watchdog_status
from watchdog.web.pages.acts import TITLE_BY_ACT_KIND, format_actor
from watchdog.web.pages.incident import format_incident_title

ACTS_PER_PAGE = 50
LISTED_DOWNTIME_MS = 7 * DAY_MS
MAX_DOWNTIME_GAPS_ON_PAGE = 20
STATE_LABEL_AND_GLYPH_BY_TASK_STATUS = {
    "success": (HealthState.UP, "Works", "up"),
    "never": (HealthState.UNKNOWN, "Not run yet", "wait"),
    "failed": (HealthState.DOWN, "Failed", "down"),
    "overdue": (HealthState.DOWN, "Overdue", "late"),
}
"""As `BackgroundTask.status` names them."""


@dataclass(frozen=True, slots=True)
class ServicePageTask:
    name: str
    state: HealthState
    label: str
    glyph: str
    last_ended_at: int | None
    """When its last run ended, in epoch ms; None: it has not run yet."""
    error: str


@dataclass(frozen=True, slots=True)
class ServicePageFinding:
    incident: Incident
    advice_parts: tuple[str, ...]
    """What to do; every second part is code."""


@dataclass(frozen=True, slots=True)
class ServicePageProcess:
    record: WatchdogProcessRecord
    is_this_process: bool
    notes: tuple[str, ...]
    """What other processes do in its place, in sentences."""


@dataclass(frozen=True, slots=True)
class ServicePageAct:
    entry: OperatorAuditLogEntry
    title: str
    author: str
    incident_title: str
    """Empty: it is not about an incident, or the incident is deleted."""
    has_probe_page: bool
    """It is about a probe that still exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredServiceFacts:
    """What the processes share in the database."""

    service_status: WatchdogStatus
    findings: tuple[ServicePageFinding, ...]
    processes: tuple[ServicePageProcess, ...]
    downtime_gaps: tuple[DowntimeGap, ...]
    """The newest of the last LISTED_DOWNTIME_MS, newest first."""
    downtime_gap_count: int
    """With those that are not listed."""
    acts: tuple[ServicePageAct, ...]
    """Newest first."""
    is_newest_acts: bool
    """False: newer acts are on other pages."""
    older_before_id: int | None
    """The acts before this id are on the next page; None: there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogServicePage:
    version: str
    started_at: int | None
    """When this process started, in epoch ms; None: that is not known."""
    not_ready_reason: str
    """As /readyz states it; empty: it is ready."""
    tasks: tuple[ServicePageTask, ...]
    """The internal tasks of this process, those with problems first."""
    last_reload: FinishedConfigReload | None
    """None: the configuration was loaded at the start alone."""
    can_reload: bool
    stored: StoredServiceFacts | None
    """None: the database cannot be read."""
    read_at: int
    """Epoch ms."""

    @property
    def service_status(self) -> WatchdogStatus:
        """Without the database, nothing is counted, and no stop of scheduling is stated."""
        return WatchdogStatus(self.read_at, 0, 0) if self.stored is None else self.stored.service_status


def build_task_rows(tasks: Iterable[BackgroundTask], now: int) -> tuple[ServicePageTask, ...]:
    """Must be called in the event loop, where the tasks change."""
    rows = [
        ServicePageTask(
            task.name,
            *STATE_LABEL_AND_GLYPH_BY_TASK_STATUS[task.status(now)],
            last_ended_at=task.last_ended_at,
            error=task.describe_problem(now),
        )
        for task in tasks
    ]
    return tuple(sorted(rows, key=lambda row: row.state is not HealthState.DOWN))


def load_stored_service_facts(
    connection: Connection, member_id: str, now: int, before_id: int | None, *, show_names: bool
) -> StoredServiceFacts:
    """`member_id`: of this process. `before_id`: only acts before this one. `show_names`: of probes and destinations
    that processes leave to others."""
    service_status = load_watchdog_status(connection)
    gaps = list_downtime_gaps(connection, now - LISTED_DOWNTIME_MS, now, 0)[::-1]
    acts = list_acts(connection, limit=ACTS_PER_PAGE + 1, before_id=before_id)
    listed_acts, has_older = acts[:ACTS_PER_PAGE], len(acts) > ACTS_PER_PAGE
    return StoredServiceFacts(
        service_status=service_status,
        findings=tuple(map(_build_finding_from_incident, service_status.findings)),
        processes=_load_processes(connection, member_id, now, show_names=show_names),
        downtime_gaps=tuple(gaps[:MAX_DOWNTIME_GAPS_ON_PAGE]),
        downtime_gap_count=len(gaps),
        acts=_build_past_acts(connection, listed_acts),
        is_newest_acts=before_id is None,
        older_before_id=listed_acts[-1].id if has_older else None,
    )


def _build_finding_from_incident(incident: Incident) -> ServicePageFinding:
    advice = get_reason_advice(incident.reason, probe_id=WATCHDOG_SELF_PROBE_ID, job_name=incident.subject)
    return ServicePageFinding(incident, tuple(advice.split("`")) if advice else ())


def _load_processes(
    connection: Connection, member_id: str, now: int, *, show_names: bool
) -> tuple[ServicePageProcess, ...]:
    live = load_live_watchdog_processes(connection, now)
    return tuple(
        ServicePageProcess(
            member, member.id == member_id, tuple(list_process_conflict_notes(live, member.id, show_names=show_names))
        )
        for member, *_ in live.members
    )


def _build_past_acts(connection: Connection, acts: Iterable[OperatorAuditLogEntry]) -> tuple[ServicePageAct, ...]:
    """Incidents and probes may have been deleted since then: only those that exist have a link."""
    acts = list(acts)
    records = list_incidents(connection, incident_ids={act.incident for act in acts} - {""})
    titles = {record.incident.id: format_incident_title(record) for record in records}
    probe_ids = load_database_ids_of_active_probes(connection, {act.probe for act in acts} - {""})
    return tuple(
        ServicePageAct(
            act,
            TITLE_BY_ACT_KIND[act.kind],
            format_actor(act.actor),
            titles.get(act.incident, ""),
            act.probe in probe_ids,
        )
        for act in acts
    )
