"""Blocking calls, on threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


async def run_in_daemon_thread(function: Callable[[], T], thread_name: str) -> T:
    """What `work` returns or raises, on a thread of its own that is called `name`.

    Whoever gives up waiting leaves the thread to itself; it ends with the process. How many there are is the caller's
    to bound.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(tell: Callable[[], None]) -> None:
        if not answer.done():
            tell()

    def run() -> None:
        try:
            tell = partial(answer.set_result, function())
        except BaseException as e:
            tell = partial(answer.set_exception, e)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, tell)

    Thread(target=run, name=thread_name, daemon=True).start()
    return await answer
