"""A Watchdog that is killed at a named point: the real service, with wrapped functions.

usage: python -m tests.support.crash_child CONFIG KILL_POINT EVENT MARKER   (KILL_POINT "none": it runs until SIGTERM)
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from watchdog.app import start_watchdog_service_and_stop_on_exit
from watchdog.config.load import load_config
from watchdog.domain import registered_probe, shared_cause
from watchdog.domain.model import IncidentEvent
from watchdog.notifiers.email import EmailNotifier
from watchdog.notifiers.slack import SlackNotifier
from watchdog.notifiers.webhook import WebhookNotifier
from watchdog.service import notifications, registration
from watchdog.store.database import Database
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.evaluation import AlertEvaluator
from watchdog.store.write.outbox import NotificationOutbox
from watchdog.store.write.recorder import ResultRecorder


def shorten_timeouts() -> None:
    """A killed process keeps its lease and its slots in flight for as long as a live one might need: here for less."""
    notifications.NOTIFICATION_SEND_TIMEOUT_S, notifications.NOTIFICATION_LEASE_MS = 4.0, 5_000
    registration.LATE_RESULT_STILL_EVALUATED_MARGIN_MS = 2_000 - 20_000  # less the timeout of the probes: 2 s in all
    registered_probe.STALE_AFTER_MISSING_SLOTS = 60
    shared_cause.MIN_GROUP_WINDOW_MS = 5_000


def kill_self(marker: Path) -> None:
    """Acts like kill -9: nothing is flushed or caught. The marker file proves that the point was reached."""
    with marker.open("w") as file:
        file.write("reached")
        file.flush()
        os.fsync(file.fileno())
    os.kill(os.getpid(), signal.SIGKILL)


def kill_around_call(
    owner: Any,
    name: str,
    marker: Path,
    *,
    before: Callable[..., bool] | None = None,
    after: Callable[..., bool] | None = None,
) -> None:
    """Kill the process before a call whose arguments, or after a call whose return value, meet a condition."""
    original = getattr(owner, name)

    def enter(*args: Any) -> None:
        if before is not None and before(*args):
            kill_self(marker)

    def leave(returned: Any, *args: Any) -> Any:
        if after is not None and after(returned, *args):
            kill_self(marker)
        return returned

    @functools.wraps(original)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        enter(*args)
        return leave(await original(*args, **kwargs), *args)

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        enter(*args)
        return leave(original(*args, **kwargs), *args)

    setattr(owner, name, coroutine if asyncio.iscoroutinefunction(original) else function)


def kill_after_commit(marker: Path, should_kill: Callable[[Any], bool]) -> None:
    """Kill the process after the transaction that evaluated the transition, whichever function ran it."""
    armed = False
    evaluate_probes, open_write_transaction = AlertEvaluator.evaluate_probes, Database.open_write_transaction

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        nonlocal armed
        transitions = evaluate_probes(*args, **kwargs)
        armed = armed or should_kill(transitions)
        return transitions

    @contextmanager
    def commit(database: Database, *, is_checked: bool = True) -> Iterator[Any]:
        with open_write_transaction(database, is_checked=is_checked) as connection:
            yield connection
        if armed:
            kill_self(marker)

    AlertEvaluator.evaluate_probes = evaluate  # type: ignore[method-assign]
    Database.open_write_transaction = commit  # type: ignore[assignment, method-assign]


def arm_kill_point(kill_point: str, event: IncidentEvent, marker: Path) -> None:
    outcome = "pass" if event is IncidentEvent.RESOLVED else "fail"

    def has_transition(transitions: Any, *_: Any) -> bool:
        return any(transition.event is event for transition in transitions)

    def is_for_event(request: Any) -> bool:
        return bool(request.notification.event is event)

    points: dict[str, Any] = {
        "after claim": (SlotClaimer, "claim_due_slots", {"after": lambda returned, *_: bool(returned[0])}),
        "before record": (
            ResultRecorder,
            "record_results",
            {"before": lambda _, batch, *__: any(recorded.result.outcome == outcome for recorded in batch)},
        ),
        "before commit": (AlertEvaluator, "evaluate_probes", {"after": has_transition}),
        "after outbox claim": (
            NotificationOutbox,
            "lease_due_notifications",
            {"after": lambda leased, *_: any(map(is_for_event, leased))},
        ),
        "before mark": (NotificationOutbox, "mark_sent", {"before": lambda _, leased, *__: is_for_event(leased)}),
        "after mark": (NotificationOutbox, "mark_sent", {"after": lambda _, __, leased, *___: is_for_event(leased)}),
    }
    if kill_point == "before bytes":
        for notifier in (SlackNotifier, EmailNotifier, WebhookNotifier):
            kill_around_call(notifier, "send", marker, before=lambda _, request: is_for_event(request))
    elif kill_point == "after commit":
        kill_after_commit(marker, has_transition)
    elif kill_point in points:
        owner, name, condition = points[kill_point]
        kill_around_call(owner, name, marker, **condition)
    elif kill_point not in ("none", "before the 2xx"):  # at the latter, the receiver kills this process
        raise SystemExit(f"no such kill point: {kill_point}")


async def main(config: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with start_watchdog_service_and_stop_on_exit(load_config(config)):
        print("up", flush=True)
        await stop.wait()


if __name__ == "__main__":
    shorten_timeouts()
    arm_kill_point(sys.argv[2], IncidentEvent(sys.argv[3]), Path(sys.argv[4]))
    asyncio.run(main(Path(sys.argv[1])))
