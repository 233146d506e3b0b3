"""A service over a store: its probes scripted, its clock and its ticks in the test's hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Self

import pytest
import sqlalchemy as sa

from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe
from watchdog.domain.model import Observation, Outcome
from watchdog.domain.routing import RoutingTable
from watchdog.net import Network, SecretMask
from watchdog.notifiers.base import Notifier
from watchdog.probes.base import Probe, RunContext
from watchdog.service import scheduler as module
from watchdog.service.notifications import NotificationSender
from watchdog.service.scheduler import MonitoringService, RetentionPolicy
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.tables import results

ObserveFunction = Callable[[RunContext], Awaitable[Observation]]
PASSING_OBSERVATION = Observation(Outcome.PASS, duration=12.0)
FAILING_OBSERVATION = Observation(Outcome.FAIL, "http.status", "got 503", duration=8.0)
RETRYABLE_OBSERVATION = Observation(Outcome.FAIL, "connection.lost", "connection lost", retryable=True)


async def observe_pass(_: RunContext) -> Observation:
    return PASSING_OBSERVATION


async def observe_failure(_: RunContext) -> Observation:
    return FAILING_OBSERVATION


async def observe_forever(_: RunContext) -> Observation:
    await asyncio.Event().wait()
    return PASSING_OBSERVATION


class ScriptedProbe(Probe):
    kind: ClassVar[str] = "scripted"
    reason_prefixes: ClassVar[tuple[str, ...]] = ("job_", "task_", "queue_")
    observe_function: Any = observe_pass
    host_name: str = ""
    """Its host."""

    @property
    def target(self) -> str:
        return "nowhere"

    @property
    def host(self) -> str:
        return self.host_name

    async def observe(self, context: RunContext) -> Observation:
        seen: Observation = await self.observe_function(context)
        return seen


def scripted_probe(
    probe_id: str = "api", observe_function: ObserveFunction = observe_pass, **more: Any
) -> ScriptedProbe:
    return ScriptedProbe.model_validate({"name": probe_id.title(), "id": probe_id, "script": observe_function, **more})


class ServiceHarness:
    """Everything that `watchdog run` puts together, but for what tells people."""

    def __init__(self, url: str, probes: list[ScriptedProbe], notifiers: Mapping[str, Notifier] | None = None):
        self.now = START_AT
        told = tuple(notifiers or {})
        members = [make_registered_probe(p.id, failure_threshold=2, success_threshold=1) for p in probes]
        self.store = StoreHarness(url, members, routes=RoutingTable({"oncall": told}) if told else None)
        self.store_executor = StoreExecutor(self.store.database)
        by_key = {probe.id: probe for probe in probes}
        wire, mask = Network(), SecretMask(["hush-hush"])
        self.service = MonitoringService(
            {id: by_key[one.info.id] for id, one in self.store.registry.items()},
            self.store_executor,
            self.store.slot_claimer,
            self.store.recorder,
            NotificationSender(self.store_executor, self.store.outbox, notifiers or {}, wire, mask, lambda: self.now),
            RetentionPolicy(30 * 86_400_000, 400 * 86_400_000),
            wire,
            mask,
            lambda: self.now,
        )
        self.run_executor = self.service.run_executor

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.run_executor.stop(0)
        self.store_executor.close()

    async def wait_for_runs(self) -> None:
        """Every run that was begun has ended."""
        while self.run_executor._slot_by_task:
            await asyncio.gather(*self.run_executor._slot_by_task)

    def stored_outcomes(self) -> list[tuple[str, str]]:
        """Outcome and reason of every stored result, by probe and slot."""
        with self.store.database.read_transaction() as connection:
            query = sa.select(results.c.outcome, results.c.reason).order_by(results.c.probe, results.c.slot)
            return [(outcome, reason) for outcome, reason in connection.execute(query)]

    async def run_next_minute(self) -> None:
        """Claim and run what is due a minute later; nothing is recorded yet."""
        self.now = (self.now // INTERVAL_MS + 1) * INTERVAL_MS
        await self.service.claim_due_slots()
        await self.wait_for_runs()


@pytest.fixture
def without_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens by itself, but what is urgent."""
    for name in ("CLAIM", "RECORD", "WAKE", "DELIVER", "REMEDY", "KEEP"):
        monkeypatch.setattr(module, name, 86_400.0)
