"""Blocking calls hold up nobody: not who waits for others, not who has given up, not our exit."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.patience import until
from watchdog.wire.aside import aside


async def test_what_it_returns_and_what_it_raises_comes_back() -> None:
    assert await aside(lambda: threading.current_thread().name, "look up x") == "look up x"
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 / 0, "divide")


async def test_who_gives_up_goes_on_and_the_thread_ends_by_itself() -> None:
    let_go = threading.Event()
    asking = asyncio.create_task(aside(let_go.wait, "waits"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "waits"]
    assert thread.daemon
    let_go.set()
    await until(lambda: not thread.is_alive())
