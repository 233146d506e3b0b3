"""Whether what is stored is current: Watchdog runs, and its clock agrees with what it has stored. Pure."""

from __future__ import annotations

from watchdog.domain.formatting import format_duration_rounded

MAX_WATERMARK_DISTANCE_MS = 60_000
"""If the watermark is further away from now, behind or ahead, no stored state is current."""


def is_watermark_current(watermark: int | None, now: int, max_distance_ms: int = MAX_WATERMARK_DISTANCE_MS) -> bool:
    """`watermark`: None if Watchdog has never run."""
    return watermark is not None and abs(now - watermark) <= max_distance_ms


def describe_outdated_watermark(
    watermark: int | None,
    now: int,
    max_distance_ms: int = MAX_WATERMARK_DISTANCE_MS,
    *,
    event: str = "no probe has run",
) -> str:
    """Why stored states are not current; empty if they are. `event`: what has not taken place."""
    if is_watermark_current(watermark, now, max_distance_ms):
        return ""
    if watermark is None:
        return f"{event} yet"
    distance = format_duration_rounded(abs(now - watermark))
    return f"{event} for {distance}" if now > watermark else f"this clock is {distance} behind the newest run"


def describe_outdated_watermark_with_advice(watermark: int | None, now: int) -> str:
    """As `describe_outdated_watermark`, with what to do about it, for who is not in the process that runs probes."""
    problem = describe_outdated_watermark(watermark, now)
    if not problem:
        return ""
    if watermark is None:
        return f"{problem}: start `watchdog run`"
    return f"{problem}: is `watchdog run` running?" if now > watermark else problem
