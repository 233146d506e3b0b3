"""What a notification may tell of an incident, read at the moment of sending."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from watchdog.model import Event, Evidence, Incident, Notification, Outcome, ProbeInfo, Run, Sample, Severity, Story
from watchdog.rules import Policy, availability, judge, stale, unjudged
from watchdog.store import codec
from watchdog.store.database import RESULT_COLUMNS
from watchdog.store.remedies import tried
from watchdog.store.tables import evidence, incidents, probes, results

RECENT = 20
COUNTED = 200
"""So many results are judged anew to count the bad ones among them."""
BAD = {availability.NAME: (Outcome.FAIL,), unjudged.NAME: (Outcome.ERROR,), stale.NAME: ()}


def incident_of(row: Any) -> Incident:
    """From a row of `incidents`."""
    return Incident(
        id=row.id, probe=row.probe, rule=row.rule, subject=row.subject, severity=Severity(row.severity),
        since=row.since, opened_at=row.opened_at, reason=row.reason, message=row.message,
        resolved_at=row.resolved_at, resolution=row.resolution,
    )  # fmt: skip


def probe_of(connection: sa.Connection, id: int) -> ProbeInfo:
    text = connection.execute(sa.select(probes.c.info).where(probes.c.id == id)).scalar_one()
    return codec.info_of(id, text)


def story(
    connection: sa.Connection, notification: Notification, now: int, *, link: str = "", merged: bool = False
) -> Story:
    """`link`: the base of incident pages; empty when there is none. Raises NoResultFound for an unknown incident."""
    row = connection.execute(sa.select(incidents).where(incidents.c.id == notification.incident)).one()
    probe = probe_of(connection, row.probe)
    of_probe = (results.c.probe == row.probe, results.c.outcome != Outcome.MISSED)
    newest = sa.select(results).where(*of_probe).order_by(results.c.slot.desc())
    runs = connection.execute(newest.limit(RECENT)).all()
    first = results.c.slot == row.since
    before = results.c.slot <= row.since if row.rule == stale.NAME else results.c.slot < row.since
    last_good = connection.execute(newest.where(before, results.c.outcome == Outcome.PASS).limit(1)).first()
    return Story(
        event=notification.event,
        incident=incident_of(row),
        probe=probe,
        now=now,
        streak=_streak(connection, row, probe, now),
        needed=row.needed,
        last_good=None if last_good is None else _run(last_good),
        recent=tuple(_run(r) for r in reversed(runs)),
        first_bad=sample(connection, connection.execute(newest.where(first).limit(1)).first()),
        latest=sample(connection, runs[0]) if runs else None,
        tried=tuple(tried(connection, row.id)),
        location=runs[0].location if runs else "",
        link=f"{link}/incidents/{row.id}" if link else "",
        merged=merged,
    )


def _streak(connection: sa.Connection, row: Any, probe: ProbeInfo, now: int) -> int:
    """How many results were bad, from the first to the one that ended it. Beyond the newest ones, as far as their
    outcome tells."""
    end = row.resolved_slot if row.resolved_slot is not None else now
    columns = [results.c[name] for name in RESULT_COLUMNS]
    of_incident = (results.c.probe == row.probe, results.c.slot >= row.since, results.c.slot <= end, ~results.c.late)
    newest = sa.select(*columns).where(*of_incident).order_by(results.c.slot.desc()).limit(COUNTED)
    seen = [codec.result_of(one) for one in connection.execute(newest)]
    policy = Policy(probe, lambda _: 0)
    key = (row.rule, row.subject)
    bad = sum(any(f.bad and (f.rule, f.subject) == key for f in judge(policy, result)) for result in seen)
    if len(seen) == COUNTED:
        outcomes = BAD.get(row.rule, (Outcome.PASS, Outcome.FAIL))
        older = sa.select(sa.func.count()).where(*of_incident, results.c.slot < seen[-1].slot)
        bad += connection.execute(older.where(results.c.outcome.in_(outcomes))).scalar_one()
    return bad


def sample(connection: sa.Connection, row: Any | None) -> Sample | None:
    """A result (a row of `results`) with the evidence kept for it."""
    if row is None:
        return None
    key = (evidence.c.probe == row.probe, evidence.c.slot == row.slot, evidence.c.location == row.location)
    kept = connection.execute(sa.select(evidence).where(*key)).first()
    seen = Evidence() if kept is None else Evidence(codec.loads(kept.facts), kept.excerpt)
    outcome = Outcome(row.outcome)
    return Sample(row.slot, row.location, outcome, row.reason, row.message, row.duration, seen)


def _run(row: Any) -> Run:
    return Run(row.slot, Outcome(row.outcome), row.duration)


def unsent(event: Event, incident: Incident, probe: ProbeInfo, now: int, recent: Sequence[Run] = ()) -> Story:
    """A story that no incident is behind, for `test-alert`."""
    return Story(event, incident, probe, now, streak=1, needed=1, recent=tuple(recent), test=True)
