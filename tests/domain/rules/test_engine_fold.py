"""Folding of stored results: which slots it awaits, which it skips, and what it returns."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.support.builders import SLOT_INTERVAL_MS, alert_policy, describe_transitions, make_result, make_results
from watchdog.domain.model import ProbeResult, SuspectOrOpenAlertState
from watchdog.domain.rules import AlertStateFoldOutcome, AlertStates, fold_results_into_alert_states_in_place, stale

AVAILABILITY = ("availability", "")


def never(_: int) -> bool:
    return False


def always(_: int) -> bool:
    return True


def chain(*rows: tuple[int, int | None, str]) -> list[ProbeResult]:
    """(slot, the slot claimed before it, outcome), in minutes."""
    return [
        make_result(letter, slot, previous_slot=None if prev is None else prev * SLOT_INTERVAL_MS)
        for slot, prev, letter in rows
    ]


class Row(NamedTuple):
    sentence: str
    rows: list[ProbeResult]
    bad: int
    """The number of consecutive failures after the fold."""
    cursor: int
    hold: int | None = None
    lost: tuple[int, ...] = ()
    """Slots that are no longer awaited."""


TABLE = [
    Row("no rows leave the cursor unchanged", [], 0, 1),
    Row("contiguous rows are all folded", chain((2, 1, "f"), (3, 2, "f")), 2, 3),
    Row("the first slot has no previous slot", chain((2, None, "f")), 1, 2),
    Row("a row awaits the slot claimed before it", chain((3, 2, "f")), 0, 1, hold=2),
    Row("rows before a gap are folded", chain((2, 1, "f"), (4, 3, "f")), 1, 2, hold=3),
    Row("rows after a gap are not folded", chain((3, 2, "f"), (4, 3, "f")), 0, 1, hold=2),
    Row("a gap past its deadline is no longer awaited", chain((3, 2, "f")), 1, 3, lost=(2,)),
    Row("each gap is awaited separately", chain((3, 2, "f"), (5, 4, "f")), 1, 3, hold=4, lost=(2,)),
    Row("a previous slot at the cursor is not awaited", chain((4, 1, "f")), 1, 4),
    Row("a previous slot before the cursor is not awaited", chain((4, 0, "f")), 1, 4),
    Row(
        "a late row is not evaluated",
        [*chain((2, 1, "f")), make_result("f", 3, previous_slot=2 * SLOT_INTERVAL_MS, late=True)],
        1,
        2,
    ),
    Row(
        "a late row does not fill a gap",
        [make_result("f", 2, previous_slot=SLOT_INTERVAL_MS, late=True), *chain((3, 2, "f"))],
        0,
        1,
        hold=2,
    ),
    Row(
        "a late row awaits no slot",
        [make_result("f", 3, previous_slot=2 * SLOT_INTERVAL_MS, late=True), *chain((4, 1, "f"))],
        1,
        4,
    ),
    Row("a missed row fills a gap", [*chain((2, 1, "m")), *chain((3, 2, "f"))], 1, 3),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.sentence)
def test_table(row: Row) -> None:
    alert_states: AlertStates = {}
    done = fold_results_into_alert_states_in_place(
        alert_policy(9), alert_states, SLOT_INTERVAL_MS, row.rows, lambda slot: slot // SLOT_INTERVAL_MS in row.lost
    )
    assert (done.evaluated_until // SLOT_INTERVAL_MS, done.awaited_slot and done.awaited_slot // SLOT_INTERVAL_MS) == (
        row.cursor,
        row.hold,
    )
    assert alert_states.get(AVAILABILITY, SuspectOrOpenAlertState(0, 0, 0, None)).bad_count == row.bad
    assert done.alert_states_changed is (row.bad > 0)
    assert done.transitions == []


def test_folding_in_two_steps_equals_folding_in_one() -> None:
    rows = make_results("pffpffpfpp")
    at_once: AlertStates = {}
    whole = fold_results_into_alert_states_in_place(alert_policy(2, 2), at_once, 0, rows, never)
    for cut in range(len(rows) + 1):
        alert_states: AlertStates = {}
        first = fold_results_into_alert_states_in_place(alert_policy(2, 2), alert_states, 0, rows[:cut], never)
        second = fold_results_into_alert_states_in_place(
            alert_policy(2, 2), alert_states, first.evaluated_until, rows[cut:], never
        )
        assert alert_states == at_once
        assert first.transitions + second.transitions == whole.transitions
        assert second.evaluated_until == whole.evaluated_until or cut == len(rows)


class Changed(NamedTuple):
    sentence: str
    outcomes: str
    changed: bool


CHANGED = [
    Changed("passes change no state", "ppp", False),
    Changed("a failure changes the state", "pf", True),
    Changed("a failure and a pass change the state", "pfp", True),
    Changed("a failure and several passes change the state", "fppp", True),
    Changed("missed slots change no state", "mm", False),
    Changed("no rows change no state", "", False),
]


@pytest.mark.parametrize("row", CHANGED, ids=lambda row: row.sentence)
def test_alert_states_changed(row: Changed) -> None:
    alert_states: AlertStates = {}
    assert (
        fold_results_into_alert_states_in_place(
            alert_policy(3), alert_states, 0, make_results(row.outcomes), never
        ).alert_states_changed
        is row.changed
    )
    assert bool(alert_states) is row.outcomes.endswith("f")


def test_a_failure_while_open_changes_no_state() -> None:
    alert_states: AlertStates = {}
    fold_results_into_alert_states_in_place(alert_policy(1), alert_states, 0, make_results("f"), never)
    assert (
        fold_results_into_alert_states_in_place(
            alert_policy(1), alert_states, SLOT_INTERVAL_MS, make_results("ff", start=2), never
        ).alert_states_changed
        is False
    )


def test_a_change_before_a_gap_is_reported() -> None:
    done = fold_results_into_alert_states_in_place(alert_policy(1), {}, 0, chain((1, None, "f"), (3, 2, "p")), never)
    assert (done.alert_states_changed, done.awaited_slot, describe_transitions(done.transitions)) == (
        True, 2 * SLOT_INTERVAL_MS, ["opened availability at 1: http.503"],
    )  # fmt: skip


THRESHOLD_MS = 300_000


class StalenessCase(NamedTuple):
    sentence: str
    rows: list[ProbeResult]
    staleness_events: list[int]
    """The slots after which staleness was recorded."""
    changes: list[str]


STALENESS_CASES = [
    StalenessCase("stale after the last row", make_results("pp"), [2], ["opened stale at 2: no_data"]),
    StalenessCase(
        "stale before the first row",
        chain((5, None, "p")),
        [0],
        ["opened stale at 0: no_data", "resolved stale at 5"],
    ),
    StalenessCase(
        "stale between two rows, until the second",
        make_results("ppp"),
        [2],
        ["opened stale at 2: no_data", "resolved stale at 3"],
    ),
    StalenessCase(
        "staleness is applied after the row of its slot",
        make_results("pp"),
        [1],
        ["opened stale at 1: no_data", "resolved stale at 2"],
    ),
    StalenessCase(
        "each staleness event is one incident, in any order of input",
        make_results("ppp"),
        [3, 1],
        ["opened stale at 1: no_data", "resolved stale at 2", "opened stale at 3: no_data"],
    ),
    StalenessCase("stale without any row", [], [4], ["opened stale at 4: no_data"]),
    StalenessCase(
        "a missed row does not resolve staleness",
        [*make_results("p"), *chain((2, 1, "m"))],
        [1],
        ["opened stale at 1: no_data"],
    ),
    StalenessCase(
        "staleness before a gap is applied while the gap is awaited",
        [*make_results("p"), *chain((9, 8, "p"))],
        [1],
        ["opened stale at 1: no_data"],
    ),
    StalenessCase("staleness after a gap is not applied yet", [*make_results("p"), *chain((9, 8, "p"))], [9], []),
    StalenessCase(
        "staleness at the awaited slot is not applied yet", [*make_results("p"), *chain((9, 8, "p"))], [8], []
    ),
]


@pytest.mark.parametrize("row", STALENESS_CASES, ids=lambda row: row.sentence)
def test_staleness_events(row: StalenessCase) -> None:
    alert_states: AlertStates = {}
    staleness_events = [
        (slot * SLOT_INTERVAL_MS, THRESHOLD_MS, slot * SLOT_INTERVAL_MS + THRESHOLD_MS) for slot in row.staleness_events
    ]
    done = fold_results_into_alert_states_in_place(
        alert_policy(3, 3), alert_states, -1, row.rows, never, staleness_events
    )
    assert describe_transitions(done.transitions) == row.changes
    assert (stale.STALE_ALERT_STATE_KEY in alert_states) is (bool(row.changes) and "opened" in row.changes[-1])


def test_a_staleness_event_has_its_duration() -> None:
    done = fold_results_into_alert_states_in_place(
        alert_policy(), {}, 0, [], never, [(SLOT_INTERVAL_MS, 60_000, 0), (9 * SLOT_INTERVAL_MS, 300_000, 0)]
    )
    assert [change.message for change in done.transitions] == ["no result for 1\N{NO-BREAK SPACE}min"]


def test_a_fold_returns_how_far_it_evaluated() -> None:
    assert fold_results_into_alert_states_in_place(alert_policy(), {}, 5, [], always) == AlertStateFoldOutcome(
        5, None, False, []
    )


def test_a_fold_stops_at_a_result_that_is_held() -> None:
    rows = make_results("fff")
    rows[1] = rows[1]._replace(held_until=500)
    first, second, third = (row.slot for row in rows)
    done = fold_results_into_alert_states_in_place(alert_policy(3), {}, -1, rows, always, now=499)
    assert done == AlertStateFoldOutcome(first, None, alert_states_changed=True, transitions=[], held_until=500)
    assert first < second
    done = fold_results_into_alert_states_in_place(alert_policy(3), {}, -1, rows, always, now=500)
    assert (done.evaluated_until, done.held_until, len(done.transitions)) == (third, None, 1)


def test_a_fold_without_a_time_holds_every_result_that_is_held() -> None:
    held = make_results("f")[0]._replace(held_until=1)
    assert fold_results_into_alert_states_in_place(alert_policy(1), {}, -1, [held], always) == AlertStateFoldOutcome(
        -1, None, False, [], 1
    )
