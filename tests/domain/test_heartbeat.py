"""What check-ins add up to, a sentence per row. They are told in the order in which they came in."""

from __future__ import annotations

import json
from itertools import count, permutations
from typing import Any

import pytest

from watchdog.domain.heartbeat import (
    DUPLICATE_END_WINDOW_MS,
    MAX_ERROR_CHARS,
    MAX_OUTPUT_CHARS,
    MAX_REMEMBERED_FAILURES,
    MAX_REMEMBERED_RUNS,
    CheckIn,
    CheckInKind,
    HeartbeatState,
    apply_check_in,
)

MIN, HOUR = 60_000, 3_600_000


def check_in(text: str) -> CheckIn:
    """ "5 ok a" -> five minutes after the beginning run a ended well; "7 3" -> a run ended with exit code 3."""
    at, word, run, *body = [*text.split(" ", 3), ""][:4]
    code = int(word) if word.isdigit() else None
    kind = CheckInKind(word) if code is None else CheckInKind.FAIL if code else CheckInKind.OK
    return CheckIn(text, round(float(at) * MIN), kind, run, code, " ".join(body))


def after(*texts: str, state: HeartbeatState | None = None) -> HeartbeatState:
    state = state or HeartbeatState()
    for text in texts:
        state = apply_check_in(state, check_in(text)).state
        assert HeartbeatState.from_json(json.loads(json.dumps(state.to_json()))) == state
    return state


TABLE: list[tuple[str, list[str], dict[str, Any]]] = [
    ("nobody said anything", [], {"runs": (), "last_start": None, "last_end": None, "last_ok": None, "failures": 0}),
    ("it began", ["1 start"], {"runs": (("", 1),), "last_start": 1, "last_end": None}),
    ("it began and ended", ["1 start", "5 ok"],
     {"runs": (), "last_start": 1, "last_end": 5, "last_ok": 5, "duration": 4}),
    ("it only says that it is done", ["5 ok"], {"last_start": 5, "last_end": 5, "last_ok": 5, "duration": None}),
    ("exit code 0 is well", ["1 start", "5 0"], {"last_ok": 5, "duration": 4, "failures": 0}),
    ("exit code 3 is not", ["1 start", "5 3"],
     {"last_ok": None, "last_end": 5, "duration": 4, "failures": 1, "error": "exit code 3"}),
    ("the last line says why", ["5 3  copying\n no space left \n\n"], {"error": "exit code 3: no space left"}),
    ("it failed in its own words", ["5 fail  no space left"], {"failures": 1, "error": "no space left"}),
    ("it failed without a word", ["5 fail"], {"failures": 1, "error": ""}),
    ("twice in a row", ["5 fail", "9 fail"], {"failures": 2}),
    ("then well", ["5 fail", "9 fail", "12 ok"], {"failures": 0, "error": "", "last_ok": 12}),
    ("then not again", ["5 fail", "9 ok", "12 fail"], {"failures": 1, "last_ok": 9}),
    ("what it failed of is forgotten once it is well", ["5 fail  disk full", "9 ok"], {"failures": 0, "error": ""}),
    ("well and not, at one instant", ["5 ok", "5 fail"], {"failures": 0, "last_ok": 5}),
    ("it ended, and begins again", ["5 ok", "9 start"], {"runs": (("", 9),), "last_start": 9}),
    ("and at once", ["5 ok", "5 start"], {"runs": (("", 5),), "last_start": 5}),
    ("over in no time", ["5 start", "5 ok"], {"runs": (), "duration": 0}),
    ("one cut off, and the next over in no time", ["1 start", "5 start", "5 ok"], {"runs": (), "duration": 0}),
    ("over in no time, and only its start has a name", ["5 start a", "5 ok"], {"runs": (), "duration": 0}),
    ("the last of two words at one instant", ["5 ok  one", "5 ok  two"], {"output": "two"}),
    # --- runs side by side
    ("two named runs: the oldest counts", ["1 start a", "3 start b"], {"runs": (("a", 1), ("b", 3)), "last_start": 3}),
    ("each ends its own", ["1 start a", "3 start b", "4 ok b"],
     {"runs": (("a", 1),), "duration": 1, "last_end": 4}),
    ("and the other one", ["1 start a", "3 start b", "4 ok b", "9 ok a"],
     {"runs": (), "duration": 8, "last_end": 9, "last_start": 3}),
    ("an end without a name ends the only run", ["1 start a", "4 ok"], {"runs": (), "duration": 3}),
    ("an end without a name ends the oldest of many", ["1 start a", "2 start b", "4 ok"],
     {"runs": (("b", 2),), "duration": 3}),
    ("a run that was cut off is not left behind by the next", ["1 start", "60 start", "62 ok"],
     {"runs": (), "duration": 2}),
    ("a name that nobody began ends nothing", ["1 start a", "4 ok b"], {"runs": (("a", 1),), "duration": None}),
    ("an end without a name leaves a run alone that began later", ["9 start", "4 ok"],
     {"runs": (("", 9),), "last_end": 4, "duration": None}),
    ("one name for all runs, time after time", ["1 start x", "2 ok x", "61 start x", "65 ok x"],
     {"runs": (), "duration": 4, "last_end": 65}),
    ("one name for all runs, ends only", ["2 ok x", "65 ok x"], {"last_end": 65, "last_start": 65, "duration": None}),
    ("over in no time, and its end is told first", ["5 ok a", "5 start a"], {"runs": (), "duration": 0}),
    ("an older start is told later", ["5 start b", "1 start a"], {"runs": (("a", 1), ("b", 5)), "last_start": 5}),
    # --- twice
    ("a start told twice", ["1 start a", "1.1 start a"], {"runs": (("a", 1),), "last_start": 1}),
    ("an end told twice", ["1 start a", "5 ok a", "5.1 ok a"], {"runs": (), "duration": 4, "last_end": 5}),
    ("a failure told twice is one", ["1 start a", "5 3 a", "5.1 3 a"], {"failures": 1}),
    ("a failure told twice without a name is two", ["5 3", "5.1 3"], {"failures": 2}),
    ("well, and within seconds not", ["1 start a", "5 ok a", "5.1 fail a"], {"failures": 1, "last_ok": 5}),
    ("an end told with its start again", ["1 start a", "5 ok a", "1 start a"], {"runs": (), "duration": 4}),
    # --- in another order
    ("the end comes before the start", ["5 ok a", "1 start a"], {"runs": (), "duration": 4, "last_end": 5}),
    ("the same without a name", ["5 ok", "1 start"], {"runs": (), "duration": 4, "last_end": 5}),
    ("the start of an older run says nothing of the newest", ["5 ok a", "9 ok b", "1 start a"],
     {"runs": (), "duration": None, "last_end": 9}),
    ("a start that was on its way while another run ended", ["9 ok b", "5 start a"],
     {"runs": (("a", 5),), "last_end": 9}),
    ("an older end changes no newest", ["1 start a", "9 ok a", "5 ok b"],
     {"last_end": 9, "duration": 8, "last_ok": 9}),
    ("a failure before the last good run is forgotten", ["9 ok", "5 fail"], {"failures": 0, "last_ok": 9}),
    ("a good run before the last failure", ["9 fail", "5 ok"], {"failures": 1, "last_ok": 5}),
    ("a good run between failures", ["3 fail  a", "9 fail  b", "5 ok"], {"failures": 1, "error": "b"}),
    ("an older failure does not say why", ["9 fail  new", "5 fail  old"], {"failures": 2, "error": "new"}),
    ("a name that ended comes back later", ["1 ok a", "5 start a"], {"runs": (("a", 5),)}),
    # --- output
    ("what it said last is kept", ["1 start", "2 log  one", "3 log  two"], {"output": "two", "runs": (("", 1),)}),
    ("a log without words says nothing", ["2 log  one", "3 log"], {"output": "one"}),
    ("what it logged stays when it ends in silence", ["2 log  one", "3 ok"], {"output": "one"}),
    ("the next silent run does not show it", ["2 log  one", "3 ok", "9 ok"], {"output": ""}),
    ("its last words stand for all", ["2 log  one", "3 fail  two"], {"output": "two"}),
    ("an older run's words do not", ["9 fail  new", "5 fail  old"], {"output": "new"}),
]  # fmt: skip


def plain(state: HeartbeatState) -> dict[str, Any]:
    """Instants in minutes."""
    instants = ("last_start", "last_end", "last_ok", "duration")
    check_in = {n: None if (value := getattr(state, n)) is None else value / MIN for n in instants}
    runs = tuple((run, begun / MIN) for run, begun in state.open_runs)
    return {**check_in, "runs": runs, "failures": state.failure_count, "error": state.error, "output": state.output}


@pytest.mark.parametrize(("texts", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_they_add_up_to(texts: list[str], expected: dict[str, Any]) -> None:
    values = plain(after(*texts))
    assert {name: values[name] for name in expected} == expected


def test_the_order_of_check_ins_with_run_ids_does_not_matter() -> None:
    texts = ["1 start a", "4 3 a  disk full", "61 start b", "66 0 b", "121 start c", "125 1 c  no"]
    wanted = plain(after(*texts))
    assert wanted["failures"] == 1
    for order in permutations(texts):
        values = plain(after(*order))
        assert {**values, "last_start": 121.0} == wanted  # without its start, a run began when it ended


def test_how_long_the_run_took_that_a_check_in_ended() -> None:
    state = after("1 start a", "2 start b")
    assert apply_check_in(state, check_in("3 log")).duration is None
    assert apply_check_in(state, check_in("5 ok a")).duration == 4 * MIN
    assert apply_check_in(state, check_in("9 ok c")).duration is None
    assert apply_check_in(after("5 start a"), check_in("4 ok a")).duration == 0  # by a clock that was put back


@pytest.mark.parametrize(
    ("sentence", "texts", "since"),
    [
        ("nothing runs", ["5 ok"], None),
        ("the oldest counts", ["1 start a", "2 start b"], 1),
        ("another run ended well in the meantime: it may still run", ["1 start a", "20 start b", "30 ok b"], 1),
        ("and after exactly as long as it may", ["1 start a", "20 start b", "61 ok b"], 1),
        ("and long afterwards: it is lost", ["1 start a", "70 start b", "80 ok b"], None),
        ("and long afterwards another one runs", ["1 start a", "70 start b", "80 ok b", "81 start c"], 81),
        ("others fail: nobody knows", ["1 start a", "70 start b", "80 fail b"], 1),
    ],
)
def test_under_way(sentence: str, texts: list[str], since: int | None) -> None:
    values = after(*texts).running_since(HOUR)
    assert (None if values is None else values / MIN) == since, sentence


def test_many_failures_are_counted_and_few_are_kept() -> None:
    state = after(*(f"{n} fail" for n in range(MAX_REMEMBERED_FAILURES + 15)))
    assert (state.failure_count, len(state.recent_failures), state.older_failure_count) == (
        MAX_REMEMBERED_FAILURES + 15,
        MAX_REMEMBERED_FAILURES,
        15,
    )
    assert after(f"{MAX_REMEMBERED_FAILURES + 10} ok", state=state).failure_count == 4
    again = after("14.5 ok", state=state)
    assert (again.failure_count, again.last_ok) == (MAX_REMEMBERED_FAILURES + 15, 14.5 * MIN)
    assert after("99 ok", state=state).failure_count == 0


def test_nothing_grows_for_ever() -> None:
    numbers = count()
    state = HeartbeatState()
    for _ in range(MAX_REMEMBERED_RUNS + 10):
        n = next(numbers)
        state = after(f"{n} start r{n}", f"{n} ok d{n}", f"{n} log  {'x' * 9_000}z", state=state)
    assert (len(state.open_runs), len(state.ended_runs), len(state.output)) == (
        MAX_REMEMBERED_RUNS,
        MAX_REMEMBERED_RUNS,
        MAX_OUTPUT_CHARS,
    )
    assert (state.open_runs[0][0], state.ended_runs[0][0], state.output[-1]) == ("r10", "d10", "z")
    assert len(after(f"999 fail  {'y' * 999}", state=state).error) == MAX_ERROR_CHARS


def test_ends_are_kept_by_when_they_were() -> None:
    state = after("9 fail a", "5 ok b")
    assert [run for run, _, _ in state.ended_runs] == ["b", "a"]
    assert state.output_is_partial is False


def test_an_end_long_after_its_like_is_another_run() -> None:
    assert after("5 fail x", f"{5 + DUPLICATE_END_WINDOW_MS / MIN} fail x").failure_count == 1
    assert after("5 fail x", f"{5 + (DUPLICATE_END_WINDOW_MS + 1) / MIN} fail x").failure_count == 2


def test_what_another_version_kept_is_read_as_far_as_it_is_known() -> None:
    assert HeartbeatState.from_json(None) == HeartbeatState.from_json({}) == HeartbeatState()
    assert HeartbeatState.from_json({"last_ok": 5, "mood": "fine"}) == HeartbeatState(last_ok=5)
