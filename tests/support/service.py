"""A service over a store, with scripted probes; the test sets the clock and calls the background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import pytest
import sqlalchemy as sa

from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe
from watchdog.domain.model import Observation, Outcome
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.net import NetworkAccess, SecretMask
from watchdog.notifiers.base import Notifier
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.service import incident_tasks, scheduler
from watchdog.service.connectivity import ConnectivityCheck
from watchdog.service.maintenance import RetentionPolicy
from watchdog.service.member_faults import WatchdogProcessFaultReporter
from watchdog.service.membership import ProcessLeaseKeeper
from watchdog.service.notifications import NotificationSender
from watchdog.service.scheduler import MonitoringService
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.tables import results

ObserveFunction = Callable[[ProbeAttemptContext], Awaitable[Observation]]
PASSING_OBSERVATION = Observation(Outcome.PASS, duration=12.0)
FAILING_OBSERVATION = Observation(Outcome.FAIL, "http.503", "HTTP 503", duration=8.0)
RETRYABLE_OBSERVATION = Observation(Outcome.FAIL, "connection.lost", "connection lost", retryable=True)


async def observe_pass(_: ProbeAttemptContext) -> Observation:
    return PASSING_OBSERVATION


async def observe_failure(_: ProbeAttemptContext) -> Observation:
    return FAILING_OBSERVATION


async def observe_forever(_: ProbeAttemptContext) -> Observation:
    await asyncio.Event().wait()
    return PASSING_OBSERVATION


class ScriptedProbe(Probe):
    kind: ClassVar[str] = "scripted"
    reason_prefixes: ClassVar[tuple[str, ...]] = ("job.", "task.", "queue.")
    observe_function: Any = observe_pass
    endpoint_name: str = ""

    @property
    def target(self) -> str:
        return "nowhere"

    @property
    def network_endpoint(self) -> str:
        return self.endpoint_name

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        observation: Observation = await self.observe_function(context)
        return observation


def scripted_probe(
    probe_id: str = "api", observe_function: ObserveFunction = observe_pass, **more: Any
) -> ScriptedProbe:
    return ScriptedProbe.model_validate(
        {"name": probe_id.title(), "id": probe_id, "observe_function": observe_function, **more}
    )


class ServiceHarness:
    """What `watchdog run` builds, without check-ins and pages."""

    def __init__(
        self,
        url: str,
        probes: list[ScriptedProbe],
        notifiers: Mapping[str, Notifier] | None = None,
        connectivity_targets: Sequence[str] = (),
    ):
        self.now = START_AT
        destinations = tuple(notifiers or {})
        members = [make_registered_probe(p.id, failure_threshold=2, success_threshold=1) for p in probes]
        self.store = StoreHarness(
            url, members, routes=NotificationRoutingTable({"oncall": destinations}) if destinations else None
        )
        self.store_executor = StoreExecutor(self.store.database, lambda: self.now)
        probe_by_id = {probe.id: probe for probe in probes}
        network, mask = NetworkAccess(), SecretMask(["hush-hush"])
        self.service = MonitoringService(
            probes={id: probe_by_id[registered.info.id] for id, registered in self.store.registry.items()},
            store_executor=self.store_executor,
            claims=self.store.slot_claimer,
            recorder=self.store.recorder,
            notification_sender=NotificationSender(
                store_executor=self.store_executor,
                outbox=self.store.outbox,
                notifiers=notifiers or {},
                network=network,
                mask=mask,
                clock=lambda: self.now,
            ),
            retention=RetentionPolicy(30 * 86_400_000, 400 * 86_400_000),
            network=network,
            mask=mask,
            clock=lambda: self.now,
            lease_keeper=ProcessLeaseKeeper(self.store.membership, self.store_executor, lambda: self.now),
            fault_reporter=WatchdogProcessFaultReporter(
                self.store.membership.member_id, self.store_executor, lambda: self.now
            ),
            connectivity_check=ConnectivityCheck(network, connectivity_targets, (), lambda: self.now),
        )
        self.run_executor = self.service.run_executor

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.run_executor.stop(0)
        self.store_executor.close()

    async def wait_for_runs(self) -> None:
        """Wait until every run has ended."""
        while self.run_executor._slot_by_task:
            await asyncio.gather(*self.run_executor._slot_by_task)

    def stored_outcomes(self) -> list[tuple[str, str]]:
        """Outcome and reason of every stored result, by probe and slot."""
        with self.store.database.open_read_transaction() as connection:
            query = sa.select(results.c.outcome, results.c.reason).order_by(results.c.probe, results.c.slot)
            return [(outcome, reason) for outcome, reason in connection.execute(query)]

    async def run_next_minute(self) -> None:
        """Advance the clock to the next minute, then claim and run what is due; nothing is recorded yet."""
        self.now = (self.now // INTERVAL_MS + 1) * INTERVAL_MS
        await self.service.claim_due_slots_and_start_runs()
        await self.wait_for_runs()


@pytest.fixture
def without_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No background task runs by timer; only urgent results are recorded."""
    for name in (
        "SLOT_CLAIM",
        "RESULT_RECORD",
        "DEADLINE_CHECK",
        "REMEDIATION_CHECK",
        "MAINTENANCE",
    ):
        monkeypatch.setattr(scheduler, f"{name}_INTERVAL_S", 86_400.0)
    monkeypatch.setattr(incident_tasks, "NOTIFICATION_SEND_INTERVAL_S", 86_400.0)
