"""When maintenance windows take place, and which probes they select."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.maintenance_windows import (
    ConfiguredMaintenanceWindow,
    MaintenanceOccurrence,
    MaintenanceWindow,
    describe_maintenance_mismatch,
    find_shortest_cron_interval_ms,
    parse_local_start_to_epoch_ms,
)
from watchdog.domain.model import ProbeInfo
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.schedule import CronSchedule

EVERYTHING = ProbeMatcher()


ANA = Actor("Ana", OperatorInterfaceKind.PAGE)


def at(text: str) -> int:
    """ "2026-12-01T22:00+01:00" -> epoch ms."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def recurring(schedule: str, timezone: str = "UTC", duration: int = HOUR_MS) -> ConfiguredMaintenanceWindow:
    return ConfiguredMaintenanceWindow("w", EVERYTHING, duration, schedule=CronSchedule(schedule, timezone))


def test_a_window_that_takes_place_once() -> None:
    start = at("2026-12-01T22:00+01:00")
    window = ConfiguredMaintenanceWindow("w", EVERYTHING, HOUR_MS, starts_at=start)
    occurrence = MaintenanceOccurrence(start, start + HOUR_MS)
    assert (window.find_occurrence_at(start - 1), window.find_next_occurrence_after(start - 1)) == (None, occurrence)
    assert (window.find_occurrence_at(start), window.find_next_occurrence_after(start)) == (occurrence, None)
    assert window.find_occurrence_at(start + HOUR_MS - 1) == occurrence
    assert window.find_occurrence_at(start + HOUR_MS) is None


def test_a_window_that_recurs() -> None:
    window = recurring("0 4 * * SUN")
    start = at("2026-11-29T04:00Z")
    assert window.find_occurrence_at(start - 1) is None
    assert window.find_occurrence_at(start + 1) == (start, start + HOUR_MS)
    assert window.find_next_occurrence_after(start) == (start + 7 * DAY_MS, start + 7 * DAY_MS + HOUR_MS)
    assert window.find_occurrence_at(start + HOUR_MS) is None


def test_a_recurring_window_whose_start_is_skipped_when_clocks_go_forward_starts_at_the_change() -> None:
    window = recurring("30 2 * * *", "Europe/Berlin")
    change = at("2026-03-29T03:00+02:00")
    assert window.find_next_occurrence_after(at("2026-03-28T12:00Z")) == (change, change + HOUR_MS)


def test_a_recurring_window_in_the_hour_that_comes_twice_takes_place_once_and_lasts_its_duration() -> None:
    window = recurring("30 2 * * *", "Europe/Berlin")
    first = at("2026-10-25T02:30+02:00")
    assert window.find_next_occurrence_after(at("2026-10-24T12:00Z")) == (first, first + HOUR_MS)
    assert window.find_occurrence_at(at("2026-10-25T02:15+01:00")) == (first, first + HOUR_MS)
    assert window.find_occurrence_at(at("2026-10-25T02:45+01:00")) is None


@pytest.mark.parametrize(
    ("text", "timezone", "instant"),
    [
        ("2026-12-01T22:00", "Europe/Berlin", "2026-12-01T22:00+01:00"),
        ("2026-12-01 22:00:30", "UTC", "2026-12-01T22:00:30+00:00"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T03:30+02:00"),
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T02:30+02:00"),
    ],
)
def test_start(text: str, timezone: str, instant: str) -> None:
    assert parse_local_start_to_epoch_ms(text, timezone) == at(instant)


@pytest.mark.parametrize(
    ("ended_at", "now", "state"),
    [
        (None, 9, "planned"),
        (None, 10, "in_effect"),
        (None, 19, "in_effect"),
        (None, 20, "ended"),
        (15, 15, "ended"),
        (15, 9, "ended"),
    ],
)
def test_the_state_of_a_window(ended_at: int | None, now: int, state: str) -> None:
    window = MaintenanceWindow(
        id="m-1", name="Move", matcher=ProbeMatcher(), starts_at=10, ends_at=20, ended_at=ended_at
    )
    assert (window.find_state(now).value, window.is_in_effect(now)) == (state, state == "in_effect")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tomorrow", "expected a local date and time such as 2026-12-01T22:00, found 'tomorrow'"),
        ("2026-12-01", "expected a local date and time"),
        ("2026-12-01T25:00", "expected a local date and time"),
        ("2026-02-30T10:00", "expected a local date and time"),
        ("1970-12-31T23:59", "expected a year from 1971 to 9998, found 1970"),
        ("9999-01-01T00:00", "expected a year from 1971 to 9998, found 9999"),
        ("2026-12-01T22:00+01:00", "without an offset"),
        ("2026-12-01T22:00Z", "without an offset"),
        ("x" * 500, "found '" + "x" * 40 + "'"),
    ],
)
def test_start_that_is_not_valid(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="expected") as raised:
        parse_local_start_to_epoch_ms(text, "Europe/Berlin")
    assert problem in str(raised.value)


def test_shortest_interval_of_a_schedule() -> None:
    assert find_shortest_cron_interval_ms(CronSchedule("0 4,6 * * *")) == 2 * HOUR_MS
    assert find_shortest_cron_interval_ms(CronSchedule("0 4 * * SUN")) == 7 * DAY_MS


def test_the_id_of_an_occurrence_depends_on_all_that_matters() -> None:
    window = recurring("0 4 * * SUN")
    occurrence = MaintenanceOccurrence(0, HOUR_MS)
    same = recurring("0 4 * * *")
    assert window.derive_occurrence_id(occurrence) == same.derive_occurrence_id(occurrence), "only this time counts"
    others = [
        ConfiguredMaintenanceWindow("other", EVERYTHING, HOUR_MS),
        ConfiguredMaintenanceWindow("w", ProbeMatcher(group="Core"), HOUR_MS),
        ConfiguredMaintenanceWindow("w", ProbeMatcher(tags=frozenset({"b", "a"})), HOUR_MS),
    ]
    ids = [window.derive_occurrence_id(occurrence), window.derive_occurrence_id(MaintenanceOccurrence(0, 1))]
    ids += [each.derive_occurrence_id(occurrence) for each in others]
    assert len(set(ids)) == len(ids)


def test_which_probes_a_window_selects() -> None:
    api = ProbeInfo(1, "api", "API", "http", group="Core", tags=("prod",))
    own = ProbeInfo(2, "watchdog", "Watchdog", "service")
    assert describe_maintenance_mismatch(ProbeMatcher(group="Core"), api) == ""
    assert describe_maintenance_mismatch(ProbeMatcher(group="Search"), api) == "group is Core, not Search"
    assert "only by id watchdog or kind service" in describe_maintenance_mismatch(EVERYTHING, own)
    assert describe_maintenance_mismatch(ProbeMatcher(probe="watchdog"), own) == ""
    assert describe_maintenance_mismatch(ProbeMatcher(kind="service"), own) == ""


def test_a_window_is_in_effect_until_it_ends() -> None:
    window = MaintenanceWindow(id="m-1", name="", matcher=EVERYTHING, starts_at=10, ends_at=20)
    assert [now for now in (9, 10, 19, 20) if window.is_in_effect(now)] == [10, 19]
    ended = MaintenanceWindow(id="m-1", name="", matcher=EVERYTHING, starts_at=10, ends_at=20, ended_at=15)
    assert not ended.is_in_effect(16)


def test_label() -> None:
    configured = MaintenanceWindow(id="c-1", name="Upgrade", matcher=EVERYTHING, starts_at=10, ends_at=20)
    actor = Actor("Ana", OperatorInterfaceKind.CLI)
    by_person = MaintenanceWindow(id="m-1", name="", matcher=EVERYTHING, starts_at=10, ends_at=20, actor=actor)
    assert (configured.label, by_person.label) == ("Upgrade", "m-1 (Ana)")


@pytest.mark.parametrize(
    ("sentence", "actor", "now", "can_be_ended"),
    [
        ("a person cancels what a person planned", ANA, 5, True),
        ("a person ends what a person began", ANA, 15, True),
        ("a window that is over cannot be ended", ANA, 25, False),
        ("a configured window is cancelled in the configuration", None, 5, False),
        ("a person ends a configured window that is in effect", None, 15, True),
    ],
)
def test_which_windows_can_be_ended(sentence: str, actor: Actor | None, now: int, can_be_ended: bool) -> None:
    window = MaintenanceWindow(id="m-1", name="Move", matcher=ProbeMatcher(), starts_at=10, ends_at=20, actor=actor)
    assert window.can_be_ended(now) is can_be_ended, sentence
    assert not window.was_cancelled
    assert [replace(window, ended_at=at).was_cancelled for at in (9, 10)] == [True, False]
