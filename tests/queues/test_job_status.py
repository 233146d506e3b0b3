"""Job states in JSON that applications return."""

from __future__ import annotations

import pytest

from watchdog.domain.model import Json
from watchdog.domain.observations import CanaryJobStage
from watchdog.queues.job_status import (
    compile_canary_stage_expressions,
    fill_braced_placeholders_in_json,
    find_canary_stage_of_status_word,
    find_canary_stage_of_true_expression,
    find_job_error_message,
    parse_job_id,
    parse_job_progress_and_total,
)


@pytest.mark.parametrize(
    ("value", "stage"),
    [
        ({"status": "waiting"}, CanaryJobStage.QUEUED),
        ({"state": "PENDING"}, CanaryJobStage.QUEUED),
        ({"status": "in progress"}, CanaryJobStage.RUNNING),
        ({"state": "In-Progress"}, CanaryJobStage.RUNNING),
        ({"status": 3, "state": "active"}, CanaryJobStage.RUNNING),
        ("success\n", CanaryJobStage.DONE),
        ({"status": "canceled"}, CanaryJobStage.FAILED),
        ({"status": "not_found"}, CanaryJobStage.LOST),
        ({"status": "Not Found"}, CanaryJobStage.LOST),
        ({"state": "missing"}, CanaryJobStage.LOST),
        ({"status": "expired"}, CanaryJobStage.LOST),
        ("gone", CanaryJobStage.LOST),
        ({"status": "deleted"}, CanaryJobStage.LOST),
        ({"status": "weird"}, None),
        ({"status": {"a": 1}}, None),
        ({}, None),
        (["done"], None),
        (None, None),
    ],
)
def test_statuses(value: Json, stage: CanaryJobStage | None) -> None:
    assert find_canary_stage_of_status_word(value) is stage


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (0, "0"), (" a/b ", "a/b"), ("", ""), (None, ""), (True, ""), (7.5, ""), (["7"], ""), ("7" * 501, "")],
)
def test_job_ids(value: Json, text: str) -> None:
    assert parse_job_id(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("boom\n at line 3", "boom at line 3"),
        ({"error": "boom", "message": "x"}, "boom"),
        ({"error": {"code": 7, "message": "boom"}}, "boom"),
        ({"error": None, "failedReason": "boom"}, "boom"),
        ({"error": "", "reason": "boom"}, "boom"),
        ({"error": {"code": 7}}, '{"error": {"code": 7}}'),
        ({"ok": False}, '{"ok": false}'),
        ({}, ""),
        (None, ""),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_error_messages(value: Json, text: str) -> None:
    assert find_job_error_message(value) == text


@pytest.mark.parametrize(
    ("value", "progress"),
    [
        ({"progress": 40}, (40.0, None)),
        ({"progress": 0.5}, (0.5, None)),
        ({"progress": {"progress": 40, "total": 100}}, (40.0, 100.0)),
        ({"progress": {"progress": 40, "total": "all"}}, (40.0, None)),
        ({"progress": {"step": "x"}}, None),
        ({"progress": True}, None),
        ({"progress": float("nan")}, None),
        ({"progress": float("inf")}, None),
        ({"progress": 10**400}, None),
        ({"progress": "40 %"}, None),
        ({}, None),
        ("40", None),
    ],
)
def test_progress(value: Json, progress: tuple[float, float | None] | None) -> None:
    assert parse_job_progress_and_total(value) == progress


def test_placeholders_are_substituted_in_nested_strings_and_not_in_keys() -> None:
    template = {"{nonce}": ["{nonce}-{nonce}", 7, None, {"a": "{other}"}]}
    assert fill_braced_placeholders_in_json(template, nonce="n") == {"{nonce}": ["n-n", 7, None, {"a": "{other}"}]}
    assert fill_braced_placeholders_in_json("{}{nonce}") == "{}{nonce}"


def test_a_placeholder_alone_becomes_the_value_itself() -> None:
    template = ["{id}", "{id}{id}", "{template}", "{values}"]
    filled = fill_braced_placeholders_in_json(template, id=17, template=True, values="{id}")
    assert filled == [17, "1717", True, "{id}"]


@pytest.mark.parametrize(
    ("values", "stage", "expected_problem"),
    [
        ({"x": 1, "y": 1}, CanaryJobStage.FAILED, ""),
        ({"x": 0, "y": 1}, CanaryJobStage.DONE, ""),
        ({"x": 0, "y": 0, "z": 1}, CanaryJobStage.RUNNING, ""),
        ({"x": 0, "y": 0, "z": 0}, None, ""),
        ({"x": 0, "y": 0}, None, ""),
        ({"y": 1}, CanaryJobStage.DONE, ""),
        ({"x": 0, "z": 0}, None, "v.y == 1 cannot be computed: v has no field 'y'; it has 'x'"),
        ({"y": 0}, None, "v.x == 1 cannot be computed: v has no field 'x'; it has 'y'"),
        ({"x": 0, "y": "1"}, None, ""),
        ({"x": 0, "y": 0, "w": 1}, CanaryJobStage.LOST, ""),
        ({"x": 0, "y": 0, "w": 1, "z": 1}, CanaryJobStage.LOST, ""),
        ({"x": 0, "y": 1, "w": 1}, CanaryJobStage.DONE, ""),
    ],
)
def test_expressions_are_evaluated_in_order(values: Json, stage: CanaryJobStage | None, expected_problem: str) -> None:
    stages = compile_canary_stage_expressions(
        {"v": "dyn"}, failed="v.x == 1", done="v.y == 1", lost="v.w == 1", started="v.z == 1"
    )
    actual_stage, problem = find_canary_stage_of_true_expression(stages, {"v": values})
    assert actual_stage is stage
    assert problem.partition("; it has")[0] == expected_problem.partition("; it has")[0]
