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

from watchdog.app import run_app
from watchdog.config.load import load_config
from watchdog.domain.model import IncidentEvent
from watchdog.notifiers.email import EmailNotifier
from watchdog.notifiers.slack import SlackNotifier
from watchdog.notifiers.webhook import WebhookNotifier
from watchdog.service import notifications, policies
from watchdog.store.database import Database
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.outbox import Outbox
from watchdog.store.write.recorder import ResultRecorder


def shorten_timeouts() -> None:
    """A dead process holds its lease, and its slot is awaited, for as long as one alive might need: less here."""
    notifications.SEND_TIMEOUT_S, notifications.NOTIFICATION_LEASE_MS = 4.0, 5_000
    policies.LATE_RESULT_MARGIN_MS, policies.STALE_AFTER_SLOTS = 1_000, 60


def kill_self(marker: Path) -> None:
    """As kill -9 would: nothing is flushed, nothing is caught; only the marker says where it was."""
    with marker.open("w") as file:
        file.write("here")
        file.flush()
        os.fsync(file.fileno())
    os.kill(os.getpid(), signal.SIGKILL)


def kill_around_call(owner: Any, name: str, marker: Path, *, before: Any = None, after: Any = None) -> None:
    """Die before a call whose arguments, or after one whose answer, fulfil a condition."""
    original = getattr(owner, name)

    def enter(*args: Any) -> None:
        if before is not None and before(*args):
            kill_self(marker)

    def leave(answer: Any, *args: Any) -> Any:
        if after is not None and after(answer, *args):
            kill_self(marker)
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


def kill_after_commit(marker: Path, should_kill: Any) -> None:
    """Die after the transaction in which something was decided, whatever verb it belongs to."""
    noted = False
    advance, write = ResultRecorder._fold_and_write, Database.write_transaction

    def note(*args: Any, **kwargs: Any) -> Any:
        nonlocal noted
        changes = advance(*args, **kwargs)
        noted = noted or should_kill(changes)
        return changes

    @contextmanager
    def commit(database: Database) -> Iterator[Any]:
        with write(database) as connection:
            yield connection
        if noted:
            kill_self(marker)

    ResultRecorder._fold_and_write = note  # type: ignore[method-assign]
    Database.write_transaction = commit  # type: ignore[assignment, method-assign]


def arm_kill_point(kill_point: str, event: IncidentEvent, marker: Path) -> None:
    outcome = {IncidentEvent.OPENED: "fail", IncidentEvent.RESOLVED: "pass"}[event]

    def decided(changes: Any, *_: Any) -> bool:
        return any(change.event is event for change in changes)

    def telling(held: Any) -> bool:
        return bool(held.notification.event is event)

    points: dict[str, Any] = {
        "after claim": (SlotClaimer, "claim", {"after": lambda answer, *_: bool(answer[0])}),
        "before record": (
            ResultRecorder,
            "record",
            {"before": lambda _, batch, *__: any(r.result.outcome == outcome for r in batch)},
        ),
        "before commit": (ResultRecorder, "_advance", {"after": decided}),
        "after outbox claim": (Outbox, "claim", {"after": lambda answer, *_: any(map(telling, answer))}),
        "before mark": (Outbox, "sent", {"before": lambda _, held, *__: telling(held)}),
        "after mark": (Outbox, "sent", {"after": lambda _, __, held, *___: telling(held)}),
    }
    if kill_point == "before bytes":
        for notifier in (SlackNotifier, EmailNotifier, WebhookNotifier):
            kill_around_call(notifier, "send", marker, before=lambda _, delivery: telling(delivery))
    elif kill_point == "after commit":
        kill_after_commit(marker, decided)
    elif kill_point in points:
        owner, name, condition = points[kill_point]
        kill_around_call(owner, name, marker, **condition)
    elif kill_point not in ("none", "before the 2xx"):  # at the latter the receiver kills us
        raise SystemExit(f"no such point: {kill_point}")


async def main(config: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with run_app(load_config(config)):
        print("up", flush=True)
        await stop.wait()


if __name__ == "__main__":
    shorten_timeouts()
    arm_kill_point(sys.argv[2], IncidentEvent(sys.argv[3]), Path(sys.argv[4]))
    asyncio.run(main(Path(sys.argv[1])))
