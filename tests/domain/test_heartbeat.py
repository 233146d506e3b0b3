"""The state after a sequence of check-ins, one case per row, listed in the order of their arrival."""

from __future__ import annotations

import json
from itertools import count, permutations
from typing import Any

import pytest

from watchdog.domain.heartbeat import (
    DUPLICATE_CHECK_IN_WINDOW_MS,
    MAX_HEARTBEAT_ERROR_CHARS,
    MAX_HEARTBEAT_OUTPUT_CHARS,
    MAX_REMEMBERED_HEARTBEAT_FAILURES,
    MAX_REMEMBERED_HEARTBEAT_RUNS,
    CheckIn,
    CheckInKind,
    EndedHeartbeatRun,
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
    ("a signal has its name", ["5 137"], {"error": "exit code 137 (SIGKILL)"}),
    ("a signal has its name beside the output", ["5 143  stopping"], {"error": "exit code 143 (SIGTERM): stopping"}),
    ("other high exit codes are no signals", ["5 255"], {"error": "exit code 255"}),
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
    ("an end without a name ends the newest of many", ["1 start a", "2 start b", "4 ok"],
     {"runs": (("a", 1),), "duration": 2}),
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
    # --- runs that never end
    ("the next start without a name: the run before it is lost, and has failed",
     ["1 start", "60 start"], {"runs": (("", 60),), "lost": ((1, 60),), "failures": 1, "error": ""}),
    ("a start without a name that is sent twice looks like two runs",
     ["1 start", "1.05 start"], {"runs": (("", 1.05),), "lost": ((1, 1.05),), "failures": 1}),
    ("its end clears it", ["1 start", "1.05 start", "5 ok"], {"failures": 0, "last_ok": 5}),
    ("every run is killed", ["1 start", "60 start", "120 start"], {"lost": ((1, 60), (60, 120)), "failures": 2}),
    ("the next run succeeds", ["1 start", "60 start", "62 ok"], {"failures": 0, "duration": 2}),
    ("the next run fails", ["1 start", "60 start", "62 3"], {"failures": 2, "error": "exit code 3"}),
    ("a failed run, then a lost one", ["1 start", "2 3", "60 start", "120 start"],
     {"failures": 2, "error": "exit code 3"}),
    ("a lost run, then one with a name", ["1 start", "60 start a"], {"runs": (("a", 60),), "lost": ((1, 60),)}),
    ("a run with a name is not lost at the next start", ["1 start a", "60 start", "120 start b"],
     {"runs": (("a", 1), ("b", 120)), "lost": ((60, 120),)}),
    ("the same name for every run: lost at the next start", ["1 start x", "60 start x", "62 ok x"],
     {"runs": (), "lost": ((1, 60),), "failures": 0, "duration": 2}),
    ("an end belongs to the newest run, a further end takes back the lost one",
     ["1 start", "3 start", "4 ok", "9 ok"], {"lost": (), "failures": 0, "last_end": 9, "duration": None}),
    ("a lost run that is taken back has failed once", ["1 start", "3 start", "4 ok", "9 3"],
     {"lost": (), "failures": 1, "error": "exit code 3", "last_ok": 4}),
    ("the run that took its place failed, the lost one succeeds", ["1 start", "3 start", "4 3", "9 ok"],
     {"lost": (), "failures": 0}),
    ("the newest lost run is taken back first", ["1 start", "3 start", "5 start", "6 ok", "7 ok"],
     {"lost": ((1, 3),), "failures": 0}),
    ("a further end may be that of a run whose start is not known", ["1 start", "3 start", "4 ok", "99 ok"],
     {"lost": (), "last_start": 99, "duration": None}),
    ("both runs fail: each has failed once", ["1 start", "3 start", "4 3", "9 3"], {"lost": (), "failures": 2}),
    ("an end at the instant at which the lost run started takes it back", ["1 start", "3 start", "4 ok", "1 ok"],
     {"lost": ()}),
    ("lost runs are in the order of their starts, not of their names",
     ["1 start x", "2 start x", "3 start a", "4 start a"], {"lost": ((1, 2), (3, 4))}),
    ("an end that is older than the lost run takes back nothing", ["5 start", "9 start", "12 ok", "2 ok"],
     {"lost": ((5, 9),)}),
    ("the start of a lost run arrives late", ["60 start", "1 start"], {"lost": ((1, 60),), "runs": (("", 60),)}),
    ("the start of a lost run arrives late, after a success", ["60 start", "62 ok", "1 start"],
     {"runs": (), "failures": 0}),
    ("a retried start of a lost run with a name", ["1 start x", "60 start x", "1.1 start x"],
     {"lost": ((1, 60),), "runs": (("x", 60),)}),
    ("a run that was lost before the last success", ["1 start", "9 ok a", "5 start b"], {"failures": 0}),
    ("a rejected check-in changes nothing", ["1 start", "60 rejected", "61 ok"], {"duration": 60, "failures": 0}),
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
    lost = tuple((run.start / MIN, run.lost_at / MIN) for run in state.lost_runs)
    return {
        **check_in,
        "runs": runs,
        "lost": lost,
        "failures": state.consecutive_failure_count,
        "error": state.error,
        "output": state.output,
    }


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
    ("sentence", "texts", "running_since", "lost"),
    [
        ("no run is open", ["5 ok"], None, []),
        ("the oldest counts", ["61 start a", "62 start b"], 61, []),
        ("a later run ended, but the first may still run", ["80 start a", "90 start b", "95 ok b"], 80, []),
        ("a later run ended, exactly at the limit of the first", ["60 start a", "70 start b", "80 ok b"], None, [60]),
        ("a later run ended after the limit", ["1 start a", "70 start b", "80 ok b"], None, [1]),
        ("a later run failed after the limit", ["1 start a", "70 start b", "80 fail b"], None, [1]),
        ("a later run ended, whose start is not known", ["1 start a", "80 ok b"], None, [1]),
        ("an earlier run ended", ["0 start z", "1 start a", "80 ok z"], 1, []),
        ("a later run ended, and a third one runs", ["1 start a", "70 start b", "80 ok b", "81 start c"], 81, [1]),
        ("no run has ended: all but the newest are lost", ["1 start a", "10 start b", "61 start c"], 61, [1, 10]),
        ("no run has ended since, but the limit has not passed", ["61 start a", "70 start b"], 61, []),
        ("a run ended in between: runs overlap as a rule", ["0 start z", "1 start a", "19 ok z", "61 start b"], 1, []),
        ("a lost run without an id is no longer open", ["70 start", "71 start"], 71, []),
        ("the newest run is in progress, however old it is", ["1 start a"], 1, []),
        ("another run started at the same instant, and ended", ["1 start a", "1 start b", "80 ok b"], 1, []),
        ("a run ended when the first one started", ["0 start z", "1 ok z", "1 start a", "61 start b"], 1, []),
        ("an earlier run ended, its start arrives last", ["5 start a", "80 ok b", "1 start b"], 5, []),
        ("the same, without a name", ["80 ok", "5 start a", "1 start"], 5, []),
        ("the same, but a third run ended later", ["5 start a", "80 ok b", "90 ok c", "1 start b"], None, [5]),
        ("two lost runs", ["1 start a", "2 start b", "71 start c", "72 ok d"], 71, [1, 2]),
    ],
)
def test_open_runs_are_in_progress_or_lost(
    sentence: str, texts: list[str], running_since: int | None, lost: list[int]
) -> None:
    runs = after(*texts).classify_open_runs(lambda start: start + HOUR, 2 * HOUR, is_limited=False)
    since = None if runs.running_since is None else runs.running_since / MIN
    assert (since, [start / MIN for start in runs.lost_starts]) == (running_since, lost), sentence


def test_a_run_that_exceeds_its_limit_is_not_lost_before_a_later_one_has_ended() -> None:
    started = after("1 start a", "70 start b")
    assert started.classify_open_runs(lambda start: start + HOUR, 2 * HOUR, is_limited=True) == (1 * MIN, ())
    ended = after("80 fail b", state=started)
    assert ended.classify_open_runs(lambda start: start + HOUR, 2 * HOUR, is_limited=True) == (None, (1 * MIN,))


def test_failures_are_counted_beyond_the_number_that_is_kept() -> None:
    state = after(*(f"{n} fail" for n in range(MAX_REMEMBERED_HEARTBEAT_FAILURES + 15)))
    assert (state.consecutive_failure_count, len(state.recent_failures), state.older_failure_count) == (
        MAX_REMEMBERED_HEARTBEAT_FAILURES + 15,
        MAX_REMEMBERED_HEARTBEAT_FAILURES,
        15,
    )
    assert after(f"{MAX_REMEMBERED_HEARTBEAT_FAILURES + 10} ok", state=state).consecutive_failure_count == 4
    again = after("14.5 ok", state=state)
    assert (again.consecutive_failure_count, again.last_ok) == (MAX_REMEMBERED_HEARTBEAT_FAILURES + 15, 14.5 * MIN)
    assert after("99 ok", state=state).consecutive_failure_count == 0


def test_the_size_of_the_state_is_limited() -> None:
    numbers = count()
    state = HeartbeatState()
    for _ in range(MAX_REMEMBERED_HEARTBEAT_RUNS + 10):
        n = next(numbers)
        state = after(f"{n} start r{n}", f"{n} ok d{n}", f"{n} log  {'x' * 9_000}z", state=state)
    assert (len(state.open_runs), len(state.ended_runs), len(state.output)) == (
        MAX_REMEMBERED_HEARTBEAT_RUNS,
        MAX_REMEMBERED_HEARTBEAT_RUNS,
        MAX_HEARTBEAT_OUTPUT_CHARS,
    )
    assert (state.open_runs[0][0], state.ended_runs[0][0], state.output[-1]) == ("r10", "d10", "z")
    assert len(after(f"999 fail  {'y' * 999}", state=state).error) == MAX_HEARTBEAT_ERROR_CHARS


def test_ended_runs_are_kept_in_the_order_of_their_ends() -> None:
    state = after("9 fail a", "5 ok b")
    assert [run.run_id for run in state.ended_runs] == ["b", "a"]
    assert state.output_is_partial is False


def test_an_equal_end_counts_again_after_the_duplicate_window() -> None:
    assert after("5 fail x", f"{5 + DUPLICATE_CHECK_IN_WINDOW_MS / MIN} fail x").consecutive_failure_count == 1
    assert after("5 fail x", f"{5 + (DUPLICATE_CHECK_IN_WINDOW_MS + 1) / MIN} fail x").consecutive_failure_count == 2


def test_an_equal_start_is_another_run_after_the_duplicate_window() -> None:
    window = DUPLICATE_CHECK_IN_WINDOW_MS
    assert plain(after("5 start x", f"{5 + window / MIN} start x"))["runs"] == (("x", 5),)
    assert after("5 start x", f"{5 + (window + 1) / MIN} start x").lost_runs[0].start == 5 * MIN


@pytest.mark.parametrize("late", ["3 ok", "9 ok"])
def test_of_the_ended_runs_without_an_id_the_one_that_started_last_is_kept(late: str) -> None:
    state = after("1 ok a", "1 start", "5 ok", "9 start", "12 ok")
    wanted = (EndedHeartbeatRun("a", 1 * MIN, True), EndedHeartbeatRun("", 12 * MIN, True, start=9 * MIN))
    assert state.ended_runs == after(late, state=state).ended_runs == wanted


def test_the_newest_rejected_check_in_is_remembered_in_any_order() -> None:
    assert after("5 rejected").last_rejected == after("5 rejected", "3 rejected").last_rejected == 5 * MIN
    assert after("5 rejected", "7 rejected").last_rejected == 7 * MIN


def test_the_state_of_a_version_that_kept_no_starts_of_ended_runs() -> None:
    state = HeartbeatState.from_json({"open_runs": [["a", 5]], "ended_runs": [["b", 9, True]]})
    assert state.ended_runs == (EndedHeartbeatRun("b", 9, succeeded=True),)
    assert state.classify_open_runs(lambda start: start, 99, is_limited=True).lost_starts == (5,)


def test_unknown_fields_of_a_stored_state_are_ignored() -> None:
    assert HeartbeatState.from_json(None) == HeartbeatState.from_json({}) == HeartbeatState()
    assert HeartbeatState.from_json({"last_ok": 5, "mood": "fine"}) == HeartbeatState(last_ok=5)


def test_after_the_clock_was_set_back_no_check_in_is_later_than_now() -> None:
    state = after("1 start a", "2 fail a", "3 start b", "4 ok b", "5 start c", "6 start", "7 start")
    capped = state.cap_instants(3 * MIN)
    assert state.cap_instants(7 * MIN) == state
    assert capped.open_runs == tuple((run_id, min(start, 3 * MIN)) for run_id, start in state.open_runs)
    assert [(run.start, run.end) for run in capped.ended_runs] == [(1 * MIN, 2 * MIN), (3 * MIN, 3 * MIN)]
    assert max(run.lost_at for run in capped.lost_runs) == 3 * MIN
    assert (capped.last_start, capped.last_end, capped.last_ok) == (3 * MIN, 3 * MIN, 3 * MIN)
    assert HeartbeatState().cap_instants(5) == HeartbeatState()
