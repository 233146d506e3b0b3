"""The API over a database that holds data of every kind."""

from __future__ import annotations

import json

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.fixtures import acme_rows
from watchdog.domain.model import Evidence, Outcome
from watchdog.domain.probe_state import (
    QUEUE_THRESHOLDS_STATE_KEY,
    QueueThreshold,
    QueueThresholdStateRecord,
    queue_threshold_records_to_json,
)

HOSTILE_TEXTS = (
    "<script>alert(1)</script>",
    '"}],"next":"https://evil.example/',
    "line\nbreak\r\nSet-Cookie: a=b",
    "\x7f\x1b[31mred\u202e\u2028",
    "${API_TOKEN} {{ 7 * 7 }} %s",
    "😀" * 50,
    "' OR 1=1 --",
)


def rows_of_every_kind() -> FixtureRows:
    """Acme's services, a queue, members, failing destinations, and a probe whose texts are hostile."""
    rows = acme_rows()
    add_queue(rows)
    rows.rows["failing_destinations"].append(
        {"destination": "pager/webhook", "failing_since": NOW - 600_000, "given_up": True, "error": "410 Gone"}
    )
    rows.rows["revision_destinations"].append({"revision": 1, "destination": "other/email", "definition": "d"})
    member = {"id": "app-1", "revision": 1, "started_at": NOW - 1_000, "lease_until": NOW + 9_000}
    rows.rows["members"].append({**member, "left_in_order": False})
    for number, text in enumerate(HOSTILE_TEXTS):
        add_hostile_probe(rows, number, text)
    return rows


def add_queue(rows: FixtureRows) -> None:
    for name in ("Mail queue", "Search queue"):
        id = rows.add_probe(name, "queue", "Jobs")
        measurements = {"waiting": 1_204, "oldest": 660_000, "active": 4}
        rows.add_result(id, NOW - 9_000, Outcome.FAIL, "1204 waiting", "queue.threshold", 12, measurements=measurements)
        record = QueueThresholdStateRecord(QueueThreshold("waiting", 1_000, 300_000), NOW - 400_000)
        state = json.dumps(queue_threshold_records_to_json([record]))
        rows.rows["probe_state"].append({"probe": id, "key": QUEUE_THRESHOLDS_STATE_KEY, "value": state})


def add_hostile_probe(rows: FixtureRows, number: int, text: str) -> None:
    """A probe whose fields all hold a hostile text."""
    id = rows.add_probe(f"H{number} {text}", "http", text, tags=(text,), target=text, runbook=text, config_yaml=text)
    evidence = Evidence({text: text}, text)
    rows.add_result(id, NOW - 9_000, Outcome.FAIL, text, "http.503", evidence=evidence, phases={text: 1.5})
    incident = rows.add_incident(id, "availability", text, NOW - 9_000, subject=text, reason="http.503")
    rows.add_notification(incident, "oncall/slack", "waiting", created_at=NOW - 8_000, detail=text)
