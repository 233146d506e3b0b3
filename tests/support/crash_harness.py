"""Kill Watchdog at a named point, start it again, and count what people heard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.fakes import FakeHttpReceiver, FakeMailServer, FakeSlack, FakeWebhookReceiver, ReceivedRequest
from watchdog.domain.model import IncidentEvent

PROJECT_ROOT = Path(__file__).parents[2]
STORE_KILL_POINTS = ("after claim", "before record", "before commit", "after commit")
SENDING_KILL_POINTS = ("after outbox claim", "before bytes", "before the 2xx", "before mark", "after mark")
NOTIFIER_KINDS = ("bot", "webhook", "email")
LOST_MESSAGE_TIMEOUT_S = 40.0
"""Seconds after which a message counts as lost."""

ReceiverKind: TypeAlias = Literal["bot", "webhook", "email", "hook"]


@dataclass(frozen=True)
class KillCase:
    kill_point: str
    event: IncidentEvent
    receiver_kind: ReceiverKind
    """How people are told: a Slack bot, a Slack webhook, email, or a plain webhook."""


@dataclass(frozen=True)
class KillCaseResult:
    """What a case came to."""

    killed_at_point: bool
    """The process died at its point, by SIGKILL."""
    opened_count: int
    resolved_count: int
    """Copies that were heard of each."""
    in_order: bool
    unsent_count: int
    """Notifications left unsent at the end."""

    @property
    def lost_count(self) -> int:
        return (self.opened_count == 0) + (self.resolved_count == 0)

    @property
    def duplicate_count(self) -> int:
        return max(0, self.opened_count - 1) + max(0, self.resolved_count - 1)

    @property
    def passed(self) -> bool:
        return (
            self.killed_at_point
            and not self.lost_count
            and self.duplicate_count <= 1
            and self.in_order
            and not self.unsent_count
        )


class FakeHttpTarget:
    """An HTTP endpoint that is up or down, as the test says."""

    def __init__(self) -> None:
        target = self
        self.up = True

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if target.up else 503)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class RecordingReceiver:
    """One receiver, what it heard as events in order, and whether hearing one kills the sender before its 2xx."""

    def __init__(self, kind: ReceiverKind):
        self.kind = kind
        self.events: list[IncidentEvent] = []
        self.on_event: Callable[[IncidentEvent], None] = lambda _: None
        ears = self

        class Mailbox(FakeMailServer):
            async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
                raw = envelope.content
                assert isinstance(raw, bytes)
                ears.record_event(IncidentEvent.RESOLVED if b"\nIn-Reply-To:" in raw else IncidentEvent.OPENED)
                return await super().handle_DATA(server, session, envelope)

        def listening(base: type[FakeHttpReceiver]) -> FakeHttpReceiver:
            class Listening(base):  # type: ignore[valid-type, misc]
                def _take(self, heard: ReceivedRequest) -> Any:
                    event = ears.event_of_request(heard)
                    if event is not None:
                        ears.record_event(event)
                    return super()._take(heard)

            made: FakeHttpReceiver = Listening()
            return made

        self.fake: Any = (
            Mailbox() if kind == "email" else listening(FakeWebhookReceiver) if kind == "hook" else listening(FakeSlack)
        )

    def event_of_request(self, request: ReceivedRequest) -> IncidentEvent | None:
        """Which event an HTTP request tells; None: it is an edit, which no one hears."""
        body = request.json
        if self.kind == "hook":
            return IncidentEvent(body["event"])
        if request.path.endswith("chat.update"):
            return None
        return IncidentEvent.RESOLVED if "recovered" in body["text"] else IncidentEvent.OPENED

    def record_event(self, event: IncidentEvent) -> None:
        self.events.append(event)
        self.on_event(event)

    def receiver_config(self) -> dict[str, Any]:
        """The receiver, and what else the configuration needs for it."""
        s = self.fake
        match self.kind:
            case "bot":
                slack = {"bot_token": s.token, "channel": s.channel, "api_url": s.url}
                return {"receivers": {"oncall": {"slack": slack}}}
            case "webhook":
                return {"receivers": {"oncall": {"slack": {"webhook": s.webhook}}}}
            case "hook":
                return {"receivers": {"oncall": {"webhook": {"url": s.url}}}}
            case "email":
                server = {"host": "127.0.0.1", "port": s.port, "security": "none", "from": "watchdog@acme.example"}
                return {"email": server, "receivers": {"oncall": {"email": {"to": ["oncall@acme.example"]}}}}


class CrashHarness:
    """A target, a receiver, a database, and the processes of Watchdog between them."""

    def __init__(self, folder: Path, database: str, kind: ReceiverKind):
        self.folder, self.database_url = folder, database
        self.target, self.receiver = FakeHttpTarget(), RecordingReceiver(kind)
        self.marker_file, self.config_file = folder / "marker", folder / "watchdog.yaml"

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._stack.enter_context(self.target)
        self._stack.enter_context(self.receiver.fake)
        probe = {
            "name": "API",
            "every": "1s",
            "timeout": "1s",
            "http": self.target.url,
            "alert": {"failure_threshold": 1, "success_threshold": 1},
        }
        self.config_file.write_text(
            json.dumps({"storage": {"url": self.database_url}, "probes": [probe], **self.receiver.receiver_config()})
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @contextmanager
    def running_process(
        self, kill_point: str = "none", event: IncidentEvent = IncidentEvent.OPENED
    ) -> Iterator[subprocess.Popen[bytes]]:
        self.marker_file.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "tests.support.crash_child",
            str(self.config_file),
            kill_point,
            event,
            str(self.marker_file),
        ]
        with (self.folder / "log").open("ab") as log:
            child = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=log, stderr=log)
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(15)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def wait_until(self, condition: Callable[[], bool], child: subprocess.Popen[bytes] | None = None) -> bool:
        end = time.monotonic() + LOST_MESSAGE_TIMEOUT_S
        while time.monotonic() < end:
            if condition():
                return True
            if child is not None and child.poll() is not None:
                return condition()
            time.sleep(0.02)
        return False

    def count_received(self, event: IncidentEvent) -> int:
        return self.receiver.events.count(event)

    def run_kill_case(self, kill_point: str, event: IncidentEvent) -> KillCaseResult:
        """Let an incident open and resolve; kill the process at the point of one of the two; start it again."""
        self.target.up = event is IncidentEvent.RESOLVED
        if event is IncidentEvent.RESOLVED:
            self.target.up = False
            with self.running_process() as child:
                self.wait_until(lambda: self.count_received(IncidentEvent.OPENED) == 1, child)
                self.wait_until(lambda: self.count_unsent() == 0, child)
            self.target.up = True
        with self.running_process(kill_point, event) as child:
            if kill_point == "before the 2xx":
                self.receiver.on_event = lambda told: self._kill_child(child) if told is event else None
            self.wait_until(lambda: child.poll() is not None)
            self.receiver.on_event = lambda _: None
            hit = child.returncode == -signal.SIGKILL and (self.marker_file.exists() or kill_point == "before the 2xx")
        with self.running_process() as child:
            if event is IncidentEvent.OPENED:
                self.wait_until(
                    lambda: self.count_received(IncidentEvent.OPENED) > 0 and self.count_unsent() == 0, child
                )
                self.target.up = True
            self.wait_until(lambda: self.count_received(IncidentEvent.RESOLVED) > 0 and self.count_unsent() == 0, child)
        first = (
            self.receiver.events.index(IncidentEvent.RESOLVED)
            if self.count_received(IncidentEvent.RESOLVED)
            else len(self.receiver.events)
        )
        in_order = IncidentEvent.OPENED not in self.receiver.events[first:]
        return KillCaseResult(
            hit,
            self.count_received(IncidentEvent.OPENED),
            self.count_received(IncidentEvent.RESOLVED),
            in_order,
            self.count_unsent(),
        )

    def _kill_child(self, child: subprocess.Popen[bytes]) -> None:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

    def count_unsent(self) -> int:
        import sqlalchemy as sa

        from watchdog.store.database import Database
        from watchdog.store.errors import SchemaError, StoreUnavailableError
        from watchdog.store.tables import outbox, outbox_is_waiting

        database = Database(self.database_url)
        try:
            with database.read_transaction() as connection:
                unsent: int = connection.execute(
                    sa.select(sa.func.count()).select_from(outbox).where(outbox_is_waiting)
                ).scalar_one()
                return unsent
        except (SchemaError, StoreUnavailableError):
            return -1
        finally:
            database.close()
