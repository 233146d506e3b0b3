"""Waiting for what will happen, however slow the machine is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

POLL_TIMEOUT_S = 60.0
"""Seconds after which what should have happened counts as not happening."""


def wait_until(condition: Callable[[], object]) -> None:
    """Until it is true. Raises AssertionError when it never becomes so."""
    end = time.monotonic() + POLL_TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


async def wait_until_async(condition: Callable[[], object]) -> None:
    """The same, while the event loop goes on."""
    end = time.monotonic() + POLL_TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.02)
