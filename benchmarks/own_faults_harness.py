"""What the cases of own_faults.py share: healthy targets, a receiver and a real Watchdog, and what they observe."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import httpx
import sqlalchemy as sa

from benchmarks.measurements import Measurement
from tests.support.fakes import FakeWebhookReceiver, ReceivedRequest
from tests.support.quiet_http_server import QuietHttpServer
from tests.support.watchdog_process import WatchdogProcess
from watchdog.domain.rules import service
from watchdog.store.tables import check_ins, incidents, probes

INTERVAL_S = 5
HEALTHY_COUNT = 20
FAULT_S, SETTLE_S = 60.0, 45.0
MAX_BLIND_S, MAX_NOTICE_S = 30.0, 60.0
BLIND, NOTICE, FALSE_OUTAGES, MESSAGES, LOST = (
    "blind",
    "until people are notified",
    "false outages",
    "messages",
    "accepted check-ins lost",
)
"""The figures that a case has in common with others."""
CHECK_IN_STORE_TIMEOUT_S = 10.0
CHECK_IN_TOKEN = "0123456789abcdef-nightly"


def list_named_probes(message: dict[str, Any]) -> list[str]:
    """The ids of the probes that a message names: of its incident, or of each if it is about several."""
    return [about["probe"]["id"] for about in message.get("members") or [message]]


class TargetServer:
    """Answers GET on every loopback address: 503 for a path in `failing_paths`, else 200. Keeps when it did."""

    def __init__(self) -> None:
        self.request_times: dict[str, list[float]] = defaultdict(list)
        self.failing_paths: set[str] = set()
        target = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                target.request_times[self.path].append(time.monotonic())
                self.send_response(503 if self.path in target.failing_paths else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(QuietHttpServer):
            request_queue_size = 1024

        self._server = Server(("0.0.0.0", 0), Handler)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Surroundings:
    """Targets that are healthy, one that a case may break, a receiver, and the configuration that names them."""

    def __init__(self, folder: Path, healthy_count: int = HEALTHY_COUNT, database_url: str = "sqlite:///wd.db"):
        self.folder, self.database_url = folder, database_url
        self.targets, self.receiver = TargetServer(), FakeWebhookReceiver()
        self.healthy_ids = [f"healthy-{number}" for number in range(healthy_count)]
        self.blameless_ids = list(self.healthy_ids)
        """The targets that no message and no incident may name."""
        self.started_at = 0.0
        self.attempted_check_ins = self.accepted_check_ins = 0

    def __enter__(self) -> Self:
        self.targets.__enter__()
        self.receiver.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.receiver.__exit__(*exc)
        self.targets.__exit__(*exc)

    def build_probe(self, id: str, **fields: Any) -> dict[str, Any]:
        alert = {"failure_threshold": 1, "success_threshold": 1}
        common = {"name": id, "id": id, "every": f"{INTERVAL_S}s", "timeout": "3s", "alert": alert}
        return {**common, "http": f"http://127.0.0.1:{self.targets.port}/{id}", **fields}

    def write_config(self, extra_probes: Sequence[dict[str, Any]] = ()) -> Path:
        heartbeat = {"name": "Nightly", "id": "nightly", "heartbeat": {"token": CHECK_IN_TOKEN, "every": "1h"}}
        config = {
            "server": {"listen": "127.0.0.1:0"},
            "storage": {"url": self.database_url, "check_in_log": str(self.folder / "check-ins")},
            "probes": [*map(self.build_probe, self.healthy_ids), self.build_probe("outage"), heartbeat, *extra_probes],
            "receivers": {"oncall": {"webhook": {"url": self.receiver.url}}},
        }
        path = self.folder / "watchdog.yaml"
        path.write_text(json.dumps(config))
        return path

    def wait_until_healthy(self) -> None:
        """Wait until each healthy target was requested twice: Watchdog works."""
        end = time.monotonic() + 120
        paths = [f"/{id}" for id in self.healthy_ids]
        while any(len(self.targets.request_times[path]) < 2 for path in paths):
            assert time.monotonic() < end, "Watchdog did not request its targets"
            time.sleep(0.1)
        self.started_at = time.monotonic()

    def pass_time(self, watchdog: WatchdogProcess, duration_s: float) -> None:
        """Let time pass, and check in every second."""
        end = time.monotonic() + duration_s
        while (remaining_s := end - time.monotonic()) > 0:
            self.check_in(watchdog)
            time.sleep(min(1.0, max(remaining_s, 0)))

    def check_in(self, watchdog: WatchdogProcess) -> None:
        self.attempted_check_ins += 1
        try:
            response = httpx.post(f"{watchdog.base_url}in/{CHECK_IN_TOKEN}/log", timeout=10, trust_env=False)
        except httpx.HTTPError:
            return
        self.accepted_check_ins += response.status_code == 200

    # --- what was observed

    def messages(self) -> list[ReceivedRequest]:
        return [request for request in self.receiver.received if request.received_at >= self.started_at]

    def list_named_ids(self) -> list[str]:
        """The ids of the probes that messages name, once for each message."""
        return [id for request in self.messages() for id in list_named_probes(request.json)]

    def seconds_until_notice(self) -> float:
        """From the fault to the first message about Watchdog itself."""
        kinds = ((request.received_at, request.json["probe"]["kind"]) for request in self.messages())
        times = [at - self.started_at for at, kind in kinds if kind == service.WATCHDOG_SELF_PROBE_KIND]
        return min(times, default=float("inf"))

    def blind_s(self, ids: Iterable[str], started_at: float) -> float:
        """The longest time since then that one of these targets was not requested, less the interval."""
        ended_at, longest_gap_s = time.monotonic(), 0.0
        for id in ids:
            times = [at for at in self.targets.request_times[f"/{id}"] if at >= started_at]
            gaps = (after - before for before, after in pairwise([started_at, *times, ended_at]))
            longest_gap_s = max(longest_gap_s, *gaps)
        return max(longest_gap_s - INTERVAL_S, 0.0)

    def false_outages(self) -> int:
        """Messages that blame a target that works."""
        return sum(id in self.blameless_ids for id in self.list_named_ids())

    def query_store(self, query: sa.Select[Any]) -> list[Any]:
        url = self.database_url.replace("sqlite:///", f"sqlite:///{self.folder}/")
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return list(connection.execute(query))

    def false_incidents(self) -> int:
        """Stored incidents of a target that works."""
        query = sa.select(sa.func.count()).select_from(incidents.join(probes, probes.c.id == incidents.c.probe))
        return int(self.query_store(query.where(probes.c.probe_id.in_(self.blameless_ids)))[0][0])

    def lost_check_ins(self) -> int:
        """Those that were accepted since the fault and are not in the database soon afterwards."""
        end = time.monotonic() + CHECK_IN_STORE_TIMEOUT_S
        query = sa.select(sa.func.count()).select_from(check_ins)
        while (lost := self.accepted_check_ins - int(self.query_store(query)[0][0])) and time.monotonic() < end:
            time.sleep(0.5)
        return lost

    def measure(self, name: str, *, max_messages: int, is_notified: bool = True) -> list[Measurement]:
        """The figures that every case has. `is_notified`: people must be notified about Watchdog."""
        notice = Measurement(f"{name}: {NOTICE}", self.seconds_until_notice(), "s", MAX_NOTICE_S)
        blind_s = self.blind_s(self.healthy_ids, self.started_at)
        return [
            Measurement(f"{name}: {BLIND}", blind_s, "s", MAX_BLIND_S),
            *([notice] if is_notified else []),
            Measurement(f"{name}: {FALSE_OUTAGES}", self.false_outages() + self.false_incidents(), "", 0),
            Measurement(f"{name}: {MESSAGES}", len(self.messages()), "", max_messages),
            Measurement(f"{name}: {LOST}", self.lost_check_ins(), "", 0),
        ]


@contextmanager
def surrounded(
    healthy_count: int = HEALTHY_COUNT, database_url: str = "sqlite:///wd.db"
) -> Iterator[tuple[Surroundings, ExitStack]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield stack.enter_context(Surroundings(Path(folder), healthy_count, database_url)), stack
