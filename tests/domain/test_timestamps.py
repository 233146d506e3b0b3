"""Timestamps in the formats of other programs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from math import inf, nan
from zoneinfo import ZoneInfo

import pytest

from watchdog.domain.timestamps import (
    MAX_EPOCH_MS,
    parse_epoch_s_or_ms,
    parse_iso8601,
    parse_positive_ms,
    parse_timestamp_in_common_formats,
    to_epoch_ms,
)

NOON_UTC = 1_795_348_800_000
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 11, 22, 12, tzinfo=UTC), NOON_UTC),
        (datetime(2026, 11, 22, 14, tzinfo=timezone(timedelta(hours=2))), NOON_UTC),
        (datetime(2026, 11, 22, 13), NOON_UTC),  # noqa: DTZ001 - in Berlin
        (datetime(2026, 11, 22, 12, 0, 0, 1_500, tzinfo=UTC), NOON_UTC + 2),
        (datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), -1_000),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), -62_135_600_400_000),
    ],
)
def test_datetimes(moment: datetime, expected: int) -> None:
    assert to_epoch_ms(moment, BERLIN) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T12:00:00Z", NOON_UTC),
        ("2026-11-22T12:00:00.250Z", NOON_UTC + 250),
        (" 2026-11-22 13:00:00+01:00\n", NOON_UTC),
        ("2026-11-22 12:00:00", NOON_UTC),
        ("2026-11-22", NOON_UTC - 12 * 3_600_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ("", None),
        ("yesterday", None),
        ("1795348800", None),
        ("2026-13-01", None),
        (None, None),
        (1_795_348_800, None),
    ],
)
def test_iso_8601(text: object, expected: int | None) -> None:
    assert parse_iso8601(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T12:00:00Z", NOON_UTC),
        ("Sun, 22 Nov 2026 12:00:00 GMT", NOON_UTC),  # toUTCString of JavaScript
        ("Sun, 22 Nov 2026 13:00:00 +0100", NOON_UTC),
        ("Sun, 22 Nov 2026 13:00:00 +0100 (CET)", NOON_UTC),
        ("22 Nov 2026 12:00:00 -0000", NOON_UTC),
        ("22 Nov 2026 12:00:00 UT", NOON_UTC),
        ("2026-11-22 12:00:00 UTC", NOON_UTC),  # Ruby
        ("2026-11-22 13:00:00 +0100", NOON_UTC),
        ("2026-11-22 12:00:00.250 +0000 UTC", NOON_UTC + 250),  # Go
        ("2026-11-22 12:00:00.123456789 +0000 UTC m=+7.200012", NOON_UTC + 123),
        ("2026-11-22 13:00:00 +0100 CET", NOON_UTC),
        ("2026-11-22 15:00:00 +0300 +03", NOON_UTC),
        ("0001-01-01 00:00:00 +0000 UTC", -62_135_596_800_000),
        ("2026-11-22T12:00:00 GMT", NOON_UTC),
        ("2026-11-22 12:00:00 CET", None),  # a name alone is ambiguous
        ("Sun, 22 Nov 2026 12:00:00 EST", None),
        ("Sun, 22 Nov 2026 12:00:00", None),
        ("Sun, 32 Nov 2026 12:00:00 GMT", None),
        ("2026-13-22 12:00:00 UTC", None),
        ("22 Nov 99999 12:00:00 GMT", None),
        ("1795348800", None),
        ("yesterday", None),
        ("GMT", None),
        ("", None),
    ],
)
def test_printed_times(text: str, expected: int | None) -> None:
    assert parse_timestamp_in_common_formats(text) == expected


def test_iso_8601_without_a_zone_uses_the_given_zone() -> None:
    assert parse_iso8601("2026-11-22T13:00:00", BERLIN) == NOON_UTC
    assert parse_iso8601("2026-11-22T12:00:00Z", BERLIN) == NOON_UTC


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1_795_348_800, NOON_UTC),
        (NOON_UTC, NOON_UTC),
        (1_795_348_800.2504, NOON_UTC + 250),
        (Decimal("1795348800.25"), NOON_UTC + 250),
        (99_999_999_999, 99_999_999_999_000),
        (100_000_000_000, 100_000_000_000),
        (0, 0),
        (-1, -1_000),
        (nan, None),
        (inf, None),
        (Decimal("NaN"), None),
    ],
)
def test_epoch_numbers(number: float | Decimal, expected: int | None) -> None:
    assert parse_epoch_s_or_ms(number) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1795348800000", NOON_UTC),
        (1_795_348_800_000.9, NOON_UTC),
        ("1.5e3", 1_500),
        ("0", 0),
        (0, None),
        (None, None),
        ("", None),
        ("soon", None),
        (-1, None),
        (MAX_EPOCH_MS - 1, MAX_EPOCH_MS - 1),
        (MAX_EPOCH_MS, None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_milliseconds(value: str | float | None, expected: int | None) -> None:
    assert parse_positive_ms(value) == expected
