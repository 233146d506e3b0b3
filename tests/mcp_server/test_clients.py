"""`watchdog run` and `watchdog mcp` as processes, with clients of the 1.x SDK and of the current one."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.support.command_line import WATCHDOG_COMMAND, run_command, subprocess_env
from tests.support.mcp_clients import (
    ACCESS_CONFIG,
    OPERATOR_KEY,
    PROTOCOL_VERSION_BY_MODE,
    READER_KEY,
    TASK_NAMES,
    TOOL_NAMES,
    call_tool,
    call_tool_error,
    connected_client,
)
from tests.support.polling import HANG_S, wait_until
from tests.support.ports import find_free_port
from tests.support.third_party import ThirdPartyServers
from tests.support.watchdog_process import WatchdogProcess, run_watchdog
from watchdog.resources import find_resource_folder
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema

SDK_1X_CLIENT = str(Path(__file__).parents[1] / "support/mcp_servers" / "sdk_1x_client.py")
SECRET = "hush-hush-0123456789"
PROBES = [
    {"name": "Payments API", "http": {"url": "http://127.0.0.1:1/", "headers": {"X-Key": "${TOKEN}"}}, "every": "1s",
     "alert": {"failure_threshold": 1}},
    {"name": "Idle", "http": "http://127.0.0.1:1/", "schedule": "0 0 1 1 *"},
]  # fmt: skip
ENV = {"TOKEN": SECRET}


def write_config(folder: Path, port: int, **more: Any) -> Path:
    config = {
        "server": {"listen": f"127.0.0.1:{port}"},
        "storage": {"url": f"sqlite:///{folder}/watchdog.db"},
        "probes": PROBES,
        "access": ACCESS_CONFIG,
        **more,
    }
    path = folder / "watchdog.yaml"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("run"), find_free_port())


@pytest.fixture(scope="module")
def run(config: Path) -> Iterator[WatchdogProcess]:
    """With an open incident."""
    with run_watchdog(config, ENV) as running:
        wait_until(lambda: any(line["event"] == "incident_opened" for line in running.log_entries))
        yield running


def stdio_command(config: Path) -> list[str]:
    """The command line of `watchdog mcp`, in a clean environment."""
    env = [f"{name}={value}" for name, value in subprocess_env(ENV).items()]
    return ["env", "-i", *env, *WATCHDOG_COMMAND, "mcp", "-c", str(config)]


def run_sdk_1x_client(peers: ThirdPartyServers, where: str, how: str, *steps: str) -> dict[str, Any]:
    """Runs steps with the 1.x client. Returns its report."""
    ran = subprocess.run(
        [str(peers.python_with_mcp_1x), SDK_1X_CLIENT, where, how, *steps],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_a_client_of_the_1x_sdk_lists_and_calls(
    peers: ThirdPartyServers, run: WatchdogProcess, config: Path, transport: str
) -> None:
    where = (run.base_url + "mcp", OPERATOR_KEY) if transport == "http" else ("-", json.dumps(stdio_command(config)))
    acting = ('run_probe:{"probe": "idle"}', "job:{job}", 'trigger_task:{"task": "maintain"}')
    report = run_sdk_1x_client(peers, *where, "health_check", "list_probes", "list_incidents", *acting)
    assert (report["server"], report["protocol"], report["tools"]) == ("Watchdog", "2025-11-25", TOOL_NAMES)
    steps: list[dict[str, Any]] = report["steps"]
    health, probes, incidents, ran, read, triggered = steps
    assert [task["name"] for task in health["tasks"]] == TASK_NAMES
    assert probes["total"] == 2
    assert incidents["incidents"][0]["probe"] == "payments-api"
    assert ran["progress_heard"] >= 1
    assert read["result"] == ran["result"]
    assert triggered["result"]["last_run_status"] == "success"
    assert not any(step.get("is_error") for step in report["steps"])


def test_a_client_of_the_1x_sdk_with_a_readers_key(peers: ThirdPartyServers, run: WatchdogProcess) -> None:
    reads, acts = run_sdk_1x_client(
        peers, run.base_url + "mcp", READER_KEY, "list_probes", 'run_probe:{"probe": "idle"}'
    )["steps"]
    assert (reads["total"], acts["is_error"]) == (2, True)
    assert "requires an API key with the operator role" in acts["error"]


@pytest.mark.parametrize("mode", PROTOCOL_VERSION_BY_MODE)
async def test_a_client_of_the_current_sdk_over_http(run: WatchdogProcess, mode: str) -> None:
    async with connected_client(run.base_url + "mcp", OPERATOR_KEY, mode) as client:
        await check_every_tool(client, mode, actor="ops")


@pytest.mark.parametrize("mode", PROTOCOL_VERSION_BY_MODE)
async def test_a_client_of_the_current_sdk_over_stdio(run: WatchdogProcess, config: Path, mode: str) -> None:
    command, *words = stdio_command(config)
    async with Client(stdio_client(StdioServerParameters(command=command, args=words)), mode=mode) as client:
        await check_every_tool(client, mode, actor=pwd.getpwuid(os.getuid()).pw_name)


async def check_every_tool(client: Client, mode: str, actor: str) -> None:
    """`actor`: in whose name the client acts."""
    assert client.protocol_version == PROTOCOL_VERSION_BY_MODE[mode]
    assert [tool.name for tool in (await client.list_tools()).tools] == TOOL_NAMES
    health = await call_tool(client, "health_check")
    assert health["healthy"] is True
    assert "note" not in health
    assert [task["name"] for task in health["tasks"]] == TASK_NAMES
    (incident,) = (await call_tool(client, "list_incidents"))["incidents"]
    detailed = await call_tool(client, "get_incident", id=incident["id"])
    assert detailed["first_bad"]["reason"] == "connection.refused"
    ran = await call_tool(client, "run_probe", probe="Idle")
    assert ran["result"]["outcome"] == "fail"
    done = await call_tool(client, "trigger_task", task="maintain")
    assert (done["status"], done["result"]["ok"]) == ("completed", True)
    assert (await call_tool_error(client, "trigger_task", task="nope")).endswith(
        "there is no task 'nope'; the tasks are claim, record, wake, deliver, end_silences, end_pauses, decide_muting,"
        " remind_and_escalate, plan_maintenance, maintain, report_faults, renew_lease, watch_store, flush_check_ins,"
        " check_database_file"
    )
    acknowledged = await call_tool(client, "acknowledge", incident=incident["id"])
    assert acknowledged["acknowledgement"]["by"] == actor
    removed = await call_tool(client, "unacknowledge", incident=incident["id"])
    assert removed["acknowledgement"] is None
    silence = (await call_tool(client, "silence", probe="idle", duration="1h"))["silence"]
    ended = await call_tool(client, "unsilence", id=silence["id"])
    assert (silence["by"], silence["through"], ended["ended_by"]) == (actor, "mcp", actor)
    paused = await call_tool(client, "pause_probe", probe="idle", duration="1h")
    assert (paused["probe"], paused["pause"]["by"], paused["pause"]["through"]) == ("idle", actor, "mcp")
    assert await call_tool(client, "resume_probe", probe="idle") == {"probe": "idle", "pause": None}
    window = (await call_tool(client, "begin_maintenance", probe="idle", duration="1h"))["maintenance"]
    ended = await call_tool(client, "end_maintenance", id=window["id"])
    assert (window["by"], window["through"], ended["ended_by"]) == (actor, "mcp", actor)


# --- watchdog mcp by itself


@pytest.fixture
def idle_config(tmp_path: Path) -> Path:
    """A configuration whose database exists, while no service runs."""
    database = Database(f"sqlite:///{tmp_path}/watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    database.close()
    return write_config(tmp_path, find_free_port(), access={})


async def test_health_without_a_running_service(idle_config: Path) -> None:
    command, *words = stdio_command(idle_config)
    async with Client(stdio_client(StdioServerParameters(command=command, args=words))) as client:
        health = await call_tool(client, "health_check")
        assert health["healthy"] is False
        (claim,) = health["tasks"]
        assert (claim["name"], claim["ok"]) == ("claim", False)
        assert claim["last_run_error"] == "no probe has run yet: start `watchdog run`"
        assert health["note"].endswith("connection refused")
        assert (await call_tool_error(client, "trigger_task", task="maintain")).startswith(
            "tasks run in `watchdog run`, which cannot be reached:"
        )
        assert (await call_tool(client, "list_probes")) == {"total": 0, "probes": []}
        assert (await call_tool(client, "run_probe", probe="idle"))["result"]["reason"] == "connection.refused"


def test_standard_output_carries_only_the_protocol_and_the_end_of_input_ends_it(idle_config: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "nonsense", "arguments": {}}},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "health_check", "arguments": {}}},
    ]  # fmt: skip
    with subprocess.Popen(
        stdio_command(idle_config), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        answers = []
        for line in lines:
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()
            if "id" in line:
                answers.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(HANG_S) == 0, process.stderr.read()
        assert SECRET not in process.stderr.read()
    assert [answer["id"] for answer in answers] == [1, 2, 3]
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_even_if_its_input_stays_open(idle_config: Path, number: signal.Signals) -> None:
    with subprocess.Popen(stdio_command(idle_config), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
        process.stdin.flush()
        assert process.stdout.readline()
        os.kill(process.pid, number)
        assert process.wait(HANG_S) == 0
        process.stdin.close()


def test_a_missing_database_is_reported_in_one_line(tmp_path: Path) -> None:
    ran = run_command("mcp", "-c", write_config(tmp_path, 0), cwd=tmp_path, env=ENV)
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert ran.stderr.startswith(f"watchdog: the database {tmp_path}/watchdog.db does not exist: start `watchdog run`")
    assert ran.stderr.count("\n") == 1


# --- costs

IMPORT_CHECK_PROGRAM = """
import asyncio, json, sys
import httpx
from watchdog.app import create_asgi_app, start_watchdog_service_and_stop_on_exit
from watchdog.config.load import load_config
from watchdog.server import WebServer, open_listen_socket

async def main():
    loaded = load_config(None, json.dumps({"storage": {"url": "sqlite:///" + sys.argv[1]}}), {})
    async with (
        start_watchdog_service_and_stop_on_exit(loaded) as app,
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        with open_listen_socket("127.0.0.1", 0) as listening:
            async with WebServer(create_asgi_app(app), listening):
                url = f"http://127.0.0.1:{listening.getsockname()[1]}"
                await http.get(url + "/probes")
                print("mcp" in sys.modules)
                await http.post(url + "/mcp", json={})
                print("mcp" in sys.modules)

asyncio.run(main())
"""


def test_the_sdk_is_loaded_at_the_first_mcp_request(config: Path) -> None:
    words = [sys.executable, "-c", IMPORT_CHECK_PROGRAM, str(config.parent / "look.db")]
    ran = subprocess.run(words, env=subprocess_env(), check=False, capture_output=True, text=True, timeout=120)
    assert ran.stdout.split()[-2:] == ["False", "True"], ran.stderr
