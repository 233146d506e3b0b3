"""Passes stored transitions on to those who follow them in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import structlog

from watchdog.domain.transitions import RecordedTransition
from watchdog.store.errors import describe_store_error_unmasked
from watchdog.store.read.query import STORE_READ_QUERY_ERRORS, StoreReadRunner
from watchdog.store.read.status import Connection
from watchdog.store.read.transitions import (
    has_unnumbered_transitions,
    load_stored_transition_numbers,
    load_transitions_after,
)

TRANSITION_POLL_INTERVAL_S = 0.5
MAX_TRANSITIONS_PER_POLL = 500
MAX_WAITING_TRANSITIONS = 1_000
"""Transitions that wait for one follower; one that falls further behind is dropped, and may resume later."""

log = structlog.get_logger()


class TransitionSubscription:
    """What one follower has not taken yet. `starts_after`: the number of the last transition before it."""

    def __init__(self, starts_after: int):
        self.starts_after, self.has_ended = starts_after, False
        """It has ended because the process stops or is reconfigured, or because the follower was too slow."""
        self._waiting: list[RecordedTransition] = []
        self._changed = asyncio.Event()

    async def take_waiting_transitions(self, timeout_s: float) -> list[RecordedTransition]:
        """Empty if none has arrived within the timeout, or if the subscription has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        if not self.has_ended:
            self._changed.clear()
        waiting, self._waiting = self._waiting, []
        return waiting

    def publish(self, transitions: list[RecordedTransition]) -> None:
        if len(self._waiting) + len(transitions) > MAX_WAITING_TRANSITIONS:
            self.end()
        elif not self.has_ended:
            self._waiting += transitions
            self._changed.set()

    def end(self) -> None:
        self.has_ended = True
        self._changed.set()


class TransitionFeed:
    """Reads what is stored, whichever process stored it: once for all followers, and only while there is one.

    `number_stored_transitions`: gives new rows their numbers. Lives in one event loop.
    """

    def __init__(
        self,
        run_read_query: StoreReadRunner,
        number_stored_transitions: Callable[[], Awaitable[None]],
        poll_interval_s: float = TRANSITION_POLL_INTERVAL_S,
    ):
        self._run_read_query, self._number_stored_transitions = run_read_query, number_stored_transitions
        self._poll_interval_s = poll_interval_s
        self._subscriptions: set[TransitionSubscription] = set()
        self._polling: asyncio.Task[None] | None = None
        self._published_until: int | None = None
        """The number of the newest transition that was passed on; None: no one follows."""
        self._lock = asyncio.Lock()
        self._end_count = 0
        """How often all subscriptions were ended."""

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[TransitionSubscription]:
        """Raises one of STORE_READ_QUERY_ERRORS."""
        end_count = self._end_count
        async with self._lock:
            subscription = TransitionSubscription(await self._publish_new_transitions())
            self._subscriptions.add(subscription)
            if self._polling is None:
                self._polling = asyncio.create_task(self._poll_while_followed(), name="transition-feed")
        if end_count != self._end_count:  # all were ended while this one waited for the database
            subscription.end()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def end_subscriptions(self) -> None:
        """Every follower gets what has arrived for it, and then its end."""
        self._end_count += 1
        for subscription in self._subscriptions:
            subscription.end()

    async def _poll_while_followed(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._poll_interval_s)
                async with self._lock:
                    if not self._subscriptions:
                        self._polling = self._published_until = None
                        return
                    try:
                        await self._publish_new_transitions()
                    except STORE_READ_QUERY_ERRORS as e:
                        log.debug(
                            "transitions_not_read", error=describe_store_error_unmasked(e)
                        )  # the next poll reads them
        except Exception:
            log.exception("transition_feed_failed")
            self._polling = self._published_until = None
            self.end_subscriptions()  # followers resume with a new task

    async def _publish_new_transitions(self) -> int:
        """The number of the newest one."""
        if self._published_until is None:
            await self._number_stored_transitions()
            self._published_until = (await self._run_read_query(load_stored_transition_numbers)).newest
        while True:
            published_until = self._published_until
            is_unnumbered, transitions = await self._run_read_query(
                partial(_load_transitions_and_whether_some_are_unnumbered, after=published_until)
            )
            if transitions:
                self._published_until = transitions[-1].number
                for subscription in self._subscriptions:
                    subscription.publish(transitions)
            if is_unnumbered:
                await self._number_stored_transitions()
            elif len(transitions) < MAX_TRANSITIONS_PER_POLL:
                return self._published_until


def _load_transitions_and_whether_some_are_unnumbered(
    connection: Connection, after: int
) -> tuple[bool, list[RecordedTransition]]:
    """Whether some have no number yet, and those that have one."""
    return has_unnumbered_transitions(connection), load_transitions_after(connection, after, MAX_TRANSITIONS_PER_POLL)
