"""The CPU of a check beside blackbox_exporter, on the same nginx in the same run, alternating: a ratio.

Watchdog schedules, checks, judges and stores; blackbox_exporter checks and stores nothing. Both connect anew for each
check, both at the same rate, and each process is measured alone. A round of one is followed by a round of the other.
Beside them, the HTTP clients of Python alone, and the stages of a check.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.check_budget import measure_budget
from benchmarks.measurements import Measurement
from benchmarks.pages import read_cpu_ms
from tests.support import nginx
from tests.support.ports import find_free_port
from tests.support.scripted_servers import CertificateAuthority
from tests.support.third_party import listening_process

BLACKBOX_EXPORTER_NAME = "prometheus-blackbox-exporter"
CLIENTS = ("httpx", "aiohttp")
ROUNDS, ROUND_S, WARM_UP_S = 5, 20, 12
DRIVER_CONNECTIONS = 8
"""How many checks blackbox_exporter makes at once, at most."""


class PeerCase(NamedTuple):
    name: str
    scheme: str
    rate: int
    """Checks a second."""
    interval_s: int
    max_ratio: float


CASES = (PeerCase("HTTP", "http", 500, 4, 0.6), PeerCase("HTTPS", "https", 200, 5, 0.95))


NGINX_CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{ worker_connections 1024; }}
http {{
  access_log off; default_type application/json;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{http_port} backlog=1024; listen 127.0.0.1:{https_port} ssl backlog=1024;
    ssl_certificate {certificate}; ssl_certificate_key {certificate}; ssl_protocols TLSv1.3;
    location / {{ return 200 '{{"ok": true}}'; }}
  }}
}}
"""


class Target(NamedTuple):
    http_port: int
    https_port: int
    ca_file: str

    def url_of(self, scheme: str) -> str:
        return f"{scheme}://127.0.0.1:{self.https_port if scheme == 'https' else self.http_port}/"


@contextmanager
def running_target(folder: Path) -> Iterator[Target]:
    """nginx, with and without TLS."""
    binary = nginx.find_nginx()
    if binary is None:
        raise SystemExit("nginx is missing: apt-get install nginx-light")
    authority = CertificateAuthority(folder)
    target = Target(find_free_port(), find_free_port(), authority.ca_file)
    certificate = authority.issue_certificate("127.0.0.1")
    ports = {"http_port": target.http_port, "https_port": target.https_port}
    config = folder / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(folder=folder, certificate=certificate, **ports))
    command = [binary, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    with listening_process(command, target.https_port):
        yield target


class RoundCost(NamedTuple):
    checks: int
    cpu_ms: float

    @property
    def cpu_s_per_1000(self) -> float:
        return self.cpu_ms / self.checks


def prove() -> Iterator[Measurement]:
    binary = shutil.which(BLACKBOX_EXPORTER_NAME)
    if binary is None:
        raise SystemExit(f"blackbox_exporter is missing: apt-get install {BLACKBOX_EXPORTER_NAME}")
    with tempfile.TemporaryDirectory() as folder, running_target(Path(folder)) as target:
        for case in CASES:
            url = target.url_of(case.scheme)
            ours: list[float] = []
            theirs: list[float] = []
            of_clients: dict[str, list[float]] = {client: [] for client in CLIENTS}
            for number in range(1, ROUNDS + 1):
                ours.append(run_watchdog_round(Path(folder), url, target.ca_file, case).cpu_s_per_1000)
                theirs.append(run_blackbox_round(Path(folder), binary, url, target.ca_file, case).cpu_s_per_1000)
                for client, costs in of_clients.items():
                    costs.append(run_client_round(client, url, target.ca_file, case).cpu_s_per_1000)
                print(
                    f"  {case.name} at {case.rate}/s, round {number}: Watchdog {ours[-1]:.3f}, blackbox_exporter"
                    f" {theirs[-1]:.3f} CPU s per 1,000; {ours[-1] / theirs[-1]:.2f}",
                    flush=True,
                )
            yield Measurement(f"{case.name}: Watchdog, median", median(ours), "CPU s/1,000")
            yield Measurement(f"{case.name}: blackbox_exporter, median", median(theirs), "CPU s/1,000")
            for client, costs in of_clients.items():
                yield Measurement(f"{case.name}: {client} alone, median", median(costs), "CPU s/1,000")
            ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
            yield Measurement(f"{case.name}: ratio, median of {ROUNDS} rounds", median(ratios), "", case.max_ratio)
            if case.scheme == "http":
                yield from measure_budget(url, median(ours))


def run_watchdog_round(folder: Path, url: str, ca_file: str, case: PeerCase) -> RoundCost:
    """`watchdog run` with its pages; every check has to be stored, and to have passed."""
    database = folder / f"watchdog-{time.monotonic_ns()}.db"
    tls = {"tls": {"ca_file": ca_file}} if case.scheme == "https" else {}
    probes = [
        {"name": f"Probe {n}", "every": f"{case.interval_s}s", "http": {"url": url, **tls}}
        for n in range(case.rate * case.interval_s)
    ]
    config = folder / "watchdog.yaml"
    listen = f"127.0.0.1:{find_free_port()}"
    config.write_text(
        json.dumps({"storage": {"url": f"sqlite:///{database}"}, "server": {"listen": listen}, "probes": probes})
    )
    command = [sys.executable, "-m", "watchdog", "run", "-c", str(config)]
    with listening_process(command, int(listen.partition(":")[2])) as process:
        time.sleep(WARM_UP_S)
        since, cpu_ms = round(time.time() * 1000), read_cpu_ms(process.pid)
        time.sleep(ROUND_S)
        cpu_ms, until = read_cpu_ms(process.pid) - cpu_ms, round(time.time() * 1000)
        time.sleep(2)  # until the last of them are stored
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT outcome, count(*) FROM results WHERE slot >= ? AND slot < ? GROUP BY outcome"
        count_by_outcome = dict(connection.execute(query, (since, until)))
    if count_by_outcome.keys() != {"pass"} or count_by_outcome["pass"] < 0.98 * case.rate * ROUND_S:
        raise RuntimeError(f"the machine is too slow for {case.rate} checks a second: {count_by_outcome}")
    return RoundCost(count_by_outcome["pass"], cpu_ms)


def run_blackbox_round(folder: Path, binary: str, url: str, ca_file: str, case: PeerCase) -> RoundCost:
    port = find_free_port()
    module = {
        "prober": "http",
        "timeout": "5s",
        "http": {"preferred_ip_protocol": "ip4", "tls_config": {"ca_file": ca_file}},
    }
    config = folder / "blackbox.yaml"
    config.write_text(json.dumps({"modules": {"checked": module}}))
    listen = f"127.0.0.1:{port}"
    command = [binary, f"--config.file={config}", f"--web.listen-address={listen}", "--log.level=error"]
    with listening_process(command, port) as process:
        path = f"/probe?module=checked&target={url}"
        asyncio.run(request_at_rate(port, path, case.rate, 2))
        cpu_ms = read_cpu_ms(process.pid)
        checks = asyncio.run(request_at_rate(port, path, case.rate, ROUND_S))
        cpu_ms = read_cpu_ms(process.pid) - cpu_ms
    return RoundCost(checks, cpu_ms)


def run_client_round(client: str, url: str, ca_file: str, case: PeerCase) -> RoundCost:
    command = [sys.executable, "-m", "benchmarks.peer_clients", client, url, ca_file, str(case.rate), str(ROUND_S)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(ran.stdout)
    return RoundCost(measured["requests"], measured["cpu_ms"])


async def request_at_rate(port: int, path: str, rate: int, duration_s: int) -> int:
    """Requests the path at this rate on connections that stay open. Returns how many probes succeeded; all have to."""
    loop = asyncio.get_running_loop()
    started, count = loop.time(), rate * duration_s
    numbers = iter(range(count))
    succeeded = 0

    async def request_one_after_the_other() -> None:
        nonlocal succeeded
        async with open_connection(port) as (reader, writer):
            for number in numbers:
                if (delay := started + number / rate - loop.time()) > 0:
                    await asyncio.sleep(delay)
                writer.write(f"GET {path} HTTP/1.1\r\nHost: blackbox\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                body = await read_body(reader, head)
                succeeded += b"\nprobe_success 1" in body

    await asyncio.gather(*(request_one_after_the_other() for _ in range(DRIVER_CONNECTIONS)))
    if succeeded != count:
        raise RuntimeError(f"{count - succeeded} of {count} probes of blackbox_exporter failed")
    return succeeded


async def read_body(reader: asyncio.StreamReader, head: str) -> bytes:
    if "content-length:" in head:
        return await reader.readexactly(int(head.partition("content-length:")[2].partition("\r\n")[0]))
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return b"".join(parts)


@asynccontextmanager
async def open_connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with AsyncExitStack() as stack:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        yield reader, writer
