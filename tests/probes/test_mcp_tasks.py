"""How a `tasks` list is read, one case per row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.probe_state import compute_short_digest
from watchdog.probes.mcp_tasks import MAX_MCP_TASKS, parse_task_list_of_mcp_tool_result

NOW = 1_800_000_000_000  # 2027-01-15T08:00:00Z
HOUR = 3_600_000
NEW = compute_short_digest("new")


def read(*entries: Any, first_listed: dict[str, int] | None = None) -> dict[str, McpScheduledTaskFacts]:
    listing = parse_task_list_of_mcp_tool_result({"tasks": list(entries)}, NOW, first_listed or {})
    assert listing is not None
    assert listing.problems == ()
    return dict(listing.tasks)


AGES: list[tuple[str, dict[str, Any], int | None]] = [
    ("epoch seconds", {"last_run_at": NOW / 1000 - 60}, 60_000),
    ("epoch milliseconds", {"last_run_at": NOW - 60_000}, 60_000),
    ("ISO 8601 with Z", {"last_run_at": "2027-01-15T07:59:00Z"}, 60_000),
    ("ISO 8601 with an offset", {"last_run_at": "2027-01-15T13:29:00+05:30"}, 60_000),
    ("ISO 8601 without a zone is UTC", {"last_run_at": "2027-01-15T07:59:00.5"}, 59_500),
    ("ISO 8601, date only", {"last_run_at": "2027-01-15"}, 8 * HOUR),
    ("staleness", {"staleness_ms": 90_000.4}, 90_000),
    ("staleness has priority: it is free of clock skew", {"staleness_ms": 5, "last_run_at": NOW - HOUR}, 5),
    ("a server clock slightly ahead", {"last_run_at": NOW + 60_000}, 0),
    ("staleness below zero", {"staleness_ms": -3}, 0),
    ("neither: never ran", {}, None),
    ("null: never ran", {"last_run_at": None, "staleness_ms": None}, None),
    ("the empty time of Go: never ran", {"last_run_at": "0001-01-01T00:00:00Z"}, None),
    ("epoch zero: never ran", {"last_run_at": 0}, None),
]


@pytest.mark.parametrize(("entry", "age"), [a[1:] for a in AGES], ids=[a[0] for a in AGES])
def test_when_it_last_ran(entry: dict[str, Any], age: int | None) -> None:
    assert read({"name": "sync", "ok": True} | entry)["sync"].last_run_at == (None if age is None else NOW - age)


VERDICTS: list[tuple[str, dict[str, Any], bool]] = [
    ("ok is true", {"ok": True, "last_run_status": "failed"}, True),
    ("ok is false", {"ok": False, "last_run_status": "success"}, False),
    ("the status succeeded", {"last_run_status": "Succeeded"}, True),
    ("the status failed", {"last_run_status": "FAILED"}, False),
    ("the status is too old", {"last_run_status": "overdue"}, False),
    ("a status of two words", {"last_run_status": "timed out"}, False),
    ("it is running", {"last_run_status": "in-progress"}, True),
    ("no status, but an error", {"last_run_error": "disk full"}, False),
    ("a good status and an old error", {"last_run_status": "ok", "last_run_error": "disk full"}, True),
    ("nothing at all", {}, True),
]


@pytest.mark.parametrize(("entry", "ok"), [v[1:] for v in VERDICTS], ids=[v[0] for v in VERDICTS])
def test_whether_it_is_ok(entry: dict[str, Any], ok: bool) -> None:
    assert read({"name": "sync", "staleness_ms": 1} | entry)["sync"].ok is ok


STATUSES: list[tuple[str, dict[str, Any], str]] = [
    ("a last run that is null: there was none", {"ok": False, "last_run_at": None}, "never"),
    ("an age that is null: there was none", {"ok": False, "staleness_ms": None, "last_run_status": None}, "never"),
    ("no word of the last run", {"ok": False}, ""),
    ("its own status", {"ok": False, "last_run_at": None, "last_run_status": "failed"}, "failed"),
    ("a run without a status", {"ok": False, "staleness_ms": 5}, ""),
]


@pytest.mark.parametrize(("entry", "status"), [v[1:] for v in STATUSES], ids=[v[0] for v in STATUSES])
def test_its_status(entry: dict[str, Any], status: str) -> None:
    assert read({"name": "sync"} | entry)["sync"].status == status


UNREADABLE: list[tuple[dict[str, Any], str]] = [
    ({"ok": "yes"}, "ok is a string, not true or false"),
    ({"last_run_status": "fehlgeschlagen"}, "ok is missing, and last_run_status 'fehlgeschlagen' is unknown"),
    ({"ok": True, "last_run_at": "yesterday"}, "last_run_at 'yesterday' is not a time"),
    ({"ok": True, "last_run_at": "1800000000"}, "last_run_at '1800000000' is not a time"),
    ({"ok": True, "last_run_at": True}, "last_run_at is a boolean, not a number"),
    ({"ok": True, "last_run_at": []}, "last_run_at is a list, not a number"),
    ({"ok": True, "last_run_at": NOW + 5 * HOUR}, "last_run_at is 5h in the future"),
    ({"ok": True, "staleness_ms": "5 min"}, "staleness_ms is a string, not a number"),
    ({"ok": True, "staleness_ms": float("nan")}, "staleness_ms is out of range"),
    ({"ok": True, "staleness_ms": 10**400}, "staleness_ms is out of range"),
]


@pytest.mark.parametrize(("entry", "why"), UNREADABLE)
def test_an_unreadable_entry_is_a_failed_task(entry: dict[str, Any], why: str) -> None:
    task = read({"name": "sync"} | entry)["sync"]
    assert not task.ok
    assert task.error.startswith(f"invalid entry: {why}")


NAMELESS: list[tuple[Any, str]] = [
    ("sync", "tasks[0] is a string, not an object"),
    (None, "tasks[0] is null, not an object"),
    ({"ok": True}, "tasks[0] has no name"),
    ({"name": " \n"}, "tasks[0] has no name"),
    ({"name": 7}, "tasks[0] has no name"),
]


@pytest.mark.parametrize(("entry", "problem"), NAMELESS)
def test_an_entry_without_a_name_is_a_problem(entry: Any, problem: str) -> None:
    listing = parse_task_list_of_mcp_tool_result({"tasks": [entry, {"name": "sync", "ok": True}]}, NOW, {})
    assert listing is not None
    assert (list(listing.tasks), listing.problems) == (["sync"], (problem,))


@pytest.mark.parametrize(
    ("tasks", "problem"), [({}, "tasks is an object, not a list"), (None, "tasks is null, not a list")]
)
def test_tasks_that_are_not_a_list_are_a_problem(tasks: Any, problem: str) -> None:
    listing = parse_task_list_of_mcp_tool_result({"tasks": tasks}, NOW, {})
    assert listing is not None
    assert (listing.tasks, listing.problems) == ({}, (problem,))


@pytest.mark.parametrize("reply", [None, "fine", [], {"healthy": True}, 3])
def test_a_reply_without_tasks_is_no_evidence_about_them(reply: Any) -> None:
    assert parse_task_list_of_mcp_tool_result(reply, NOW, {}) is None


def test_the_worse_of_two_entries_with_the_same_name_counts() -> None:
    entries = [{"name": "sync", "ok": False, "staleness_ms": 1}, {"name": "sync", "ok": True, "staleness_ms": 9}]
    for order in (entries, entries[::-1]):
        listing = parse_task_list_of_mcp_tool_result({"tasks": order}, NOW, {})
        assert listing is not None
        assert not listing.tasks["sync"].ok
        assert listing.problems == ("tasks[1] repeats the name 'sync'",)


def test_too_many_tasks_are_a_problem() -> None:
    listing = parse_task_list_of_mcp_tool_result(
        {"tasks": [{"name": f"t{i}", "ok": True} for i in range(MAX_MCP_TASKS + 1)]}, NOW, {}
    )
    assert listing is not None
    assert len(listing.tasks) == MAX_MCP_TASKS
    assert listing.problems == ("1,001 tasks are listed; only the first 1,000 are read",)


def test_names_and_errors_become_one_line_of_limited_length() -> None:
    entry = {"name": "nightly\n\x00sync\ud800" + "x" * 500, "ok": False, "last_run_error": "line 1\r\nline 2" * 100}
    ((name, task),) = read(entry).items()
    assert name.startswith("nightly sync�xxx")
    assert len(name) == 120
    assert task.error.startswith("line 1 line 2line 1")
    assert len(task.error) == 300


def test_the_evidence_has_extra_fields_and_lists_bad_tasks_first() -> None:
    entries = [{"name": f"t{i}", "ok": i != 70, "rows": i} for i in range(80)]
    listing = parse_task_list_of_mcp_tool_result({"tasks": entries}, NOW, {})
    assert listing is not None
    assert len(listing.raw_entries) == 50
    assert next(iter(listing.raw_entries.items())) == ("t70", {"name": "t70", "ok": False, "rows": 70})


class TestATaskThatNeverRan:
    def test_it_is_stored_from_its_first_listing_on(self) -> None:
        listing = parse_task_list_of_mcp_tool_result({"tasks": [{"name": "new", "ok": True}]}, NOW, {})
        assert listing is not None
        assert (listing.tasks["new"].first_listed_at, listing.first_listed_at) == (NOW, {NEW: NOW})

    def test_counts_from_when_it_was_first_listed(self) -> None:
        listing = parse_task_list_of_mcp_tool_result(
            {"tasks": [{"name": "new", "ok": True}]}, NOW, {NEW: NOW - HOUR, "gone": 5}
        )
        assert listing is not None
        assert (listing.tasks["new"].first_listed_at, listing.first_listed_at) == (NOW - HOUR, {NEW: NOW - HOUR})

    def test_it_is_removed_from_the_state_once_it_ran(self) -> None:
        listing = parse_task_list_of_mcp_tool_result(
            {"tasks": [{"name": "new", "ok": True, "staleness_ms": 1}]}, NOW, {NEW: NOW - HOUR}
        )
        assert listing is not None
        assert (listing.tasks["new"].first_listed_at, listing.first_listed_at) == (None, {})

    def test_the_state_stays_small_for_many_tasks(self) -> None:
        entries = [{"name": f"{i}{'é' * 500}", "ok": True} for i in range(2 * MAX_MCP_TASKS)]
        listing = parse_task_list_of_mcp_tool_result({"tasks": entries}, NOW, {str(i): 5 for i in range(100_000)})
        assert listing is not None
        assert len(listing.first_listed_at) == MAX_MCP_TASKS
        assert len(json.dumps(dict(listing.first_listed_at))) < 32 * MAX_MCP_TASKS

    def test_a_clock_that_was_set_back_is_handled(self) -> None:
        assert read({"name": "new", "ok": True}, first_listed={NEW: NOW + HOUR})["new"].first_listed_at == NOW


ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=8,
)
FIELDS = ("name", "ok", "last_run_at", "staleness_ms", "last_run_status", "last_run_error")


@given(some.lists(ANYTHING | some.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ANYTHING))))
def test_any_reply_is_handled(entries: list[Any]) -> None:
    listing = parse_task_list_of_mcp_tool_result({"tasks": entries}, NOW, {})
    assert listing is not None
    for name, task in listing.tasks.items():
        assert 0 < len(name) <= 120
        assert task.last_run_at is None or task.last_run_at <= NOW
        assert (task.first_listed_at is not None) == (task.last_run_at is None)
        json.dumps([name, task.status, task.error]).encode()
