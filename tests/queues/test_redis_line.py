"""What we do about habits of the client of Redis."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from watchdog.queues.redis import spoken


async def _loses_a_cancellation() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


def test_a_cancellation_that_the_client_loses_gets_out_yet() -> None:
    async def look() -> None:
        with spoken():
            await _loses_a_cancellation()
        raise AssertionError("it went on")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(look())


def test_a_deadline_that_the_client_loses_is_one_yet() -> None:
    async def look() -> None:
        async with asyncio.timeout(0):
            with spoken(), suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(look())
