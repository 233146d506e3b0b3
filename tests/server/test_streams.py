"""Responses that last: others do not take their places, and they take none that is reserved."""

from __future__ import annotations

from dataclasses import replace

from tests.support.guard_harness import LIMITS, GuardHarness, Visitor, running_guard
from tests.support.polling import wait_until_async
from watchdog.server.connections import InboundConnectionTimeouts
from watchdog.server.guard import MIN_REPLACEABLE_CONNECTION_IDLE_S

STREAMS = 3
PATIENT_LIMITS = replace(LIMITS, timeouts=InboundConnectionTimeouts(*[1_000_000.0] * 3))


async def open_streams(harness: GuardHarness) -> list[Visitor]:
    visitors = [await harness.open_stream() for _ in range(STREAMS)]
    harness.pass_time(3_600)
    return visitors


async def test_idle_connections_do_not_replace_a_stream() -> None:
    """Each replaces the idle one that is longest without progress."""
    async with running_guard(PATIENT_LIMITS) as harness:
        streams = await open_streams(harness)
        others = []
        for _ in range(3 * LIMITS.total):
            others.append(await harness.connect())
            harness.pass_time(MIN_REPLACEABLE_CONNECTION_IDLE_S)
        assert all(map(harness.has_place, streams))
        assert sum(map(harness.has_place, others)) == LIMITS.total - STREAMS
        assert harness.counts == {"replaced": 3 * LIMITS.total - (LIMITS.total - STREAMS)}


async def test_the_share_of_an_address_does_not_end_its_streams() -> None:
    async with running_guard(replace(PATIENT_LIMITS, per_address=4)) as harness:
        streams = await open_streams(harness)
        others = []
        for _ in range(4):
            others.append(await harness.connect())
            harness.pass_time(MIN_REPLACEABLE_CONNECTION_IDLE_S)
        assert all(map(harness.has_place, streams))
        await wait_until_async(lambda: sum(map(harness.has_place, others)) == 1)
        assert harness.counts == {"address_share": 3}


async def test_streams_and_pages_leave_the_reserved_places_free() -> None:
    async with running_guard(PATIENT_LIMITS) as harness:
        streams = await open_streams(harness)
        pages = []
        for _ in range(LIMITS.total - LIMITS.reserved - STREAMS + 1):
            pages.append(await harness.request("/wait"))
            harness.pass_time(MIN_REPLACEABLE_CONNECTION_IDLE_S)
        assert [harness.has_place(page) for page in pages] == [False, True, True, True]
        check_ins = [await harness.request("/in/a/wait") for _ in range(LIMITS.reserved)]
        assert all(map(harness.has_place, [*streams, *pages[1:], *check_ins]))
        harness.may_respond.set()
        assert [await check_in.read_response() for check_in in check_ins] == [b"/in/a/wait"] * LIMITS.reserved
        assert all(map(harness.has_place, streams))


async def test_a_refused_stream_is_an_ordinary_request() -> None:
    async with running_guard(PATIENT_LIMITS) as harness:
        harness.stream_status = 401
        refused, *_ = await open_streams(harness)
        for _ in range(LIMITS.total):
            await harness.connect()
            harness.pass_time(MIN_REPLACEABLE_CONNECTION_IDLE_S)
        assert not harness.has_place(refused)
