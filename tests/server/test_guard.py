"""Deadlines, shares and reserved places, on real sockets; the test sets the clock and calls the check of deadlines."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
import structlog

from tests.support.guard_harness import CONNECTION_TIMEOUTS, LARGE_BODY_BYTES, LIMITS, running_guard
from tests.support.polling import HANG_S, wait_until_async
from watchdog.server import InboundConnectionGuard, InboundConnectionLimits
from watchdog.server.guard import MIN_REPLACEABLE_CONNECTION_IDLE_S
from watchdog.server.turned_away import ConnectionTurnAwayReason


@pytest.mark.parametrize(
    ("sent", "deadline_s", "reason"),
    [
        ("GET / HTTP/1.1\r\nHost: a\r\nX-", CONNECTION_TIMEOUTS.head_s, "head_timeout"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r", CONNECTION_TIMEOUTS.head_s, "head_timeout"),
        ("\r\n", CONNECTION_TIMEOUTS.head_s, "head_timeout"),
        ("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx", CONNECTION_TIMEOUTS.body_s, "body_timeout"),
        (
            "POST /in/a/read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
            CONNECTION_TIMEOUTS.body_s,
            "body_timeout",
        ),
    ],
)
async def test_a_visitor_who_stops_sending(sent: str, deadline_s: float, reason: str) -> None:
    async with running_guard() as harness:
        visitor = await harness.connect()
        visitor.send(sent)
        connection = harness.guard.find_connection_of_peer(visitor.address)
        assert connection is not None
        await wait_until_async(lambda: connection.bytes_before_request)
        await wait_until_async(lambda: "read" not in sent or harness.started_paths)
        harness.pass_time(deadline_s - 1)
        assert harness.guard.find_connection_of_peer(visitor.address)
        harness.pass_time(1)
        assert await visitor.is_closed()
        assert harness.counts == {reason: 1}


async def test_bytes_now_and_then_do_not_move_the_deadline() -> None:
    async with running_guard() as harness:
        visitor = await harness.connect()
        connection = harness.guard.find_connection_of_peer(visitor.address)
        assert connection is not None
        for number, sent in enumerate("GET "):
            visitor.send(sent)
            await wait_until_async(lambda: connection.bytes_before_request > number)  # noqa: B023 - awaited here
            harness.pass_time(CONNECTION_TIMEOUTS.head_s / 4)
        assert await visitor.is_closed()
        assert harness.counts == {"head_timeout": 1}


async def test_a_visitor_who_sends_nothing_is_closed_and_not_counted() -> None:
    async with running_guard() as harness:
        visitor = await harness.connect()
        harness.pass_time(CONNECTION_TIMEOUTS.head_s)
        assert await visitor.is_closed()
        assert harness.counts == {}


async def test_a_visitor_who_does_not_read_the_response() -> None:
    async with running_guard() as harness:
        visitor = await harness.request("/large")
        harness.pass_time(1)
        harness.pass_time(CONNECTION_TIMEOUTS.write_s - 1)
        assert harness.guard.find_connection_of_peer(visitor.address)
        harness.pass_time(1)
        assert harness.guard.find_connection_of_peer(visitor.address) is None
        assert harness.counts == {"write_timeout": 1}


async def test_a_visitor_who_reads_slowly_gets_the_whole_response() -> None:
    async with running_guard() as harness:
        visitor = await harness.request("/large")
        await asyncio.wait_for(visitor.reader.readuntil(b"\r\n\r\n"), HANG_S)
        missing = LARGE_BODY_BYTES
        while missing:
            missing -= len(await asyncio.wait_for(visitor.reader.readexactly(min(missing, 8_000_000)), HANG_S))
            harness.pass_time(CONNECTION_TIMEOUTS.write_s - 1)
        assert harness.counts == {}


async def test_a_response_that_takes_long_is_not_the_visitors_fault() -> None:
    async with running_guard() as harness:
        visitor = await harness.request("/wait")
        harness.pass_time(10 * CONNECTION_TIMEOUTS.body_s)
        harness.may_respond.set()
        assert await visitor.read_response() == b"/wait"
        assert harness.counts == {}


async def test_a_visitor_who_goes_on_sending_after_the_response() -> None:
    async with running_guard() as harness:
        visitor = await harness.connect()
        visitor.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000000\r\n\r\n")
        assert await visitor.read_response() == b"/"
        with suppress(ConnectionError):
            for _ in range(4_000):
                visitor.send("x" * 65_536)
                await visitor.writer.drain()
        assert await visitor.is_closed()
        assert harness.counts == {"unread_body_too_long": 1}


async def test_a_body_behind_a_long_head_is_no_part_of_the_head() -> None:
    async with running_guard() as harness:
        visitor = await harness.connect()
        visitor.send(f"POST /read HTTP/1.1\r\nCookie: {'x' * 60_000}\r\nContent-Length: 200000\r\n\r\n{'x' * 200_000}")
        assert await visitor.read_response() == b"/read"


@pytest.mark.parametrize("count", [1, 1_000])
async def test_a_head_that_is_too_long(count: int) -> None:
    async with running_guard() as harness:
        visitor = await harness.connect()
        with suppress(ConnectionError):
            for number in range(100):
                visitor.send("GET / HTTP/1.1\r\n" if number == 0 else "x" * count + f": {'y' * 1_000}\r\n")
                await visitor.writer.drain()
        assert await visitor.read_response() == b"The head of the request is too long."
        assert harness.counts == {"head_too_long": 1}


async def test_a_body_that_no_page_reads_is_no_obstacle_to_the_next_request() -> None:
    async with running_guard() as harness:
        visitor = await harness.connect()
        for body in ("x" * 200_000, "", "x", "x" * 70_000):
            visitor.send(f"POST /{len(body)} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}")
            await visitor.writer.drain()
            assert await visitor.read_response() == f"/{len(body)}".encode()
        assert harness.counts == {}


@pytest.mark.parametrize(
    "rest", ["\r\n", "Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
async def test_requests_sent_in_advance_get_one_response(rest: str) -> None:
    async with running_guard() as harness:
        visitor = await harness.connect()
        visitor.send(f"POST /read HTTP/1.1\r\nHost: a\r\n{rest}" * 1_000)
        if "chunked" not in rest:  # otherwise the system may discard the response, because the connection is closed
            assert await visitor.read_response() == b"/read"
        assert await visitor.is_closed()
        assert harness.started_paths == ["/read"]
        assert harness.counts == ({} if "chunked" in rest else {"pipelined": 1}), (
            "a connection may end after a response"
        )


@pytest.mark.parametrize("split_at", range(1, 40, 3))
async def test_a_request_in_two_parts(split_at: int) -> None:
    request = "\r\nPOST /read HTTP/1.1\r\nContent-Length: 2\r\n\r\nok"
    async with running_guard() as harness:
        visitor = await harness.connect()
        for part in (request[:split_at], request[split_at:]):
            visitor.send(part)
            await asyncio.sleep(0.01)
        assert await visitor.read_response() == b"/read"
        visitor.send("GET /again HTTP/1.0\nHost: a\n\n" if split_at % 2 else "GET /again HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await asyncio.wait_for(visitor.reader.readline(), HANG_S)


async def test_the_connection_longest_without_progress_is_replaced() -> None:
    """Also one with a request in progress, before one that only sent a part of a head."""
    async with running_guard() as harness:
        busy = await harness.request("/wait")
        harness.pass_time(1)
        others = [await harness.connect() for _ in range(LIMITS.total - 1)]
        others[0].send("GET")
        harness.pass_time(1)
        newcomer = await harness.request("/newcomer")
        assert await newcomer.read_response() == b"/newcomer"
        assert await busy.is_closed()
        assert harness.counts == {"replaced": 1}


async def test_a_connection_is_not_replaced_while_its_request_may_be_on_its_way() -> None:
    async with running_guard() as harness:
        early = [await harness.connect() for _ in range(LIMITS.total)]
        late = [
            await asyncio.open_connection("127.0.0.1", harness.port)  # accepted by the system alone
            for _ in range(3)
        ]
        for visitor in early:
            visitor.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert await visitor.read_response() == b"/"
        for reader, writer in late:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert await asyncio.wait_for(reader.read(), HANG_S)
            writer.close()
        assert harness.counts == {}


async def test_pages_leave_the_reserved_places_to_check_ins_and_health() -> None:
    async with running_guard() as harness:
        pages = [await harness.request("/wait") for _ in range(LIMITS.total - LIMITS.reserved)]
        harness.pass_time(MIN_REPLACEABLE_CONNECTION_IDLE_S)
        check_ins = [await harness.request(path) for path in ("/in/token/wait", "/healthz")]
        await harness.request("/another/wait")
        assert await pages[0].is_closed()
        harness.may_respond.set()
        assert await check_ins[0].read_response() == b"/in/token/wait"
        assert await check_ins[1].read_response() == b"/healthz"
        assert harness.counts == {"replaced": 1}


async def test_a_check_in_is_not_replaced_while_check_ins_use_reserved_places_alone() -> None:
    async with running_guard() as harness:
        check_in = await harness.request("/in/token/wait")
        harness.pass_time(100)
        for _ in range(3 * LIMITS.total):
            await harness.connect()
            harness.pass_time(1)
        harness.may_respond.set()
        assert await check_in.read_response() == b"/in/token/wait"


async def test_check_ins_that_use_more_than_the_reserved_places_are_replaced_too() -> None:
    async with running_guard() as harness:
        stuck = [await harness.request("/in/token/wait") for _ in range(LIMITS.total)]
        harness.pass_time(100)
        newcomer = await harness.request("/in/token")
        assert await newcomer.read_response() == b"/in/token"
        assert await stuck[0].is_closed()
        assert harness.counts == {"replaced": 1}


async def test_an_address_that_has_more_than_its_share_replaces_its_own_connection() -> None:
    async with running_guard(
        InboundConnectionLimits(total=8, reserved=2, per_address=2, timeouts=CONNECTION_TIMEOUTS)
    ) as harness:
        other = await harness.connect("127.0.0.2")
        harness.pass_time(1)
        own = []
        for _ in range(3):
            own.append(await harness.connect("127.0.0.3"))
            harness.pass_time(1)
        assert await own[0].is_closed()
        assert harness.counts == {"address_share": 1}
        other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await other.read_response() == b"/"


async def test_no_address_loses_a_check_in_to_its_share() -> None:
    async with running_guard(
        InboundConnectionLimits(total=8, reserved=2, per_address=2, timeouts=CONNECTION_TIMEOUTS)
    ) as harness:
        check_ins = []
        for _ in range(6):
            check_ins.append(await harness.request("/in/token/wait"))
            harness.pass_time(1)
        harness.may_respond.set()
        for check_in in check_ins:
            assert await check_in.read_response() == b"/in/token/wait"


def test_a_flood_is_one_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    guard = InboundConnectionGuard(LIMITS)
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    try:
        for second in range(90):
            for number in range(2_000):
                guard.turned_away.record(ConnectionTurnAwayReason.REPLACED, f"10.0.{number // 200}.{number % 200}")
            guard.turned_away.record(ConnectionTurnAwayReason.PIPELINED, "10.0.0.1")
            guard.turned_away.log_turned_away_counts_if_due(1_000.0 + second)
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["visitor_count"], line["reasons"]) for line in lines] == [
        ("visitors_turned_away", 2_001, {"replaced": 2_000, "pipelined": 1}),
        ("visitors_turned_away", 120_060, {"replaced": 120_000, "pipelined": 60}),
    ]
    assert lines[1]["addresses"]["10.0.0.1"] == 120
    assert len(lines[1]["addresses"]) == 3
    assert guard.turned_away.counts[ConnectionTurnAwayReason.REPLACED] == 180_000
