"""Blocking calls on daemon threads, which delay neither the event loop nor the exit of the process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import subprocess

T = TypeVar("T")


async def run_in_daemon_thread(function: Callable[[], T], thread_name: str) -> T:
    """Runs the function on a new thread and returns or raises what it does.

    If the caller is cancelled, the thread runs on; it ends with the process at the latest. The caller has to limit the
    number of threads.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def set_future_outcome_unless_done(set_outcome: Callable[[], None]) -> None:
        if not future.done():
            set_outcome()

    def run_function_and_settle_future() -> None:
        try:
            set_outcome = partial(future.set_result, function())
        except BaseException as error:
            set_outcome = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(set_future_outcome_unless_done, set_outcome)

    Thread(target=run_function_and_settle_future, name=thread_name, daemon=True).start()
    return await future


def reap_in_daemon_thread(process: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a process that was killed, so that no zombie is left."""
    Thread(target=process.wait, name="process-end", daemon=True).start()
