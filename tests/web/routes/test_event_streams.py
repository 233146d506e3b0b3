"""The stream of transitions over a real server: what it sends, who may follow it, how many, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.support.event_streams import EVENTS, ReceivedEvent, StreamServer, running_stream_server
from tests.support.polling import wait_until_async
from tests.support.store import DatabasePair
from tests.support.web import DatabaseTransitionFeed, create_test_app, request_page
from watchdog.domain.transitions import RecordedTransition, TransitionKind
from watchdog.service import transition_feed
from watchdog.service.transition_feed import MAX_WAITING_TRANSITIONS, TransitionSubscription
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.query import QueryResultT
from watchdog.store.transition_tables import transitions
from watchdog.store.write.transitions import number_transitions, record_transition
from watchdog.web import ApiKey
from watchdog.web.auth.session import SESSION_COOKIE_NAME, WEB_SESSION_LIFETIME_MS
from watchdog.web.routes import event_streams

NOW = 1_795_314_554_000
READER, OPERATOR = ApiKey("grafana", "reader", "read-me-0123456789"), ApiKey("ops", "operator", "operate-0123456789")


def bearer(key: ApiKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.secret}"}


def record(database: Database, *kinds: TransitionKind) -> None:
    with database.open_write_transaction() as connection:
        for kind in kinds:
            record_transition(connection, kind, NOW, message="m")


@pytest.fixture
async def server(database: Database) -> AsyncIterator[StreamServer]:
    async with running_stream_server(database) as server:
        yield server


async def test_transitions_arrive_in_order_and_continue_behind_an_id(database: Database, server: StreamServer) -> None:
    record(database, TransitionKind.OPENED)
    async with server.follow() as follower:
        headers = follower.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
        assert await follower.read_event() == ReceivedEvent(1)  # what happened before it is not repeated
        record(database, TransitionKind.PAUSED, TransitionKind.RESUMED)
        event = await follower.read_event()
        assert event == ReceivedEvent(
            2,
            {
                "id": 2,
                "kind": "paused",
                "at": "2026-11-22T02:29:14.000Z",
                **dict.fromkeys(
                    ("incident", "silence", "probe", "probe_name", "maintenance", "reason", "by", "through")
                ),
                "message": "m",
                "comment": "",
            },
        )
        assert await follower.read_kinds(1) == [(3, "resumed")]
    record(database, TransitionKind.SILENCED)
    async with server.follow(last_event_id=1) as follower:
        assert await follower.read_event() == ReceivedEvent(1)
        assert await follower.read_kinds(3) == [(2, "paused"), (3, "resumed"), (4, "silenced")]
        record(database, TransitionKind.UNSILENCED)
        assert await follower.read_kinds(1) == [(5, "unsilenced")]


async def test_an_act_over_the_api_is_an_event(database: Database, server: StreamServer) -> None:
    async with server.follow() as follower:
        await follower.read_event()
        body = {"match": {"group": "Core"}, "duration_ms": 60_000, "comment": "upgrade"}
        silence = (await server.client.post("/api/v1/silences", json=body)).json()["silence"]
        event = await follower.read_event()
        assert event is not None
        assert event.data | {"at": ""} == {
            "id": event.id,
            "kind": "silenced",
            "at": "",
            "silence": silence["id"],
            **dict.fromkeys(("incident", "probe", "probe_name", "maintenance", "reason")),
            "message": "",
            "by": "localhost",
            "through": "api",
            "comment": "upgrade",
        }


async def test_many_missed_transitions_in_pages(
    database: Database, server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "MAX_TRANSITIONS_PER_READ", 3)
    monkeypatch.setattr(transition_feed, "MAX_TRANSITIONS_PER_POLL", 3)
    record(database, *[TransitionKind.OPENED] * 10)
    async with server.follow(last_event_id=2) as follower:
        await follower.read_event()
        assert [id for id, _ in await follower.read_kinds(8)] == list(range(3, 11))
        record(database, *[TransitionKind.OPENED] * 10)
        assert [id for id, _ in await follower.read_kinds(10)] == list(range(11, 21))


@pytest.mark.parametrize(
    ("last_event_id", "sentence"),
    [(1, "deleted since"), (99, "of another database"), (0, "deleted since"), (3, "too many to repeat")],
)
async def test_a_client_that_cannot_continue_starts_anew(
    database: Database, server: StreamServer, monkeypatch: pytest.MonkeyPatch, last_event_id: int, sentence: str
) -> None:
    monkeypatch.setattr(event_streams, "MAX_RESUMED_TRANSITIONS", 2)
    record(database, *[TransitionKind.OPENED] * 6)
    number_transitions(database)
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(transitions).where(transitions.c.number <= 2))
    async with server.follow(last_event_id=last_event_id) as follower:
        assert await follower.read_event() == ReceivedEvent(6, {"after": last_event_id, "newest": 6}, "reset"), sentence
        record(database, TransitionKind.RESOLVED)
        assert await follower.read_kinds(1) == [(7, "resolved")]


async def test_two_processes_on_one_database(databases: DatabasePair) -> None:
    """Each delivers what the other stores, with the same ids."""
    async with running_stream_server(databases.first) as server, running_stream_server(databases.second) as other:
        async with server.follow() as follower, other.follow() as follower_of_other:
            for each in (follower, follower_of_other):
                await each.read_event()
            record(databases.first, TransitionKind.OPENED)
            record(databases.second, TransitionKind.RESOLVED)
            expected = [(1, "opened"), (2, "resolved")]
            assert await follower.read_kinds(2) == await follower_of_other.read_kinds(2) == expected
        record(databases.second, TransitionKind.PAUSED)
        async with server.follow(last_event_id=2) as follower:
            await follower.read_event()
            assert await follower.read_kinds(1) == [(3, "paused")]


async def test_the_database_is_read_once_for_all_streams_and_only_while_there_is_one(database: Database) -> None:
    reads = 0

    class CountingFeed(DatabaseTransitionFeed):
        async def _publish_new_transitions(self) -> int:
            nonlocal reads
            reads += 1
            return await super()._publish_new_transitions()

    async with running_stream_server(database, feed=CountingFeed(database)) as server:
        assert reads == 0
        async with AsyncExitStack() as stack:
            followers = [await stack.enter_async_context(server.follow()) for _ in range(4)]
            for follower in followers:
                await follower.read_event()
            polling = server.feed._polling
            assert polling is not None
            record(database, TransitionKind.OPENED)
            assert [await follower.read_kinds(1) for follower in followers] == [[(1, "opened")]] * 4
            assert server.feed._polling is polling
        await wait_until_async(polling.done)
        reads_with_streams = reads
        async with server.follow() as follower:
            assert await follower.read_event() == ReceivedEvent(1)
            assert reads > reads_with_streams


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({}, 401, "access.missing_key"),
        ({"Authorization": "Bearer wrong"}, 401, "access.invalid_key"),
        ({"Cookie": f"{SESSION_COOKIE_NAME}=x"}, 401, "access.session_expired"),
    ],
)
async def test_a_stream_requires_a_key(database: Database, headers: dict[str, str], status: int, reason: str) -> None:
    async with running_stream_server(database, api_keys=(READER, OPERATOR)) as server:
        response = await server.client.get(EVENTS, headers=headers)
        assert (response.status_code, response.json()["reason"]) == (status, reason)
        for key in (READER, OPERATOR):
            async with server.follow(headers=bearer(key)) as follower:
                assert await follower.read_event() == ReceivedEvent(0)


def test_without_keys_only_this_machine_may_follow(database: Database) -> None:
    response = request_page(create_test_app(database), EVENTS, client="203.0.113.9", host="status.acme.example")
    assert (response.status_code, response.json()["reason"]) == (403, "access.loopback_only")


@pytest.mark.parametrize(
    ("headers", "query"), [({"Last-Event-ID": "x"}, ""), ({"Last-Event-ID": "-1"}, ""), ({}, "?kind=opened")]
)
async def test_invalid_requests(server: StreamServer, headers: dict[str, str], query: str) -> None:
    response = await server.client.get(EVENTS + query, headers=headers)
    assert response.status_code == 422
    assert response.json()["detail"]


async def test_the_number_of_streams_is_limited(
    database: Database, server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In total, and of one client. The end of a stream frees its place."""
    places = find_places(server)
    monkeypatch.setattr(places, "max_streams", 8)
    async with server.follow() as follower, server.follow():
        response = await server.client.get(EVENTS)
        assert response.status_code == 503
        expected = "Your address has 2 streams open, and no more are possible. Close one, or try again later."
        assert response.json()["detail"] == expected
        server.feed.end_subscriptions()
        while await follower.read_event():
            pass
    await wait_until_async(lambda: not places._count_by_client)
    monkeypatch.setattr(places, "max_streams", 1)
    async with server.follow():
        response = await server.client.get(EVENTS)
        expected = "No more streams are possible: 1 are open. Close one, or try again later."
        assert (response.status_code, response.json()["detail"]) == (503, expected)
    await wait_until_async(lambda: not places._count_by_client)
    async with server.follow() as follower:
        assert await follower.read_event() == ReceivedEvent(0)


def find_places(server: StreamServer) -> Any:
    """The places of the application behind a server, which its middlewares wrap."""
    (route,) = (
        route
        for included in server.app.routes
        for route in getattr(getattr(included, "original_router", None), "routes", [included])
        if getattr(route, "path", "") == EVENTS
    )
    context = next(cell.cell_contents for cell in route.endpoint.__closure__ if hasattr(cell.cell_contents, "streams"))
    return context.streams.places


async def test_a_failed_request_holds_no_place(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_stream_server(database) as server:

        async def fail(query: Callable[[sa.Connection], QueryResultT]) -> QueryResultT:
            raise StoreUnavailableError("the file is locked")

        with monkeypatch.context() as patch:
            patch.setattr(server.feed, "_run_read_query", fail)
            response = await server.client.get(EVENTS)
            assert (response.status_code, response.headers["retry-after"]) == (503, "10")
        assert not find_places(server)._count_by_client
        async with server.follow() as follower:
            assert await follower.read_event() == ReceivedEvent(0)


async def test_a_session_that_ends_during_a_stream_ends_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "EVENT_STREAM_KEEP_ALIVE_S", 0.05)
    now = NOW
    async with running_stream_server(database, api_keys=(OPERATOR,), clock=lambda: now) as server:
        await server.client.post("/login", data={"key": OPERATOR.secret})
        async with server.follow() as follower, server.follow(headers=bearer(OPERATOR)) as with_key:
            assert await follower.read_event() == await with_key.read_event() == ReceivedEvent(0)
            assert await follower.read_comment() == ": still connected"
            now += WEB_SESSION_LIFETIME_MS
            assert await follower.read_event() is None
            record(database, TransitionKind.OPENED)
            assert await with_key.read_kinds(1) == [(1, "opened")]


async def test_signing_out_ends_the_streams_of_the_session(database: Database) -> None:
    async with running_stream_server(database, api_keys=(READER, OPERATOR)) as server:
        cookies = []
        for key in (READER, OPERATOR):
            server.client.cookies.clear()
            await server.client.post("/login", data={"key": key.secret})
            cookies.append({"Cookie": f"{SESSION_COOKIE_NAME}={server.client.cookies[SESSION_COOKIE_NAME]}"})
        server.client.cookies.clear()
        async with server.follow(headers=cookies[0]) as follower, server.follow(headers=cookies[1]) as other:
            assert await follower.read_event() == await other.read_event() == ReceivedEvent(0)
            await server.client.post("/logout", headers=cookies[0])
            assert await follower.read_event() is None
            record(database, TransitionKind.OPENED)
            assert await other.read_kinds(1) == [(1, "opened")]


async def test_shutdown_ends_each_stream_cleanly_and_it_continues_afterwards(database: Database) -> None:
    """A response that was cut off would raise RemoteProtocolError."""
    async with httpx.AsyncClient(timeout=60) as client, AsyncExitStack() as stack:
        async with running_stream_server(database) as server:
            port = server.client.base_url.port
            response = await stack.enter_async_context(client.stream("GET", f"{server.client.base_url}{EVENTS}"))
            lines = response.aiter_lines()
            assert await anext(lines) == "retry: 2000"
            record(database, TransitionKind.OPENED)
            while "opened" not in await anext(lines):
                pass
        assert [line async for line in lines if line] == []
        record(database, TransitionKind.RESOLVED)
        async with running_stream_server(database, port=port or 0) as server, server.follow(last_event_id=1) as resumed:
            await resumed.read_event()
            assert await resumed.read_kinds(1) == [(2, "resolved")]


async def test_a_stream_that_opens_during_a_reload_ends(database: Database) -> None:
    """It would belong to the former configuration."""

    class ReloadedFeed(DatabaseTransitionFeed):
        async def _publish_new_transitions(self) -> int:
            self.end_subscriptions()
            return await super()._publish_new_transitions()

    async with running_stream_server(database, feed=ReloadedFeed(database)) as server, server.follow() as follower:
        assert await follower.read_event() == ReceivedEvent(0)
        assert await follower.read_event() is None


async def test_a_database_that_is_away_for_a_while(
    database: Database, server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream stays, and delivers afterwards what happened."""
    failures = 0
    read = server.feed._run_read_query

    async def fail(query: Callable[[sa.Connection], QueryResultT]) -> QueryResultT:
        nonlocal failures
        failures += 1
        raise StoreUnavailableError("the file is locked")

    async with server.follow() as follower:
        await follower.read_event()
        monkeypatch.setattr(server.feed, "_run_read_query", fail)
        record(database, TransitionKind.OPENED)
        await wait_until_async(lambda: failures > 1)
        monkeypatch.setattr(server.feed, "_run_read_query", read)
        assert await follower.read_kinds(1) == [(1, "opened")]


async def test_a_fault_ends_the_streams_and_the_next_one_works(
    database: Database, server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> Any:
        raise ValueError

    async with server.follow() as follower:
        await follower.read_event()
        with monkeypatch.context() as patch:
            patch.setattr(server.feed, "_run_read_query", fail)
            assert await follower.read_event() is None
    record(database, TransitionKind.OPENED)
    async with server.follow(last_event_id=0) as follower:
        await follower.read_event()
        assert await follower.read_kinds(1) == [(1, "opened")]


async def test_a_follower_that_takes_nothing_is_dropped() -> None:
    """What waits for it is bounded; it gets that, and then its end."""
    subscription = TransitionSubscription(0)
    several = [RecordedTransition(number, TransitionKind.OPENED, NOW) for number in range(1, 401)]
    for _ in range(2):
        subscription.publish(several)
    had_ended = subscription.has_ended
    for _ in range(10):
        subscription.publish(several)
    assert (had_ended, subscription.has_ended) == (False, True)
    assert len(await subscription.take_waiting_transitions(0)) <= MAX_WAITING_TRANSITIONS
    assert await subscription.take_waiting_transitions(60) == []


async def test_a_client_that_does_not_read_is_dropped(
    database: Database, server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds no place, and the others get everything."""
    monkeypatch.setattr(transition_feed, "MAX_WAITING_TRANSITIONS", 20)
    monkeypatch.setattr(transition_feed, "MAX_TRANSITIONS_PER_POLL", 10)
    places, message = find_places(server), "x" * 200_000
    reader, writer = await asyncio.open_connection("127.0.0.1", server.client.base_url.port, limit=1_024)
    writer.write(f"GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    async with server.follow() as follower:
        await follower.read_event()
        assert len(server.feed._subscriptions) == 2
        for _ in range(100):
            if len(server.feed._subscriptions & ended(server)) == 1:
                break
            with database.open_write_transaction() as connection:
                for _ in range(10):
                    record_transition(connection, TransitionKind.OPENED, NOW, message=message)
            assert len(await follower.read_kinds(10)) == 10
        else:
            raise AssertionError("the client that does not read stays")
        writer.transport.abort()
        await wait_until_async(lambda: places._count_by_client == {"127.0.0.1": 1})


def ended(server: StreamServer) -> set[TransitionSubscription]:
    return {subscription for subscription in server.feed._subscriptions if subscription.has_ended}
