"""A service over a store: its probes scripted, its clock and its ticks in the test's hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Self

import pytest
import sqlalchemy as sa

from tests.store.lab import EVERY, T0, Lab, member
from watchdog.alerts import Routes
from watchdog.model import Observation, Outcome
from watchdog.notifiers.base import Notifier
from watchdog.probes.base import Attempt, Probe
from watchdog.service import service as module
from watchdog.service.delivery import Mailroom
from watchdog.service.service import Retention, Service
from watchdog.service.storage import Storage
from watchdog.store.tables import results
from watchdog.wire import Mask, Wire

Script = Callable[[Attempt], Awaitable[Observation]]
GOOD = Observation(Outcome.PASS, duration=12.0)
BAD = Observation(Outcome.FAIL, "http.status", "got 503", duration=8.0)
FLAKY = Observation(Outcome.FAIL, "connection.lost", "connection lost", retryable=True)


async def good(_: Attempt) -> Observation:
    return GOOD


async def bad(_: Attempt) -> Observation:
    return BAD


async def hang(_: Attempt) -> Observation:
    await asyncio.Event().wait()
    return GOOD


class Scripted(Probe):
    kind: ClassVar[str] = "scripted"
    finds: ClassVar[tuple[str, ...]] = ("job_", "task_", "queue_")
    script: Any = good
    at: str = ""
    """Its host."""

    @property
    def target(self) -> str:
        return "nowhere"

    @property
    def host(self) -> str:
        return self.at

    async def observe(self, attempt: Attempt) -> Observation:
        seen: Observation = await self.script(attempt)
        return seen


def scripted(key: str = "api", script: Script = good, **more: Any) -> Scripted:
    return Scripted.model_validate({"name": key.title(), "key": key, "script": script, **more})


class House:
    """Everything that `watchdog run` puts together, but for what tells people."""

    def __init__(self, url: str, probes: list[Scripted], notifiers: Mapping[str, Notifier] | None = None):
        self.now = T0
        told = tuple(notifiers or {})
        members = [member(p.key, after=2, recover=1) for p in probes]
        self.lab = Lab(url, members, routes=Routes({"oncall": told}) if told else None)
        self.storage = Storage(self.lab.database)
        by_key = {probe.key: probe for probe in probes}
        wire, mask = Wire(), Mask(["hush-hush"])
        self.service = Service(
            {id: by_key[one.info.key] for id, one in self.lab.fleet.items()},
            self.storage,
            self.lab.claims,
            self.lab.journal,
            Mailroom(self.storage, self.lab.outbox, notifiers or {}, wire, mask, lambda: self.now),
            Retention(30 * 86_400_000, 400 * 86_400_000),
            wire,
            mask,
            lambda: self.now,
        )
        self.dispatcher = self.service.dispatcher

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.dispatcher.stop(0)
        self.storage.close()

    async def landed(self) -> None:
        """Every run that was begun has ended."""
        while self.dispatcher._runs:
            await asyncio.gather(*self.dispatcher._runs)

    def outcomes(self) -> list[tuple[str, str]]:
        """Outcome and reason of every stored result, by probe and slot."""
        with self.lab.database.read() as connection:
            query = sa.select(results.c.outcome, results.c.reason).order_by(results.c.probe, results.c.slot)
            return [(outcome, reason) for outcome, reason in connection.execute(query)]

    async def minute(self) -> None:
        """Claim and run what is due a minute later; nothing is recorded yet."""
        self.now = (self.now // EVERY + 1) * EVERY
        await self.service.claim()
        await self.landed()


@pytest.fixture
def without_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens by itself, but what is urgent."""
    for name in ("CLAIM", "RECORD", "WAKE", "DELIVER", "REMEDY", "KEEP"):
        monkeypatch.setattr(module, name, 86_400.0)
