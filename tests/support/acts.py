"""Acts of people on call, for tests."""

from __future__ import annotations

from typing import Any

from tests.support.store import StoreHarness, make_registered_probe
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import Severity
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import SilenceMatcher
from watchdog.service.acts import SilenceRequest, begin_silence
from watchdog.store.database import Database
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.silence_ends import end_expired_silences

ANA = Actor("Ana", OperatorInterfaceKind.PAGE)
BEN = Actor("Ben", OperatorInterfaceKind.CLI)


def make_silence_request(
    ends_at: int,
    *,
    id: str = "",
    group: str = "",
    tags: tuple[str, ...] = (),
    kind: str = "",
    severity: Severity | None = None,
    subject: str = "",
    comment: str = "",
) -> SilenceRequest:
    """Of everything, if nothing is selected."""
    matcher = SilenceMatcher(ProbeMatcher(severity, frozenset(tags), group, kind, id), subject)
    return SilenceRequest(matcher, ends_at, comment, selects_everything=matcher.is_empty)


def silence(harness: StoreHarness, now: int, *, for_ms: int = HOUR_MS, **selection: Any) -> str:
    """Begin a silence; returns its id."""
    return begin_silence(harness.database, make_silence_request(now + for_ms, **selection), ANA, now).silence.id


def end_expired(harness: StoreHarness, now: int) -> list[str]:
    return end_expired_silences(harness.database, now)


def register_probe(database: Database, now: int, probe_id: str = "api") -> StoreHarness:
    """A process that has scheduled runs until now, and runs this probe alone."""
    harness = StoreHarness(database, [make_registered_probe(probe_id)], now=now, create_schema=False)
    harness.without_downtime().advance_watermark(now)
    return harness


def send_due(harness: StoreHarness, now: int) -> list[tuple[str, str, str]]:
    """Send what is due now, each with the receipt of a message that could be edited. Returns probe id, destination and
    event of each."""
    sent = []
    while leased := harness.lease_notifications(now):
        for each in leased:
            harness.outbox.mark_sent(each, {"ts": "1"}, now, "headline", "cause")
            sent.append((each.main_incident, each.notification.destination, each.notification.event.value))
    return sorted((find_probe_of_incident(harness, each[0]), each[1], each[2]) for each in sent)


def find_probe_of_incident(harness: StoreHarness, incident: str) -> str:
    return harness.registry[harness.select_row(incidents, incidents.c.id == incident)["probe"]].info.id


def list_outbox(harness: StoreHarness) -> list[tuple[str, str, str]]:
    """Destination, event and state of each notification, in order."""
    return [(row["destination"], row["event"], row["state"]) for row in harness.select_rows(outbox)]
