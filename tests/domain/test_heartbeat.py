"""The state after a sequence of check-ins, one case per row, listed in the order of their arrival."""

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
    """ "5 ok a": run a succeeded 5 minutes after the start of the test. "7 3": a run ended with exit code 3."""
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
    ("no check-in", [], {"runs": (), "last_start": None, "last_end": None, "last_ok": None, "failures": 0}),
    ("a start", ["1 start"], {"runs": (("", 1),), "last_start": 1, "last_end": None}),
    ("a start and an end", ["1 start", "5 ok"],
     {"runs": (), "last_start": 1, "last_end": 5, "last_ok": 5, "duration": 4}),
    ("an end without a start", ["5 ok"], {"last_start": 5, "last_end": 5, "last_ok": 5, "duration": None}),
    ("exit code 0 is a success", ["1 start", "5 0"], {"last_ok": 5, "duration": 4, "failures": 0}),
    ("exit code 3 is a failure", ["1 start", "5 3"],
     {"last_ok": None, "last_end": 5, "duration": 4, "failures": 1, "error": "exit code 3"}),
    ("the last line of the text is the error",
     ["5 3  copying\n no space left \n\n"], {"error": "exit code 3: no space left"}),
    ("a failure with a text", ["5 fail  no space left"], {"failures": 1, "error": "no space left"}),
    ("a failure without a text", ["5 fail"], {"failures": 1, "error": ""}),
    ("two failures in a row", ["5 fail", "9 fail"], {"failures": 2}),
    ("two failures, then a success", ["5 fail", "9 fail", "12 ok"], {"failures": 0, "error": "", "last_ok": 12}),
    ("a failure, a success, a failure", ["5 fail", "9 ok", "12 fail"], {"failures": 1, "last_ok": 9}),
    ("a success clears the error", ["5 fail  disk full", "9 ok"], {"failures": 0, "error": ""}),
    ("a success and a failure at the same instant", ["5 ok", "5 fail"], {"failures": 0, "last_ok": 5}),
    ("an end, then another start", ["5 ok", "9 start"], {"runs": (("", 9),), "last_start": 9}),
    ("an end and another start at the same instant", ["5 ok", "5 start"], {"runs": (("", 5),), "last_start": 5}),
    ("start and end at the same instant", ["5 start", "5 ok"], {"runs": (), "duration": 0}),
    ("an aborted run, then start and end at the same instant",
     ["1 start", "5 start", "5 ok"], {"runs": (), "duration": 0}),
    ("start and end at the same instant, only the start has a name",
     ["5 start a", "5 ok"], {"runs": (), "duration": 0}),
    ("the later of two texts at the same instant", ["5 ok  one", "5 ok  two"], {"output": "two"}),
    # --- runs side by side
    ("two named runs: the oldest counts", ["1 start a", "3 start b"], {"runs": (("a", 1), ("b", 3)), "last_start": 3}),
    ("an end with a name ends that run", ["1 start a", "3 start b", "4 ok b"],
     {"runs": (("a", 1),), "duration": 1, "last_end": 4}),
    ("the end of the other run", ["1 start a", "3 start b", "4 ok b", "9 ok a"],
     {"runs": (), "duration": 8, "last_end": 9, "last_start": 3}),
    ("an end without a name ends the only run", ["1 start a", "4 ok"], {"runs": (), "duration": 3}),
    ("an end without a name ends the oldest of many", ["1 start a", "2 start b", "4 ok"],
     {"runs": (("b", 2),), "duration": 3}),
    ("the next start without a name replaces an aborted run", ["1 start", "60 start", "62 ok"],
     {"runs": (), "duration": 2}),
    ("an end with an unknown name ends no run", ["1 start a", "4 ok b"], {"runs": (("a", 1),), "duration": None}),
    ("an end without a name does not end a run that started later", ["9 start", "4 ok"],
     {"runs": (("", 9),), "last_end": 4, "duration": None}),
    ("the same name for every run", ["1 start x", "2 ok x", "61 start x", "65 ok x"],
     {"runs": (), "duration": 4, "last_end": 65}),
    ("the same name for every run, ends only",
     ["2 ok x", "65 ok x"], {"last_end": 65, "last_start": 65, "duration": None}),
    ("start and end at the same instant, the end arrives first", ["5 ok a", "5 start a"], {"runs": (), "duration": 0}),
    ("an older start arrives later", ["5 start b", "1 start a"], {"runs": (("a", 1), ("b", 5)), "last_start": 5}),
    # --- duplicates
    ("a duplicate start", ["1 start a", "1.1 start a"], {"runs": (("a", 1),), "last_start": 1}),
    ("a duplicate end", ["1 start a", "5 ok a", "5.1 ok a"], {"runs": (), "duration": 4, "last_end": 5}),
    ("a duplicate failure with a name counts once", ["1 start a", "5 3 a", "5.1 3 a"], {"failures": 1}),
    ("a duplicate failure without a name counts twice", ["5 3", "5.1 3"], {"failures": 2}),
    ("a success, and a failure seconds later", ["1 start a", "5 ok a", "5.1 fail a"], {"failures": 1, "last_ok": 5}),
    ("a duplicate start after the end", ["1 start a", "5 ok a", "1 start a"], {"runs": (), "duration": 4}),
    # --- out of order
    ("the end arrives before the start", ["5 ok a", "1 start a"], {"runs": (), "duration": 4, "last_end": 5}),
    ("the end arrives before the start, without a name",
     ["5 ok", "1 start"], {"runs": (), "duration": 4, "last_end": 5}),
    ("the start of an older run does not affect the newest", ["5 ok a", "9 ok b", "1 start a"],
     {"runs": (), "duration": None, "last_end": 9}),
    ("a start arrives late, after another run ended", ["9 ok b", "5 start a"],
     {"runs": (("a", 5),), "last_end": 9}),
    ("an older end does not replace the newest", ["1 start a", "9 ok a", "5 ok b"],
     {"last_end": 9, "duration": 8, "last_ok": 9}),
    ("a failure before the last success does not count", ["9 ok", "5 fail"], {"failures": 0, "last_ok": 9}),
    ("a success before the last failure", ["9 fail", "5 ok"], {"failures": 1, "last_ok": 5}),
    ("a success between failures", ["3 fail  a", "9 fail  b", "5 ok"], {"failures": 1, "error": "b"}),
    ("the error of an older failure does not count", ["9 fail  new", "5 fail  old"], {"failures": 2, "error": "new"}),
    ("a name is used again after its run ended", ["1 ok a", "5 start a"], {"runs": (("a", 5),)}),
    # --- output
    ("the newest log text is kept", ["1 start", "2 log  one", "3 log  two"], {"output": "two", "runs": (("", 1),)}),
    ("an empty log changes nothing", ["2 log  one", "3 log"], {"output": "one"}),
    ("the log text is kept at an end without a text", ["2 log  one", "3 ok"], {"output": "one"}),
    ("the next run without a text clears the log text", ["2 log  one", "3 ok", "9 ok"], {"output": ""}),
    ("the text of the end replaces the log text", ["2 log  one", "3 fail  two"], {"output": "two"}),
    ("the text of an older run does not count", ["9 fail  new", "5 fail  old"], {"output": "new"}),
]  # fmt: skip


def plain(state: HeartbeatState) -> dict[str, Any]:
    """Instants in minutes."""
    instants = ("last_start", "last_end", "last_ok", "duration")
    check_in = {n: None if (value := getattr(state, n)) is None else value / MIN for n in instants}
    runs = tuple((run, started_at / MIN) for run, started_at in state.open_runs)
    return {**check_in, "runs": runs, "failures": state.failure_count, "error": state.error, "output": state.output}


@pytest.mark.parametrize(("texts", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_state_after_check_ins(texts: list[str], expected: dict[str, Any]) -> None:
    values = plain(after(*texts))
    assert {name: values[name] for name in expected} == expected


def test_the_order_of_check_ins_with_run_ids_does_not_matter() -> None:
    texts = ["1 start a", "4 3 a  disk full", "61 start b", "66 0 b", "121 start c", "125 1 c  no"]
    wanted = plain(after(*texts))
    assert wanted["failures"] == 1
    for order in permutations(texts):
        values = plain(after(*order))
        assert {**values, "last_start": 121.0} == wanted  # without a start, a run starts when it ends


def test_the_duration_of_the_run_that_a_check_in_ends() -> None:
    state = after("1 start a", "2 start b")
    assert apply_check_in(state, check_in("3 log")).duration is None
    assert apply_check_in(state, check_in("5 ok a")).duration == 4 * MIN
    assert apply_check_in(state, check_in("9 ok c")).duration is None
    assert apply_check_in(after("5 start a"), check_in("4 ok a")).duration == 0  # the clock was set back


@pytest.mark.parametrize(
    ("sentence", "texts", "since"),
    [
        ("no run is open", ["5 ok"], None),
        ("the oldest counts", ["1 start a", "2 start b"], 1),
        ("another run succeeded later, within the limit: it may still run", ["1 start a", "20 start b", "30 ok b"], 1),
        ("another run succeeded exactly at the limit", ["1 start a", "20 start b", "61 ok b"], 1),
        ("another run succeeded after the limit: it is lost", ["1 start a", "70 start b", "80 ok b"], None),
        (
            "another run succeeded after the limit, and a third one runs",
            ["1 start a", "70 start b", "80 ok b", "81 start c"],
            81,
        ),
        ("another run failed after the limit: it may still run", ["1 start a", "70 start b", "80 fail b"], 1),
    ],
)
def test_running_since(sentence: str, texts: list[str], since: int | None) -> None:
    values = after(*texts).running_since(HOUR)
    assert (None if values is None else values / MIN) == since, sentence


def test_failures_are_counted_beyond_the_number_that_is_kept() -> None:
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


def test_the_size_of_the_state_is_limited() -> None:
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


def test_ended_runs_are_kept_in_the_order_of_their_ends() -> None:
    state = after("9 fail a", "5 ok b")
    assert [run for run, _, _ in state.ended_runs] == ["b", "a"]
    assert state.output_is_partial is False


def test_an_equal_end_counts_again_after_the_duplicate_window() -> None:
    assert after("5 fail x", f"{5 + DUPLICATE_END_WINDOW_MS / MIN} fail x").failure_count == 1
    assert after("5 fail x", f"{5 + (DUPLICATE_END_WINDOW_MS + 1) / MIN} fail x").failure_count == 2


def test_unknown_fields_of_a_stored_state_are_ignored() -> None:
    assert HeartbeatState.from_json(None) == HeartbeatState.from_json({}) == HeartbeatState()
    assert HeartbeatState.from_json({"last_ok": 5, "mood": "fine"}) == HeartbeatState(last_ok=5)
