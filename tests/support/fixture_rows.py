"""Builds rows for a database, relative to a fixed instant."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from tests.support.builders import JOB_LIMITS, make_listings
from watchdog.domain.acts import OperatorInterfaceKind
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.listings import encode_subject_listings_as_diff
from watchdog.domain.model import Evidence, Outcome, ProbeInfo, ProbeResult, Severity
from watchdog.domain.observations import McpScheduledTaskFacts, ScheduledJobFacts
from watchdog.store import codec, tables
from watchdog.store.json_text import encode_storable_json

NOW = int(datetime(2026, 11, 22, 2, 29, 14, tzinfo=UTC).timestamp() * 1000)


def epoch_ms(time_of_day: str, days_ago: int = 0) -> int:
    """The instant of "01:48" or "01:48:30", today or some days ago."""
    h, m, s = (*map(int, time_of_day.split(":")), 0)[:3]
    return NOW // DAY_MS * DAY_MS + (h * 3600 + m * 60 + s) * 1000 - days_ago * DAY_MS


class FixtureRows:
    """Rows to insert, by table."""

    def __init__(self, seed: int = 7) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in tables.metadata.sorted_tables}
        self.random = random.Random(seed)
        self.probe_by_name: dict[str, int] = {}
        self.incident_by_name: dict[str, str] = {}
        """Incidents that tests look up."""

    def insert_into(self, connection: sa.Connection) -> None:
        for table in tables.metadata.sorted_tables:
            if self.rows[table.name]:
                connection.execute(sa.insert(table), self.rows[table.name])

    def add_watermark(self, claimed_until: int) -> None:
        self.rows["watermarks"].append({"location": "local", "claimed_until": claimed_until})

    def add_probe(
        self,
        name: str,
        kind: str = "http",
        group: str = "",
        *,
        config_yaml: str = "",
        created_at: int = NOW - 200 * DAY_MS,
        next_due: int | None = None,
        **info: Any,
    ) -> int:
        id, probe_id = len(self.probe_by_name) + 1, name.lower().replace(" ", "-")
        self.probe_by_name[name] = id
        probe_info = ProbeInfo(
            id, probe_id, name, kind, group, **{"schedule_text": "every 60 s", "job_limits": JOB_LIMITS, **info}
        )
        self.rows["probes"].append(
            {
                "id": id,
                "probe_id": probe_id,
                "name": name,
                "kind": kind,
                "info": codec.encode_probe_info_as_json(probe_info),
                "created_at": created_at,
                "config_yaml": config_yaml or f"name: {name}\n{kind}: https://acme.example/\n",
                "removed_at": None,
            }
        )
        due = NOW + 46 * SECOND_MS if next_due is None else next_due
        plan = {"definition": "", "last_slot": None, "in_flight": "[]", "paused": False}
        self.rows["schedule"].append({"probe": id, "location": "local", "next_due": due, **plan})
        return id

    def add_rollup_history(self, probe: int, days: int = 90, skip_days: tuple[int, ...] = ()) -> None:
        """Roll-ups of every hour of the days before today; `skip_days`: days ago without any."""
        for ago in range(1, days):
            if ago in skip_days:
                continue
            start = NOW // DAY_MS * DAY_MS - ago * DAY_MS
            for hour in range(24):
                self.add_passing_rollup(probe, start + hour * HOUR_MS)

    def add_passing_rollup(self, probe: int, hour: int) -> None:
        """One hour in which every run passed."""
        sums = {"passed": 60, "failed": 0, "errors": 0, "missed": 0, "duration_sum": 10_800, "duration_max": 300}
        self.rows["rollups"].append({"probe": probe, "hour": hour, "location": "local", **sums})

    def add_result(
        self,
        probe: int,
        slot: int,
        outcome: Outcome = Outcome.PASS,
        message: str = "",
        reason: str = "",
        duration_ms: int | None = 180,
        *,
        evidence: Evidence | None = None,
        phases: Mapping[str, float] | None = None,
        tasks: Mapping[str, McpScheduledTaskFacts] | None = None,
        preferences: Mapping[str, str] | None = None,
        jobs: Iterable[ScheduledJobFacts] | None = None,
        **more: Any,
    ) -> None:
        result = ProbeResult(probe, slot, "local", outcome, reason, message, duration_ms, phases or {}, **more)
        listings = make_listings(slot, tasks, preferences, jobs)
        row = codec.result_to_row(
            result,
            late=False,
            recorded_at=slot + (duration_ms or 0) + 40,
            facts=encode_storable_json(encode_subject_listings_as_diff(listings, {})) if listings else None,
            facts_base=slot if listings else None,
        )
        self.rows["results"].append(row)
        if evidence is not None:
            evidence_columns = {"facts": json.dumps(dict(evidence.facts)), "excerpt": evidence.excerpt}
            self.rows["evidence"].append({"probe": probe, "slot": slot, "location": "local", **evidence_columns})

    def add_check_in(
        self, probe: int, at: int, kind: str, *, run_id: str = "", exit_code: int | None = None,
        duration: int | None = None, output: str = "",
    ) -> None:  # fmt: skip
        row = {"kind": kind, "run_id": run_id, "exit_code": exit_code, "duration": duration, "output": output}
        self.rows["check_ins"].append(
            {"probe": probe, "occurred_at": at, "id": f"{len(self.rows['check_ins']):x}", **row}
        )

    def add_passing_results(
        self,
        probe: int,
        mean_duration_ms: int = 180,
        *,
        newest_ago_s: int = 9,
        count: int = 60,
        interval_ms: int = MINUTE_MS,
    ) -> None:
        """Passing results, the newest `newest_ago_s` seconds ago."""
        for i in range(count):
            took = max(1, round(mean_duration_ms * (1 + self.random.gauss(0, 0.12))))
            self.add_result(probe, NOW - newest_ago_s * SECOND_MS - i * interval_ms, duration_ms=took)

    def add_incident(
        self,
        probe: int,
        rule: str,
        message: str,
        since: int,
        *,
        subject: str = "",
        resolved_at: int | None = None,
        opened_after_ms: int = 2 * MINUTE_MS,
        reason: str = "",
        severity: Severity = Severity.WARNING,
        threshold: int = 3,
        routing_log: tuple[str, ...] = ("no routes are configured: every receiver is notified: oncall",),
        resolution: str = "",
    ) -> str:
        id = f"{len(self.rows['incidents']) + 1:024x}"
        self.rows["incidents"].append(
            {
                "id": id,
                "probe": probe,
                "rule": rule,
                "subject": subject,
                "severity": severity,
                "since": since,
                "opened_slot": since + opened_after_ms,
                "opened_at": since + opened_after_ms + 2 * SECOND_MS,
                "reason": reason,
                "message": message,
                "threshold": threshold,
                "routing_log": json.dumps(routing_log),
                "resolved_slot": resolved_at,
                "resolved_at": resolved_at,
                "resolution": resolution,
            }
        )
        return id

    def add_pause(
        self, probe: int, started_at: int, *, ends_at: int | None = None, ended_at: int | None = None, comment: str = ""
    ) -> None:
        ended = {"ended_at": ended_at, "ended_by": "" if ended_at is None else "Ben"}
        row = {"author": "Ana", "interface": OperatorInterfaceKind.PAGE, "comment": comment, **ended}
        self.rows["pauses"].append({"probe": probe, "started_at": started_at, "ends_at": ends_at, **row})
        if ended_at is None:
            (schedule,) = (row for row in self.rows["schedule"] if row["probe"] == probe)
            schedule["paused"] = True

    def add_maintenance(
        self, probes: Iterable[int], starts_at: int, ends_at: int, *, name: str = "", comment: str = ""
    ) -> str:
        """Returns its id. Without a name, Ana began it."""
        id = f"m-{len(self.rows['maintenance_windows']) + 1}"
        person = {"author": "", "interface": ""} if name else {"author": "Ana", "interface": OperatorInterfaceKind.PAGE}
        row = {"name": name, "is_configured": bool(name), "matcher": '{"group": "Core"}', "comment": comment, **person}
        times = {"starts_at": starts_at, "ends_at": ends_at}
        self.rows["maintenance_windows"].append({"id": id, **times, "ended_by": "", **row})
        for probe in probes:
            self.rows["maintenance_periods"].append({"probe": probe, "maintenance": id, "generation": 0, **times})
        return id

    def add_notification(
        self,
        incident: str,
        destination: str,
        state: str = "sent",
        *,
        created_at: int,
        seq: int = 0,
        event: str = "opened",
        finished_at: int | None = None,
        due_at: int | None = None,
        attempts: int = 1,
        detail: str = "",
        lead_incident: str = "",
    ) -> None:
        self.rows["outbox"].append(
            {
                "incident": incident,
                "destination": destination,
                "seq": seq,
                "event": event,
                "state": state,
                "created_at": created_at,
                "due_at": created_at if due_at is None else due_at,
                "lease_token": None,
                "leased_until": None,
                "attempts": attempts,
                "detail": detail,
                "receipt": None,
                "finished_at": finished_at,
                "lead_incident": lead_incident or incident,
            }
        )
