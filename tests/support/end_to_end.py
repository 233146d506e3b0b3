"""A target, a receiver of each kind, and a real Watchdog between them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from tests.support.crash_harness import ReceiverKind, RecordingReceiver
from tests.support.fakes import FakeHttpTarget
from tests.support.polling import wait_until_async
from watchdog.app import RunningWatchdogService, start_watchdog_service_and_stop_on_exit
from watchdog.config.load import load_config
from watchdog.domain.model import Incident, IncidentEvent
from watchdog.domain.rules import service
from watchdog.service.clock import Clock, read_boot_clock_ms, read_wall_clock_ms
from watchdog.store.read.status import list_incidents
from watchdog.store.tables import outbox, outbox_is_waiting, probes, results

RECEIVER_KINDS: tuple[ReceiverKind, ...] = ("bot", "webhook", "email", "hook")
OPENED, RESOLVED = IncidentEvent.OPENED, IncidentEvent.RESOLVED
IMMEDIATE_ALERT = {"failure_threshold": 1, "success_threshold": 1}
FAST_PROBE = {"every": "1s", "timeout": "20s", "alert": IMMEDIATE_ALERT}
"""Every result opens or resolves; the timeout allows for a slow machine."""


class EndToEndHarness:
    """One receiver of each kind, each of which gets every notification. `extra_config` overrides the configuration."""

    def __init__(self, folder: Path, database_url: str):
        self.folder, self.database_url = folder, database_url
        self.target = FakeHttpTarget()
        self.receivers = {kind: RecordingReceiver(kind) for kind in RECEIVER_KINDS}
        self.probes: list[dict[str, Any]] = [{"name": "API", "http": self.target.url, **FAST_PROBE}]
        self.extra_config: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._stack.enter_context(self.target)
        for receiver in self.receivers.values():
            self._stack.enter_context(receiver.fake)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def config(self) -> dict[str, Any]:
        receivers: dict[str, Any] = {}
        sections: dict[str, Any] = {
            "storage": {"url": self.database_url},
            "server": {"public_url": "http://status.example"},
        }
        for kind, receiver in self.receivers.items():
            section = receiver.receiver_config()
            receivers[kind] = section.pop("receivers")["oncall"]
            sections |= section
        return {**sections, "probes": self.probes, "receivers": receivers, **self.extra_config}

    @asynccontextmanager
    async def running_watchdog(
        self,
        clock: Clock = read_wall_clock_ms,
        env: Mapping[str, str] = {},
        monotonic_clock: Clock = read_boot_clock_ms,
    ) -> AsyncIterator[RunningWatchdog]:
        loaded = load_config(self.folder / "watchdog.yaml", json.dumps(self.config()), env)
        async with start_watchdog_service_and_stop_on_exit(loaded, clock, monotonic_clock) as app:
            yield RunningWatchdog(app)

    def received_events(self) -> dict[str, list[IncidentEvent]]:
        """The events that each receiver got, in order."""
        return {kind: list(receiver.events) for kind, receiver in self.receivers.items()}

    def all_received(self, *events: IncidentEvent) -> bool:
        """Whether every receiver got exactly these events, in this order."""
        return all(received == list(events) for received in self.received_events().values())


class RunningWatchdog:
    """A running Watchdog and its database."""

    def __init__(self, app: RunningWatchdogService):
        self.app = app

    def query_store(self, query: Callable[[sa.Connection], Any]) -> Any:
        with self.app.store_executor.database.open_read_transaction() as connection:
            return query(connection)

    def list_incidents(self) -> list[Incident]:
        """Newest first."""
        return [record.incident for record in self.query_store(list_incidents)]

    def count_outcomes(self) -> Counter[str]:
        """Of the configured probes."""
        is_configured = results.c.probe.in_(
            sa.select(probes.c.id).where(probes.c.kind != service.WATCHDOG_SELF_PROBE_KIND)
        )
        query = sa.select(results.c.outcome, sa.func.sum(results.c.slot_count)).where(is_configured)
        query = query.group_by(results.c.outcome)
        return Counter(dict(map(tuple, self.query_store(lambda connection: connection.execute(query).all()))))

    def count_unsent(self) -> int:
        query = sa.select(sa.func.count()).select_from(outbox).where(outbox_is_waiting)
        return int(self.query_store(lambda connection: connection.execute(query).scalar()))

    async def wait_for_results(self, outcome: str, count: int = 1) -> None:
        """Wait for `count` more results with this outcome, and for the delivery of their notifications."""
        before = self.count_outcomes()[outcome]
        await wait_until_async(lambda: self.count_outcomes()[outcome] >= before + count)
        await wait_until_async(lambda: not self.count_unsent())


def email_texts(harness: EndToEndHarness) -> Iterator[str]:
    """The plain text of each email, in order of arrival."""
    for mail in harness.receivers["email"].fake.received:
        yield mail.message.get_body(("plain",)).get_content()
