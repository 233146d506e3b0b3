"""The demo runs without configuration, on any free ports, and leaves nothing behind."""

from __future__ import annotations

import html
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.command_line import WATCHDOG_COMMAND, subprocess_env
from tests.support.polling import wait_until
from tests.support.ports import find_free_port
from tests.support.processes import end_process
from watchdog.demo.acts import DEMO_PLAY_ACTS

DEMO_PROGRAM = """
import asyncio, logging, sys
from watchdog.demo import configuration, play, run
from watchdog.demo.processes import start_demo_targets
logging.getLogger("apscheduler").setLevel(logging.ERROR)  # as the command does: a slow machine skips ticks
for long, short in (
    ("every: {every}, timeout: 2s", "every: {every}, timeout: 10s"), ("reindex: 15s", "reindex: 8s"),
    ("max_runtime: 8s", "max_runtime: 4s"), ("every: 10s, grace: 10s", "every: 4s, grace: 4s"),
):
    assert long in configuration.DEMO_CONFIG_TEMPLATE
    configuration.DEMO_CONFIG_TEMPLATE = configuration.DEMO_CONFIG_TEMPLATE.replace(long, short)
queue_probes = configuration.DEMO_QUEUE_PROBES_TEMPLATE.replace("finish_within: 4s", "finish_within: 2s")
configuration.DEMO_QUEUE_PROBES_TEMPLATE = queue_probes.replace("over: 20", "over: 8")
run.DEMO_RUN_INTERVAL, run.DEMO_BACKUP_INTERVAL_S, play.DEMO_MAX_WAIT_FOR_INCIDENT_S = "1s", 2.0, 600.0
class PaceOfTest(play.DemoPace):
    async def wait_before_first_act(self):
        await asyncio.to_thread(sys.stdin.readline)
    wait_while_broken = wait_before_first_act
    async def wait_between_acts(self): ...
with start_demo_targets() as targets:
    asyncio.run(run.run_demo(targets, PaceOfTest()))
"""
"""The demo with shorter limits. It starts the play and repairs a target when it reads a line."""
URL = re.compile(r"(?:Status page|Inbox) +(http://127\.0\.0\.1:\d+/)")


class RunningDemo:
    """A running demo and its two addresses."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process = process
        self.output = ""
        while "Ctrl-C" not in self.output:
            self.output += self.read_line()
        self.status, self.inbox = URL.findall(self.output)

    def go_on(self) -> None:
        """Let DEMO_PROGRAM take its next step."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def read_line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "it exited"
        return line

    def read_lines(self) -> Iterator[str]:
        """What it prints from now on, without line ends."""
        while True:
            yield self.read_line().rstrip("\n")

    def post(self, path: str, **body: object) -> httpx.Response:
        return httpx.post(f"{self.status}api/v1/{path}", json=body, timeout=30, trust_env=False)

    def click_in_inbox(self, action_id: str) -> None:
        """The button of the newest message that has it, once there is one."""
        button = re.compile(rf'name="message_ts" value="([^"]+)"><button [^>]*value="{action_id}"')
        wait_until(lambda: button.search(self.get(self.inbox).text) is not None)
        (message_ts, *_) = button.findall(self.get(self.inbox).text)
        fields = {"message_ts": message_ts, "action_id": action_id}
        clicked = httpx.post(f"{self.inbox}clicks", data=fields, timeout=30, trust_env=False)
        assert clicked.status_code == 303, clicked.text

    def get(self, url: str) -> httpx.Response:
        return httpx.get(url, timeout=30, trust_env=False)


@contextmanager
def run_demo_process(command: list[str], folder: Path) -> Iterator[RunningDemo]:
    errors = (folder / "errors").open("w")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=subprocess_env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
    )
    try:
        yield RunningDemo(process)
    finally:
        end_process(process, signal.SIGINT)
        errors.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """All descendant processes."""
    own: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # the thread has just ended
            own += map(int, (thread / "children").read_text().split())
    return own + [child for pid in own for child in children(pid)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_runs_beside_other_demos_and_cleans_up_after_any_exit(tmp_path: Path, end: signal.Signals) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 8080))
            other.listen()
        except OSError:
            pass  # already in use, which is what this test needs
        with run_demo_process([*WATCHDOG_COMMAND, "demo"], tmp_path) as demo:
            assert ":8080/" not in demo.status
            for page in (demo.status, f"{demo.status}probes", f"{demo.status}readyz", demo.inbox):
                assert demo.get(page).status_code == 200, page
            assert "Checkout" in demo.get(demo.status).text
            assert "configuration warning" not in demo.get(f"{demo.status}probes").text
            wait_until(lambda: len(children(demo.process.pid)) == 5)  # targets, server of the queues, three workers
            targets, *_ = processes = children(demo.process.pid)
            folder = Path(Path(f"/proc/{targets}/cmdline").read_text().split("\0")[-2])
            assert {"demo.db", "shop.db"} <= {file.name for file in folder.iterdir()}
            demo.process.send_signal(end)
            wait_until(lambda: not any(map(alive, processes)) and not folder.exists())
    assert (tmp_path / "errors").read_text() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_outlives_the_targets(tmp_path: Path) -> None:
    port, queue_port = find_free_port(), find_free_port()
    command = [sys.executable, "-m", "watchdog.demo.targets", str(port), str(queue_port), str(tmp_path)]
    targets = subprocess.Popen(command, env=subprocess_env(), stdin=subprocess.PIPE, start_new_session=True)
    try:
        wait_until(lambda: len(children(targets.pid)) == 4)
        processes = children(targets.pid)
        targets.kill()
        wait_until(lambda: not any(map(alive, processes)))
    finally:
        end_process(targets)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_every_act_of_the_play_opens_an_incident_that_resolves(tmp_path: Path) -> None:
    with run_demo_process([sys.executable, "-c", DEMO_PROGRAM], tmp_path) as demo:
        assert "No messages yet." in demo.get(demo.inbox).text, "the past is over"
        silenced = demo.post("silences", match={"id": "backup"}, duration_ms=3_600_000, comment="known")
        assert silenced.status_code < 300, silenced.text
        lines: list[str] = []
        pages_while_broken: list[str] = []
        demo.go_on()
        for line in demo.read_lines():
            lines.append(line)
            if "starts again" in line:
                break
            if " Incident: " in line:
                if not pages_while_broken:
                    demo.click_in_inbox("acknowledge")
                acknowledged = demo.post(f"incidents/{line.rpartition('/')[2]}/acknowledge", comment="on it")
                assert acknowledged.status_code < 300, acknowledged.text
                pages_while_broken.append(demo.get(f"{demo.status}probes").text)  # the status page may be 5 s old
                demo.go_on()
        inbox, probes = demo.get(demo.inbox).text, demo.get(f"{demo.status}probes").text
        processes = children(demo.process.pid)
        end_process(demo.process, signal.SIGINT)
        wait_until(lambda: not any(map(alive, processes)))
    assert demo.process.returncode == 0
    assert (tmp_path / "errors").read_text() == ""
    texts = [re.fullmatch(r"\d\d:\d\d:\d\d  (.*)", line) for line in lines]
    steps = [text[1].split(maxsplit=1)[0].rstrip(":") for text in texts if text is not None]
    assert steps == ["Breaking", "Incident", "Repaired", "Resolved"] * len(DEMO_PLAY_ACTS) + ["The"]
    incidents = [line.partition(" Incident: ")[2] for line in lines if " Incident: " in line]
    for incident, (name, cause) in zip(incidents, EXPECTED_INCIDENTS, strict=True):
        assert incident.startswith(f"{name}: "), incident
        assert cause in incident, incident
    for act, page in zip(DEMO_PLAY_ACTS, pages_while_broken, strict=True):
        assert f"Broken right now: {act.broken_text}." in html.unescape(page)
    assert "This is a demo" in probes
    assert inbox.count("Acknowledged by localhost") >= len(DEMO_PLAY_ACTS) - 2
    assert "Acknowledged by You" in inbox, "by a button of a Slack message"
    for name, _ in EXPECTED_INCIDENTS:
        assert (f"✅ {name}" in inbox) is (name != "Backup"), f"{name}: only the backup is silenced"
    assert "Backup is overdue" not in inbox


EXPECTED_INCIDENTS = (
    ("Checkout", "HTTP 503, expected 200"),
    ("Search", "tools/list returns error -32603"),
    ("Email delivery", "canary job not picked up"),
    ("Order jobs", "export_orders is stuck"),
    ("Thumbnail backlog", "jobs waiting, limit 8"),
    ("Search", "task reindex is stale"),
    ("Backup", "Backup is overdue"),
)
