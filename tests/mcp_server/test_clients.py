"""`watchdog run` and `watchdog mcp` as processes: clients of the 1.x SDK and of today's list and call our tools."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.cli.serving import Served, served
from tests.cli.terminal import COMMAND, environment, program
from tests.mcp_peers import Peers, free_port
from tests.mcp_server.talking import ERAS, KEYS, OPERATOR, READER, TOOLS, call, client, refused
from tests.patience import wait
from watchdog.assets import asset
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade

OLDER = str(Path(__file__).parents[1] / "mcp_servers" / "older_client.py")
SECRET = "hush-hush-0123456789"
PROBES = [
    {"name": "Payments API", "http": {"url": "http://127.0.0.1:1/", "headers": {"X-Key": "${TOKEN}"}}, "every": "1s",
     "alert": {"after": 1}},
    {"name": "Idle", "http": "http://127.0.0.1:1/", "schedule": "0 0 1 1 *"},
]  # fmt: skip
ENV = {"TOKEN": SECRET}


def written(folder: Path, port: int, **more: Any) -> Path:
    config = {
        "server": {"listen": f"127.0.0.1:{port}"},
        "storage": {"url": f"sqlite:///{folder}/watchdog.db"},
        "probes": PROBES,
        "access": KEYS,
        **more,
    }
    path = folder / "watchdog.yaml"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("run"), free_port())


@pytest.fixture(scope="module")
def run(config: Path) -> Iterator[Served]:
    """With an open incident."""
    with served(config, ENV) as running:
        wait(lambda: any(line["event"] == "incident" for line in running.log))
        yield running


def speaking(config: Path) -> list[str]:
    """`watchdog mcp`, in an environment of its own."""
    env = [f"{name}={value}" for name, value in environment(ENV).items()]
    return ["env", "-i", *env, *COMMAND, "mcp", "-c", str(config)]


def older(peers: Peers, where: str, how: str, *steps: str) -> dict[str, Any]:
    """What the 1.x client saw."""
    ran = subprocess.run(
        [str(peers.python), OLDER, where, how, *steps], check=False, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_a_client_of_the_1x_sdk_lists_and_calls(peers: Peers, run: Served, config: Path, transport: str) -> None:
    where = (run.pages + "mcp", OPERATOR) if transport == "http" else ("-", json.dumps(speaking(config)))
    acting = ('run_probe:{"probe": "idle"}', "job:{job}", 'trigger_task:{"task": "keep"}')
    told = older(peers, *where, "health_check", "list_probes", "list_incidents", *acting)
    assert (told["server"], told["protocol"], told["tools"]) == ("Watchdog", "2025-11-25", TOOLS)
    steps: list[dict[str, Any]] = told["steps"]
    health, probes, incidents, ran, read, triggered = steps
    assert [task["name"] for task in health["tasks"]] == ["claim", "record", "wake", "deliver", "keep"]
    assert probes["total"] == 2
    assert incidents["incidents"][0]["probe"] == "payments-api"
    assert ran["progress_heard"] >= 1
    assert read["result"] == ran["result"]
    assert triggered["result"]["last_run_status"] == "success"
    assert not any(step.get("is_error") for step in told["steps"])


def test_a_client_of_the_1x_sdk_with_a_readers_key(peers: Peers, run: Served) -> None:
    reads, acts = older(peers, run.pages + "mcp", READER, "list_probes", 'run_probe:{"probe": "idle"}')["steps"]
    assert (reads["total"], acts["is_error"]) == (2, True)
    assert "needs a key whose role is operator" in acts["error"]


@pytest.mark.parametrize("mode", ERAS)
async def test_todays_client_over_http(run: Served, mode: str) -> None:
    async with client(run.pages + "mcp", OPERATOR, mode) as talking:
        await everything(talking, mode)


@pytest.mark.parametrize("mode", ERAS)
async def test_todays_client_over_stdio(run: Served, config: Path, mode: str) -> None:
    command, *words = speaking(config)
    async with Client(stdio_client(StdioServerParameters(command=command, args=words)), mode=mode) as talking:
        await everything(talking, mode)


async def everything(talking: Client, mode: str) -> None:
    assert talking.protocol_version == ERAS[mode]
    assert [tool.name for tool in (await talking.list_tools()).tools] == TOOLS
    health = await call(talking, "health_check")
    assert health["healthy"] is True
    assert "note" not in health
    assert [task["name"] for task in health["tasks"]] == ["claim", "record", "wake", "deliver", "keep"]
    (incident,) = (await call(talking, "list_incidents"))["incidents"]
    detailed = await call(talking, "get_incident", id=incident["id"])
    assert detailed["first_bad"]["reason"] == "connection.refused"
    ran = await call(talking, "run_probe", probe="Idle")
    assert ran["result"]["outcome"] == "fail"
    done = await call(talking, "trigger_task", task="keep")
    assert (done["status"], done["result"]["ok"]) == ("completed", True)
    assert (await refused(talking, "trigger_task", task="nope")).endswith(
        "no task is called 'nope'; there are claim, record, wake, deliver, keep"
    )


# --- watchdog mcp by itself


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A configuration whose database is there, and nothing runs."""
    database = Database(f"sqlite:///{tmp_path}/watchdog.db")
    upgrade(database, asset("migrations"))
    database.close()
    return written(tmp_path, free_port(), access={})


async def test_what_the_service_alone_knows_is_said_to_be_unknown_while_it_does_not_run(alone: Path) -> None:
    command, *words = speaking(alone)
    async with Client(stdio_client(StdioServerParameters(command=command, args=words))) as talking:
        health = await call(talking, "health_check")
        assert health["healthy"] is False
        (claim,) = health["tasks"]
        assert (claim["name"], claim["ok"]) == ("claim", False)
        assert claim["last_run_error"] == "nothing was ever probed: start `watchdog run`"
        assert health["note"].endswith("connection refused")
        assert (await refused(talking, "trigger_task", task="keep")).startswith("tasks run inside `watchdog run`, and")
        assert (await call(talking, "list_probes")) == {"total": 0, "probes": []}
        assert (await call(talking, "run_probe", probe="idle"))["result"]["reason"] == "connection.refused"


def test_standard_output_carries_the_protocol_alone_and_the_end_of_input_ends_it(alone: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "nonsense", "arguments": {}}},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "health_check", "arguments": {}}},
    ]  # fmt: skip
    with subprocess.Popen(
        speaking(alone), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
        assert process.wait(30) == 0, process.stderr.read()
        assert SECRET not in process.stderr.read()
    assert [answer["id"] for answer in answers] == [1, 2, 3]
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_being_told_to_end_ends_it_though_its_input_stays_open(alone: Path, number: signal.Signals) -> None:
    with subprocess.Popen(speaking(alone), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
        process.stdin.flush()
        assert process.stdout.readline()
        os.kill(process.pid, number)
        assert process.wait(8) == 0
        process.stdin.close()


def test_without_a_database_it_says_so_in_one_line(tmp_path: Path) -> None:
    ran = program("mcp", "-c", written(tmp_path, 0), cwd=tmp_path, env=ENV)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == f"watchdog: there is no database {tmp_path}/watchdog.db yet: `watchdog run` makes it\n"


# --- what it costs

LOOK = """
import asyncio, json, sys
import httpx
from watchdog.app import Server, faces, listen, running
from watchdog.config import load

async def main():
    loaded = load(None, json.dumps({"storage": {"url": "sqlite:///" + sys.argv[1]}}), {})
    async with running(loaded) as app, httpx.AsyncClient(trust_env=False) as http:
        with listen("127.0.0.1", 0) as listening:
            async with Server(faces(app), listening):
                url = f"http://127.0.0.1:{listening.getsockname()[1]}"
                await http.get(url + "/probes")
                print("mcp" in sys.modules)
                await http.post(url + "/mcp", json={})
                print("mcp" in sys.modules)

asyncio.run(main())
"""


def test_neither_the_service_nor_its_pages_load_the_sdk_before_an_agent_asks(config: Path) -> None:
    words = [sys.executable, "-c", LOOK, str(config.parent / "look.db")]
    ran = subprocess.run(words, env=environment(), check=False, capture_output=True, text=True, timeout=120)
    assert ran.stdout.split()[-2:] == ["False", "True"], ran.stderr
