"""The fold over stored rows: what it waits for, what it passes over, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.support.builders import SLOT_INTERVAL_MS, alert_policy, describe_transitions, make_result, make_results
from watchdog.domain.model import AlertState, Result
from watchdog.domain.rules import AlertStates, FoldResult, fold_results, stale

AVAILABILITY = ("availability", "")
NEVER: Callable[[int], bool] = lambda _: False  # noqa: E731 (a named constant like the one below)
ALWAYS: Callable[[int], bool] = lambda _: True  # noqa: E731


def chain(*rows: tuple[int, int | None, str]) -> list[Result]:
    """(slot, the slot claimed before it, outcome), in minutes."""
    return [
        make_result(letter, slot, previous_slot=None if prev is None else prev * SLOT_INTERVAL_MS)
        for slot, prev, letter in rows
    ]


class Row(NamedTuple):
    sentence: str
    rows: list[Result]
    bad: int
    """How many failures in a row are folded in the end."""
    cursor: int
    hold: int | None = None
    lost: tuple[int, ...] = ()
    """Slots whose lateness has passed."""


TABLE = [
    Row("nothing to fold leaves the cursor", [], 0, 1),
    Row("rows that follow each other are folded to the last", chain((2, 1, "f"), (3, 2, "f")), 2, 3),
    Row("the first slot of all has none before it", chain((2, None, "f")), 1, 2),
    Row("a row waits for the slot claimed before it", chain((3, 2, "f")), 0, 1, hold=2),
    Row("what came before the hole is folded", chain((2, 1, "f"), (4, 3, "f")), 1, 2, hold=3),
    Row("nothing behind a hole is folded", chain((3, 2, "f"), (4, 3, "f")), 0, 1, hold=2),
    Row("a hole whose lateness has passed is awaited no more", chain((3, 2, "f")), 1, 3, lost=(2,)),
    Row("each hole is awaited for itself", chain((3, 2, "f"), (5, 4, "f")), 1, 3, hold=4, lost=(2,)),
    Row("a slot at the cursor is not awaited: it is folded", chain((4, 1, "f")), 1, 4),
    Row("nor is one before it", chain((4, 0, "f")), 1, 4),
    Row(
        "a late row is not judged",
        [*chain((2, 1, "f")), make_result("f", 3, previous_slot=2 * SLOT_INTERVAL_MS, late=True)],
        1,
        2,
    ),
    Row(
        "a late row does not fill a hole",
        [make_result("f", 2, previous_slot=SLOT_INTERVAL_MS, late=True), *chain((3, 2, "f"))],
        0,
        1,
        hold=2,
    ),
    Row(
        "a late row awaits nothing",
        [make_result("f", 3, previous_slot=2 * SLOT_INTERVAL_MS, late=True), *chain((4, 1, "f"))],
        1,
        4,
    ),
    Row("a missed row fills a hole", [*chain((2, 1, "m")), *chain((3, 2, "f"))], 1, 3),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.sentence)
def test_table(row: Row) -> None:
    machines: AlertStates = {}
    done = fold_results(
        alert_policy(9), machines, SLOT_INTERVAL_MS, row.rows, lambda slot: slot // SLOT_INTERVAL_MS in row.lost
    )
    assert (done.evaluated_until // SLOT_INTERVAL_MS, done.awaited_slot and done.awaited_slot // SLOT_INTERVAL_MS) == (
        row.cursor,
        row.hold,
    )
    assert machines.get(AVAILABILITY, AlertState(0, 0, 0, None)).bad_count == row.bad
    assert done.alert_states_changed is (row.bad > 0)
    assert done.transitions == []


def test_folding_in_two_goes_is_folding_in_one() -> None:
    rows = make_results("pffpffpfpp")
    at_once: AlertStates = {}
    whole = fold_results(alert_policy(2, 2), at_once, 0, rows, NEVER)
    for cut in range(len(rows) + 1):
        machines: AlertStates = {}
        first = fold_results(alert_policy(2, 2), machines, 0, rows[:cut], NEVER)
        second = fold_results(alert_policy(2, 2), machines, first.evaluated_until, rows[cut:], NEVER)
        assert machines == at_once
        assert first.transitions + second.transitions == whole.transitions
        assert second.evaluated_until == whole.evaluated_until or cut == len(rows)


class Changed(NamedTuple):
    sentence: str
    outcomes: str
    changed: bool


CHANGED = [
    Changed("passes change nothing", "ppp", False),
    Changed("a failure changes something", "pf", True),
    Changed("it still did when a pass changed it back", "pfp", True),
    Changed("and however many passes come after", "fppp", True),
    Changed("missed slots change nothing", "mm", False),
    Changed("nothing changes nothing", "", False),
]


@pytest.mark.parametrize("row", CHANGED, ids=lambda row: row.sentence)
def test_changed(row: Changed) -> None:
    machines: AlertStates = {}
    assert (
        fold_results(alert_policy(3), machines, 0, make_results(row.outcomes), NEVER).alert_states_changed
        is row.changed
    )
    assert bool(machines) is row.outcomes.endswith("f")


def test_a_failure_while_open_changes_nothing() -> None:
    machines: AlertStates = {}
    fold_results(alert_policy(1), machines, 0, make_results("f"), NEVER)
    assert (
        fold_results(
            alert_policy(1), machines, SLOT_INTERVAL_MS, make_results("ff", start=2), NEVER
        ).alert_states_changed
        is False
    )


def test_a_change_before_a_gap_is_reported() -> None:
    done = fold_results(alert_policy(1), {}, 0, chain((1, None, "f"), (3, 2, "p")), NEVER)
    assert (done.alert_states_changed, done.awaited_slot, describe_transitions(done.transitions)) == (
        True, 2 * SLOT_INTERVAL_MS, ["opened availability at 1: http.status"],
    )  # fmt: skip


SILENCE = 300_000


class Lapse(NamedTuple):
    sentence: str
    rows: list[Result]
    staleness_events: list[int]
    """The slots after which staleness was decided."""
    changes: list[str]


LAPSES = [
    Lapse("silence after the last row", make_results("pp"), [2], ["opened stale at 2: no_data"]),
    Lapse(
        "silence before the first row",
        chain((5, None, "p")),
        [0],
        ["opened stale at 0: no_data", "resolved stale at 5"],
    ),
    Lapse(
        "silence between two rows ends with the second",
        make_results("ppp"),
        [2],
        ["opened stale at 2: no_data", "resolved stale at 3"],
    ),
    Lapse(
        "silence is decided after the row of its own slot, not before",
        make_results("pp"),
        [1],
        ["opened stale at 1: no_data", "resolved stale at 2"],
    ),
    Lapse(
        "each silence is one incident, in any order of input",
        make_results("ppp"),
        [3, 1],
        ["opened stale at 1: no_data", "resolved stale at 2", "opened stale at 3: no_data"],
    ),
    Lapse("silence without any row", [], [4], ["opened stale at 4: no_data"]),
    Lapse(
        "a missed row ends no silence", [*make_results("p"), *chain((2, 1, "m"))], [1], ["opened stale at 1: no_data"]
    ),
    Lapse(
        "silence decided before a hole stands while the hole is awaited",
        [*make_results("p"), *chain((9, 8, "p"))],
        [1],
        ["opened stale at 1: no_data"],
    ),
    Lapse("silence that a hole came before is not told yet", [*make_results("p"), *chain((9, 8, "p"))], [9], []),
    Lapse("nor is one of the awaited slot itself", [*make_results("p"), *chain((9, 8, "p"))], [8], []),
]


@pytest.mark.parametrize("row", LAPSES, ids=lambda row: row.sentence)
def test_lapses(row: Lapse) -> None:
    machines: AlertStates = {}
    staleness_events = [(slot * SLOT_INTERVAL_MS, SILENCE) for slot in row.staleness_events]
    done = fold_results(alert_policy(3, 3), machines, -1, row.rows, NEVER, staleness_events)
    assert describe_transitions(done.transitions) == row.changes
    assert (stale.ALERT_STATE_KEY in machines) is (bool(row.changes) and "opened" in row.changes[-1])


def test_a_staleness_event_has_its_duration() -> None:
    done = fold_results(alert_policy(), {}, 0, [], NEVER, [(SLOT_INTERVAL_MS, 60_000), (9 * SLOT_INTERVAL_MS, 300_000)])
    assert [change.message for change in done.transitions] == ["no result for 1\N{NO-BREAK SPACE}min"]


def test_a_fold_returns_how_far_it_evaluated() -> None:
    assert fold_results(alert_policy(), {}, 5, [], ALWAYS) == FoldResult(5, None, False, [])
