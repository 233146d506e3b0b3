"""A sentinel through MCP servers: one whose jobs go through BullMQ, one with jobs of its own, and ones that are odd."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from pydantic import ValidationError

from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server, tool_definition
from tests.support.probe_runs import EMPTY_MASK, canary_probe, node_worker_command, run_probe, short_canary_probe
from tests.support.redis_server import RedisServer, running_worker
from tests.support.redis_server import running_redis as redis_running
from tests.support.third_party import ThirdPartyServers, find_free_port, listening_process
from watchdog.config.load import load_config
from watchdog.domain.model import Json, Outcome, RecordedResult
from watchdog.net import SecretMask
from watchdog.probes.base import derive_idempotency_key
from watchdog.queues import mcp
from watchdog.service.clock import wall_clock_ms

SERVERS = Path(__file__).parents[1] / "support/mcp_servers"
JOBS = [sys.executable, str(SERVERS / "job_server.py")]
MS = "\N{NO-BREAK SPACE}ms"
SPOKEN = ["spawn", "negotiate", "list", "enqueue"]


def run(
    mcp: Mapping[str, Any], finish: int = 3_000, *, slot: int | None = None, memory: Any = None, **more: Any
) -> RecordedResult:
    return asyncio.run(run_probe(short_canary_probe({"mcp": mcp, **more}, finish), slot, probe_state=memory))


def told(report: RecordedResult) -> tuple[Outcome, str, str]:
    return report.result.outcome, report.result.reason, report.result.message


# --- a server on the TypeScript SDK, whose jobs go through a real queue with a real worker


class Exporter:
    """The server, started anew for each run, and the queue behind it."""

    def __init__(self, broker: RedisServer, peers: ThirdPartyServers):
        self.broker, self.peers, self.queue = broker, peers, f"export-{uuid4().hex[:8]}"
        self.client: Any = redis.Redis.from_url(broker.url, decode_responses=True)

    @property
    def env(self) -> dict[str, str]:
        return {"REDIS": self.broker.url, "QUEUE": self.queue, "NODE_PATH": str(self.peers.node_modules)}

    def worker(self, does: str) -> Any:
        words, env = node_worker_command(self.peers, "bullmq_worker.cjs", DOES=does, **self.env)
        return running_worker(words, env)

    def mcp(self, tool: str = "export_data", **fields: Any) -> dict[str, Any]:
        command = [self.peers.node, str(SERVERS / "exporter.cjs")]
        return {"command": command, "env": self.env, "tool": tool, **fields}

    def sent(self) -> int:
        return int(self.client.get(f"bull:{self.queue}:id") or 0)


@pytest.fixture
def exporter(redis_server: RedisServer, peers: ThirdPartyServers) -> Iterator[Exporter]:
    exporter = Exporter(redis_server, peers)
    yield exporter
    exporter.client.close()


def test_a_job_that_is_done_passes_with_its_stages(exporter: Exporter) -> None:
    with exporter.worker("return"):
        report = run(exporter.mcp(arguments={"format": "csv", "key": "canary-{nonce}"}))
    assert told(report) == (Outcome.PASS, "", "")
    assert list(report.result.phases) in ([*SPOKEN, "finish"], [*SPOKEN, "pick_up", "finish"])
    assert report.evidence.facts["sentinel"] == "job:1"
    assert "1.0.0" in report.evidence.facts["server"]
    data = exporter.client.hget(f"bull:{exporter.queue}:1", "data")
    assert f"canary-{derive_idempotency_key('pipeline', report.result.slot)}" in data
    assert report.state_updates == {}


def test_nobody_works(exporter: Exporter) -> None:
    seen = run(exporter.mcp(resource="job:{job_id}"), start_within="500ms")
    assert told(seen) == (Outcome.FAIL, "canary.not_picked_up", f"not picked up within 500{MS}")
    assert seen.state_updates == {"sentinel": {"job_id": "job:1", "slot": seen.result.slot}}
    blocking = run(exporter.mcp("health_check_job"), 500)
    assert told(blocking) == (Outcome.FAIL, "canary.not_finished", f"not finished within 500{MS}")
    assert blocking.evidence.facts["picked_up"] == "MCP does not show it"
    assert blocking.state_updates == {}


def test_a_job_that_throws_tells_why(exporter: Exporter) -> None:
    with exporter.worker("throw"):
        failed = Outcome.FAIL, "job.failed"
        assert told(run(exporter.mcp())) == (*failed, "the job failed: no template for export")
        assert told(run(exporter.mcp("health_check_job"))) == (*failed, "the job failed: no template for health")


def test_a_job_that_hangs_is_not_followed_by_another_until_it_is_gone(exporter: Exporter) -> None:
    with exporter.worker("hang"):
        first = run(exporter.mcp(), 600)
        slot = first.result.slot
        assert told(first)[:2] == (Outcome.FAIL, "canary.not_finished")
        assert first.result.message.startswith("picked up after ")
        assert first.state_updates == {"sentinel": {"job_id": "job:1", "slot": slot}}
        soon = run(exporter.mcp(), 600, slot=slot + 1_000, memory=first.state_updates)
        assert told(soon)[:2] == (Outcome.ERROR, "canary.in_flight")
        late = run(exporter.mcp(), 600, slot=slot, memory={"sentinel": {"job_id": "job:1", "slot": slot - 3_600_000}})
        assert told(late)[:2] == (Outcome.FAIL, "canary.not_finished")
        assert exporter.sent() == 1
    for key in exporter.client.keys(f"bull:{exporter.queue}:1*"):
        exporter.client.delete(key)  # the server then answers with an error of its own
    with exporter.worker("return"):
        again = run(exporter.mcp(), slot=slot, memory=late.state_updates)
        assert told(again) == (Outcome.PASS, "", "")
        assert again.state_updates == {"sentinel": None}
        assert told(run(exporter.mcp("health_check_job"))) == (Outcome.PASS, "", "")


def test_progress_that_stands_still(exporter: Exporter) -> None:
    with exporter.worker("stall"):
        read = run(exporter.mcp(progress_within="700ms"))
    exporter.queue += "-2"
    with exporter.worker("stall"):
        notified = run(exporter.mcp("health_check_job", progress_within="700ms"))
    for report in (read, notified):
        assert told(report)[:2] == (Outcome.FAIL, "canary.progress_stalled")
        assert report.result.message.startswith("progress is unchanged at 40 of 100 for ")
        assert report.evidence.facts["progress"] == 40
    assert (read.state_updates, notified.state_updates) == (
        {"sentinel": {"job_id": "job:1", "slot": read.result.slot}},
        {},
    )


def test_the_broker_behind_it_is_down(peers: ThirdPartyServers) -> None:
    with redis_running() as broker:
        exporter = Exporter(broker, peers)
        exporter.client.close()
    report = run(exporter.mcp())
    assert told(report)[:2] == (Outcome.FAIL, "job.failed")
    assert report.result.message == "the job failed: Redis gives no answer"


def test_over_http_its_session_lasts_as_long_as_the_job(exporter: Exporter) -> None:
    port = find_free_port()
    words, env = exporter.mcp()["command"], {**exporter.env, "PORT": str(port)}
    url = f"http://127.0.0.1:{port}/mcp"
    with exporter.worker("return"), listening_process(words, port, env):
        for tool in ("export_data", "health_check_job"):
            report = run({"url": url, "tool": tool})
            assert told(report) == (Outcome.PASS, "", "")
            assert list(report.result.phases)[:4] == ["connect", "negotiate", "list", "enqueue"]
            assert report.evidence.facts["address"] == f"127.0.0.1:{port}"
    assert told(run({"url": url, "tool": "export_data"})) == (
        Outcome.FAIL,
        "connection.refused",
        "connection refused",
    )


# --- a server on the SDK of Python, in both eras and over every transport


@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
def test_every_transport(transport: str) -> None:
    def passes(where: dict[str, Any]) -> None:
        job = run({**where, "tool": "export_data", "arguments": {"format": "pdf"}})
        assert told(job) == (Outcome.PASS, "", "")
        assert list(job.result.phases)[-2:] == ["pick_up", "finish"]
        assert 200 <= job.result.phases["pick_up"] < 2_000
        assert job.evidence.facts["sentinel"] == "job://pdf-1"
        assert job.evidence.facts["progress"] >= 100
        waited = run({**where, "tool": "wait", "arguments": {"does": "works"}})
        assert told(waited) == (Outcome.PASS, "", "")
        assert 250 <= (waited.result.duration or 0) < 3_000
        assert "pick_up" not in waited.result.phases

    if transport == "stdio":
        passes({"command": [*JOBS, "stdio"]})
        return
    port = find_free_port()
    way, path = ("sse", "sse") if transport == "sse" else ("url", "mcp")
    with listening_process([*JOBS, transport, str(port)], port):
        passes({way: f"http://127.0.0.1:{port}/{path}"})


@pytest.mark.parametrize(
    ("does", "fields", "reason", "message"),
    [
        ("goes ill", {}, "job.failed", "the job failed: no disk space"),
        ("hangs", {}, "canary.not_finished", f"not finished within 900{MS}"),
        ("stalls", {"progress_within": "500ms"}, "canary.progress_stalled", "progress is unchanged at 40 of 100 for "),
        ("stalls", {}, "canary.not_finished", f"not finished within 900{MS}"),
    ],
)
def test_a_tool_that_answers_when_it_is_done(does: str, fields: dict[str, str], reason: str, message: str) -> None:
    report = run({"command": [*JOBS, "stdio"], "tool": "wait", "arguments": {"does": does}, **fields}, 900)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, reason)
    assert report.result.message.startswith(message)
    assert report.state_updates == {}


def test_a_tool_that_is_missing() -> None:
    report = run({"command": [*JOBS, "stdio"], "tool": "export"})
    assert told(report) == (Outcome.FAIL, "mcp.tool_missing", "tool export is missing: 2\N{NO-BREAK SPACE}tools listed")


def test_a_server_that_cannot_be_started() -> None:
    report = run({"command": ["/nowhere/server"], "tool": "export"})
    assert told(report) == (Outcome.ERROR, "command.not_found", "command not found: /nowhere/server")


def test_a_server_that_leaves_when_it_hears_the_newer_protocol() -> None:
    command = [sys.executable, str(SERVERS / "raw_stdio.py")]
    assert told(run({"command": [*command, "leaves"], "tool": "health_check"})) == (Outcome.PASS, "", "")
    gone = run({"command": [*command, "leaves_at_call"], "tool": "health_check"})
    assert told(gone) == (Outcome.FAIL, "mcp.server_exited", "the server exited with code 3")


# --- odd answers


def said(answer: Json, **more: Any) -> RawMcpResponse:
    """What tools/call answers, as JSON in a text."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return RawMcpResponse(result={"content": [{"type": "text", "text": text}], **more})


def read(*resources: Json) -> list[RawMcpResponse]:
    """What resources/read answers, one after the other, the last one for good."""
    return [RawMcpResponse(result={"contents": [{"uri": "job:7", "text": json.dumps(one)}]}) for one in resources]


class Odd:
    """A run against a server that is made of bytes."""

    def __init__(self, answers: Mapping[str, RawMcpResponse | Sequence[RawMcpResponse]]) -> None:
        self.answers = answers
        self.heard: list[str] = []

    def run(
        self, finish: int = 400, *, memory: Any = None, mask: SecretMask = EMPTY_MASK, **fields: Any
    ) -> RecordedResult:
        async def visit() -> RecordedResult:
            async with running_raw_server(self.answers, [tool_definition("export")]) as raw:
                probe = short_canary_probe({"mcp": {"url": raw.url, "tool": "export", **fields}}, finish)
                report = await run_probe(probe, probe_state=memory, mask=mask)
                self.heard = raw.received_methods
                return report

        return asyncio.run(visit())


STARTED = {"job_id": 7, "poll_resource": "job:7"}


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (said("Exported."), "", ""),
        (said({"ok": True}), "", ""),
        (said({"healthy": True, "job_id": 7}), "", ""),
        (said({"ok": False}), "job.failed", 'the job failed: {"ok": false}'),
        (said({"ok": False, "error": "no worker\nsince noon"}), "job.failed", "the job failed: no worker since noon"),
        (said({"healthy": False, "message": "late"}), "job.failed", "the job failed: late"),
        (said({"status": "failed", "failedReason": "boom"}), "job.failed", "the job failed: boom"),
        (said("Redis is away", isError=True), "job.failed", "the job failed: Redis is away"),
        (said("", isError=True), "job.failed", "the job failed: no error message"),
        (RawMcpResponse(error=(-32603, "it broke")), "mcp.rpc_error", "tools/call returns error -32603: it broke"),
        (RawMcpResponse(status=503), "http.status", "HTTP 503"),
        (RawMcpResponse(status=401), "http.401", "HTTP 401: the server requires credentials"),
    ],
)
def test_what_the_tool_answers(answer: RawMcpResponse, reason: str, message: str) -> None:
    odd = Odd({"tools/call": answer})
    report = odd.run()
    assert told(report) == (Outcome.FAIL if reason else Outcome.PASS, reason, message)
    assert "resources/read" not in odd.heard
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
        ({"status": "queued"}, {}, "canary.not_picked_up", f"not picked up within 400{MS}"),
        ({"status": "in-progress"}, {}, "canary.not_finished", None),
        ({"status": "on hold"}, {}, "canary.not_finished", f"not finished within 400{MS}: its status is 'on_hold'"),
        ({"jobs": []}, {}, "canary.not_finished", f"not finished within 400{MS}: it reports no status"),
        ({"phase": 3}, {"done": "resource.phase == 3"}, "", ""),
        ({"phase": 4, "message": "x"}, {"failed": "resource.phase == 4"}, "job.failed", "the job failed: x"),
        ({"phase": 2}, {"started": "resource.phase == 2"}, "canary.not_finished", None),
        ({"status": "done"}, {"done": "resource.rows > 0"}, "canary.not_finished", None),
        ({"status": "done", "rows": 3}, {"done": "resource.rows > 0"}, "", ""),
    ],
)
def test_what_the_resource_tells(resource: Json, fields: dict[str, Any], reason: str, message: str | None) -> None:
    report = Odd({"tools/call": said(STARTED), "resources/read": read(resource)}).run(**fields)
    result = report.result
    assert (result.outcome, result.reason) == (Outcome.FAIL if reason else Outcome.PASS, reason)
    assert message is None or result.message == message
    assert report.state_updates == (
        {"sentinel": {"job_id": "job:7", "slot": result.slot}} if reason.startswith("canary.not") else {}
    )


def test_an_expression_that_cannot_be_computed_says_why() -> None:
    report = Odd({"tools/call": said(STARTED), "resources/read": read({"rows": 3})}).run(done="resource.row > 0")
    why = "resource.row > 0 cannot be computed: resource has no field 'row'; it has 'rows'"
    assert told(report)[2] == f"not finished within 400{MS}: {why}"


@pytest.mark.parametrize(
    ("answer", "fields", "ref"),
    [
        ({"job_id": 7}, {}, "job:7"),
        ({"jobId": "a-7"}, {}, "job:a-7"),
        ({"job_id": 7, "poll_resource": "exports://{job_id}/state"}, {}, "exports://7/state"),
        ({"job_id": 7, "poll_resource": "job:8"}, {"resource": "jobs://{job_id}"}, "jobs://7"),
        ({"ok": True, "job_id": 7}, {"resource": "jobs://{job_id}"}, "jobs://7"),
    ],
)
def test_which_resource_is_read(answer: Json, fields: dict[str, Any], ref: str) -> None:
    report = Odd({"tools/call": said(answer), "resources/read": read({"status": "done"})}).run(**fields)
    assert report.result.outcome is Outcome.PASS
    assert report.evidence.facts["sentinel"] == ref


def test_a_job_that_is_named_by_us() -> None:
    odd = Odd({"tools/call": said("Begun."), "resources/read": read({"status": "done"})})
    report = odd.run(resource="job:{nonce}")
    key = derive_idempotency_key("pipeline", report.result.slot)
    assert (report.result.outcome, report.evidence.facts["sentinel"]) == (Outcome.PASS, f"job:{key}")


@pytest.mark.parametrize("answer", ["Export begins.", {"job_id": None}, {"job_id": True}, {"id": 7}, ["7"]])
def test_an_answer_that_names_no_job(answer: Json) -> None:
    report = Odd({"tools/call": said(answer)}).run(resource="job:{job_id}")
    assert told(report) == (Outcome.FAIL, "canary.job_id_missing", "export returned no job_id")
    assert report.evidence.excerpt == (answer if isinstance(answer, str) else json.dumps(answer))
    assert report.state_updates == {}


def test_a_tool_that_does_not_name_its_job_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "JOB_ID_TIMEOUT_S", 0.2)
    report = Odd({"tools/call": RawMcpResponse(hang=True)}).run(resource="job:{job_id}")
    assert told(report) == (Outcome.FAIL, "timeout.exceeded", f"export returned no job id within 200{MS}")


def test_a_server_that_never_comes_to_an_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "CONNECT_TIMEOUT_S", 0.3)
    report = Odd({"*": RawMcpResponse(hang=True)}).run()
    assert told(report)[:2] == (Outcome.FAIL, "timeout.exceeded")
    assert report.result.message.startswith(f"timed out after 300{MS}")


@pytest.mark.parametrize("code", [-32002, -32602])
def test_a_job_that_is_not_there_any_more_has_vanished(code: int) -> None:
    gone = [*read({"status": "active"}), RawMcpResponse(error=(code, "no such resource"))]
    report = Odd({"tools/call": said(STARTED), "resources/read": gone}).run()
    assert told(report)[:2] == (Outcome.FAIL, "canary.lost")
    assert report.result.message.startswith("the sentinel job disappeared after it was picked up after ")
    assert report.state_updates == {}


def test_a_read_that_fails_is_tried_again() -> None:
    answers = [RawMcpResponse(error=(-32603, "busy")), RawMcpResponse(status=503), *read({"status": "done"})]
    report = Odd({"tools/call": said(STARTED), "resources/read": answers}).run(2_000)
    assert told(report) == (Outcome.PASS, "", "")


def test_a_read_that_fails_until_it_is_too_late() -> None:
    report = Odd({"tools/call": said(STARTED), "resources/read": RawMcpResponse(error=(-32603, "busy"))}).run()
    message = "job:7 cannot be read: resources/read returns error -32603: busy"
    assert told(report) == (Outcome.FAIL, "canary.poll_failed", message)
    assert report.state_updates == {"sentinel": {"job_id": "job:7", "slot": report.result.slot}}


def test_a_read_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.probes.canary.BROKER_CALL_TIMEOUT_S", 0.3)
    report = Odd({"tools/call": said(STARTED), "resources/read": RawMcpResponse(hang=True)}).run()
    assert told(report)[:2] == (Outcome.FAIL, "canary.poll_failed")
    assert report.result.message == f"job:7 cannot be read: timed out after 300{MS}"


def test_a_job_of_an_earlier_run_that_the_server_does_not_know_holds_up_nothing() -> None:
    answers = [RawMcpResponse(error=(-32603, "no job 6")), *read({"status": "done"})]
    odd = Odd({"tools/call": said(STARTED), "resources/read": answers})
    report = odd.run(memory={"sentinel": {"job_id": "job:6", "slot": wall_clock_ms() - 60_000}})
    assert told(report) == (Outcome.PASS, "", "")
    assert odd.heard.count("resources/read") == 2
    assert report.state_updates == {"sentinel": None}


def test_one_that_is_said_to_run_for_ever_is_forgotten_after_a_day() -> None:
    odd = Odd({"tools/call": said({"ok": True}), "resources/read": read({"status": "running"})})
    hour = 3_600_000
    assert (
        told(odd.run(memory={"sentinel": {"job_id": "job:6", "slot": wall_clock_ms() - 23 * hour}}))[1]
        == "canary.not_finished"
    )
    assert "tools/call" not in odd.heard
    assert told(odd.run(memory={"sentinel": {"job_id": "job:6", "slot": wall_clock_ms() - 25 * hour}})) == (
        Outcome.PASS,
        "",
        "",
    )


def test_a_secret_that_comes_back_is_masked() -> None:
    text = """
probes:
  - name: Pipeline
    every: 5m
    canary:
      mcp: {url: "http://127.0.0.1:9/mcp", tool: export, headers: {X-Api-Key: hush-hush-1}, auth: {bearer: s3cret}}
"""
    mask = load_config(None, text, {}).mask
    odd = Odd({"tools/call": said("neither hush-hush-1 nor s3cret", isError=True)})
    report = odd.run(mask=mask, headers={"X-Api-Key": "hush-hush-1"}, auth={"bearer": "s3cret"})
    assert report.result.message == "the job failed: neither ••• nor •••"
    assert "hush" not in repr(report)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"resource": "job:7"}, "expected a URI that contains either {job_id} or {nonce}"),
        ({"done": "result.ok"}, "unknown name 'result.ok'; variables: resource"),
        ({"started": "resource.a = 1"}, "write == instead of ="),
        ({"command": ["x"]}, "expected exactly one of url, sse, command, found url and command"),
        ({"headers": {"A b": "c"}}, "not a valid header name"),
        ({"progress_within": 5}, "a duration needs a unit"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        canary_probe({"mcp": {"url": "http://x/mcp", "tool": "export", **fields}})
    assert complaint in str(caught.value)


def test_what_no_server_can_keep_is_refused() -> None:
    server = {"url": "http://x/mcp", "tool": "export"}
    with pytest.raises(ValidationError, match="MCP does not show when a job is picked up: remove start_within, or"):
        canary_probe({"mcp": server, "start_within": "1s"})
    with pytest.raises(ValidationError, match="not supported for MCP"):
        canary_probe({"mcp": server, "payload": {"a": 1}})
