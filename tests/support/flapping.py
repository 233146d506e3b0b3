"""An alert that opens and resolves again and again, for tests."""

from __future__ import annotations

from tests.support.acts import send_due
from tests.support.muting import record
from tests.support.store import StoreHarness
from watchdog.domain.formatting import MINUTE_MS
from watchdog.store.read.flapping import list_due_flapping_ends
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.flapping_ends import end_flapping_of_stable_alerts

FLAP_INTERVAL_MS = 2 * MINUTE_MS
"""Between the bad and the good result of an incident, and between two incidents."""


def flap(harness: StoreHarness, at: int, count: int, *ids: str) -> int:
    """As many incidents of each of these probes, by default of api, from `at` on, each sent at once and resolved.
    Returns when the next one would begin."""
    for _ in range(count):
        for outcome in ("fail", "pass"):
            record(harness, outcome, at, *(ids or ("api",)))
            send_due(harness, at)
            at += FLAP_INTERVAL_MS
    return at


def decide_end(harness: StoreHarness, now: int) -> list[str]:
    """As the background task does. Returns why flapping is over."""
    with harness.database.open_read_transaction() as connection:
        is_due = bool(list_due_flapping_ends(connection, now))
    ended = end_flapping_of_stable_alerts(harness.database, now) if is_due else []
    return [end.decision.reason.value for end in ended]


def decide_end_and_send(harness: StoreHarness, now: int) -> list[tuple[str, str]]:
    """Returns probe id and event of each message, without the destination."""
    decide_end(harness, now)
    return [(probe, event) for probe, _, event in send_due(harness, now)]


def list_notifications(harness: StoreHarness, destination: str) -> list[tuple[int, str, str]]:
    """Number of the incident, event and state of each notification of the destination, by incident."""
    rows = sorted(harness.select_rows(incidents), key=lambda row: (row["opened_at"], row["id"]))
    number = {row["id"]: index for index, row in enumerate(rows, 1)}
    notifications = harness.select_rows(outbox, outbox.c.destination == destination)
    ordered = sorted(notifications, key=lambda row: (number[row["incident"]], row["seq"]))
    return [(number[row["incident"]], row["event"], row["state"]) for row in ordered]
