"""Waits until a condition holds, also on a slow machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

POLL_TIMEOUT_S = 60.0
"""A condition that does not hold by then counts as failed."""
HANG_S = 30.0
"""A longer operation counts as hung. This is no limit on speed, which `./dev prove` measures."""


def wait_until(condition: Callable[[], object]) -> None:
    """Raises AssertionError if the condition never holds."""
    end = time.monotonic() + POLL_TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.05)


async def wait_until_async(condition: Callable[[], object]) -> None:
    """The same, without blocking the event loop."""
    end = time.monotonic() + POLL_TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        await asyncio.sleep(0.02)
