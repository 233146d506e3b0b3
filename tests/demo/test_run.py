"""The demo: everything of a newcomer's first minutes, with no configuration, on whatever ports are free."""

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

STAGED = """
import sys
from pathlib import Path
from watchdog.demo import targets
targets.age = lambda: float(Path(sys.argv[2]).read_text())
targets.main(int(sys.argv[1]), Path(sys.argv[3]))
"""
"""The sample targets, with a clock that the test turns."""
PLAYED = """
import asyncio, sys
from pathlib import Path
from watchdog.demo import play
play.CONFIG = play.CONFIG.replace("every: 2s, timeout: 2s", "every: 1s, timeout: 10s").replace("8s", "4s")
asyncio.run(play.play(int(sys.argv[1]), Path(sys.argv[2])))
"""
URL = re.compile(r"(?:Status page|Inbox) +(http://127\.0\.0\.1:\d+/)")


class Stage:
    """A demo that runs, and the two addresses it told."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process = process
        assert process.stdout is not None
        self.told = ""
        while "Ctrl-C" not in self.told:
            line = process.stdout.readline()
            assert line, "it ended before it began"
            self.told += line
        self.status, self.inbox = URL.findall(self.told)

    def get(self, url: str) -> httpx.Response:
        return httpx.get(url, timeout=30, trust_env=False)


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[Stage]:
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
        yield Stage(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        errors.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def children(pid: int) -> list[int]:
    """Of every thread, and their children."""
    lists = [(thread / "children").read_text().split() for thread in Path(f"/proc/{pid}/task").iterdir()]
    own = [int(child) for child in chain.from_iterable(lists)]
    return own + [child for one in own for child in children(one)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_runs_beside_others_and_leaves_nothing_behind_however_it_ends(tmp_path: Path, end: signal.Signals) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 8080))
            other.listen()
        except OSError:
            pass  # somebody else has it: the same to us
        with started([*WATCHDOG_COMMAND, "demo"], tmp_path) as stage:
            assert ":8080/" not in stage.status
            for page in (stage.status, f"{stage.status}probes", f"{stage.status}readyz", stage.inbox):
                assert stage.get(page).status_code == 200, page
            assert "Checkout" in stage.get(stage.status).text
            targets, _worker = theirs = children(stage.process.pid)
            folder = Path(Path(f"/proc/{targets}/cmdline").read_text().split("\0")[-2])
            assert {"demo.db", "shop.db"} <= {file.name for file in folder.iterdir()}
            stage.process.send_signal(end)
            wait_until(lambda: not any(map(alive, theirs)) and not folder.exists())
    assert (tmp_path / "errors").read_text() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_worker_does_not_outlive_what_started_it(tmp_path: Path) -> None:
    with on_stage(tmp_path) as (targets, _, _):
        wait_until(lambda: len(children(targets.pid)) == 1)
        (worker,) = children(targets.pid)
        targets.kill()
        wait_until(lambda: not alive(worker))


@contextmanager
def on_stage(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Callable[[float], None]]]:
    """The sample targets, their port, and what turns their clock."""
    age = folder / "age"

    def turn(to: float) -> None:
        age.with_suffix(".new").write_text(f"{to}")
        age.with_suffix(".new").replace(age)

    turn(0)
    (folder / "data").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", STAGED, str(port), str(age), str(folder / "data")]
    targets = subprocess.Popen(command, env=subprocess_env(), stdin=subprocess.PIPE, cwd=folder)
    try:
        yield targets, port, turn
    finally:
        targets.communicate()


def test_every_incident_opens_and_resolves_before_ones_eyes(tmp_path: Path) -> None:
    def letters() -> int:
        return stage.get(stage.inbox).text.count('class="letter"')

    def states() -> list[str]:
        return [probe["state"] for probe in stage.get(f"{stage.status}api/probes").json()]

    played = [sys.executable, "-c", PLAYED]
    with (
        on_stage(tmp_path) as (_, port, turn),
        started([*played, str(port), str(tmp_path / "data")], tmp_path) as stage,
    ):
        wait_until(lambda: states() == ["up"] * 5)
        assert "Nothing yet: all is well." in stage.get(stage.inbox).text
        turn(45)
        wait_until(lambda: letters() == 4)
        broken, jobs = stage.get(stage.inbox).text, stage.get(f"{stage.status}probes/order-jobs").text
        turn(100)
        wait_until(lambda: letters() == 8)
        wait_until(lambda: stage.get(stage.inbox).text.count("(edited ") == 4)
        healed = stage.get(stage.inbox).text
        wait_until(lambda: states() == ["up"] * 5)
    assert broken.count('<article class="msg">') == healed.count('<article class="msg">') == 4
    assert "Checkout: status == 200 is false: observed 503" in broken
    assert "Search: task reindex is stale: last run 19" in broken
    assert "pool exhausted: 100 of 100 in use" in broken
    assert re.search(r"Order jobs: export_orders is stuck: running for .{1,9} on worker-\d+, limit 4\ss", broken)
    assert "Order jobs: send_receipts is overdue: due " in broken
    assert "Stuck</span>" in jobs
    assert "Overdue</span>" in jobs
    assert "✅ Checkout recovered" in healed
    assert "✅ Search: task reindex recovered" in healed
    assert "✅ Order jobs: job export_orders recovered" in healed
    assert "✅ Order jobs: job send_receipts recovered" in healed
    assert stage.process.returncode == 0
    assert (tmp_path / "errors").read_text() == ""
