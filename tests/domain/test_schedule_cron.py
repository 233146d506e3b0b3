"""Cron expressions: their slots, and the errors for invalid expressions."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.domain.schedule import CronSchedule, CronScheduleError

BERLIN = "Europe/Berlin"


def ms(text: str, zone: str = "UTC") -> int:
    """ "2026-03-01 02:30" in a zone -> epoch milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def format_local(at: int, zone: str = "UTC") -> str:
    return f"{datetime.fromtimestamp(at / 1000, ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}".removesuffix(":00")


def slots(plan: CronSchedule, start: str, count: int) -> list[str]:
    at, slots = ms(start, plan.timezone) - 1, []
    for _ in range(count):
        at = plan.find_next_slot_after(at)
        slots.append(format_local(at, plan.timezone))
    return slots


@pytest.mark.parametrize(
    ("sentence", "expression", "expected"),
    [
        ("every five minutes", "*/5 * * * *", ["2026-07-01 00:00", "2026-07-01 00:05", "2026-07-01 00:10"]),
        ("weekday 1 is Monday", "0 9 * * 1", ["2026-07-06 09:00", "2026-07-13 09:00", "2026-07-20 09:00"]),
        ("weekday 0 is Sunday", "0 9 * * 0", ["2026-07-05 09:00", "2026-07-12 09:00", "2026-07-19 09:00"]),
        ("weekday 7 is also Sunday", "0 9 * * 7", ["2026-07-05 09:00", "2026-07-12 09:00", "2026-07-19 09:00"]),
        ("names of days", "0 9 * * mon-wed", ["2026-07-01 09:00", "2026-07-06 09:00", "2026-07-07 09:00"]),
        ("names of months", "0 0 1 AUG *", ["2026-08-01 00:00", "2027-08-01 00:00", "2028-08-01 00:00"]),
        ("day of the month or day of the week", "0 0 10 * MON",
         ["2026-07-06 00:00", "2026-07-10 00:00", "2026-07-13 00:00"]),
        ("a star in either field requires both", "0 0 */10 * MON",
         ["2026-08-31 00:00", "2026-09-21 00:00", "2026-12-21 00:00"]),
        ("the last day of the month", "0 0 L * *", ["2026-07-31 00:00", "2026-08-31 00:00", "2026-09-30 00:00"]),
        ("the first Monday", "0 0 * * MON#1", ["2026-07-06 00:00", "2026-08-03 00:00", "2026-09-07 00:00"]),
        ("six fields begin with the seconds", "*/20 0 * * * *",
         ["2026-07-01 00:00", "2026-07-01 00:00:20", "2026-07-01 00:00:40"]),
        ("29 February", "0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00", "2036-02-29 00:00"]),
        ("spaces do not matter", "  0   12 *  * * ", ["2026-07-01 12:00", "2026-07-02 12:00", "2026-07-03 12:00"]),
        ("? in the day of the month is a star", "0 9 ? * MON",
         ["2026-07-06 09:00", "2026-07-13 09:00", "2026-07-20 09:00"]),
        ("? in the day of the week is a star", "0 9 1 * ?",
         ["2026-07-01 09:00", "2026-08-01 09:00", "2026-09-01 09:00"]),
        ("? with the seconds first", "0 0 9 ? * MON", ["2026-07-06 09:00", "2026-07-13 09:00", "2026-07-20 09:00"]),
        ("hourly", "@hourly", ["2026-07-01 00:00", "2026-07-01 01:00", "2026-07-01 02:00"]),
        ("daily", "@daily", ["2026-07-01 00:00", "2026-07-02 00:00", "2026-07-03 00:00"]),
        ("midnight", "@midnight", ["2026-07-01 00:00", "2026-07-02 00:00", "2026-07-03 00:00"]),
        ("weekly is on Sunday", "@weekly", ["2026-07-05 00:00", "2026-07-12 00:00", "2026-07-19 00:00"]),
        ("monthly", "@monthly", ["2026-07-01 00:00", "2026-08-01 00:00", "2026-09-01 00:00"]),
        ("yearly", "@yearly", ["2027-01-01 00:00", "2028-01-01 00:00", "2029-01-01 00:00"]),
        ("annually", "@annually", ["2027-01-01 00:00", "2028-01-01 00:00", "2029-01-01 00:00"]),
        ("nicknames in any case", " @Daily ", ["2026-07-01 00:00", "2026-07-02 00:00", "2026-07-03 00:00"]),
    ],
)  # fmt: skip
def test_next_slot(sentence: str, expression: str, expected: list[str]) -> None:
    assert slots(CronSchedule(expression), "2026-07-01 00:00", 3) == expected, sentence


@pytest.mark.parametrize(
    ("sentence", "at", "before", "after"),
    [
        ("between two slots", "2026-07-01 00:02", "2026-07-01 00:00", "2026-07-01 00:05"),
        ("on a slot", "2026-07-01 00:05", "2026-07-01 00:05", "2026-07-01 00:10"),
        ("a millisecond before a slot", "2026-07-01 00:04:59.999", "2026-07-01 00:00", "2026-07-01 00:05"),
        ("a millisecond after a slot", "2026-07-01 00:05:00.001", "2026-07-01 00:05", "2026-07-01 00:10"),
        ("a second before a slot", "2026-07-01 00:04:59", "2026-07-01 00:00", "2026-07-01 00:05"),
        ("late in the second of a slot", "2026-07-01 00:05:00.999", "2026-07-01 00:05", "2026-07-01 00:10"),
    ],
)
def test_slots_around_an_instant(sentence: str, at: str, before: str, after: str) -> None:
    plan = CronSchedule("*/5 * * * *")
    assert (format_local(plan.find_latest_slot_until(ms(at))), format_local(plan.find_next_slot_after(ms(at)))) == (
        before,
        after,
    ), sentence
    assert plan.find_latest_slot_until(ms(at)) % 1000 == plan.find_next_slot_after(ms(at)) % 1000 == 0


def test_a_day_starts_at_midnight_of_the_time_zone() -> None:
    assert (
        format_local(CronSchedule("0 0 * * *", "Asia/Tokyo").find_next_slot_after(ms("2026-07-01 12:00")))
        == "2026-07-01 15:00"
    )
    assert (
        format_local(CronSchedule("0 0 * * *", BERLIN).find_next_slot_after(ms("2026-07-01 12:00")))
        == "2026-07-01 22:00"
    )
    assert (
        format_local(CronSchedule("0 0 * * *", "Asia/Kolkata").find_latest_slot_until(ms("2026-07-01 12:00")))
        == "2026-06-30 18:30"
    )


def test_description() -> None:
    assert CronSchedule("*/5 * * * *").description == "*/5 * * * * UTC"
    assert CronSchedule("@daily", BERLIN).description == "@daily Europe/Berlin"
    assert repr(CronSchedule("@daily", BERLIN)) == "CronSchedule(expression='@daily', timezone='Europe/Berlin')"


FIVE = "minute, hour, day of the month, month, day of the week"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("60 * * * *", "minute is '60', expected 0 to 59, a list, a range or a step"),
        ("* 24 * * *", "hour is '24', expected 0 to 23, a list, a range or a step"),
        ("0 0 0 * *", "day of the month is '0', expected 1 to 31, L, LW, a list, a range or a step"),
        ("0 0 32 * *", "day of the month is '32', expected 1 to 31, L, LW, a list, a range or a step"),
        ("0 0 1 13 *", "month is '13', expected 1 to 12, JAN to DEC, a list, a range or a step"),
        ("0 0 * * 8", "day of the week is '8', expected 0 to 7, SUN to SAT, MON#1, 5L, a list, a range or a step"),
        ("0 0 * * FUNDAY",
         "day of the week is 'FUNDAY', expected 0 to 7, SUN to SAT, MON#1, 5L, a list, a range or a step"),
        ("60 * * * * *", "second is '60', expected 0 to 59, a list, a range or a step"),
        ("* 60 * * * *", "minute is '60', expected 0 to 59, a list, a range or a step"),
        ("? * * * *", "minute is '?', expected 0 to 59, a list, a range or a step"),
        ("0 0 * ? *", "month is '?', expected 1 to 12, JAN to DEC, a list, a range or a step"),
        ("*/0 * * * *", "minute is '*/0', expected 0 to 59, a list, a range or a step"),
        ("30-10 * * * *", "minute is '30-10', expected 0 to 59, a list, a range or a step"),
        ("", f"expected 5 fields ({FIVE}) or 6 (seconds first), found 0"),
        ("* * * *", f"expected 5 fields ({FIVE}) or 6 (seconds first), found 4"),
        ("* * * * * * *", f"expected 5 fields ({FIVE}) or 6 (seconds first), found 7"),
        ("?", f"expected 5 fields ({FIVE}) or 6 (seconds first), found 1"),
        ("@reboot",
         "expected @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly or five fields"),
    ],
)  # fmt: skip
def test_invalid_expressions(expression: str, message: str) -> None:
    with pytest.raises(CronScheduleError) as caught:
        CronSchedule(expression)
    assert str(caught.value) == f"{expression!r} is not a cron expression: {message}"


@pytest.mark.parametrize(
    ("sentence", "expression"),
    [
        ("no February has 31 days", "0 0 31 2 *"),
        ("no April has 31 days", "0 0 31 4 *"),
        ("the last working day is never a Sunday", "0 0 LW * */7"),
    ],
)
def test_expressions_that_match_no_date(sentence: str, expression: str) -> None:
    with pytest.raises(CronScheduleError) as caught:
        CronSchedule(expression)
    assert str(caught.value) == f"{expression!r} matches no date", sentence


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("Europe/Berln", "unknown time zone 'Europe/Berln': did you mean Europe/Berlin?"),
        ("europe/berlin", "unknown time zone 'europe/berlin': did you mean Europe/Berlin?"),
        ("Mars/Base", "unknown time zone 'Mars/Base'"),
        ("", "unknown time zone ''"),
        ("Europe", "unknown time zone 'Europe'"),
        ("../UTC", "unknown time zone '../UTC'"),
        ("a." * 1000, f"unknown time zone '{'a.' * 40}…'"),
    ],
)
def test_unknown_zones(zone: str, message: str) -> None:
    with pytest.raises(CronScheduleError) as caught:
        CronSchedule("* * * * *", zone)
    assert str(caught.value) == message


def test_a_long_expression_is_not_quoted_in_full() -> None:
    with pytest.raises(CronScheduleError, match=r"^'x{80}…' is not a cron expression: expected 5 fields"):
        CronSchedule("x" * 1_000_000)
    with pytest.raises(CronScheduleError, match=r"minute is '9{80}…', expected 0 to 59"):
        CronSchedule("9" * 5_000 + " * * * *")
    with pytest.raises(CronScheduleError, match=r"^'x{80}' is not a cron expression"):
        CronSchedule("x" * 80)


@given(st.lists(st.text("0123456789*/,-?LW#@ MONJAN", max_size=6), max_size=7).map(" ".join) | st.text(max_size=20))
def test_any_text_is_a_schedule_or_a_schedule_error(expression: str) -> None:
    with suppress(CronScheduleError):
        plan = CronSchedule(expression)
        assert (
            plan.find_latest_slot_until(ms("2026-07-01"))
            <= ms("2026-07-01")
            < plan.find_next_slot_after(ms("2026-07-01"))
        )
