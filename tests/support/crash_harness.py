"""Kills Watchdog at a named point, restarts it, and counts the notifications that arrive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.fakes import (
    FakeHttpReceiver,
    FakeHttpTarget,
    FakeMailServer,
    FakeSlack,
    FakeWebhookReceiver,
    ReceivedRequest,
)
from tests.support.processes import end_process
from watchdog.domain.model import IncidentEvent

PROJECT_ROOT = Path(__file__).parents[2]
STORE_KILL_POINTS = ("after claim", "before record", "before commit", "after commit")
SENDING_KILL_POINTS = ("after outbox claim", "before bytes", "before the 2xx", "before mark", "after mark")
NOTIFIER_KINDS = ("bot", "webhook", "email")
GROUP_SIZE = 3
"""Probes of one target, whose incidents are a group."""
LOST_MESSAGE_TIMEOUT_S = 40.0
"""A notification that has not arrived by then counts as lost."""

ReceiverKind: TypeAlias = Literal["bot", "webhook", "email", "hook"]
"""A Slack bot, a Slack webhook, email, or a generic webhook."""
HTTP_RECEIVERS: Mapping[ReceiverKind, type[FakeHttpReceiver]] = {
    "bot": FakeSlack,
    "webhook": FakeSlack,
    "hook": FakeWebhookReceiver,
}


@dataclass(frozen=True)
class KillCase:
    kill_point: str
    event: IncidentEvent
    receiver_kind: ReceiverKind
    probe_count: int = 1


@dataclass(frozen=True, kw_only=True)
class KillCaseResult:
    killed_at_point: bool
    """The process was killed by SIGKILL, at its kill point."""
    copy_counts: Mapping[IncidentEvent, int]
    """Of each notification that has to arrive, the copies that did."""
    in_order: bool
    """Nothing else arrived after a `resolved`."""
    unsent_count: int
    """Notifications in the outbox that are still waiting."""

    @property
    def lost_count(self) -> int:
        return sum(count == 0 for count in self.copy_counts.values())

    @property
    def duplicate_count(self) -> int:
        return sum(max(0, count - 1) for count in self.copy_counts.values())

    @property
    def passed(self) -> bool:
        return (
            self.killed_at_point
            and not self.lost_count
            and self.duplicate_count <= 1
            and self.in_order
            and not self.unsent_count
        )


class RecordingReceiver:
    """A receiver of any kind that records the events it gets. `on_event` runs before the sender gets its answer."""

    def __init__(self, kind: ReceiverKind):
        self.kind = kind
        self.events: list[IncidentEvent] = []
        self.on_event: Callable[[IncidentEvent], None] = lambda _: None
        receiver = self

        class MailServer(FakeMailServer):
            async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
                raw = envelope.content
                assert isinstance(raw, bytes)
                is_reply = b"\nIn-Reply-To:" in raw
                receiver.record_event(IncidentEvent.RESOLVED if is_reply else IncidentEvent.OPENED)
                return await super().handle_DATA(server, session, envelope)

        def recording(base: type[FakeHttpReceiver]) -> FakeHttpReceiver:
            class RecordingHttpReceiver(base):  # type: ignore[valid-type, misc]
                def _respond(self, request: ReceivedRequest) -> Any:
                    if (event := receiver.event_of_request(request)) is not None:
                        receiver.record_event(event)
                    return super()._respond(request)

            http_receiver: FakeHttpReceiver = RecordingHttpReceiver()
            return http_receiver

        self.fake: Any = MailServer() if kind == "email" else recording(HTTP_RECEIVERS[kind])

    def event_of_request(self, request: ReceivedRequest) -> IncidentEvent | None:
        """The event that an HTTP request reports; None for an edit, which notifies no person."""
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
        """The configuration's section for the receiver, and others that it needs."""
        fake = self.fake
        match self.kind:
            case "bot":
                slack = {"bot_token": fake.token, "channel": fake.channel, "api_url": fake.url}
                return {"receivers": {"oncall": {"slack": slack}}}
            case "webhook":
                return {"receivers": {"oncall": {"slack": {"webhook": fake.webhook}}}}
            case "hook":
                return {"receivers": {"oncall": {"webhook": {"url": fake.url}}}}
            case "email":
                server = {"host": "127.0.0.1", "port": fake.port, "security": "none", "from": "watchdog@acme.example"}
                return {"email": server, "receivers": {"oncall": {"email": {"to": ["oncall@acme.example"]}}}}


class CrashHarness:
    """A target, a receiver and a database, and processes of Watchdog, one after the other.

    The incidents of several probes are a group: a receiver that cannot edit gets its first message, one that names all
    of them when it accepts no more (`changed`), and one when they are over.
    """

    def __init__(self, folder: Path, database_url: str, kind: ReceiverKind, probe_count: int = 1):
        self.events = [IncidentEvent.OPENED, IncidentEvent.RESOLVED]
        if probe_count > 1:
            self.events.insert(1, IncidentEvent.CHANGED)
        self.probe_count = probe_count
        self.folder, self.database_url = folder, database_url
        self.target, self.receiver = FakeHttpTarget(), RecordingReceiver(kind)
        self.marker_file, self.config_file = folder / "marker", folder / "watchdog.yaml"

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._stack.enter_context(self.target)
        self._stack.enter_context(self.receiver.fake)
        probes = [
            {
                "name": f"API {number}",
                "every": "1s",
                "timeout": "20s",
                "http": self.target.url,
                "alert": {"failure_threshold": 1, "success_threshold": 1},
            }
            for number in range(self.probe_count)
        ]
        self.config_file.write_text(
            json.dumps({"storage": {"url": self.database_url}, "probes": probes, **self.receiver.receiver_config()})
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
            process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=log, stderr=log)
        try:
            yield process
        finally:
            end_process(process)

    def wait_until(self, condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until the condition holds, the process has ended, or LOST_MESSAGE_TIMEOUT_S have passed."""
        deadline = time.monotonic() + LOST_MESSAGE_TIMEOUT_S
        while time.monotonic() < deadline and not condition():
            if process is not None and process.poll() is not None:
                return
            time.sleep(0.02)

    def count_received(self, event: IncidentEvent) -> int:
        return self.receiver.events.count(event)

    def run_kill_case(self, kill_point: str, event: IncidentEvent) -> KillCaseResult:
        """Open and resolve the incidents, killing the process at the kill point of `event` and restarting it."""
        last_of_outage = self.events[-2]
        if event is IncidentEvent.RESOLVED:
            self.target.up = False
            with self.running_process() as process:
                self.wait_until(lambda: self.count_received(last_of_outage) == 1, process)
                self.wait_until(lambda: self.count_unsent() == 0, process)
        self.target.up = event is IncidentEvent.RESOLVED
        killed_at_point = self._run_until_killed(kill_point, event)
        with self.running_process() as process:
            if event is not IncidentEvent.RESOLVED:
                self._wait_until_delivered(last_of_outage, process)
                self.target.up = True
            self._wait_until_delivered(IncidentEvent.RESOLVED, process)
        events = self.receiver.events
        first_resolved = events.index(IncidentEvent.RESOLVED) if IncidentEvent.RESOLVED in events else len(events)
        return KillCaseResult(
            killed_at_point=killed_at_point,
            copy_counts={event: self.count_received(event) for event in self.events},
            in_order=set(events[first_resolved:]) <= {IncidentEvent.RESOLVED},
            unsent_count=self.count_unsent(),
        )

    def _run_until_killed(self, kill_point: str, event: IncidentEvent) -> bool:
        """Whether the process was killed at its kill point."""
        by_receiver = kill_point == "before the 2xx"
        with self.running_process(kill_point, event) as process:
            if by_receiver:
                self.receiver.on_event = lambda received: self._kill(process) if received is event else None
            self.wait_until(lambda: process.poll() is not None)
            self.receiver.on_event = lambda _: None
            return process.returncode == -signal.SIGKILL and (by_receiver or self.marker_file.exists())

    def _wait_until_delivered(self, event: IncidentEvent, process: subprocess.Popen[bytes]) -> None:
        self.wait_until(lambda: self.count_received(event) > 0 and self.count_unsent() == 0, process)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def count_unsent(self) -> int:
        """Notifications that are waiting in the outbox; -1 while the database cannot be read."""
        import sqlalchemy as sa

        from watchdog.store.database import Database
        from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError
        from watchdog.store.tables import outbox, outbox_is_waiting

        database = Database(self.database_url)
        query = sa.select(sa.func.count()).select_from(outbox).where(outbox_is_waiting)
        try:
            with database.open_read_transaction() as connection:
                count: int = connection.execute(query).scalar_one()
                return count
        except (WatchdogDatabaseSchemaError, StoreUnavailableError):
            return -1
        finally:
            database.close()
