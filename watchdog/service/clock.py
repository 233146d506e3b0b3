"""The wall clock: read once at the start of each background task and passed down."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Returns epoch ms."""


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
