"""Canaries read results of MCP servers over 64 KiB in the worker process, with the verdict of smaller ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.queues.test_mcp import STARTED, ScriptedServerRun, resource_responses, tool_response, verdict
from tests.support.mcp_servers.raw_http import RawMcpResponse
from watchdog.domain.model import Json, Outcome, ResultToRecord

PAD = ["x" * 1_000] * 100


def run(answer: dict[str, Json], *resources: dict[str, Json], **fields: Any) -> ResultToRecord:
    answers: dict[str, RawMcpResponse | Sequence[RawMcpResponse]] = {
        "tools/call": tool_response(answer),
        "resources/read": resource_responses(*resources),
    }
    return ScriptedServerRun(answers).run(20_000, **fields)


@pytest.mark.parametrize("pad", [{}, {"log": PAD}], ids=["small", "large"])
@pytest.mark.parametrize(
    ("answer", "resource", "fields", "expected"),
    [
        (STARTED, {"status": "completed"}, {}, (Outcome.PASS, "", "")),
        (STARTED, {"phase": 3}, {"done": "resource.phase == 3"}, (Outcome.PASS, "", "")),
        (
            STARTED,
            {"status": "failed", "error": "no disk"},
            {},
            (Outcome.FAIL, "job.failed", "the job failed: no disk"),
        ),
        ({"ok": False, "error": "no broker"}, {}, {}, (Outcome.FAIL, "job.failed", "the job failed: no broker")),
    ],
    ids=["done", "done by an expression", "failed", "failed in the call"],
)
def test_the_verdict_does_not_depend_on_the_size(
    pad: dict[str, Json],
    answer: dict[str, Json],
    resource: dict[str, Json],
    fields: dict[str, str],
    expected: tuple[Outcome, str, str],
) -> None:
    report = run({**answer, **pad}, {**resource, **pad}, **fields)
    assert verdict(report) == expected
    assert ("judge" in report.result.phases) is bool(pad)


def test_an_expression_reads_the_whole_of_a_large_resource() -> None:
    resource: dict[str, Json] = {"status": "running", "log": [*PAD, "exported"]}
    done = "size(resource.log) == 101 && resource.log[100] == 'exported'"
    assert verdict(run(STARTED, resource, done=done)) == (Outcome.PASS, "", "")
