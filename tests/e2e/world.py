"""A target, everybody who is told of it, and a real Watchdog between them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from tests.crash.harness import Ears, Kind, Target
from tests.patience import until
from watchdog.app import App, running
from watchdog.config import load
from watchdog.model import Event, Incident
from watchdog.service.clock import Clock, wall
from watchdog.store.tables import outbox, results, waiting
from watchdog.store.views import cases

KINDS: tuple[Kind, ...] = ("bot", "webhook", "email", "hook")
OPENED, RESOLVED = Event.OPENED, Event.RESOLVED
ALERT = {"after": 1, "recover": 1}
QUICK = {"every": "1s", "timeout": "20s", "alert": ALERT}
"""A probe that decides with each result, and gives a slow machine time for it."""


class World:
    """`url`: of the database. One receiver for each way to tell people, all of which hear everything."""

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url
        self.target = Target()
        self.ears = {kind: Ears(kind) for kind in KINDS}
        self.probes: list[dict[str, Any]] = [{"name": "API", "http": self.target.url, **QUICK}]
        self.more: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._stack.enter_context(self.target)
        for ears in self.ears.values():
            self._stack.enter_context(ears.standin)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def config(self) -> dict[str, Any]:
        receivers: dict[str, Any] = {}
        top: dict[str, Any] = {"storage": {"url": self.url}, "server": {"public_url": "http://status.example"}}
        for kind, ears in self.ears.items():
            section = ears.config()
            receivers[kind] = section.pop("receivers")["oncall"]
            top |= section
        return {**top, "probes": self.probes, "receivers": receivers, **self.more}

    @asynccontextmanager
    async def watched(self, clock: Clock = wall, env: Mapping[str, str] = {}) -> AsyncIterator[Watched]:
        """Watchdog runs, until the block is left."""
        loaded = load(self.folder / "watchdog.yaml", json.dumps(self.config()), env)
        async with running(loaded, clock) as app:
            yield Watched(app)

    def heard(self) -> dict[str, list[Event]]:
        """What each heard, in order."""
        return {kind: list(ears.events) for kind, ears in self.ears.items()}

    def all_heard(self, *events: Event) -> bool:
        return all(told == list(events) for told in self.heard().values())


class Watched:
    """A running Watchdog, and what it has stored."""

    def __init__(self, app: App):
        self.app = app

    def ask(self, query: Callable[[sa.Connection], Any]) -> Any:
        with self.app.storage.database.read() as connection:
            return query(connection)

    def incidents(self) -> list[Incident]:
        """Newest first."""
        return [case.incident for case in self.ask(cases)]

    def outcomes(self) -> Counter[str]:
        counted = sa.select(results.c.outcome, sa.func.sum(results.c.n)).group_by(results.c.outcome)
        return Counter(dict(map(tuple, self.ask(lambda c: c.execute(counted).all()))))

    def unsent(self) -> int:
        return int(
            self.ask(lambda c: c.execute(sa.select(sa.func.count()).select_from(outbox).where(waiting)).scalar())
        )

    async def sees(self, outcome: str, more: int = 1) -> None:
        """So many more results of an outcome are stored, and all that they decide is told."""
        before = self.outcomes()[outcome]
        await until(lambda: self.outcomes()[outcome] >= before + more)
        await until(lambda: not self.unsent())


def letters(world: World) -> Iterator[str]:
    """The text of each email, in the order in which they came."""
    for mail in world.ears["email"].standin.heard:
        part = mail.letter.get_body(("plain",))
        yield part.get_content()
