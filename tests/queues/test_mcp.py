"""Canary jobs through MCP servers: one that uses BullMQ, one with jobs of its own, and scripted ones."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from pydantic import ValidationError

from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server, tool_definition
from tests.support.ports import find_free_port
from tests.support.probe_runs import (
    EMPTY_MASK,
    canary_probe,
    earlier_sentinel,
    node_worker_command,
    outstanding_ids,
    run_probe,
    short_canary_probe,
)
from tests.support.redis_server import RedisServer, running_worker
from tests.support.redis_server import running_redis as redis_running
from tests.support.third_party import ThirdPartyServers, listening_process
from watchdog.config.load import load_config
from watchdog.domain.model import Json, Outcome, ResultToRecord
from watchdog.net import SecretMask
from watchdog.probes.base import derive_slot_idempotency_key
from watchdog.queues import mcp

SERVERS = Path(__file__).parents[1] / "support/mcp_servers"
JOB_SERVER = [sys.executable, str(SERVERS / "job_server.py")]
MS, S = "\N{NO-BREAK SPACE}ms", "\N{NO-BREAK SPACE}s"
CONNECT_AND_SEND_PHASES = ["spawn", "negotiate", "list", "enqueue"]


def run(
    mcp: Mapping[str, Any], finish_within_ms: int = 20_000, *, slot: int | None = None, state: Any = None, **fields: Any
) -> ResultToRecord:
    return asyncio.run(run_probe(short_canary_probe({"mcp": mcp, **fields}, finish_within_ms), slot, probe_state=state))


def verdict(report: ResultToRecord) -> tuple[Outcome, str, str]:
    return report.result.outcome, report.result.reason, report.result.message


# --- a server built with the TypeScript SDK, whose jobs go through a real queue to a real worker


class ExportServer:
    """A server that is started for each run, and its queue."""

    def __init__(self, broker: RedisServer, peers: ThirdPartyServers):
        self.broker, self.peers, self.queue = broker, peers, f"export-{uuid4().hex[:8]}"
        self.client: Any = redis.Redis.from_url(broker.url, decode_responses=True)

    @property
    def env(self) -> dict[str, str]:
        return {"REDIS": self.broker.url, "QUEUE": self.queue, "NODE_PATH": str(self.peers.node_modules)}

    def running_worker_for(self, behavior: str) -> Any:
        command, env = node_worker_command(self.peers, "bullmq_worker.cjs", BEHAVIOR=behavior, **self.env)
        return running_worker(command, env)

    def mcp(self, tool: str = "export_data", **fields: Any) -> dict[str, Any]:
        command = [self.peers.node, str(SERVERS / "exporter.cjs")]
        return {"command": command, "env": self.env, "tool": tool, **fields}

    def sent_count(self) -> int:
        return int(self.client.get(f"bull:{self.queue}:id") or 0)


@pytest.fixture
def export_server(redis_server: RedisServer, peers: ThirdPartyServers) -> Iterator[ExportServer]:
    export_server = ExportServer(redis_server, peers)
    yield export_server
    export_server.client.close()


def test_a_job_that_is_done_passes_with_its_stages(export_server: ExportServer) -> None:
    with export_server.running_worker_for("return"):
        report = run(export_server.mcp(arguments={"format": "csv", "key": "canary-{nonce}"}))
    assert verdict(report) == (Outcome.PASS, "", "")
    assert list(report.result.phases) in (
        [*CONNECT_AND_SEND_PHASES, "finish"],
        [*CONNECT_AND_SEND_PHASES, "pick_up", "finish"],
    )
    assert report.evidence.facts["sentinel"] == "job:1"
    assert "1.0.0" in report.evidence.facts["server"]
    data = export_server.client.hget(f"bull:{export_server.queue}:1", "data")
    assert f"canary-{derive_slot_idempotency_key('pipeline', report.result.slot)}" in data
    assert report.state_updates == {}


def test_no_worker(export_server: ExportServer) -> None:
    report = run(export_server.mcp(resource="job:{job_id}"), start_within="3s")
    assert verdict(report) == (Outcome.FAIL, "canary.not_picked_up", f"canary job not picked up within 3{S}")
    assert outstanding_ids(report) == ["job:1"]
    blocking = run(export_server.mcp("health_check_job"), 3_000)
    assert verdict(blocking) == (Outcome.FAIL, "canary.not_finished", f"canary job not finished within 3{S}")
    assert blocking.evidence.facts["picked_up"] == "not shown by MCP"
    assert blocking.state_updates == {}


def test_a_job_that_throws_reports_its_error(export_server: ExportServer) -> None:
    with export_server.running_worker_for("throw"):
        failed = Outcome.FAIL, "job.failed"
        assert verdict(run(export_server.mcp())) == (*failed, "the job failed: no template for export")
        assert verdict(run(export_server.mcp("health_check_job"))) == (
            *failed,
            "the job failed: no template for health",
        )


def test_a_job_that_hangs_blocks_two_slots(export_server: ExportServer) -> None:
    with export_server.running_worker_for("hang"):
        reports = [run(export_server.mcp(), 3_000)]
        for _ in range(2):
            reports.append(run(export_server.mcp(), 3_000, state=reports[-1].state_updates))
        for report, period in zip(reports, ("within 3.s", "for .+", "for .+"), strict=True):
            assert verdict(report)[:2] == (Outcome.FAIL, "canary.not_finished")
            assert re.fullmatch(f"canary job picked up after .+, but not finished {period}", report.result.message)
            assert outstanding_ids(report) == ["job:1"]
        assert export_server.sent_count() == 1
        fourth = run(export_server.mcp(), 3_000, state=reports[-1].state_updates)
        assert (export_server.sent_count(), outstanding_ids(fourth)) == (2, ["job:1", "job:2"])
    for key in export_server.client.keys(f"bull:{export_server.queue}:[0-9a-z]*"):
        export_server.client.delete(key)  # the server then returns an error of its own
    with export_server.running_worker_for("return"):
        again = run(export_server.mcp(), state=fourth.state_updates)
        assert verdict(again) == (Outcome.PASS, "", "")
        assert again.state_updates == {"sentinel": None}
        assert verdict(run(export_server.mcp("health_check_job"))) == (Outcome.PASS, "", "")


def test_stalled_progress(export_server: ExportServer) -> None:
    with export_server.running_worker_for("stall"):
        resource_responses = run(export_server.mcp(progress_within="700ms"))
    export_server.queue += "-2"
    with export_server.running_worker_for("stall"):
        notified = run(export_server.mcp("health_check_job", progress_within="700ms"))
    for report in (resource_responses, notified):
        assert verdict(report)[:2] == (Outcome.FAIL, "canary.progress_stalled")
        assert report.result.message.startswith("progress is unchanged at 40 of 100 for ")
        assert report.evidence.facts["progress"] == 40
    assert (outstanding_ids(resource_responses), notified.state_updates) == (["job:1"], {})
    (record,) = resource_responses.state_updates["sentinel"]["records"]
    assert record["reason"] == "canary.progress_stalled"


def test_the_server_reports_that_its_broker_is_down(peers: ThirdPartyServers) -> None:
    with redis_running() as broker:
        export_server = ExportServer(broker, peers)
        export_server.client.close()
    report = run(export_server.mcp(env={**export_server.env, "ADD_WITHIN_MS": "1000"}))
    assert verdict(report)[:2] == (Outcome.FAIL, "job.failed")
    assert report.result.message == "the job failed: Redis gives no answer"


def test_an_http_session_lasts_as_long_as_the_job(export_server: ExportServer) -> None:
    port = find_free_port()
    command, env = export_server.mcp()["command"], {**export_server.env, "PORT": str(port)}
    url = f"http://127.0.0.1:{port}/mcp"
    with export_server.running_worker_for("return"), listening_process(command, port, env):
        for tool in ("export_data", "health_check_job"):
            report = run({"url": url, "tool": tool})
            assert verdict(report) == (Outcome.PASS, "", "")
            assert list(report.result.phases)[:4] == ["connect", "negotiate", "list", "enqueue"]
            assert report.evidence.facts["address"] == f"127.0.0.1:{port}"
    assert verdict(run({"url": url, "tool": "export_data"})) == (
        Outcome.FAIL,
        "connection.refused",
        "connection refused",
    )


# --- a server built with the Python SDK, over every transport


@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
def test_every_transport(transport: str) -> None:
    def assert_passes(transport_config: dict[str, Any]) -> None:
        job = run({**transport_config, "tool": "export_data", "arguments": {"format": "pdf"}})
        assert verdict(job) == (Outcome.PASS, "", "")
        assert list(job.result.phases)[-2:] == ["pick_up", "finish"]
        assert job.result.phases["pick_up"] >= 200
        assert job.evidence.facts["sentinel"] == "job://pdf-1"
        assert job.evidence.facts["progress"] >= 100
        blocking = run({**transport_config, "tool": "wait", "arguments": {"behavior": "works"}})
        assert verdict(blocking) == (Outcome.PASS, "", "")
        assert blocking.result.duration is not None
        assert blocking.result.duration >= 250
        assert "pick_up" not in blocking.result.phases

    if transport == "stdio":
        assert_passes({"command": [*JOB_SERVER, "stdio"]})
        return
    port = find_free_port()
    transport_field, path = ("sse", "sse") if transport == "sse" else ("url", "mcp")
    with listening_process([*JOB_SERVER, transport, str(port)], port):
        assert_passes({transport_field: f"http://127.0.0.1:{port}/{path}"})


@pytest.mark.parametrize(
    ("behavior", "finish_within_ms", "fields", "reason", "message"),
    [
        ("fails", 10_000, {}, "job.failed", "the job failed: no disk space"),
        ("hangs", 3_000, {}, "canary.not_finished", f"canary job not finished within 3{S}"),
        ("stalls", 10_000, {"progress_within": "500ms"}, "canary.progress_stalled",
         "progress is unchanged at 40 of 100 for "),
        ("stalls", 3_000, {}, "canary.not_finished", f"canary job not finished within 3{S}"),
    ],
)  # fmt: skip
def test_a_tool_that_returns_when_its_job_is_done(
    behavior: str, finish_within_ms: int, fields: dict[str, str], reason: str, message: str
) -> None:
    tool = {"command": [*JOB_SERVER, "stdio"], "tool": "wait", "arguments": {"behavior": behavior}, **fields}
    report = run(tool, finish_within_ms)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, reason)
    assert report.result.message.startswith(message)
    assert report.state_updates == {}


def test_a_missing_tool() -> None:
    report = run({"command": [*JOB_SERVER, "stdio"], "tool": "export"})
    assert verdict(report) == (
        Outcome.FAIL,
        "mcp.tool_missing",
        "tool export is missing: 2\N{NO-BREAK SPACE}tools listed",
    )


def test_a_server_that_cannot_be_started() -> None:
    report = run({"command": ["/nowhere/server"], "tool": "export"})
    assert verdict(report) == (Outcome.ERROR, "command.not_found", "command not found: /nowhere/server")


def test_a_server_that_exits_on_the_newer_protocol() -> None:
    command = [sys.executable, str(SERVERS / "raw_stdio.py")]
    assert verdict(run({"command": [*command, "leaves"], "tool": "health_check"})) == (Outcome.PASS, "", "")
    responses = run({"command": [*command, "leaves_at_call"], "tool": "health_check"})
    assert verdict(responses) == (
        Outcome.FAIL,
        "mcp.server_exited",
        "the server exited with code 3",
    )


# --- scripted responses


def tool_response(answer: Json, **fields: Any) -> RawMcpResponse:
    """A response to tools/call: JSON as text."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return RawMcpResponse(result={"content": [{"type": "text", "text": text}], **fields})


def resource_responses(*resources: Json) -> list[RawMcpResponse]:
    """Responses to resources/read, one after the other; the last one is repeated."""
    return [
        RawMcpResponse(result={"contents": [{"uri": "job:7", "text": json.dumps(resource)}]}) for resource in resources
    ]


class ScriptedServerRun:
    """Runs against a server with scripted responses."""

    def __init__(self, answers: Mapping[str, RawMcpResponse | Sequence[RawMcpResponse]]) -> None:
        self.answers = answers
        self.received_methods: list[str] = []

    def run(
        self, finish_within_ms: int = 10_000, *, state: Any = None, mask: SecretMask = EMPTY_MASK, **fields: Any
    ) -> ResultToRecord:
        async def run_against_server() -> ResultToRecord:
            async with running_raw_server(self.answers, [tool_definition("export")]) as server:
                probe = short_canary_probe({"mcp": {"url": server.url, "tool": "export", **fields}}, finish_within_ms)
                report = await run_probe(probe, probe_state=state, mask=mask)
                self.received_methods = server.received_methods
                return report

        return asyncio.run(run_against_server())


STARTED = {"job_id": 7, "poll_resource": "job:7"}


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (tool_response("Exported."), "", ""),
        (tool_response({"ok": True}), "", ""),
        (tool_response({"healthy": True, "job_id": 7}), "", ""),
        (tool_response({"ok": False}), "job.failed", 'the job failed: {"ok": false}'),
        (
            tool_response({"ok": False, "error": "no worker\nsince noon"}),
            "job.failed",
            "the job failed: no worker since noon",
        ),
        (tool_response({"healthy": False, "message": "late"}), "job.failed", "the job failed: late"),
        (tool_response({"status": "failed", "failedReason": "boom"}), "job.failed", "the job failed: boom"),
        (tool_response("Redis is away", isError=True), "job.failed", "the job failed: Redis is away"),
        (tool_response("", isError=True), "job.failed", "the job failed: no error message"),
        (RawMcpResponse(error=(-32603, "it broke")), "canary.enqueue_failed",
         "canary job not enqueued: tool export: tools/call returns error -32603: it broke"),
        (RawMcpResponse(error=(-32602, "Unknown tool: export")), "canary.enqueue_failed",
         "canary job not enqueued: tool export: tools/call returns error -32602: Unknown tool: export"),
        (RawMcpResponse(status=503), "canary.enqueue_failed",
         "canary job not enqueued: tool export: HTTP 503, expected an MCP response"),
        (RawMcpResponse(status=401), "canary.enqueue_failed",
         "canary job not enqueued: tool export: HTTP 401: the server requires credentials"),
    ],
)  # fmt: skip
def test_tool_results(answer: RawMcpResponse, reason: str, message: str) -> None:
    scripted = ScriptedServerRun({"tools/call": answer})
    report = scripted.run()
    assert verdict(report) == (Outcome.FAIL if reason else Outcome.PASS, reason, message)
    assert "resources/read" not in scripted.received_methods
    assert report.state_updates == {}


@pytest.mark.parametrize(
    ("resource", "fields", "reason", "message"),
    [
        ({"status": "completed"}, {}, "", ""),
        ({"state": "Succeeded"}, {}, "", ""),
        ("done", {}, "", ""),
        ({"status": "failed", "failedReason": "boom"}, {}, "job.failed", "the job failed: boom"),
        ({"status": "error", "error": {"message": "boom"}}, {}, "job.failed", "the job failed: boom"),
        ({"status": "cancelled"}, {}, "job.failed", 'the job failed: {"status": "cancelled"}'),
        ({"status": "queued"}, {}, "canary.not_picked_up", f"canary job not picked up within 3{S}"),
        ({"status": "not_found"}, {}, "canary.lost", 'canary job lost: {"status": "not_found"}'),
        ({"state": "missing", "error": "no job 7"}, {}, "canary.lost", "canary job lost: no job 7"),
        ("expired", {}, "canary.lost", "canary job lost: expired"),
        ({"status": "gone"}, {"done": "resource.ok == true"}, "canary.lost", None),
        ({"code": 404}, {"lost": "resource.code == 404"}, "canary.lost", 'canary job lost: {"code": 404}'),
        ({"status": "gone"}, {"lost": "resource.code == 404"}, "canary.not_finished", None),
        ({"status": "in-progress"}, {}, "canary.not_finished", None),
        (
            {"status": "on hold"},
            {},
            "canary.not_finished",
            f"canary job not finished within 3{S}: its status is 'on_hold'",
        ),
        ({"jobs": []}, {}, "canary.not_finished", f"canary job not finished within 3{S}: it reports no status"),
        ({"phase": 3}, {"done": "resource.phase == 3"}, "", ""),
        ({"phase": 4, "message": "x"}, {"failed": "resource.phase == 4"}, "job.failed", "the job failed: x"),
        ({"phase": 2}, {"started": "resource.phase == 2"}, "canary.not_finished", None),
        ({"status": "done"}, {"done": "resource.rows > 0"}, "canary.not_finished", None),
        ({"status": "done", "rows": 3}, {"done": "resource.rows > 0"}, "", ""),
    ],
)
def test_resource_contents(resource: Json, fields: dict[str, Any], reason: str, message: str | None) -> None:
    report = ScriptedServerRun(
        {"tools/call": tool_response(STARTED), "resources/read": resource_responses(resource)}
    ).run(3_000 if reason.startswith("canary.not") else 10_000, **fields)
    result = report.result
    assert (result.outcome, result.reason) == (Outcome.FAIL if reason else Outcome.PASS, reason)
    assert message is None or result.message == message
    if reason.startswith("canary.not"):
        assert outstanding_ids(report) == ["job:7"]
    else:
        assert report.state_updates == {}


def test_an_expression_that_cannot_be_computed() -> None:
    report = ScriptedServerRun(
        {"tools/call": tool_response(STARTED), "resources/read": resource_responses({"rows": 3})}
    ).run(3_000, done="resource.row > 0")
    why = "resource.row > 0 cannot be computed: resource has no field 'row'; it has 'rows'"
    assert verdict(report)[2] == f"canary job not finished within 3{S}: {why}"


@pytest.mark.parametrize(
    ("answer", "fields", "job_uri"),
    [
        ({"job_id": 7}, {}, "job:7"),
        ({"jobId": "a-7"}, {}, "job:a-7"),
        ({"job_id": 7, "poll_resource": "exports://{job_id}/state"}, {}, "exports://7/state"),
        ({"job_id": 7, "poll_resource": "job:8"}, {"resource": "jobs://{job_id}"}, "jobs://7"),
        ({"ok": True, "job_id": 7}, {"resource": "jobs://{job_id}"}, "jobs://7"),
    ],
)
def test_the_uri_of_the_resource(answer: Json, fields: dict[str, Any], job_uri: str) -> None:
    report = ScriptedServerRun(
        {"tools/call": tool_response(answer), "resources/read": resource_responses({"status": "done"})}
    ).run(**fields)
    assert report.result.outcome is Outcome.PASS
    assert report.evidence.facts["sentinel"] == job_uri


def test_a_job_that_is_identified_by_the_nonce() -> None:
    scripted = ScriptedServerRun(
        {"tools/call": tool_response("Started."), "resources/read": resource_responses({"status": "done"})}
    )
    report = scripted.run(resource="job:{nonce}")
    key = derive_slot_idempotency_key("pipeline", report.result.slot)
    assert (report.result.outcome, report.evidence.facts["sentinel"]) == (Outcome.PASS, f"job:{key}")


@pytest.mark.parametrize("answer", ["Export begins.", {"job_id": None}, {"job_id": True}, {"id": 7}, ["7"]])
def test_a_result_without_a_job_id(answer: Json) -> None:
    report = ScriptedServerRun({"tools/call": tool_response(answer)}).run(resource="job:{job_id}")
    assert verdict(report) == (Outcome.FAIL, "canary.job_id_missing", "export returned no job_id")
    assert report.evidence.excerpt == (answer if isinstance(answer, str) else json.dumps(answer))
    assert report.state_updates == {}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (tool_response("unknown queue mails", isError=True), "unknown queue mails"),
        (tool_response({"ok": False, "error": "no such queue"}), "no such queue"),
        (tool_response({"status": "failed", "message": "quota used up"}), "quota used up"),
        (tool_response("", isError=True), "no error message"),
    ],
)
def test_a_tool_that_starts_no_job(answer: RawMcpResponse, why: str) -> None:
    report = ScriptedServerRun({"tools/call": answer}).run(resource="job:{job_id}")
    assert verdict(report) == (Outcome.FAIL, "canary.enqueue_failed", f"canary job not enqueued: tool export: {why}")
    assert report.state_updates == {}


def test_a_tool_that_starts_a_job_which_has_failed() -> None:
    answer = tool_response({"job_id": 7, "status": "failed", "error": "boom"})
    report = ScriptedServerRun({"tools/call": answer}).run(resource="job:{job_id}")
    assert verdict(report) == (Outcome.FAIL, "job.failed", "the job failed: boom")


def test_a_tool_that_returns_no_job_id_within_the_limit() -> None:
    report = ScriptedServerRun({"tools/call": RawMcpResponse(hang=True)}).run(300, resource="job:{job_id}")
    assert verdict(report) == (Outcome.FAIL, "timeout.call", f"export returned no job id within 300{MS}")


def test_a_tool_that_returns_no_job_id_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "MCP_CANARY_JOB_ID_TIMEOUT_S", 0.2)
    report = ScriptedServerRun({"tools/call": RawMcpResponse(hang=True)}).run(resource="job:{job_id}")
    assert verdict(report) == (Outcome.FAIL, "timeout.call", f"export returned no job id within 200{MS}")


def test_a_server_that_never_completes_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "MCP_CANARY_CONNECT_TIMEOUT_S", 0.3)
    report = ScriptedServerRun({"*": RawMcpResponse(hang=True)}).run()
    assert verdict(report)[:2] == (Outcome.FAIL, "timeout.negotiate")
    assert report.result.message.startswith(f"timed out after 300{MS}")


@pytest.mark.parametrize("code", [-32002, -32602])
def test_a_job_that_no_longer_exists_is_lost(code: int) -> None:
    responses = [*resource_responses({"status": "active"}), RawMcpResponse(error=(code, "no such resource"))]
    report = ScriptedServerRun({"tools/call": tool_response(STARTED), "resources/read": responses}).run()
    assert verdict(report)[:2] == (Outcome.FAIL, "canary.lost")
    assert re.fullmatch("canary job picked up after .+, but then lost: .+", report.result.message)
    assert report.state_updates == {}


def test_a_failed_read_is_retried() -> None:
    answers = [
        RawMcpResponse(error=(-32603, "busy")),
        RawMcpResponse(status=503),
        *resource_responses({"status": "done"}),
    ]
    report = ScriptedServerRun({"tools/call": tool_response(STARTED), "resources/read": answers}).run()
    assert verdict(report) == (Outcome.PASS, "", "")


def test_reads_that_fail_until_the_deadline() -> None:
    report = ScriptedServerRun(
        {"tools/call": tool_response(STARTED), "resources/read": RawMcpResponse(error=(-32603, "busy"))}
    ).run(3_000)
    message = "job:7 cannot be read: resources/read returns error -32603: busy"
    assert verdict(report) == (Outcome.FAIL, "canary.poll_failed", message)
    assert outstanding_ids(report) == ["job:7"]


def test_a_read_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.probes.canary.CANARY_QUEUE_CALL_TIMEOUT_S", 0.3)
    answers = {"tools/call": tool_response(STARTED), "resources/read": RawMcpResponse(hang=True)}
    report = ScriptedServerRun(answers).run(400)
    assert verdict(report)[:2] == (Outcome.FAIL, "canary.poll_failed")
    assert report.result.message == f"job:7 cannot be read: timed out after 300{MS}"


def test_an_unknown_job_of_an_earlier_run_does_not_block() -> None:
    answers = [RawMcpResponse(error=(-32603, "no job 6")), *resource_responses({"status": "done"})]
    scripted = ScriptedServerRun({"tools/call": tool_response(STARTED), "resources/read": answers})
    report = scripted.run(state=earlier_sentinel("job:6"))
    assert verdict(report) == (Outcome.PASS, "", "")
    assert scripted.received_methods.count("resources/read") == 2
    assert report.state_updates == {"sentinel": None}


def test_an_earlier_job_that_never_ends_blocks_two_slots() -> None:
    scripted = ScriptedServerRun(
        {"tools/call": tool_response({"ok": True}), "resources/read": resource_responses({"status": "running"})}
    )
    for blocked_slots in (0, 1):
        blocked = scripted.run(state=earlier_sentinel("job:6", blocked_slots=blocked_slots))
        assert verdict(blocked)[:2] == (Outcome.FAIL, "canary.not_finished")
        assert "tools/call" not in scripted.received_methods
    assert verdict(scripted.run(state=earlier_sentinel("job:6", blocked_slots=2))) == (Outcome.PASS, "", "")


@pytest.mark.parametrize("resource", [{"status": "not_found"}, {"status": "missing"}, "expired", {"state": "gone"}])
def test_an_earlier_job_that_is_lost_does_not_block(resource: Json) -> None:
    scripted = ScriptedServerRun(
        {"tools/call": tool_response({"ok": True}), "resources/read": resource_responses(resource)}
    )
    report = scripted.run(state=earlier_sentinel("job:6"))
    assert verdict(report) == (Outcome.PASS, "", "")
    assert report.state_updates == {"sentinel": None}


def test_secrets_in_results_are_masked() -> None:
    text = """
probes:
  - name: Pipeline
    every: 5m
    canary:
      mcp: {url: "http://127.0.0.1:9/mcp", tool: export, headers: {X-Api-Key: hush-hush-1}, auth: {bearer: s3cret-api}}
"""
    mask = load_config(None, text, {}).mask
    scripted = ScriptedServerRun({"tools/call": tool_response("neither hush-hush-1 nor s3cret-api", isError=True)})
    report = scripted.run(mask=mask, headers={"X-Api-Key": "hush-hush-1"}, auth={"bearer": "s3cret-api"})
    assert report.result.message == "the job failed: neither ••• nor •••"
    assert "hush" not in repr(report)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resource": "job:7"}, "expected a URI that contains either {job_id} or {nonce}"),
        ({"done": "result.ok"}, "unknown name 'result.ok'; variables: resource"),
        ({"started": "resource.a = 1"}, "write == instead of ="),
        ({"command": ["x"]}, "expected exactly one of url, sse, command, found url and command"),
        ({"headers": {"A b": "c"}}, "not a valid header name"),
        ({"progress_within": 5}, "a duration needs a unit"),
    ],
)
def test_invalid_configuration_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        canary_probe({"mcp": {"url": "http://x/mcp", "tool": "export", **fields}})
    assert message in str(caught.value)


def test_unsupported_options_are_refused() -> None:
    server = {"url": "http://x/mcp", "tool": "export"}
    with pytest.raises(ValidationError, match="MCP does not show when a job is picked up: remove start_within, or"):
        canary_probe({"mcp": server, "start_within": "1s"})
    with pytest.raises(ValidationError, match="not supported for MCP"):
        canary_probe({"mcp": server, "payload": {"a": 1}})
