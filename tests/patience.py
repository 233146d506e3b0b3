"""Waiting for what will happen, however slow the machine is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which what should have happened counts as not happening."""


def wait(what: Callable[[], object]) -> None:
    """Until it is true. Raises AssertionError when it never becomes so."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


async def until(what: Callable[[], object]) -> None:
    """The same, while the event loop goes on."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.02)
