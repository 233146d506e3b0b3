"""Streams of transitions as Server-Sent Events: how many there may be, and what each sends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from watchdog.api.serializers.transitions import StreamResetJson, serialize_transition
from watchdog.domain.client_addresses import get_address_or_ipv6_subscriber_network
from watchdog.domain.formatting import format_number
from watchdog.domain.transitions import RecordedTransition
from watchdog.service.process_resources import derive_event_stream_limit_from_rlimit
from watchdog.service.transition_feed import TransitionFeed, TransitionSubscription
from watchdog.store.read.query import STORE_READ_QUERY_TIMEOUT_S, StoreReadRunner
from watchdog.store.read.transitions import load_stored_transition_numbers, load_transitions_after
from watchdog.web.auth.session import SESSION_COOKIE_NAME
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.routes.api_v1.responses import encode_json
from watchdog.web.templating import NO_STORE_HEADERS

EVENT_STREAM_MEDIA_TYPE = "text/event-stream"
EVENT_STREAM_HEADERS = {**NO_STORE_HEADERS, "X-Accel-Buffering": "no"}
"""The second keeps nginx from holding events back."""
EVENT_STREAM_KEEP_ALIVE_S = 15.0
EVENT_STREAM_RETRY_MS = 2_000
"""After this time a browser connects again."""
MAX_RESUMED_TRANSITIONS = 2_000
"""Transitions that a stream repeats for a client that resumes; one that has missed more starts anew."""
MAX_TRANSITIONS_PER_READ = 200
RESET_EVENT = "reset"
TOO_MANY_EVENT_STREAMS_ADVICE = "Close one, or try again later."


class EventStreamPlaces:
    """Counts the streams of this process and of each client, which may have a quarter of them. A client is an address,
    or an IPv6 network of 64 bits."""

    def __init__(self) -> None:
        self.max_streams = derive_event_stream_limit_from_rlimit()
        self._count_by_client: Counter[str] = Counter()

    def take(self, client: str) -> None:
        """Raises HttpErrorResponseError if there is no place."""
        total, of_client = self._count_by_client.total(), max(self.max_streams // 4, 1)
        if total >= self.max_streams:
            count = format_number(self.max_streams)
            raise HttpErrorResponseError(
                503, f"No more streams are possible: {count} are open. {TOO_MANY_EVENT_STREAMS_ADVICE}"
            )
        if self._count_by_client[client] >= of_client:
            count = format_number(of_client)
            message = (
                f"Your address has {count} streams open, and no more are possible. {TOO_MANY_EVENT_STREAMS_ADVICE}"
            )
            raise HttpErrorResponseError(503, message)
        self._count_by_client[client] += 1

    def give_back(self, client: str) -> None:
        self._count_by_client[client] -= 1
        if not self._count_by_client[client]:
            del self._count_by_client[client]


class EventStreams:
    """Opens streams of transitions, and ends those of a session."""

    def __init__(self, feed: TransitionFeed, run_read_query: StoreReadRunner):
        self._feed, self._run_read_query, self.places = feed, run_read_query, EventStreamPlaces()
        self._sessions: dict[TransitionSubscription, str] = {}

    async def open(self, request: Request, resume_after: int | None, is_allowed: Callable[[], bool]) -> EventStream:
        """`resume_after`: the id of the last event that the client has. `is_allowed`: whether the client may still
        read. Raises HttpErrorResponseError if there is no place, or one of STORE_READ_QUERY_ERRORS."""
        client = get_address_or_ipv6_subscriber_network(request.client.host if request.client else "")
        async with AsyncExitStack() as stack:
            self.places.take(client)
            stack.callback(self.places.give_back, client)
            async with asyncio.timeout(STORE_READ_QUERY_TIMEOUT_S):
                subscription = await stack.enter_async_context(self._feed.subscribe())
                missed = await self._load_missed_transitions(resume_after, subscription.starts_after)
            self._sessions[subscription] = request.cookies.get(SESSION_COOKIE_NAME, "")
            stack.callback(self._sessions.pop, subscription)
            return EventStream(_send_events(subscription, resume_after, missed, is_allowed), stack.pop_all())

    def end_session(self, cookie: str) -> None:
        """End the streams of a session that was signed out."""
        for subscription, session in self._sessions.items():
            if session and session == cookie:
                subscription.end()

    async def _load_missed_transitions(
        self, resume_after: int | None, until: int
    ) -> list[RecordedTransition] | None:  # fmt: skip
        """Those between two numbers; None: some are no longer stored, or they are too many."""
        if resume_after is None:
            return []
        stored = await self._run_read_query(load_stored_transition_numbers)
        is_stored = stored.oldest <= resume_after + 1 and resume_after <= until
        if not is_stored or until - resume_after > MAX_RESUMED_TRANSITIONS:
            return None
        missed: list[RecordedTransition] = []
        while (after := missed[-1].number if missed else resume_after) < until:
            limit = min(MAX_TRANSITIONS_PER_READ, until - after)
            read = await self._run_read_query(partial(load_transitions_after, number=after, limit=limit))
            if not read:
                return None  # they were deleted in the meantime
            missed += read
        return missed


class EventStream(StreamingResponse):
    """A response that lasts. `held`: what it gives back when it is over, whether or not it has sent anything."""

    def __init__(self, events: AsyncIterator[bytes], held: AsyncExitStack):
        super().__init__(events, media_type=EVENT_STREAM_MEDIA_TYPE, headers=EVENT_STREAM_HEADERS)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


async def _send_events(
    subscription: TransitionSubscription,
    resume_after: int | None,
    missed: list[RecordedTransition] | None,
    is_allowed: Callable[[], bool],
) -> AsyncIterator[bytes]:
    """What the client has missed, and then each transition as it is read, until the subscription ends."""
    start = b"retry: %d\n" % EVENT_STREAM_RETRY_MS
    if missed is None:
        reset: StreamResetJson = {"after": resume_after or 0, "newest": subscription.starts_after}
        yield start + _encode_event(subscription.starts_after, reset, RESET_EVENT)
    else:
        first_id = subscription.starts_after if resume_after is None else resume_after
        yield start + b"id: %d\n\n" % first_id
    for transition in missed or ():
        yield _encode_event(transition.number, serialize_transition(transition))
    while is_allowed():
        transitions = await subscription.take_waiting_transitions(EVENT_STREAM_KEEP_ALIVE_S)
        if not is_allowed():
            return
        for transition in transitions:
            yield _encode_event(transition.number, serialize_transition(transition))
        if subscription.has_ended:
            return
        if not transitions:
            yield b": still connected\n\n"


def _encode_event(number: int, data: object, event: str = "") -> bytes:
    """JSON has no line breaks, so that the data is one line."""
    name = f"event: {event}\n".encode() if event else b""
    return b"%sid: %d\ndata: %s\n\n" % (name, number, encode_json(data))
