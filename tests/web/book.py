"""Rows of a story on their way into a database, and the clock that the stories share."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from watchdog.model import Evidence, Outcome, ProbeInfo, Result, Severity
from watchdog.store import codec, tables
from watchdog.words import DAY, HOUR, MINUTE, SECOND

NOW = int(datetime(2026, 11, 22, 2, 29, 14, tzinfo=UTC).timestamp() * 1000)


def at(clock: str, days_ago: int = 0) -> int:
    """The instant of "01:48" or "01:48:30", today or some days ago."""
    h, m, s = (*map(int, clock.split(":")), 0)[:3]
    return NOW // DAY * DAY + (h * 3600 + m * 60 + s) * 1000 - days_ago * DAY


class Book:
    """Rows on their way into a database."""

    def __init__(self, seed: int = 7) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in tables.metadata.sorted_tables}
        self.random = random.Random(seed)
        self.probes: dict[str, int] = {}
        self.named: dict[str, str] = {}
        """Incidents that tests ask for by name."""

    def write(self, connection: sa.Connection) -> None:
        for table in tables.metadata.sorted_tables:
            if self.rows[table.name]:
                connection.execute(sa.insert(table), self.rows[table.name])

    def mark(self, through: int) -> None:
        self.rows["marks"].append({"location": "local", "through": through})

    def probe(
        self, name: str, kind: str = "http", group: str = "", *, spec: str = "", since: int = NOW - 200 * DAY,
        next_due: int | None = None, **info: Any,
    ) -> int:  # fmt: skip
        id, key = len(self.probes) + 1, name.lower().replace(" ", "-")
        self.probes[name] = id
        told = ProbeInfo(id, key, name, kind, group, **{"cadence": "every 60 s", **info})
        self.rows["probes"].append({
            "id": id, "key": key, "name": name, "kind": kind, "info": codec.info_text(told), "created_at": since,
            "spec": spec or f"name: {name}\n{kind}: https://acme.example/\n", "removed_at": None,
        })  # fmt: skip
        due = NOW + 46 * SECOND if next_due is None else next_due
        plan = {"plan": "", "last_slot": None, "flying": "[]"}
        self.rows["schedule"].append({"probe": id, "location": "local", "next_due": due, **plan})
        return id

    def history(self, probe: int, days: int = 90, skip: tuple[int, ...] = ()) -> None:
        """Roll-ups of every hour of the days before today; `skip`: days ago without any."""
        for ago in range(1, days):
            if ago in skip:
                continue
            start = NOW // DAY * DAY - ago * DAY
            for hour in range(24):
                self.rolled(probe, start + hour * HOUR)

    def rolled(self, probe: int, hour: int) -> None:
        """One hour in which everything passed."""
        sums = {"passed": 60, "failed": 0, "unjudged": 0, "missed": 0, "duration_sum": 10_800, "duration_max": 300}
        self.rows["rollups"].append({"probe": probe, "hour": hour, "location": "local", **sums})

    def result(
        self,
        probe: int,
        slot: int,
        outcome: Outcome = Outcome.PASS,
        message: str = "",
        reason: str = "",
        took: int | None = 180,
        *,
        evidence: Evidence | None = None,
        phases: Mapping[str, float] | None = None,
        **more: Any,
    ) -> None:
        result = Result(probe, slot, "local", outcome, reason, message, took, phases or {}, **more)
        row = codec.result_row(result, late=False, recorded_at=slot + (took or 0) + 40)
        self.rows["results"].append(row)
        if evidence is not None:
            kept = {"facts": json.dumps(dict(evidence.facts)), "excerpt": evidence.excerpt}
            self.rows["evidence"].append({"probe": probe, "slot": slot, "location": "local", **kept})

    def job(self, probe: int, name: str, **known: Any) -> None:
        """What a probe remembers of a scheduled job."""
        nothing = dict.fromkeys(("last_start", "last_end", "last_ok", "duration", "expected"))
        value = json.dumps({"name": name, "plan": "", "since": NOW, "reason": "", **nothing, **known})
        self.rows["memory"].append({"probe": probe, "key": f"job:{len(self.rows['memory'])}", "value": value})

    def check_in(
        self, probe: int, at: int, kind: str, *, run: str = "", code: int | None = None, duration: int | None = None,
        body: str = "",
    ) -> None:  # fmt: skip
        row = {"kind": kind, "run": run, "code": code, "duration": duration, "body": body}
        self.rows["check_ins"].append({"probe": probe, "at": at, "id": f"{len(self.rows['check_ins']):x}", **row})

    def runs(self, probe: int, base: int = 180, *, ago: int = 9, count: int = 60, every: int = MINUTE) -> None:
        """Passing results, the newest `ago` seconds ago."""
        for i in range(count):
            took = max(1, round(base * (1 + self.random.gauss(0, 0.12))))
            self.result(probe, NOW - ago * SECOND - i * every, took=took)

    def incident(
        self, probe: int, rule: str, message: str, since: int, *, subject: str = "", until: int | None = None,
        after: int = 2 * MINUTE, reason: str = "", severity: Severity = Severity.WARNING, needed: int = 3,
        route: tuple[str, ...] = ("no routes: every receiver is told: oncall",), resolution: str = "",
    ) -> str:  # fmt: skip
        id = f"{len(self.rows['incidents']) + 1:024x}"
        self.rows["incidents"].append({
            "id": id, "probe": probe, "rule": rule, "subject": subject, "severity": severity, "since": since,
            "slot": since + after, "opened_at": since + after + 2 * SECOND, "reason": reason, "message": message,
            "needed": needed, "route": json.dumps(route), "resolved_slot": until, "resolved_at": until,
            "resolution": resolution,
        })  # fmt: skip
        return id

    def told(
        self, incident: str, destination: str, state: str = "sent", *, created: int, seq: int = 0,
        event: str = "opened", done: int | None = None, due: int | None = None, attempts: int = 1, detail: str = "",
    ) -> None:  # fmt: skip
        self.rows["outbox"].append({
            "incident": incident, "destination": destination, "seq": seq, "event": event, "state": state,
            "created_at": created, "due_at": created if due is None else due, "token": None, "leased_until": None,
            "attempts": attempts, "detail": detail, "receipt": None, "done_at": done,
        })  # fmt: skip
