"""A Watchdog that dies at a named point: the real service, its seams wrapped from outside.

usage: python -m tests.crash.child CONFIG POINT EVENT MARKER      (POINT "none": it lives until it is told to stop)
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from watchdog.app import running
from watchdog.config import load
from watchdog.model import Event
from watchdog.notifiers.email import Email
from watchdog.notifiers.slack import Slack
from watchdog.notifiers.webhook import Webhook
from watchdog.service import delivery, members
from watchdog.store.claims import Claims
from watchdog.store.database import Database
from watchdog.store.journal import Journal
from watchdog.store.outbox import Outbox


def hasten() -> None:
    """A dead process holds its lease, and its slot is awaited, for as long as one alive might need: less here."""
    delivery.SEND, delivery.LEASE = 4.0, 5_000
    members.MARGIN, members.SILENT = 1_000, 60


def die(marker: Path) -> None:
    """As kill -9 would: nothing is flushed, nothing is caught; only the marker says where it was."""
    with marker.open("w") as file:
        file.write("here")
        file.flush()
        os.fsync(file.fileno())
    os.kill(os.getpid(), signal.SIGKILL)


def wrap(owner: Any, name: str, marker: Path, *, before: Any = None, after: Any = None) -> None:
    """Die before a call whose arguments, or after one whose answer, fulfil a condition."""
    original = getattr(owner, name)

    def enter(*args: Any) -> None:
        if before is not None and before(*args):
            die(marker)

    def leave(answer: Any, *args: Any) -> Any:
        if after is not None and after(answer, *args):
            die(marker)
        return answer

    @functools.wraps(original)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        enter(*args)
        return leave(await original(*args, **kwargs), *args)

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        enter(*args)
        return leave(original(*args, **kwargs), *args)

    setattr(owner, name, coroutine if asyncio.iscoroutinefunction(original) else function)


def wrap_commit(marker: Path, decided: Any) -> None:
    """Die after the transaction in which something was decided, whatever verb it belongs to."""
    noted = False
    advance, write = Journal._advance, Database.write

    def note(*args: Any, **kwargs: Any) -> Any:
        nonlocal noted
        changes = advance(*args, **kwargs)
        noted = noted or decided(changes)
        return changes

    @contextmanager
    def commit(database: Database) -> Iterator[Any]:
        with write(database) as connection:
            yield connection
        if noted:
            die(marker)

    Journal._advance = note  # type: ignore[method-assign]
    Database.write = commit  # type: ignore[assignment, method-assign]


def arm(point: str, event: Event, marker: Path) -> None:
    outcome = {Event.OPENED: "fail", Event.RESOLVED: "pass"}[event]

    def decided(changes: Any, *_: Any) -> bool:
        return any(change.event is event for change in changes)

    def telling(held: Any) -> bool:
        return bool(held.notification.event is event)

    points: dict[str, Any] = {
        "after claim": (Claims, "claim", {"after": lambda answer, *_: bool(answer[0])}),
        "before record": (
            Journal,
            "record",
            {"before": lambda _, batch, *__: any(r.result.outcome == outcome for r in batch)},
        ),
        "before commit": (Journal, "_advance", {"after": decided}),
        "after outbox claim": (Outbox, "claim", {"after": lambda answer, *_: any(map(telling, answer))}),
        "before mark": (Outbox, "sent", {"before": lambda _, held, *__: telling(held)}),
        "after mark": (Outbox, "sent", {"after": lambda _, __, held, *___: telling(held)}),
    }
    if point == "before bytes":
        for notifier in (Slack, Email, Webhook):
            wrap(notifier, "send", marker, before=lambda _, delivery: telling(delivery))
    elif point == "after commit":
        wrap_commit(marker, decided)
    elif point in points:
        owner, name, condition = points[point]
        wrap(owner, name, marker, **condition)
    elif point not in ("none", "before the 2xx"):  # at the latter the receiver kills us
        raise SystemExit(f"no such point: {point}")


async def main(config: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running(load(config)):
        print("up", flush=True)
        await stop.wait()


if __name__ == "__main__":
    hasten()
    arm(sys.argv[2], Event(sys.argv[3]), Path(sys.argv[4]))
    asyncio.run(main(Path(sys.argv[1])))
