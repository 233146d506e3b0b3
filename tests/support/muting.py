"""Probes that mute one another's alerts, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.acts import send_due
from tests.support.store import StoreHarness, make_registered_probe, make_result
from watchdog.domain.muting import MutingProbe
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.read.muting import list_due_muting_decisions
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.muting_ends import announce_muted_alerts, carry_out_due_muting_decisions


def make_probe(id: str, *needs: str, target: str = "", repeat_ms: int = 0) -> RegisteredProbe:
    """Its incident opens with the first bad result, and resolves with the first good one."""
    probe = make_registered_probe(id, failure_threshold=1, success_threshold=1)
    info = replace(probe.info, target=target or f"https://{id}.example/")
    return replace(
        probe,
        policy=replace(probe.policy, probe=info),
        muting_probes=tuple(map(MutingProbe, needs)),
        repeat_interval_ms=repeat_ms,
    )


def record(harness: StoreHarness, outcome: str, at: int, *ids: str, reason: str = "") -> None:
    """In one batch, as the newest results of these probes."""
    more: dict[str, Any] = {"reason": reason, "message": reason} if reason else {}
    results = [make_result(harness.database_id(id), at, outcome, **more) for id in ids]
    harness.record_results(*results, now=at)


def decide(harness: StoreHarness, now: int) -> list[str]:
    """As the background task does. Returns the reasons of the decisions that have changed something."""
    with harness.database.open_read_transaction() as connection:
        is_due = bool(list_due_muting_decisions(connection, now))
    changes = carry_out_due_muting_decisions(harness.database, now) if is_due else []
    announce_muted_alerts(harness.database, now)
    return [change.decision.reason.value for change in changes]


def send(harness: StoreHarness, now: int) -> list[tuple[str, str]]:
    """Decide, and send what is due. Returns probe id and event of each, without the destination."""
    decide(harness, now)
    return [(probe, event) for probe, _, event in send_due(harness, now)]


def list_states(harness: StoreHarness, id: str) -> list[tuple[str, str]]:
    """Event and state of each notification about the probe's incidents."""
    of_probe = {row["id"] for row in find_incidents(harness, id)}
    return [(row["event"], row["state"]) for row in harness.select_rows(outbox) if row["incident"] in of_probe]


def find_incidents(harness: StoreHarness, id: str) -> list[dict[str, Any]]:
    rows = harness.select_rows(incidents, incidents.c.probe == harness.database_id(id))
    return sorted(rows, key=lambda row: row["opened_at"])


def find_muting_steps(harness: StoreHarness, id: str) -> list[str]:
    """The steps of the routing log that are about muting."""
    steps: list[str] = decode_nullable_json(find_incidents(harness, id)[-1]["routing_log"])
    return [step.removeprefix("muting: ") for step in steps if step.startswith("muting: ")]
