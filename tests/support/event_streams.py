"""A server with streams of events, in the test's own event loop, and those who follow them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
from fastapi import FastAPI

from tests.support.polling import HANG_S
from tests.support.web import DatabaseTransitionFeed, create_test_app
from watchdog.server import InboundConnectionGuard, InboundConnectionLimits, WebServer, open_listen_socket
from watchdog.store.database import Database

EVENTS = "/api/v1/events"


class ReceivedEvent(NamedTuple):
    id: int
    data: Any = None
    name: str = "message"


class EventFollower:
    """Reads a stream. Every event is awaited, for as long as a test may hang."""

    def __init__(self, response: httpx.Response):
        self.response, self._lines = response, response.aiter_lines()
        self.comments: list[str] = []

    async def read_event(self) -> ReceivedEvent | None:
        """The next event, also one that only has an id; None: the stream has ended."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(HANG_S):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if not line and "id" in fields:
                    data = json.loads(fields["data"]) if "data" in fields else None
                    return ReceivedEvent(int(fields["id"]), data, fields.get("event", "message"))
                if name:
                    fields[name] = value
                elif line:
                    self.comments.append(value)
        return None

    async def read_kinds(self, count: int) -> list[tuple[int, str]]:
        events = [await self.read_event() for _ in range(count)]
        return [(event.id, event.data["kind"]) for event in events if event is not None]

    async def read_comment(self) -> str:
        async with asyncio.timeout(HANG_S):
            async for line in self._lines:
                if line.startswith(":"):
                    return line
        raise AssertionError("the stream has ended")


class StreamServer:
    """`client`: its requests come from 127.0.0.1."""

    def __init__(self, client: httpx.AsyncClient, app: FastAPI, feed: DatabaseTransitionFeed):
        self.client, self.app, self.feed = client, app, feed

    @asynccontextmanager
    async def follow(
        self, last_event_id: int | None = None, headers: Mapping[str, str] = {}
    ) -> AsyncIterator[EventFollower]:
        """A stream, once its response has started."""
        resume = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        async with self.client.stream("GET", EVENTS, headers={**headers, **resume}) as response:
            assert response.status_code == 200, await response.aread()
            yield EventFollower(response)


@asynccontextmanager
async def running_stream_server(
    database: Database, *, port: int = 0, feed: DatabaseTransitionFeed | None = None, **options: Any
) -> AsyncIterator[StreamServer]:
    feed = feed or DatabaseTransitionFeed(database)
    app = create_test_app(database, transition_feed=feed, **options)
    limits = InboundConnectionLimits(total=64, reserved=16, per_address=64)
    with open_listen_socket("127.0.0.1", port) as listen_socket:
        server = WebServer(app, listen_socket, InboundConnectionGuard(limits), feed.end_subscriptions)
        url = f"http://127.0.0.1:{listen_socket.getsockname()[1]}"
        async with server, httpx.AsyncClient(base_url=url, timeout=HANG_S) as client:
            yield StreamServer(client, app, feed)
