"""CPU time of starting commands, user and system, as multiples of `python -c pass`.

Each round measures the empty program and runs every command once; a figure is the median of the rounds' ratios.
Bytecode is cached and the files are in memory.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from threading import Thread
from typing import NamedTuple

from benchmarks.measurements import Measurement

ROUNDS = 11
WATCHDOG = str(Path(sys.executable).with_name("watchdog"))
CONFIG = """\
version: 1
server: {listen: "127.0.0.1:PORT"}
defaults: {every: 60s, timeout: 5s}
probes:
  - {name: Website, http: "http://127.0.0.1:PORT/"}
  - {name: Shop, http: "https://shop.example/", expect: ["status == 200"], prefer: ["elapsed_ms < 800"]}
  - {name: API, http: {url: "https://api.example/", headers: {Authorization: "Bearer ${TOKEN:-0123456789}"}}}
  - {name: Login, http: {url: "https://a.example/", method: POST, body: "user=x"}, expect: ["status in [200, 302]"]}
  - {name: Docs, http: "https://docs.example/", group: Public, tags: [web]}
  - {name: Search, mcp: {url: "https://m.example/mcp", tools: [search], tasks: {"*": 2h}}}
  - {name: Files, mcp: {command: [python, -m, files]}}
  - {name: Mails, every: 5m, canary: {bullmq: {redis: "redis://r", queue: mail}, finish_within: 1m}}
  - {name: Reports, every: 5m, canary: {pgboss: {url: "postgresql://u@d/app", queue: r}, finish_within: 1m}}
  - {name: Mail queue, queue: {bullmq: {redis: "redis://r", queue: mail}}, rules: {failed: {over: 50}}}
  - {name: Report queue, queue: {rq: {redis: "redis://r", queue: reports}}}
  - {name: Digests, jobs: {pgboss: {url: "postgresql://u@d/app"}, grace: 2m}}
  - {name: Beat, jobs: {celery: {redbeat: "redis://r"}}}
  - {name: Backup, heartbeat: {token: backup-0123456789abcdef, schedule: "0 3 * * *"}}
  - {name: Ledger, heartbeat: {token: ledger-0123456789abcdef, every: 1h}}
receivers:
  oncall: {slack: {webhook: "https://hooks.slack.example/T/B/x"}}
  console: {log: {}}
routes:
  - {match: {severity: critical}, receivers: [oncall]}
  - {receivers: [console]}
"""


class _Case(NamedTuple):
    name: str
    words: tuple[str, ...]
    max_ratio: float
    completed_line: str = ""
    """Ask for the completion of this command line instead."""


CASES = (
    _Case("exec NAME -- true, with its check-ins", ("exec", "backup", "--", "true"), 8),
    _Case("--help", ("--help",), 9),
    _Case("status --help", ("status", "--help"), 9),
    _Case("exec --help", ("exec", "--help"), 9),
    _Case("db upgrade --help", ("db", "upgrade", "--help"), 9),
    _Case("completion of a command", (), 9, "watchdog st"),
    _Case("completion of an option", (), 9, "watchdog status --out"),
    _Case("completion of a value", (), 9, "watchdog status -o "),
    _Case("validate of 15 probes", ("validate",), 30),
    _Case("probe of one http probe", ("probe", "website", "-c", "one.yaml"), 30),
)


class _Target(BaseHTTPRequestHandler):
    """A website, and a Watchdog that accepts check-ins."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def _running_target() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Target) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def _cpu_s(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> float:
    """The CPU time of the command and of every process that it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "XDG_STATE_HOME": str(folder), **variables}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _case_cpu_s(case: _Case, folder: Path) -> float:
    line = case.completed_line
    variables = {"_WATCHDOG_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    return _cpu_s([WATCHDOG, *case.words], folder, variables if line else {})


def prove() -> Iterator[Measurement]:
    ratios: dict[_Case, list[float]] = {case: [] for case in CASES}
    empty_s: list[float] = []
    with tempfile.TemporaryDirectory() as name, _running_target() as port:
        folder = Path(name)
        (folder / "watchdog.yaml").write_text(CONFIG.replace("PORT", str(port)))
        (folder / "one.yaml").write_text(f"probes: [{{name: Website, http: 'http://127.0.0.1:{port}/'}}]")
        for case in CASES:  # writes bytecode and warms the file cache
            _case_cpu_s(case, folder)
        for _ in range(ROUNDS):
            empty_s.append(median(_cpu_s([sys.executable, "-c", "pass"], folder, {}) for _ in range(3)))
            for case in CASES:
                ratios[case].append(_case_cpu_s(case, folder) / empty_s[-1])
    yield Measurement("python -c pass, CPU", median(empty_s) * 1000, "ms")
    for case in CASES:
        yield Measurement(case.name, median(ratios[case]), "x", case.max_ratio)
