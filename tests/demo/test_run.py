"""The demo runs without configuration, on any free ports, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import httpx
import pytest

from tests.support.command_line import WATCHDOG_COMMAND, subprocess_env
from tests.support.polling import wait_until
from tests.support.ports import find_free_port
from tests.support.processes import end_process

TARGETS_PROGRAM = """
import sys
from pathlib import Path
from watchdog.demo import targets
targets.measure_demo_uptime_s = lambda: float(Path(sys.argv[2]).read_text())
targets.run_demo_targets(int(sys.argv[1]), Path(sys.argv[3]))
"""
"""The sample targets, with a clock that the test sets."""
DEMO_PROGRAM = """
import asyncio, logging, sys
from pathlib import Path
from watchdog.demo import run
logging.getLogger("apscheduler").setLevel(logging.ERROR)  # as the command does: a slow machine skips ticks
template = run.DEMO_CONFIG_TEMPLATE
run.DEMO_CONFIG_TEMPLATE = template.replace("every: 2s, timeout: 2s", "every: 1s, timeout: 10s").replace("8s", "4s")
asyncio.run(run.run_demo(int(sys.argv[1]), Path(sys.argv[2])))
"""
URL = re.compile(r"(?:Status page|Inbox) +(http://127\.0\.0\.1:\d+/)")


class RunningDemo:
    """A running demo and its two addresses."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process = process
        assert process.stdout is not None
        self.output = ""
        while "Ctrl-C" not in self.output:
            line = process.stdout.readline()
            assert line, "it exited before it started"
            self.output += line
        self.status, self.inbox = URL.findall(self.output)

    def get(self, url: str) -> httpx.Response:
        return httpx.get(url, timeout=30, trust_env=False)


@contextmanager
def run_demo_process(command: list[str], folder: Path) -> Iterator[RunningDemo]:
    errors = (folder / "errors").open("w")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=subprocess_env(),
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
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def children(pid: int) -> list[int]:
    """All descendant processes."""
    lists = [(thread / "children").read_text().split() for thread in Path(f"/proc/{pid}/task").iterdir()]
    own = [int(child) for child in chain.from_iterable(lists)]
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
            targets, _worker = processes = children(demo.process.pid)
            folder = Path(Path(f"/proc/{targets}/cmdline").read_text().split("\0")[-2])
            assert {"demo.db", "shop.db"} <= {file.name for file in folder.iterdir()}
            demo.process.send_signal(end)
            wait_until(lambda: not any(map(alive, processes)) and not folder.exists())
    assert (tmp_path / "errors").read_text() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_worker_does_not_outlive_its_parent(tmp_path: Path) -> None:
    with run_targets(tmp_path) as (targets, _, _):
        wait_until(lambda: len(children(targets.pid)) == 1)
        (worker,) = children(targets.pid)
        targets.kill()
        wait_until(lambda: not alive(worker))


@contextmanager
def run_targets(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Callable[[float], None]]]:
    """Run the sample targets. Yields their process, their port, and a function that sets their uptime."""
    age = folder / "age"

    def set_uptime(to: float) -> None:
        age.with_suffix(".new").write_text(f"{to}")
        age.with_suffix(".new").replace(age)

    set_uptime(0)
    (folder / "data").mkdir()
    port = find_free_port()
    command = [sys.executable, "-c", TARGETS_PROGRAM, str(port), str(age), str(folder / "data")]
    targets = subprocess.Popen(command, env=subprocess_env(), stdin=subprocess.PIPE, cwd=folder)
    try:
        yield targets, port, set_uptime
    finally:
        targets.communicate()


RECOVERED = (
    "✅ Checkout recovered",
    "✅ Search: task reindex recovered",
    "✅ Order jobs: jobs export_orders, send_receipts recovered",
)


def test_every_incident_opens_and_resolves_on_the_inbox_page(tmp_path: Path) -> None:
    def inbox() -> str:
        return demo.get(demo.inbox).text

    def root_count() -> int:
        return inbox().count('<article class="msg">')

    def states() -> list[str]:
        return [probe["state"] for probe in demo.get(f"{demo.status}api/v1/probes").json()["items"]]

    program = [sys.executable, "-c", DEMO_PROGRAM]
    with (
        run_targets(tmp_path) as (_, port, set_uptime),
        run_demo_process([*program, str(port), str(tmp_path / "data")], tmp_path) as demo,
    ):
        wait_until(lambda: states() == ["up"] * 5)
        assert "No messages yet." in demo.get(demo.inbox).text
        set_uptime(45)
        wait_until(lambda: "is overdue: due " in inbox() and "is stuck: running" in inbox() and root_count() == 3)
        failing, jobs_page = inbox(), demo.get(f"{demo.status}probes/order-jobs").text
        set_uptime(100)
        wait_until(lambda: all(text in inbox() for text in RECOVERED))
        recovered_page = demo.get(demo.inbox).text
        wait_until(lambda: states() == ["up"] * 5)
    assert recovered_page.count('<article class="msg">') == 3, "both jobs are in one message"
    assert "Checkout: HTTP 503, expected 200" in failing
    assert "Search: task reindex is stale: last run " in failing
    assert "pool exhausted: 100 of 100 in use" in failing
    assert re.search(
        r"Order jobs: export_orders is stuck: running since [0-9:]+ UTC on worker-\d+, limit 4\ss", failing
    )
    assert "Order jobs: send_receipts is overdue: due " in failing
    assert "Stuck</span>" in jobs_page
    assert "Overdue</span>" in jobs_page
    assert demo.process.returncode == 0
    assert (tmp_path / "errors").read_text() == ""
