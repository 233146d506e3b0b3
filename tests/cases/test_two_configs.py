"""Two processes with different configurations on one database, as in a rolling deploy: `old.yaml` (A1, Up) and
`new.yaml` (A1, B).

Up stays watched and its incident open for as long as a process that has it runs; no one is notified that it is over.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import run_command
from tests.support.polling import wait_until
from tests.support.watchdog_process import WatchdogProcess, run_watchdog

CONFIGS = Path(__file__).parent / "two_configs"


class Target:
    """Answers 503 to /up and 200 to everything else, counts requests, and keeps what is posted to /hook."""

    def __init__(self) -> None:
        target = self
        self.requests: Counter[str] = Counter()
        self.events: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target.requests[self.path] += 1
                self.respond(503 if self.path == "/up" else 200)

            def do_POST(self) -> None:
                target.events.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.respond(200)

            def respond(self, status: int) -> None:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def target() -> Iterator[Target]:
    target = Target()
    threading.Thread(target=target.server.serve_forever, args=(0.02,), daemon=True).start()
    yield target
    target.server.shutdown()
    target.server.server_close()


def wait_for_requests(target: Target, path: str, count: int = 3) -> None:
    before = target.requests[path]
    wait_until(lambda: target.requests[path] >= before + count)


def test_a_probe_stays_watched_while_a_live_process_has_it(tmp_path: Path, database_url: str, target: Target) -> None:
    shutil.copytree(CONFIGS, tmp_path, dirs_exist_ok=True)
    url = database_url.replace("postgresql+psycopg", "postgresql")
    env = {"DATABASE_URL": url, "TARGET": target.url}
    with run_watchdog(tmp_path / "old.yaml", env) as old:
        wait_until(lambda: bool(target.events))
        with run_watchdog(tmp_path / "new.yaml", env) as new:
            for path in ("/up", "/a1", "/b"):
                wait_for_requests(target, path)
            assert [revision_of(process) for process in (old, new)] == [1, 2]
            assert [process.get("readyz").json() for process in (old, new)] == [{"status": "ready"}] * 2, "all is run"
            status = run_command("status", "-c", "new.yaml", "-o", "json", cwd=tmp_path, env=env)
            states = {probe["probe"]: probe["state"] for probe in json.loads(status.stdout)}
            assert (states["a1"], states["b"], states["up"]) == ("up", "up", "down")
        wait_for_requests(target, "/up")
    assert [event["event"] for event in target.events] == ["opened"]


def test_both_processes_report_what_they_run(tmp_path: Path, database_url: str, target: Target) -> None:
    """The new revision defines A1 differently: only it runs A1, and the old process reports that."""
    shutil.copytree(CONFIGS, tmp_path, dirs_exist_ok=True)
    changed = (tmp_path / "new.yaml").read_text(encoding="utf-8").replace("/a1", "/changed")
    (tmp_path / "new.yaml").write_text(changed, encoding="utf-8")
    env = {"DATABASE_URL": database_url.replace("postgresql+psycopg", "postgresql"), "TARGET": target.url}
    note = "is run by processes with the newer revision 2: a1"
    with run_watchdog(tmp_path / "old.yaml", env) as old:
        wait_for_requests(target, "/a1", 1)
        with run_watchdog(tmp_path / "new.yaml", env) as new:
            wait_until(lambda: any(note in text for text in readiness_notes(old)))
            assert readiness_notes(new) == []
            assert old.get("readyz").json()["status"] == "ready"
            before = target.requests["/a1"]
            wait_for_requests(target, "/changed")
            assert target.requests["/a1"] <= before + 1, "a run that had been claimed"
            status = run_command("status", "-c", "old.yaml", cwd=tmp_path, env=env)
            assert note in status.stderr
            assert new.stop() == 0
        wait_for_requests(target, "/a1")
        assert readiness_notes(old) == []
        assert old.stop() == 0
    events = [entry["event"] for entry in old.log_entries]
    assert (events.count("left_to_newer_revision"), events.count("runs_everything_again")) == (1, 1)


def revision_of(process: WatchdogProcess) -> int:
    return next(int(entry["revision"]) for entry in process.log_entries if entry["event"] == "started")


def readiness_notes(process: WatchdogProcess) -> list[str]:
    """Without the spaces that do not break."""
    notes = process.get("readyz").json().get("notes", [])
    return [note.replace("\N{NO-BREAK SPACE}", " ") for note in notes]
