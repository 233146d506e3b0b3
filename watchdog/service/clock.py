"""The one clock: read at the edge of each tick and passed down."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""-> milliseconds since the epoch."""


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
