"""The tools over HTTP, in both versions of the protocol: their answers, and access control."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import MCPError

from tests.support.mcp_clients import (
    ACCESS_CONFIG,
    ACTING_TOOL_NAMES,
    OPERATOR_KEY,
    PROTOCOL_VERSION_BY_MODE,
    READER_KEY,
    TOOL_NAMES,
    call_tool,
    call_tool_error,
    connected_client,
    running_watchdog,
)
from tests.support.missing_jobs import store_missing_jobs
from tests.support.polling import wait_until_async
from tests.support.scripted_servers import running_server, send_parts
from watchdog.api.serializers.incidents import serialize_incident, serialize_incident_detail
from watchdog.api.serializers.probes import serialize_probe_status
from watchdog.app import RunningWatchdogService
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.formatting import DAY_MS, format_iso8601
from watchdog.mcp_server import tool_jobs
from watchdog.service.check_in_log import CheckInLogError
from watchdog.store.database import Database
from watchdog.store.read.acts import list_acts
from watchdog.store.read.incident_details import load_incident_details
from watchdog.store.read.maintenance import load_maintenance_ends_by_probe
from watchdog.store.read.status import list_incidents, list_probe_statuses

DOWN = {"name": "Payments API", "http": "http://127.0.0.1:1/", "every": "1s", "alert": {"failure_threshold": 1}}
IDLE = {"name": "Idle", "http": "http://127.0.0.1:1/", "schedule": "0 0 1 1 *"}

JOB = {"name": "Backup", "heartbeat": {"token": "0123456789abcdef", "every": "1d"}}


@asynccontextmanager
async def with_incident(folder: Path, **more: Any) -> AsyncIterator[tuple[RunningWatchdogService, str]]:
    """A Watchdog with an open incident."""
    async with running_watchdog(folder, [DOWN, IDLE], **more) as (app, url):

        def opened() -> object:
            with app.store_executor.database.open_read_transaction() as connection:
                return list_incidents(connection, is_open=True)

        await wait_until_async(opened)
        yield app, url


@pytest.mark.parametrize("mode", PROTOCOL_VERSION_BY_MODE)
async def test_every_tool_answers_in_each_protocol_version(tmp_path: Path, mode: str) -> None:
    async with with_incident(tmp_path) as (app, url), connected_client(url, mode=mode) as client:
        assert client.protocol_version == PROTOCOL_VERSION_BY_MODE[mode]
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == TOOL_NAMES
        acting = [tool.name for tool in tools if tool.annotations and not tool.annotations.read_only_hint]
        assert set(acting) == ACTING_TOOL_NAMES

        health = await call_tool(client, "health_check")
        assert health["healthy"] is True
        assert [task["name"] for task in health["tasks"]] == list(app.service.tasks)

        (incident,) = (await call_tool(client, "list_incidents"))["incidents"]
        detailed = await call_tool(client, "get_incident", id=incident["id"])
        assert detailed["first_bad"]["evidence"]["facts"]["address"] == "127.0.0.1:1"
        listed = await call_tool(client, "list_probes", state="down")
        assert [probe["probe"] for probe in listed["probes"]] == ["payments-api"]
        described = await call_tool(client, "get_probe", id="Payments API")
        assert (described["state"], described["incidents"], described["pending_findings"]) == (
            "down", [incident["id"]], []
        )  # fmt: skip
        assert "name: Payments API" in described["configuration"]
        for uri, answer in ((f"incident:{incident['id']}", detailed), ("probe:payments-api", described)):
            (content,) = (await client.read_resource(uri)).contents
            assert json.loads(content.text).keys() == answer.keys()  # type: ignore[union-attr] # of a text
        everything = await call_tool(client, "list_probes", limit=1)
        assert (everything["total"], len(everything["probes"])) == (2, 1)
        for state, probe, number in (
            ("all", None, 1), ("resolved", None, 0), ("open", "Payments API", 1), ("open", "idle", 0),
        ):  # fmt: skip
            assert len((await call_tool(client, "list_incidents", state=state, probe=probe))["incidents"]) == number

        reports: list[tuple[float, float | None]] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            reports.append((progress, total))

        ran = (await client.call_tool("run_probe", {"probe": "Idle"}, progress_callback=on_progress)).structured_content
        assert ran is not None
        assert (ran["status"], ran["result"]["reason"]) == ("completed", "connection.refused")
        assert reports[-1] == (20.0, 20.0)
        stored = json.loads((await client.read_resource(ran["poll_resource"])).contents[0].text)  # type: ignore[union-attr]
        assert stored == {"status": "completed", "progress": 1, "result": ran["result"]}

        kept_at = app.service.tasks["maintain"].last_ended_at
        done = await call_tool(client, "trigger_task", task="maintain")
        assert (done["result"]["name"], done["result"]["last_run_status"]) == ("maintain", "success")
        assert app.service.tasks["maintain"].last_ended_at != kept_at


async def test_answers_have_the_format_of_the_command_line(tmp_path: Path) -> None:
    async with with_incident(tmp_path) as (app, url), connected_client(url) as client:
        app.service._timers.pause()
        await wait_until_async(
            lambda: (
                not (
                    app.service.run_executor._slot_by_task
                    or app.service._result_buffer
                    or app.service._record_lock.locked()
                )
            )
        )
        with app.store_executor.database.open_read_transaction() as connection:
            (case,) = list_incidents(connection)
            details = load_incident_details(connection, case.incident.id, app.clock())
            assert details is not None
            detailed = serialize_incident_detail(details)
            probes = [serialize_probe_status(standing) for standing in list_probe_statuses(connection)]
        assert (await call_tool(client, "list_incidents"))["incidents"] == [serialize_incident(case)]
        assert await call_tool(client, "get_incident", id=case.incident.id) == json.loads(json.dumps(detailed))
        assert (await call_tool(client, "list_probes"))["probes"] == probes


async def test_with_heartbeats_flushing_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_watchdog(tmp_path, [IDLE, JOB]) as (app, url), connected_client(url) as client:
        assert app.check_in_receiver is not None
        done = await call_tool(client, "trigger_task", task="flush_check_ins")
        assert (done["result"]["name"], done["result"]["ok"]) == ("flush_check_ins", True)

        def broken(limit: int) -> list[bytes]:
            raise CheckInLogError("check-ins.0 cannot be used: no such folder")

        monkeypatch.setattr(app.check_in_receiver.check_in_log, "read_check_in_batch", broken)
        await call_tool(client, "trigger_task", task="flush_check_ins")
        health = await call_tool(client, "health_check")
        (flush,) = (task for task in health["tasks"] if task["name"] == "flush_check_ins")
        assert (health["healthy"], flush["ok"], flush["last_run_status"]) == (False, False, "failed")
        assert flush["last_run_error"] == "CheckInLogError: check-ins.0 cannot be used: no such folder"


async def test_errors_for_unknown_names_list_the_known_names(tmp_path: Path) -> None:
    async with running_watchdog(tmp_path, [IDLE]) as (_, url), connected_client(url) as client:
        assert await call_tool_error(client, "get_incident", id="x") == (
            "there is no incident 'x': list_incidents lists the ids"
        )
        assert (
            await call_tool_error(client, "run_probe", probe="Idel") == "no probe is named 'Idel'; did you mean 'Idle'?"
        )
        assert await call_tool_error(client, "list_incidents", probe="x") == "no probe is named 'x'; probes: Idle"
        assert await call_tool_error(client, "trigger_task", task="backup") == (
            "there is no task 'backup'; the tasks are claim, record, wake, deliver, end_silences, end_pauses, "
            "decide_muting, remind_and_escalate, plan_maintenance, maintain, report_faults, renew_lease, watch_store, "
            "flush_check_ins, check_database_file"
        )
        assert await call_tool_error(client, "get_probe", id="x") == "no probe is named 'x'; probes: Idle"
        for uri, message in (
            ("probe:x", "no probe is named 'x'; probes: Idle"),
            ("incident:x", "there is no incident 'x': list_incidents lists the ids"),
        ):
            with pytest.raises(MCPError, match=message) as caught:
                await client.read_resource(uri)
            assert caught.value.code == -32_602, "invalid params: it does not exist"
        with pytest.raises(MCPError, match="there is no job 'x': a job is kept for 10 min after it ends"):
            await client.read_resource("job:x")


@pytest.mark.parametrize("mode", PROTOCOL_VERSION_BY_MODE)
async def test_readers_only_read_and_operators_act(tmp_path: Path, mode: str) -> None:
    async with running_watchdog(tmp_path, [IDLE], access=ACCESS_CONFIG) as (app, url):
        async with connected_client(url, READER_KEY, mode) as reader:
            assert (await call_tool(reader, "list_probes"))["total"] == 1
            for tool, arguments in (("run_probe", {"probe": "Idle"}), ("trigger_task", {"task": "maintain"})):
                message = "this requires an API key with the operator role; this key has the reader role"
                assert await call_tool_error(reader, tool, **arguments) == message
            assert app.service.tasks["maintain"].last_ended_at is None
        async with connected_client(url, OPERATOR_KEY, mode) as operator:
            assert (await call_tool(operator, "run_probe", probe="Idle"))["status"] == "completed"


def list_probes_in_maintenance(app: RunningWatchdogService) -> dict[int, int]:
    with app.store_executor.database.open_read_transaction() as connection:
        return load_maintenance_ends_by_probe(connection, app.clock())


def store_missing_job(database: Database, probe_id: str) -> None:
    with database.open_read_transaction() as connection:
        (status,) = list_probe_statuses(connection, probe_id)
    store_missing_jobs(database, status.probe.database_id, "nightly")


@pytest.mark.parametrize("mode", PROTOCOL_VERSION_BY_MODE)
async def test_operators_act_in_the_name_of_their_key(tmp_path: Path, mode: str) -> None:
    async with with_incident(tmp_path, access=ACCESS_CONFIG) as (app, url):
        with app.store_executor.database.open_read_transaction() as connection:
            id = list_incidents(connection, is_open=True)[0].incident.id
        async with connected_client(url, OPERATOR_KEY, mode) as operator:
            first = await call_tool(operator, "acknowledge", incident=id, comment="on it")
            assert (first["acknowledgement"]["by"], first["acknowledgement"]["through"]) == ("ops", "mcp")
            assert await call_tool(operator, "acknowledge", incident=id, comment="again") == first
            assert (await call_tool(operator, "get_incident", id=id))["acknowledgement"] == first["acknowledgement"]
            for _ in range(2):
                removed = await call_tool(operator, "unacknowledge", incident=id)
                assert removed == {"incident": id, "acknowledgement": None}
            started = await call_tool(operator, "silence", probe="payments-api", duration="2h", comment="upgrade")
            assert (started["open_incident_count"], started["silence"]["match"]["id"]) == (1, "payments-api")
            ended = await call_tool(operator, "unsilence", id=started["silence"]["id"])
            assert ended == {**started["silence"], "ended_at": ended["ended_at"], "ended_by": "ops"}
            silence = await call_tool(operator, "silence_until_resolved", incident=id, comment="known")
            assert (silence["incident"], silence["ended_at"], silence["comment"]) == (id, None, "known")
            assert await call_tool(operator, "silence_until_resolved", incident=id) == silence
            paused = await call_tool(operator, "pause_probe", probe="Payments API", duration="2h", comment="moved")
            assert (paused["probe"], paused["pause"]["by"], paused["pause"]["comment"]) == (
                "payments-api",
                "ops",
                "moved",
            )
            until = format_iso8601(app.clock() // 1_000 * 1_000 + DAY_MS)
            timed = await call_tool(operator, "pause_probe", probe="payments-api", until=until)
            assert timed["pause"]["until"] == until
            longer = await call_tool(operator, "pause_probe", probe="payments-api")
            assert longer["pause"] == {**paused["pause"], "until": None, "comment": ""}
            listed = await call_tool(operator, "list_probes", state="paused")
            assert [probe["pause"] for probe in listed["probes"]] == [longer["pause"]]
            resumed = await call_tool(operator, "resume_probe", probe="payments-api")
            assert resumed == {"probe": "payments-api", "pause": None}
            began = await call_tool(operator, "begin_maintenance", probe="payments-api", duration="2h", comment="move")
            window = began["maintenance"]
            assert (began["probe_count"], window["match"]["id"], window["state"]) == (1, "payments-api", "in_effect")
            await wait_until_async(
                lambda: list_probes_in_maintenance(app)
            )  # a slot that is evaluated may be just ahead
            listed = await call_tool(operator, "list_probes")
            (listed_probe,) = [probe for probe in listed["probes"] if probe["probe"] == "payments-api"]
            assert listed_probe["maintenance_until"] == window["until"]
            over = await call_tool(operator, "end_maintenance", id=window["id"])
            assert over == {**window, "state": "ended", "ended_at": over["ended_at"], "ended_by": "ops"}
            await app.store_executor.run_write(store_missing_job, app.store_executor.database, "payments-api")
            forgotten = await call_tool(operator, "forget_jobs", probe="Payments API", job="nightly", comment="moved")
            assert forgotten == {"probe": "payments-api", "jobs": ["nightly"]}
            planned = await call_tool(
                operator, "begin_maintenance", probe="payments-api", starts_at=until, duration="2h"
            )
            window = planned["maintenance"]
            assert (window["state"], window["starts_at"]) == ("planned", until)
            over = await call_tool(operator, "end_maintenance", id=window["id"])
            assert (over["state"], over["ended_by"]) == ("ended", "ops")
            closed = await call_tool(operator, "close_incident", incident=id, comment="host removed")
            assert (closed["closure"]["by"], closed["closure"]["comment"]) == ("ops", "host removed")
            again = await call_tool(operator, "close_incident", incident=id, comment="again")
            assert again == {**closed, "outlook": ""}
            assert (await call_tool(operator, "get_incident", id=id))["closure"] == closed["closure"]
            refusals = {
                ("close_incident", "incident", "none"): "no incident has the id none: list_incidents lists them",
                ("pause_probe", "probe", "none"): "no probe has the id or name none: list_probes lists them",
                ("pause_probe", "probe", "watchdog"): "Watchdog reports the faults of Watchdog itself",
                ("resume_probe", "probe", "payments-api"): "Payments API is not paused",
                ("forget_jobs", "probe", "idle"): "no job of Idle is missing",
                ("accept_contract", "probe", "idle"): "Idle has no contract that could have changed",
                ("begin_maintenance", "duration", "1h"): "nothing is selected: state an id, group, tag",
                ("begin_maintenance", "duration", "soon"): "duration: ",
                ("end_maintenance", "id", "none"): "no maintenance window has the id none",
                ("end_maintenance", "id", window["id"]): f"the maintenance {window['id']} ended at ",
                ("acknowledge", "incident", "none"): "no incident has the id none",
                ("test_receiver", "receiver", "none"): "no receiver is named 'none'; receivers: ",
                ("unsilence", "id", "none"): "no silence has the id none",
                ("silence_until_resolved", "incident", "none"): "no incident has the id none",
                ("silence", "duration", "1h"): "nothing is selected: state an id, group, tag",
                ("silence", "duration", "soon"): "duration: ",
                ("silence", "until", "22:00"): "until: add the time zone, such as +01:00",
                ("begin_maintenance", "until", "soon"): "until: expected a date and a time",
                ("begin_maintenance", "group", "Core"): "give either duration (how long) or until (when it ends)",
            }
            for (tool, name, value), message in refusals.items():
                assert (await call_tool_error(operator, tool, **{name: value})).startswith(message)
        async with connected_client(url, READER_KEY, mode) as reader:
            message = "this requires an API key with the operator role; this key has the reader role"
            for tool in ("acknowledge", "unacknowledge", "close_incident", "silence_until_resolved"):
                assert await call_tool_error(reader, tool, incident=id) == message
            assert await call_tool_error(reader, "silence", duration="1h", all=True) == message
            assert await call_tool_error(reader, "unsilence", id=ended["id"]) == message
            assert await call_tool_error(reader, "test_receiver", receiver="oncall") == message
            assert await call_tool_error(reader, "begin_maintenance", duration="1h", all=True) == message
            assert await call_tool_error(reader, "end_maintenance", id=window["id"]) == message
            for tool in ("pause_probe", "resume_probe", "forget_jobs", "accept_contract"):
                assert await call_tool_error(reader, tool, probe="payments-api") == message
        with app.store_executor.database.open_read_transaction() as connection:
            acts = [(act.kind, act.actor) for act in reversed(list_acts(connection, limit=15))]
        ops = Actor("ops", OperatorInterfaceKind.MCP)
        kinds = "acknowledge", "unacknowledge", "silence", "unsilence", "silence", "pause", "pause", "pause", "resume"
        maintenance = "begin_maintenance", "end_maintenance"
        assert acts == [(kind, ops) for kind in (*kinds, *maintenance, "forget_jobs", *maintenance, "close")]


@pytest.mark.parametrize("mode", PROTOCOL_VERSION_BY_MODE)
async def test_a_run_that_is_recorded_is_one_of_the_service(tmp_path: Path, mode: str) -> None:
    async with with_incident(tmp_path, access=ACCESS_CONFIG) as (app, url):
        async with connected_client(url, OPERATOR_KEY, mode) as operator:
            ran = await call_tool(operator, "run_probe", probe="Idle", record=True)
            assert (ran["status"], ran["result"]["outcome"], ran["result"]["probe"]) == ("completed", "fail", "idle")
            assert ran["result"]["measurements"]["manual"] is True
            without = await call_tool(operator, "run_probe", probe="Idle")
            assert ran["result"].keys() == without["result"].keys()
        async with connected_client(url, READER_KEY, mode) as reader:
            assert "operator role" in await call_tool_error(reader, "run_probe", probe="Idle", record=True)
        with app.store_executor.database.open_read_transaction() as connection:
            (idle,) = list_probe_statuses(connection, "idle")
            acts = [(act.kind, act.actor, act.probe) for act in list_acts(connection, limit=9)]
        assert idle.latest_result is not None
        assert idle.latest_result.reason == ran["result"]["reason"] == "connection.refused"
        assert acts == [("run_now", Actor("ops", OperatorInterfaceKind.MCP), "idle")]


DISCOVER = {
    "jsonrpc": "2.0", "id": 1, "method": "server/discover",
    "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                         "io.modelcontextprotocol/clientCapabilities": {},
                         "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"}}},
}  # fmt: skip
HEADERS = {
    "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "server/discover",
}  # fmt: skip
INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}  # fmt: skip

LOCAL = {"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}
PUBLIC = {"Host": "status.example", "Origin": "https://status.example"}


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize(
    ("sentence", "keys", "headers", "status"),
    [
        ("this machine, without keys", False, {}, 200),
        ("a page of this machine", False, LOCAL, 200),
        ("another site, through a browser on this machine", False, {"Origin": "https://evil.example"}, 403),
        ("a foreign name that resolves to this machine", False, {"Host": "evil.example"}, 403),
        ("the public name, without keys", False, PUBLIC, 403),
        ("a proxy, without keys", False, {"X-Forwarded-For": "203.0.113.9"}, 403),
        ("no key", True, {}, 401),
        ("a wrong key", True, {"Authorization": "Bearer wrong"}, 401),
        ("a valid key", True, {"Authorization": f"Bearer {READER_KEY}"}, 200),
        ("a valid key, at the public name", True, {"Authorization": f"Bearer {READER_KEY}", **PUBLIC}, 200),
        ("a valid key, at a foreign name", True,
         {"Authorization": f"Bearer {READER_KEY}", "Host": "evil.example"}, 421),
        ("a valid key, from another site", True,
         {"Authorization": f"Bearer {READER_KEY}", "Origin": "https://evil.example"}, 403),
        ("a valid key, from a page without an origin", True,
         {"Authorization": f"Bearer {READER_KEY}", "Origin": "null"}, 403),
    ],
)  # fmt: skip
async def test_access(
    tmp_path: Path, modern: bool, sentence: str, keys: bool, headers: dict[str, str], status: int
) -> None:
    access = ACCESS_CONFIG if keys else {}
    async with (
        running_watchdog(tmp_path, [IDLE], access=access) as (_, url),
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        port = url.split(":")[2].partition("/")[0]
        given = {name: value.format(port=port) for name, value in headers.items()}
        accept = HEADERS if modern else {"Accept": HEADERS["Accept"]}
        answer = await http.post(url, json=DISCOVER if modern else INITIALIZE, headers={**accept, **given})
        assert answer.status_code == status, sentence
        assert ("Watchdog" in answer.text) == (status == 200)
        if status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["reason"] in ("access.missing_key", "access.invalid_key")


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_there_are_no_sessions_and_no_open_streams(tmp_path: Path, method: str) -> None:
    async with running_watchdog(tmp_path, [IDLE]) as (_, url), httpx.AsyncClient(trust_env=False, timeout=60) as http:
        answer = await http.request(method, url, headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        initialized = await http.post(url, json=INITIALIZE, headers={"Accept": HEADERS["Accept"]})
        assert "mcp-session-id" not in initialized.headers


async def test_a_large_request_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with running_watchdog(tmp_path, [IDLE]) as (_, url), httpx.AsyncClient(trust_env=False, timeout=60) as http:
        huge = {**INITIALIZE, "padding": "x" * 70_000}
        assert (await http.post(url, json=huge, headers={"Accept": HEADERS["Accept"]})).status_code == 413


async def test_a_long_run_becomes_a_job_with_progress_and_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_jobs, "MAX_WAIT_FOR_MCP_TOOL_JOB_S", 1.5)
    monkeypatch.setattr(tool_jobs, "MCP_TOOL_JOB_PROGRESS_INTERVAL_S", 0.05)
    async with (
        running_server(send_parts(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", delay_s=60)) as fast,
        running_server(send_parts(delay_s=60)) as silent,
    ):
        slow = {**IDLE, "http": f"http://127.0.0.1:{silent.port}/", "timeout": "9s"}
        quick = {**IDLE, "name": "Quick", "http": f"http://127.0.0.1:{fast.port}/"}
        async with running_watchdog(tmp_path, [slow, quick]) as (_, url), connected_client(url) as client:
            reports: list[float] = []

            async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                reports.append(progress)
                assert message is not None
                assert re.fullmatch("run of idle: [0-9]+ s of at most 19 s", message)

            called = await client.call_tool("run_probe", {"probe": "Idle"}, progress_callback=on_progress)
            job = called.structured_content
            assert job is not None
            assert (job["status"], job["poll_resource"]) == ("running", f"job:{job['job_id']}")
            assert len(reports) > 1
            assert reports == sorted(reports)
            monkeypatch.setattr(tool_jobs, "MAX_WAIT_FOR_MCP_TOOL_JOB_S", 20.0)
            assert (await call_tool(client, "run_probe", probe="Quick"))["result"]["outcome"] == "pass", "beside it"

            async def state() -> dict[str, Any]:
                read = await client.read_resource(job["poll_resource"])
                answers: dict[str, Any] = json.loads(read.contents[0].text)  # type: ignore[union-attr]
                return answers

            first = await state()
            assert first["status"] == "running"
            assert 0 <= first["progress"] < 1
            while (last := await state())["status"] == "running":
                assert last["progress"] >= first["progress"]
            assert (last["status"], last["progress"], last["result"]["reason"]) == (
                "completed",
                1,
                "timeout.first_byte",
            )


async def test_the_number_of_concurrent_jobs_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_jobs, "MAX_WAIT_FOR_MCP_TOOL_JOB_S", 0.0)
    monkeypatch.setattr(tool_jobs, "MAX_CONCURRENT_MCP_TOOL_JOBS", 2)
    async with running_server(send_parts(delay_s=60)) as silent:
        slow = {**IDLE, "http": f"http://127.0.0.1:{silent.port}/", "timeout": "30s"}
        async with running_watchdog(tmp_path, [slow]) as (_, url), connected_client(url) as client:
            for _ in range(2):
                assert (await call_tool(client, "run_probe", probe="Idle"))["status"] == "running"
            assert await call_tool_error(client, "run_probe", probe="Idle") == (
                "2 jobs are running (run of idle, run of idle): try again when one of them has ended"
            )
        # leaving the block stops the service while the jobs run, within its time limit


async def test_an_unavailable_database_is_reported(tmp_path: Path) -> None:
    async with running_watchdog(tmp_path, [IDLE]) as (app, url), connected_client(url) as client:
        with app.store_executor.database.open_write_transaction() as connection:
            connection.exec_driver_sql("ALTER TABLE incidents RENAME TO gone")
        message = await call_tool_error(client, "list_incidents")
        assert message.startswith("the database cannot be read at the moment")
        for uri in ("probe:idle", "incident:x"):
            with pytest.raises(MCPError, match="the database cannot be read at the moment") as caught:
                await client.read_resource(uri)
            assert caught.value.code == -32_603, "internal error: it may exist"
        assert (await call_tool(client, "health_check"))["tasks"], "it needs no database"


async def test_no_tool_returns_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret is in a header, in the response of the target, and in an error of an internal task."""
    secret = "hush-hush-0123456789"
    body = f"the token {secret} is wrong".encode()
    head = f"HTTP/1.1 503 {secret}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    async with running_server(send_parts(head, body)) as target:
        probe = {**DOWN, "http": {"url": f"http://127.0.0.1:{target.port}/{secret}", "headers": {"X-Key": "${TOKEN}"}}}
        probe |= {"group": "for ${TOKEN}", "tags": ["${TOKEN}"], "name": "Payments ${TOKEN}", "id": "payments-api"}
        async with with_secret(tmp_path, probe, secret) as (app, url), connected_client(url) as client:

            async def broken() -> None:
                raise RuntimeError(f"cannot log in as {secret}")

            monkeypatch.setattr(app.service.tasks["deliver"], "run", broken)
            for _ in range(20):  # a delivery that had already started may still succeed
                answers = [str(await call_tool(client, "trigger_task", task="deliver"))]
                if "RuntimeError" in answers[0]:
                    break
            assert "RuntimeError: cannot log in as •••" in answers[0]
            answers.append(str(await call_tool(client, "health_check")))
            assert "cannot log in as •••" in answers[1]
            answers.append(str(await call_tool(client, "run_probe", probe="payments-api")))
            assert "the token ••• is wrong" in answers[2]
            answers.append(str(await call_tool(client, "list_probes")))
            answers.append(await call_tool_error(client, "run_probe", probe="nope"))
            assert answers[-1] == "no probe is named 'nope'; probes: Payments •••"
            incidents = await call_tool(client, "list_incidents")
            answers += [
                str(incidents),
                str(await call_tool(client, "get_incident", id=incidents["incidents"][0]["id"])),
            ]
            assert "the token ••• is wrong" in answers[-1]
            assert [text for text in answers if secret in text] == []


@asynccontextmanager
async def with_secret(
    folder: Path, probe: dict[str, Any], secret: str
) -> AsyncIterator[tuple[RunningWatchdogService, str]]:
    async with running_watchdog(folder, [probe], env={"TOKEN": secret}) as (app, url):

        def opened() -> object:
            with app.store_executor.database.open_read_transaction() as connection:
                return list_incidents(connection, is_open=True)

        await wait_until_async(opened)
        yield app, url
