"""The evaluation of an MCP server: verdicts, values, tasks, and stored state."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import alert_policy, make_result
from tests.support.mcp_probe_runs import McpProbeRunner, listed_for_ms, reported_tasks, run_mcp_probe, task_age_ms
from tests.support.mcp_servers.raw_http import (
    RawMcpResponse,
    RawMcpServer,
    rpc_result,
    running_raw_server,
    tool_definition,
)
from tests.support.ports import find_free_port
from tests.support.scripted_servers import CertificateAuthority
from tests.support.third_party import listening_process
from watchdog.domain.model import HealthState, Observation, Outcome
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.probe_state import (
    NEGOTIATED_MCP_ERA_STATE_KEY,
    NEVER_RUN_MCP_TASKS_STATE_KEY,
    compute_short_digest,
)
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE, derive_findings_from_result
from watchdog.net import NetworkAccess

SAMPLE = str(Path(__file__).parents[1] / "support/mcp_servers" / "sample.py")
NOW = 1_800_000_000_000
DAY = 86_400_000


def tool_result(text: str = "", structured: Any = None, is_error: bool = False) -> dict[str, Any]:
    content = [{"type": "text", "text": text}] if text else []
    result = {"content": content, "isError": is_error}
    return result if structured is None else result | {"structuredContent": structured}


def run(result: Mapping[str, Any], mcp: Mapping[str, Any] | None = None, **options: Any) -> Observation:
    """A probe of a server whose health check answers with this."""

    async def go() -> Observation:
        async with running_raw_server(result=result) as raw:
            return await run_mcp_probe({"url": raw.url} | dict(mcp or {}), **options)

    return asyncio.run(go())


# --- verdicts


def test_a_missing_tool_is_named() -> None:
    observation = run(tool_result("{}"), {"tools": ["fetch", "search"]})
    assert (observation.reason, observation.message) == (
        "mcp.tool_missing",
        "tool search is missing: 2\N{NO-BREAK SPACE}tools listed",
    )


def test_missing_tools_are_named() -> None:
    observation = run(tool_result("{}"), {"tools": ["b", "a"], "call": "c"})
    assert observation.message.startswith("tools b, a, c are missing")


def test_tasks_are_read_even_if_a_tool_is_missing() -> None:
    observation = run(
        tool_result('{"tasks": [{"name": "sync", "ok": true, "staleness_ms": 5}]}'), {"tools": ["search"]}
    )
    assert (observation.reason, list(reported_tasks(observation) or {})) == ("mcp.tool_missing", ["sync"])


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (tool_result("database is\nlocked", is_error=True), "database is locked"),
        (tool_result('{"healthy": false, "error": "no disk"}', is_error=True), "no disk"),
        (tool_result('{"healthy": false, "error": {"message": "no disk"}}', is_error=True), "no disk"),
        (tool_result('{"checks": [{"name": "db", "ok": false}]}', is_error=True), "db is not ok"),
        (tool_result(is_error=True), "no error message"),
    ],
)
def test_the_message_quotes_the_tools_error(result: Mapping[str, Any], words: str) -> None:
    observation = run(result)
    expected = (Outcome.FAIL, "mcp.tool_error", f"health_check reports an error: {words}")
    assert (observation.outcome, observation.reason, observation.message) == expected
    assert not observation.retryable


FAILED_SYNC = {
    "name": "sync",
    "ok": False,
    "staleness_ms": 7,
    "last_run_status": "failed",
    "last_run_error": "HTTP 502",
}
LATE_SYNC = {"name": "sync", "ok": False, "staleness_ms": 7, "last_run_status": "ok", "last_run_error": None}
FINE_SYNC = {"name": "sync", "ok": True, "staleness_ms": 7, "last_run_status": "ok", "last_run_error": None}


def test_tasks_are_read_even_if_the_tool_reports_an_error() -> None:
    answer = {"error": "no disk", "tasks": [FAILED_SYNC]}
    observation = run(tool_result(structured=answer, is_error=True))
    assert (observation.reason, observation.message) == ("mcp.tool_error", "health_check reports an error: no disk")
    ran_at = observation.listings["task"].observed_at - 7
    assert reported_tasks(observation) == {"sync": McpScheduledTaskFacts(False, ran_at, None, "failed", "HTTP 502")}
    assert observation.measurements["tasks_failed"] == 1
    assert observation.evidence.facts["tasks"] == {"sync": FAILED_SYNC}


EXPLAINED: list[tuple[str, dict[str, Any]]] = [
    ("a failed task", {"tasks": [FAILED_SYNC]}),
    ("a task that the server finds too old", {"tasks": [LATE_SYNC, {"name": "other", "ok": True}]}),
    ("parts that are fine", {"tasks": [LATE_SYNC], "database": {"ok": True}, "error": None, "checks": [{"ok": True}]}),
]


@pytest.mark.parametrize("is_error", [True, False])
@pytest.mark.parametrize("answer", [e[1] for e in EXPLAINED], ids=[e[0] for e in EXPLAINED])
def test_an_unhealthy_server_whose_tasks_explain_it_is_judged_by_its_tasks(
    answer: dict[str, Any], is_error: bool
) -> None:
    observation = run(tool_result(json.dumps({"healthy": False, **answer}), is_error=is_error))
    assert (observation.outcome, observation.message) == (Outcome.PASS, "")
    assert "sync" in (reported_tasks(observation) or {})


UNEXPLAINED: list[tuple[str, dict[str, Any], str]] = [
    ("no tasks", {}, ""),
    ("an error", {"error": "no disk"}, ": no disk"),
    ("a message", {"message": "starting\nup"}, ": starting up"),
    ("an error in an object", {"error": {"code": 5, "message": "no disk"}}, ": no disk"),
    ("an empty list of tasks", {"tasks": []}, ""),
    ("tasks that are fine", {"tasks": [FINE_SYNC]}, ""),
    ("an error beside a failed task", {"tasks": [FAILED_SYNC], "error": "no disk"}, ": no disk"),
    ("errors beside a failed task", {"tasks": [FAILED_SYNC], "errors": ["no disk"]}, ""),
    ("a bad part beside a failed task", {"tasks": [FAILED_SYNC], "database": {"ok": False}}, ": database is not ok"),
    (
        "bad parts in a list, with their names",
        {"tasks": [LATE_SYNC], "checks": [{"name": f"c{i}", "healthy": False} for i in range(4)]},
        ": c0 is not ok; c1 is not ok; c2 is not ok, and 1 more",
    ),
    (
        "a bad part of a part, with its error",
        {"tasks": [LATE_SYNC], "stores": {"redis": {"healthy": False, "error": "connection refused"}}},
        ": redis: connection refused",
    ),
]


@pytest.mark.parametrize(("answer", "detail"), [u[1:] for u in UNEXPLAINED], ids=[u[0] for u in UNEXPLAINED])
def test_an_unhealthy_server_fails_without_an_expectation(answer: dict[str, Any], detail: str) -> None:
    observation = run(tool_result(json.dumps({"healthy": False, **answer})), {"tasks": {"*": "1h"}})
    assert (observation.outcome, observation.reason, observation.message) == (
        Outcome.FAIL,
        "mcp.unhealthy",
        f"health_check reports healthy: false{detail}",
    )
    assert ("task" in observation.listings) == bool(answer.get("tasks"))


def test_an_expectation_about_healthy_decides_what_it_means() -> None:
    result = tool_result('{"healthy": false, "maintenance": true, "error": "being upgraded"}')
    assert run(result, expect=["result.healthy || result.maintenance"]).outcome is Outcome.PASS
    assert run(result, expect=["result.maintenance"]).reason == "mcp.unhealthy"
    assert run(result, prefer=["result.healthy"]).reason == "mcp.unhealthy"
    failed = run(result, expect=["result.healthy == true"])
    assert (failed.reason, failed.message) == (
        "expectation.failed",
        "result.healthy is false, expected true: being upgraded",
    )


@pytest.mark.parametrize("healthy", [True, None, "no", 0])
def test_only_false_is_unhealthy(healthy: Any) -> None:
    assert run(tool_result(json.dumps({"healthy": healthy}))).outcome is Outcome.PASS


NO_TASKS = "health_check reports no tasks"
UNREADABLE = "health_check reports tasks that cannot be read"


@pytest.mark.parametrize(
    ("result", "reason", "message"),
    [
        (tool_result('{"healthy": true}'), "task.list_missing", f"{NO_TASKS}: the result has no `tasks`"),
        (tool_result(structured={"result": 1}), "task.list_missing", f"{NO_TASKS}: the result has no `tasks`"),
        (
            tool_result("all is well"),
            "task.list_missing",
            f"{NO_TASKS}: the result is a string, not an object with `tasks`",
        ),
        (
            tool_result("x" * 300_000),
            "task.list_missing",
            f"{NO_TASKS}: the result is a string, not an object with `tasks`",
        ),
        (tool_result('["sync"]'), "task.list_missing", f"{NO_TASKS}: the result is a list, not an object with `tasks`"),
        (tool_result("null"), "task.list_missing", f"{NO_TASKS}: the result is null, not an object with `tasks`"),
        (tool_result(""), "task.list_missing", f"{NO_TASKS}: the result is empty"),
        ({"content": []}, "task.list_missing", f"{NO_TASKS}: the result is empty"),
        (tool_result('{"tasks": null}'), "task.list_invalid", f"{UNREADABLE}: tasks is null, not a list"),
        (tool_result('{"tasks": [{"ok": true}]}'), "task.list_invalid", f"{UNREADABLE}: tasks[0] has no name"),
        (
            tool_result('{"tasks": {"sync": true}}'),
            "task.list_invalid",
            f"{UNREADABLE}: tasks is an object, not a list",
        ),
        (
            tool_result('{"tasks": ["sync", {}]}'),
            "task.list_invalid",
            f"{UNREADABLE}: tasks[0] is a string, not an object, and 1 more",
        ),
    ],
)
def test_task_limits_require_a_list_of_tasks(result: Mapping[str, Any], reason: str, message: str) -> None:
    observation = run(result, {"tasks": {"*": "1h"}})
    assert (observation.reason, observation.message) == (reason, message)
    assert reported_tasks(observation) is None or reported_tasks(observation) == {}


def test_without_task_limits_a_list_of_other_things_is_ignored() -> None:
    observation = run(tool_result('{"tasks": ["buy milk"]}'))
    assert (observation.outcome, reported_tasks(observation)) == (Outcome.PASS, None)


@pytest.mark.parametrize("name", ["*", "sync"])
def test_an_empty_list_means_that_there_are_no_tasks(name: str) -> None:
    """The rule `missing` then reports the tasks that the configuration names."""
    observation = run(tool_result('{"tasks": []}'), {"tasks": {name: "1h"}})
    assert (observation.outcome, reported_tasks(observation)) == (Outcome.PASS, {})


@pytest.mark.parametrize("text", ["it is broken", "{}", '{"tasks": "?"}', '{"tasks": [{}]}', '{"tasks": []}'])
def test_an_error_takes_precedence_over_missing_tasks(text: str) -> None:
    observation = run(tool_result(text, is_error=True), {"tasks": {"sync": "1h"}})
    assert (observation.outcome, observation.reason) == (Outcome.FAIL, "mcp.tool_error")
    assert reported_tasks(observation) is None, "it reveals nothing about the tasks"


def test_task_limits_require_the_tool_that_reports_the_tasks() -> None:
    async def go() -> Observation:
        async with running_raw_server(tools=[tool_definition("search", "query")]) as raw:
            return await run_mcp_probe({"url": raw.url, "tasks": {"*": "1h"}})

    assert asyncio.run(go()).message.startswith("tool health_check is missing")


# --- which tool is called


@pytest.mark.parametrize(
    ("tools", "mcp", "called"),
    [
        ([tool_definition("health_check")], {}, "health_check"),
        ([tool_definition("health_check", "level")], {}, ""),
        ([tool_definition("search")], {}, ""),
        ([tool_definition("health_check")], {"call": "off"}, ""),
        (
            [tool_definition("health_check"), tool_definition("ping", "n")],
            {"call": {"tool": "ping", "arguments": {"n": 1}}},
            "ping",
        ),
        ([tool_definition("health_check")], {"call": "ping"}, ""),
    ],
)
def test_the_tool_that_is_called(tools: Any, mcp: dict[str, Any], called: str) -> None:
    async def go() -> tuple[Observation, RawMcpServer]:
        async with running_raw_server(tools=tools) as raw:
            return await run_mcp_probe({"url": raw.url} | mcp), raw

    observation, raw = asyncio.run(go())
    assert observation.evidence.facts.get("called_tool", "") == called
    assert ("tools/call" in raw.received_methods) == bool(called)
    assert ("call" in observation.phases) == bool(called)


# --- variables of expressions

ANSWERS: list[tuple[str, dict[str, Any], str]] = [
    ("JSON in text", tool_result('{"healthy": true, "n": 3}'), "result.healthy && result.n == 3"),
    ("structured content takes precedence", tool_result('{"healthy": false}', {"healthy": True}), "result.healthy"),
    ("text that is not JSON", tool_result("all is well"), 'result.contains("well")'),
    ("text that an SDK wrapped", tool_result('{"n": 3}', {"result": '{"n": 3}'}), "result.n == 3"),
    ("a list that an SDK wrapped", tool_result("[1, 2]", {"result": [1, 2]}), "result.size() == 2"),
    ("an object with a field named result", tool_result('{"result": 5}', {"result": 5}), "result.result == 5"),
    ("a number that JSON cannot represent", tool_result("", {"load": None}), "result.load == null"),
    ("no error", tool_result("fine"), "!is_error"),
    ("tools", tool_result("fine"), 'tools == ["health_check", "fetch"]'),
    ("server and protocol", tool_result("fine"), 'server.name == "Raw" && protocol >= "2025"'),
    ("time", tool_result("fine"), "elapsed_ms >= 0 && elapsed_ms < 10000"),
]


@pytest.mark.parametrize(("result", "expression"), [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS])
def test_values_of_expressions(result: dict[str, Any], expression: str) -> None:
    assert run(result, expect=[expression]).message == ""


@pytest.mark.parametrize(
    ("result", "mcp", "expression", "reason", "message"),
    [
        (
            tool_result('{"healthy": false}'),
            {},
            "result.healthy == true",
            "expectation.failed",
            "result.healthy is false, expected true",
        ),
        (
            tool_result("{}"),
            {},
            "result.healthy",
            "expectation.evaluation_failed",
            "an expression cannot be evaluated: result has no field 'healthy'",
        ),
        (
            tool_result("{}"),
            {"call": "ping"},
            "result.healthy",
            "mcp.tool_missing",
            "tool ping is missing: 2\N{NO-BREAK SPACE}tools listed",
        ),
        (
            tool_result(json.dumps({"log": "x" * 300_000})),
            {},
            "result.log.size() > 1",
            "body.too_large",
            "an expression cannot be evaluated: the result is longer than 256KiB (max_body)",
        ),
    ],
)
def test_a_failed_expectation(
    result: dict[str, Any], mcp: dict[str, Any], expression: str, reason: str, message: str
) -> None:
    observation = run(result, mcp, expect=[expression])
    outcome = Outcome.ERROR if reason == "body.too_large" else Outcome.FAIL  # a limit of Watchdog's
    assert (observation.outcome, observation.reason, observation.message) == (outcome, reason, message)


def test_max_body_lets_a_longer_result_be_judged() -> None:
    result = tool_result(json.dumps({"log": "x" * 300_000}))
    assert run(result, {"max_body": "1MiB"}, expect=["result.log.size() == 300000"]).message == ""


@pytest.mark.parametrize(("max_body", "outcome"), [("256KiB", Outcome.ERROR), ("8MiB", Outcome.PASS)])
def test_max_body_lets_a_longer_session_be_read(max_body: str, outcome: Outcome) -> None:
    observation = run(tool_result(json.dumps({"log": "x" * 5_000_000})), {"max_body": max_body})
    assert observation.outcome is outcome, observation.message
    assert observation.reason == ("" if outcome is Outcome.PASS else "body.too_large")


def test_an_expectation_requires_a_tool_call() -> None:
    async def go() -> Observation:
        async with running_raw_server(tools=[tool_definition("health_check", "level")]) as raw:
            return await run_mcp_probe({"url": raw.url}, expect=["result.healthy"])

    wanted = "an expression cannot be evaluated: no tool was called: health_check requires arguments"
    assert asyncio.run(go()).message == wanted


def test_preferences_are_evaluated_if_nothing_fails() -> None:
    observation = run(tool_result('{"queue": 7}'), prefer=["result.queue < 5", "elapsed_ms < 60000"])
    assert observation.outcome is Outcome.PASS
    problems = {text: facts.problem for text, facts in observation.listings["preference"].subjects.items()}
    assert problems == {"result.queue < 5": "result.queue is 7, expected < 5", "elapsed_ms < 60000": ""}


def test_a_resource_is_read() -> None:
    contents = {"contents": [{"uri": "job:42", "text": '{"status": "done"}'}]}
    responses = {"resources/read": RawMcpResponse(body=rpc_result(5, contents))}

    async def go() -> Observation:
        async with running_raw_server(responses) as raw:
            return await run_mcp_probe({"url": raw.url, "resource": "job:42"}, expect=['resource.status == "done"'])

    observation = asyncio.run(go())
    assert (observation.message, list(observation.phases)[-1]) == ("", "read")


# --- stored state


def test_a_task_that_never_ran_is_stored_until_it_runs() -> None:
    new, ran = {"name": "new", "ok": True}, {"name": "new", "ok": True, "staleness_ms": 1}

    async def go() -> list[Any]:
        async with NetworkAccess() as network, running_raw_server() as raw:
            runner, listed_ages = McpProbeRunner(network), []
            for entry, now in ((new, NOW), (new, NOW + DAY), (ran, NOW + 2 * DAY), (ran, NOW + 3 * DAY)):
                raw.result = tool_result(json.dumps({"tasks": [entry]}))
                observation = await runner.run_probe({"url": raw.url}, now=now)
                assert reported_tasks(observation) is not None
                listed_ages.append(
                    (
                        listed_for_ms(observation, "new"),
                        observation.state_updates.get(NEVER_RUN_MCP_TASKS_STATE_KEY, "unchanged"),
                    )
                )
            return listed_ages

    (seen_first, remembered), (seen_later, untouched), *once_it_ran = asyncio.run(go())
    assert seen_first == 0
    assert NOW <= remembered[compute_short_digest("new")] < NOW + 10_000
    assert seen_later == pytest.approx(DAY, abs=10_000)
    assert untouched == "unchanged"
    assert once_it_ran == [(None, None), (None, "unchanged")]


class TestTheEra:
    """The protocol version (`server/discover` or `initialize`) is detected once, stored, and detected again later."""

    @staticmethod
    async def methods_received(runner: McpProbeRunner, raw: RawMcpServer, now: int, **responses: Any) -> list[str]:
        """What the server receives in a run, if it answers like this."""
        raw.received_methods, raw.responses = [], responses
        await runner.run_probe({"url": raw.url, "call": "off"}, now=now)
        return raw.received_methods

    def test_it_is_detected_once_and_again_after_a_day(self) -> None:
        async def go() -> None:
            async with NetworkAccess() as network, running_raw_server() as raw:
                runner = McpProbeRunner(network)
                assert "server/discover" in await self.methods_received(runner, raw, NOW)
                assert runner.probe_state[NEGOTIATED_MCP_ERA_STATE_KEY]["era"] == "legacy"
                assert "server/discover" not in await self.methods_received(runner, raw, NOW + DAY - 1)
                assert "server/discover" in await self.methods_received(runner, raw, NOW + DAY)
                assert runner.probe_state[NEGOTIATED_MCP_ERA_STATE_KEY]["negotiated_at"] == NOW + DAY

        asyncio.run(go())

    @pytest.mark.parametrize(
        "response",
        [
            RawMcpResponse(503),
            RawMcpResponse(500),
            RawMcpResponse(404),
            RawMcpResponse(body=b"", content_length=9),
            RawMcpResponse(error=(-32601, "Method not found")),
            RawMcpResponse(body=b"<html>", content_type="text/html"),
        ],
    )
    def test_any_failure_with_a_remembered_era_makes_it_doubtful(self, response: RawMcpResponse) -> None:
        """It is negotiated again in the same run, and later runs do not start from it."""

        async def go() -> None:
            async with NetworkAccess() as network, running_raw_server() as raw:
                runner = McpProbeRunner(network)
                await self.methods_received(runner, raw, NOW)
                methods = await self.methods_received(runner, raw, NOW + 1, **{"*": response})
                assert methods[:2] == ["initialize", "server/discover"]
                assert runner.probe_state[NEGOTIATED_MCP_ERA_STATE_KEY] is None
                assert "server/discover" in await self.methods_received(runner, raw, NOW + 2)
                assert runner.probe_state[NEGOTIATED_MCP_ERA_STATE_KEY]["era"] == "legacy"

        asyncio.run(go())

    def test_it_is_detected_again_for_another_target(self) -> None:
        async def go() -> None:
            async with NetworkAccess() as network, running_raw_server() as first, running_raw_server() as other:
                runner = McpProbeRunner(network)
                await runner.run_probe({"url": first.url})
                await runner.run_probe({"url": other.url})
                assert "server/discover" in other.received_methods

        asyncio.run(go())

    def test_detection_causes_no_failure(self) -> None:
        async def go() -> None:
            async with NetworkAccess() as network, running_raw_server() as raw:
                runner = McpProbeRunner(network)
                methods = await self.methods_received(runner, raw, NOW, **{"*": RawMcpResponse(503)})
                assert methods == ["server/discover"]
                assert NEGOTIATED_MCP_ERA_STATE_KEY not in runner.probe_state

        asyncio.run(go())


# --- over TLS


def test_over_tls(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)

    async def go() -> None:
        async with running_raw_server(tls=authority.server_tls_context("127.0.0.1")) as raw:
            observation = await run_mcp_probe({"url": raw.url, "tls": {"ca_file": authority.ca_file}})
            assert observation.outcome is Outcome.PASS
            assert list(observation.phases) == ["connect", "tls", "negotiate", "list", "call"]
            assert raw.connections == 1
            refused = await run_mcp_probe({"url": raw.url})
            assert (refused.reason, refused.evidence.facts["phase"]) == ("tls.untrusted", "tls")
        async with running_raw_server(tls=authority.server_tls_context("127.0.0.1", begin=-9, end=-3.1)) as raw:
            expired = await run_mcp_probe({"url": raw.url, "tls": {"ca_file": authority.ca_file}})
            assert expired.reason == "tls.expired"
            assert re.match(r"TLS: certificate expired on \d{1,2}\s[A-Z][a-z]{2} 20\d\d ", expired.message)

    asyncio.run(go())


# --- a real server on the 2.x SDK


@pytest.fixture(scope="module")
def sample() -> Iterator[str]:
    port = find_free_port()
    with listening_process([sys.executable, SAMPLE, "is_error", "http", str(port)], port):
        yield f"http://127.0.0.1:{port}/mcp"


def test_the_current_protocol_over_http(sample: str) -> None:
    async def go() -> None:
        async with NetworkAccess() as network:
            runner = McpProbeRunner(network)
            first = await runner.run_probe({"url": sample, "resource": "report://today"}, expect=["resource.rows == 3"])
            assert runner.probe_state[NEGOTIATED_MCP_ERA_STATE_KEY]["era"] == "2026-07-28"
            second = await runner.run_probe({"url": sample, "tasks": {"*": "2h"}})
            for observation in (first, second):
                assert observation.outcome is Outcome.PASS, "the failed task explains the error"
                assert list(observation.phases)[:4] == ["connect", "negotiate", "list", "call"]
                assert observation.measurements["tools"] == 2
                assert observation.evidence.facts["server"] == "Sample 7.1"
                assert reported_tasks(observation) is not None
                assert (reported_tasks(observation) or {})["registry_sync"].error == "upstream returned 502"

    asyncio.run(go())


def test_a_stale_task_over_server_sent_events() -> None:
    port = find_free_port()
    with listening_process([sys.executable, SAMPLE, "stale", "sse", str(port)], port):
        observation = asyncio.run(run_mcp_probe({"sse": f"http://127.0.0.1:{port}/sse", "tasks": {"*": "2h"}}))
    assert (observation.outcome, observation.measurements["protocol"]) == (Outcome.PASS, "2025-11-25")
    assert reported_tasks(observation) is not None
    assert task_age_ms(observation, "registry_sync") == pytest.approx(DAY, abs=10_000)
    assert listed_for_ms(observation, "nightly_report") == 0


def test_the_current_protocol_over_stdio() -> None:
    observation = asyncio.run(
        run_mcp_probe({"command": [sys.executable, SAMPLE, "none", "stdio"], "tasks": {"*": "2h"}}, timeout_s=20)
    )
    assert (observation.outcome, observation.measurements["protocol"]) == (Outcome.PASS, "2026-07-28")
    assert list(observation.phases) == ["spawn", "negotiate", "list", "call"]
    assert observation.measurements["tasks"] == 3


# --- tools that clients may not be able to use


def test_invalid_schemas_and_duplicate_names_make_the_probe_degraded() -> None:
    tools = [
        {"name": "search", "inputSchema": {"type": "strng"}},
        {"name": "fetch", "inputSchema": {"type": "object"}},
        {"name": "fetch", "inputSchema": {"type": "object"}},
        {"name": "fine", "inputSchema": {"type": "object"}},
    ]

    async def go() -> Observation:
        async with running_raw_server(tools=tools) as raw:
            return await run_mcp_probe({"url": raw.url})

    observation = asyncio.run(go())
    assert observation.outcome is Outcome.PASS
    result = make_result("p")._replace(listings=observation.listings)
    findings = [finding for finding in derive_findings_from_result(alert_policy(), result) if finding.bad]
    assert {INCIDENT_HEALTH_STATE_BY_RULE[finding.rule] for finding in findings} == {HealthState.DEGRADED}
    assert [(finding.subject, finding.reason, finding.message) for finding in findings] == [
        (
            "search",
            "mcp.invalid_schema",
            "tool search has an invalid schema: inputSchema.type is 'strng', which is not a type",
        ),
        ("fetch", "mcp.duplicate_tool", "tool fetch is listed 2 times"),
    ]


def test_usual_tools_are_not_listed() -> None:
    assert "tool" not in run(tool_result("fine")).listings
