"""Stored states are current while the watermark is close to the time, on either side of it."""

from __future__ import annotations

import pytest

from watchdog.domain.formatting import NBSP
from watchdog.domain.watermark import (
    MAX_WATERMARK_DISTANCE_MS,
    describe_outdated_watermark,
    describe_outdated_watermark_with_advice,
    is_watermark_current,
)

NOW, HOUR_MS = 1_795_312_087_000, 3_600_000


@pytest.mark.parametrize(
    ("watermark", "is_current"),
    [
        (None, False),
        (NOW, True),
        (NOW - MAX_WATERMARK_DISTANCE_MS, True),
        (NOW - MAX_WATERMARK_DISTANCE_MS - 1, False),
        (NOW + MAX_WATERMARK_DISTANCE_MS, True),
        (NOW + MAX_WATERMARK_DISTANCE_MS + 1, False),
    ],
)
def test_a_watermark_far_behind_or_ahead_is_outdated(watermark: int | None, is_current: bool) -> None:
    assert is_watermark_current(watermark, NOW) is is_current
    assert (describe_outdated_watermark(watermark, NOW) == "") is is_current
    assert (describe_outdated_watermark_with_advice(watermark, NOW) == "") is is_current


@pytest.mark.parametrize(
    ("watermark", "description", "explanation"),
    [
        (None, "no probe has run yet", ": start `watchdog run`"),
        (NOW - HOUR_MS, "no probe has run for 1 h", ": is `watchdog run` running?"),
        (NOW + HOUR_MS, "this clock is 1 h behind the newest run", ""),
    ],
)
def test_an_outdated_watermark_is_explained(watermark: int | None, description: str, explanation: str) -> None:
    assert describe_outdated_watermark(watermark, NOW).replace(NBSP, " ") == description
    assert describe_outdated_watermark_with_advice(watermark, NOW).replace(NBSP, " ") == description + explanation


@pytest.mark.parametrize("distance_ms", [5_000, -5_000])
def test_a_caller_may_accept_another_distance(distance_ms: int) -> None:
    watermark = NOW - distance_ms
    assert (is_watermark_current(watermark, NOW, 5_000), is_watermark_current(watermark, NOW, 4_999)) == (True, False)
    assert describe_outdated_watermark(watermark, NOW, 5_000) == ""
    assert describe_outdated_watermark(watermark, NOW, 4_999).replace(NBSP, " ") == (
        "no probe has run for 5 s" if distance_ms > 0 else "this clock is 5 s behind the newest run"
    )
