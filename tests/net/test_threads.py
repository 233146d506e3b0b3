"""Blocking calls delay neither other callers, nor cancelled ones, nor the exit of the process."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.support.polling import wait_until_async
from watchdog.net.threads import run_in_daemon_thread


async def test_the_result_or_exception_is_passed_to_the_caller() -> None:
    assert await run_in_daemon_thread(lambda: threading.current_thread().name, "look up x") == "look up x"
    with pytest.raises(ZeroDivisionError):
        await run_in_daemon_thread(lambda: 1 / 0, "divide")


async def test_a_cancelled_caller_continues_while_the_thread_ends() -> None:
    let_go = threading.Event()
    asking = asyncio.create_task(run_in_daemon_thread(let_go.wait, "waits"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "waits"]
    assert thread.daemon
    let_go.set()
    await wait_until_async(lambda: not thread.is_alive())
