"""What all processes on the database share, as /metrics shows it: the newest runs of probes, and open incidents.

For each probe, only its newest results are read, however many it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.measurements import CanaryStageDurations, QueueMeasurements
from watchdog.domain.model import Outcome, ProbeInfo, Severity
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_KIND
from watchdog.store.act_tables import pause_is_in_effect, pauses
from watchdog.store.codec import decode_probe_info
from watchdog.store.packed_values import unpack_phases, unpack_values
from watchdog.store.read.status import OUTCOMES_WITH_VERDICT
from watchdog.store.tables import incidents, newest_results, probes

MAX_RESULTS_SEARCHED_FOR_NEWEST_VERDICT = 10
"""A verdict that is older than this many results is not current."""
CANARY_PROBE_KIND, QUEUE_PROBE_KIND = "canary", "queue"


class NewestProbeRunMetrics(NamedTuple):
    """The newest runs of one probe."""

    probe: ProbeInfo
    passed: bool | None
    """The newest verdict; None: there is none among its newest results."""
    last_run_slot: int | None
    """The newest slot that ran, in epoch ms; None: its newest results are missed slots, or it has none."""
    queue: QueueMeasurements | None
    """Of a queue probe that has measured its queue in its newest run."""
    stages: CanaryStageDurations | None
    """Of the newest run of a canary probe."""


class SharedMetrics(NamedTuple):
    """Equal in every process that reads the same database at the same time."""

    probes: Sequence[NewestProbeRunMetrics]
    """Every probe that is neither retired nor paused, by id, without Watchdog's own."""
    open_incident_counts: Mapping[Severity, int]
    """By every severity."""


def load_shared_metrics(connection: Connection) -> SharedMetrics:
    counts = dict.fromkeys(Severity, 0)
    by_severity = sa.select(incidents.c.severity, sa.func.count()).where(incidents.c.resolved_at.is_(None))
    for severity, count in connection.execute(by_severity.group_by(incidents.c.severity)):
        counts[Severity(severity)] = count
    rows = connection.execute(_build_metrics_query_of_newest_probe_runs())
    return SharedMetrics([_probe_metrics_from_row(*row) for row in rows], counts)


def _build_metrics_query_of_newest_probe_runs() -> sa.Select[Any]:
    searched = (
        _build_newest_results_of_probe_query("slot", "outcome")
        .limit(MAX_RESULTS_SEARCHED_FOR_NEWEST_VERDICT)
        .subquery("searched")
    )
    verdict = sa.select(searched.c.outcome).where(searched.c.outcome.in_(OUTCOMES_WITH_VERDICT))
    last_run_slot = sa.select(sa.func.max(searched.c.slot)).where(searched.c.outcome != Outcome.MISSED)
    measurements = _build_newest_results_of_probe_query("measurements").limit(1).scalar_subquery()
    phases = _build_newest_results_of_probe_query("phases").limit(1).scalar_subquery()
    is_paused = sa.exists().where(pauses.c.probe == probes.c.id, pause_is_in_effect)
    return (
        sa.select(
            probes.c.id,
            probes.c.info,
            verdict.order_by(searched.c.slot.desc()).limit(1).scalar_subquery(),
            last_run_slot.scalar_subquery(),
            sa.case((probes.c.kind == QUEUE_PROBE_KIND, measurements)),
            sa.case((probes.c.kind == CANARY_PROBE_KIND, phases)),
        )
        .where(probes.c.removed_at.is_(None), probes.c.kind != WATCHDOG_SELF_PROBE_KIND, ~is_paused)
        .order_by(probes.c.probe_id)
    )


def _build_newest_results_of_probe_query(*names: str) -> sa.Select[Any]:
    """These columns of the results of the probe in the enclosing query, the newest one first."""
    query = sa.select(*(newest_results.c[name] for name in names)).where(newest_results.c.probe == probes.c.id)
    return query.order_by(newest_results.c.slot.desc()).correlate(probes)


def _probe_metrics_from_row(
    id: int, info: str, verdict: str | None, last_run: int | None, measurements: str | None, phases: str | None
) -> NewestProbeRunMetrics:
    return NewestProbeRunMetrics(
        probe=decode_probe_info(id, info),
        passed=None if verdict is None else verdict == Outcome.PASS,
        last_run_slot=last_run,
        queue=None if measurements is None else QueueMeasurements.from_measurements(unpack_values(measurements)),
        stages=None if phases is None else CanaryStageDurations.from_phases(unpack_phases(phases)),
    )
