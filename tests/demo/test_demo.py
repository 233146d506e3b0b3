"""The demo: everything of a newcomer's first minutes, with no configuration, on whatever ports are free."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.terminal import COMMAND, environment
from tests.patience import wait

STAGED = """
import sys
from pathlib import Path
from watchdog.demo import targets
targets.age = lambda: float(Path(sys.argv[2]).read_text())
targets.main(int(sys.argv[1]))
"""
"""The sample targets, with a clock that the test turns."""
PLAYED = """
import asyncio, sys
from watchdog.demo import play
play.CONFIG = play.CONFIG.replace("every: 2s, timeout: 2s", "every: 1s, timeout: 10s")
asyncio.run(play.play(int(sys.argv[1])))
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
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
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
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_runs_beside_others_and_leaves_nothing_running_however_it_ends(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 8080))
            other.listen()
        except OSError:
            pass  # somebody else has it: the same to us
        with started([*COMMAND, "demo"], tmp_path) as stage:
            assert ":8080/" not in stage.status
            for page in (stage.status, f"{stage.status}probes", f"{stage.status}readyz", stage.inbox):
                assert stage.get(page).status_code == 200, page
            assert "Checkout" in stage.get(stage.status).text
            (targets,) = children(stage.process.pid)
            stage.process.kill()
            wait(lambda: not alive(targets))
    assert (tmp_path / "errors").read_text() == ""


def test_both_incidents_open_and_resolve_before_ones_eyes(tmp_path: Path) -> None:
    age = tmp_path / "age"
    age.write_text("0")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", STAGED, str(port), str(age)]
    targets = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, cwd=tmp_path)
    try:
        with started([sys.executable, "-c", PLAYED, str(port)], tmp_path) as stage:
            wait(lambda: [probe["state"] for probe in stage.get(f"{stage.status}api/probes").json()] == ["up"] * 3)
            assert "Nothing yet: all is well." in stage.get(stage.inbox).text
            age.write_text("45")
            wait(lambda: stage.get(stage.inbox).text.count('class="letter"') == 2)
            broken = stage.get(stage.inbox).text
            age.write_text("100")
            wait(lambda: stage.get(stage.inbox).text.count('class="letter"') == 4)
            wait(lambda: stage.get(stage.inbox).text.count("(edited ") == 2)
            healed = stage.get(stage.inbox).text
    finally:
        targets.kill()
        targets.communicate()
    assert broken.count('<article class="msg">') == healed.count('<article class="msg">') == 2
    assert "Checkout: status == 200 is false: observed 503" in broken
    assert "Search: task reindex is stale: last run 19" in broken
    assert "pool exhausted: 100 of 100 in use" in broken
    assert "✅ Checkout recovered" in healed
    assert "✅ Search: task reindex recovered" in healed
    assert stage.process.returncode == 0
    assert (tmp_path / "errors").read_text() == ""
