"""When an act ends, as people state it: a sentence for each row."""

from __future__ import annotations

import pytest

from tests.support.fixture_rows import NOW
from watchdog.domain.acts import OperatorActRefusedError
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.timestamps import parse_iso8601
from watchdog.service.act_input import parse_act_end, parse_act_instant

SPRING = parse_iso8601("2026-03-28T20:00:00Z") or 0
"""The evening before clocks go forward in Berlin."""


def test_now_is_the_time_that_the_rows_are_relative_to() -> None:
    assert parse_iso8601("2026-11-22T02:29:14Z") == NOW // 1000 * 1000


@pytest.mark.parametrize(
    ("text", "timezone", "expected", "why"),
    [
        ("2h", "UTC", NOW + 2 * HOUR_MS, "a duration counts from now"),
        (" for 1h30m ", "UTC", NOW + 90 * MINUTE_MS, "as the label puts it"),
        ("22:00", "UTC", "2026-11-22T22:00:00Z", "today"),
        ("until 22:00", "UTC", "2026-11-22T22:00:00Z", "as the label puts it"),
        ("22:00", "Europe/Berlin", "2026-11-22T21:00:00Z", "in the zone of the page"),
        ("3:30", "Europe/Berlin", "2026-11-22T02:30:00Z", "an hour without its zero"),
        ("02:29", "UTC", "2026-11-23T02:29:00Z", "a time that is over is tomorrow's"),
        ("01:00", "America/New_York", "2026-11-22T06:00:00Z", "its day is the 21st there, where it is 21:29"),
        ("21:00", "America/New_York", "2026-11-23T02:00:00Z", "which is over there"),
        ("22:00Z", "Europe/Berlin", "2026-11-22T22:00:00Z", "an offset is stronger than the zone"),
        ("22:00 UTC", "Europe/Berlin", "2026-11-22T22:00:00Z", "as a page shows it"),
        ("22:00+01:00", "UTC", "2026-11-22T21:00:00Z", "an offset"),
        ("2026-12-01 22:00", "Europe/Berlin", "2026-12-01T21:00:00Z", "a day and a time"),
        ("2026-12-01T22:00", "UTC", "2026-12-01T22:00:00Z", "as ISO 8601"),
        ("2026-12-01T22:00+01:00", "", "2026-12-01T21:00:00Z", "with an offset no zone is needed"),
        ("22:00Z", "", "2026-11-22T22:00:00Z", "with an offset no zone is needed"),
        ("2001-01-01 00:00", "UTC", "2001-01-01T00:00:00Z", "the act itself refuses the past"),
    ],
)
def test_an_end_is_a_duration_or_an_instant(text: str, timezone: str, expected: int | str, why: str) -> None:
    at = parse_iso8601(expected) if isinstance(expected, str) else expected
    assert parse_act_end(text, timezone, NOW) == at, why


def test_a_time_of_tomorrow_keeps_to_the_clock_when_clocks_change() -> None:
    at = parse_iso8601("2026-03-29T18:30:00Z")
    assert parse_act_instant("20:30", "Europe/Berlin", SPRING) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 hour",
        "soon",
        "90",
        "22",
        "24:00x",
        "25:00",
        "2026-12-01",
        "2026-13-01 22:00",
        "-1h",
        "0s",
        "9" * 400,
        "9999-12-31T23:59-14:00",
        "0001-01-01T00:00+14:00",
    ],
)
def test_another_text_is_refused_with_what_was_typed(text: str) -> None:
    with pytest.raises(OperatorActRefusedError, match="enter a duration, such as 30m, 4h or 2d, or a time,") as e:
        parse_act_end(text, "UTC", NOW)
    assert e.value.field == "end"
    assert (f"not '{text[:39]}" in str(e.value)) == bool(text)
    assert len(str(e.value)) < 200


@pytest.mark.parametrize(
    "timezone", ["Mars/Olympus", "../../etc/passwd", "Europe", "\0", "x" * 300, "a/" * 8_000 + "b"]
)
def test_a_zone_that_does_not_exist_is_refused(timezone: str) -> None:
    with pytest.raises(OperatorActRefusedError):
        parse_act_end("22:00", timezone, NOW)


@pytest.mark.parametrize("text", ["22:00", "2026-12-01 22:00"])
def test_a_program_states_the_zone(text: str) -> None:
    with pytest.raises(OperatorActRefusedError, match=r"add the time zone, such as \+01:00"):
        parse_act_instant(text, "", NOW)
