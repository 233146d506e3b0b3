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

from tests.standins import Heard, HookStandIn, HttpStandIn, MailStandIn, SlackStandIn
from watchdog.model import Event

ROOT = Path(__file__).parents[2]
STORE = ("after claim", "before record", "before commit", "after commit")
SENDING = ("after outbox claim", "before bytes", "before the 2xx", "before mark", "after mark")
NOTIFIERS = ("bot", "webhook", "email")
PATIENCE = 40.0
"""Seconds after which a message counts as lost."""

Kind: TypeAlias = Literal["bot", "webhook", "email", "hook"]


@dataclass(frozen=True)
class Case:
    point: str
    event: Event
    kind: Kind
    """How people are told: a Slack bot, a Slack webhook, email, or a plain webhook."""


@dataclass(frozen=True)
class Verdict:
    """What a case came to."""

    hit: bool
    """The process died at its point, by SIGKILL."""
    opened: int
    resolved: int
    """Copies that were heard of each."""
    in_order: bool
    waiting: int
    """Notifications left unsent at the end."""

    @property
    def lost(self) -> int:
        return (self.opened == 0) + (self.resolved == 0)

    @property
    def extra(self) -> int:
        return max(0, self.opened - 1) + max(0, self.resolved - 1)

    @property
    def fine(self) -> bool:
        return self.hit and not self.lost and self.extra <= 1 and self.in_order and not self.waiting


class Target:
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


class Ears:
    """One receiver, what it heard as events in order, and whether hearing one kills the sender before its 2xx."""

    def __init__(self, kind: Kind):
        self.kind = kind
        self.events: list[Event] = []
        self.on_hearing: Callable[[Event], None] = lambda _: None
        ears = self

        class Mailbox(MailStandIn):
            async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
                raw = envelope.content
                assert isinstance(raw, bytes)
                ears.hear(Event.RESOLVED if b"\nIn-Reply-To:" in raw else Event.OPENED)
                return await super().handle_DATA(server, session, envelope)

        def listening(base: type[HttpStandIn]) -> HttpStandIn:
            class Listening(base):  # type: ignore[valid-type, misc]
                def _take(self, heard: Heard) -> Any:
                    event = ears.told(heard)
                    if event is not None:
                        ears.hear(event)
                    return super()._take(heard)

            made: HttpStandIn = Listening()
            return made

        self.standin: Any = (
            Mailbox() if kind == "email" else listening(HookStandIn) if kind == "hook" else listening(SlackStandIn)
        )

    def told(self, heard: Heard) -> Event | None:
        """Which event an HTTP request tells; None: it is an edit, which no one hears."""
        body = heard.json
        if self.kind == "hook":
            return Event(body["event"])
        if heard.path.endswith("chat.update"):
            return None
        return Event.RESOLVED if "recovered" in body["text"] else Event.OPENED

    def hear(self, event: Event) -> None:
        self.events.append(event)
        self.on_hearing(event)

    def config(self) -> dict[str, Any]:
        """The receiver, and what else the configuration needs for it."""
        s = self.standin
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


class Bench:
    """A target, a receiver, a database, and the processes of Watchdog between them."""

    def __init__(self, folder: Path, database: str, kind: Kind):
        self.folder, self.database = folder, database
        self.target, self.ears = Target(), Ears(kind)
        self.marker, self.config = folder / "marker", folder / "watchdog.yaml"

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._stack.enter_context(self.target)
        self._stack.enter_context(self.ears.standin)
        probe = {
            "name": "API",
            "every": "1s",
            "timeout": "1s",
            "http": self.target.url,
            "alert": {"after": 1, "recover": 1},
        }
        self.config.write_text(json.dumps({"storage": {"url": self.database}, "probes": [probe], **self.ears.config()}))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @contextmanager
    def process(self, point: str = "none", event: Event = Event.OPENED) -> Iterator[subprocess.Popen[bytes]]:
        self.marker.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.crash.child", str(self.config), point, event, str(self.marker)]
        with (self.folder / "log").open("ab") as log:
            child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
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

    def until(self, what: Callable[[], bool], child: subprocess.Popen[bytes] | None = None) -> bool:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if what():
                return True
            if child is not None and child.poll() is not None:
                return what()
            time.sleep(0.02)
        return False

    def heard(self, event: Event) -> int:
        return self.ears.events.count(event)

    def kill_at(self, point: str, event: Event) -> Verdict:
        """Let an incident open and resolve; kill the process at the point of one of the two; start it again."""
        self.target.up = event is Event.RESOLVED
        if event is Event.RESOLVED:
            self.target.up = False
            with self.process() as child:
                self.until(lambda: self.heard(Event.OPENED) == 1, child)
                self.until(lambda: self.unsent() == 0, child)
            self.target.up = True
        with self.process(point, event) as child:
            if point == "before the 2xx":
                self.ears.on_hearing = lambda told: self._kill(child) if told is event else None
            self.until(lambda: child.poll() is not None)
            self.ears.on_hearing = lambda _: None
            hit = child.returncode == -signal.SIGKILL and (self.marker.exists() or point == "before the 2xx")
        with self.process() as child:
            if event is Event.OPENED:
                self.until(lambda: self.heard(Event.OPENED) > 0 and self.unsent() == 0, child)
                self.target.up = True
            self.until(lambda: self.heard(Event.RESOLVED) > 0 and self.unsent() == 0, child)
        first = self.ears.events.index(Event.RESOLVED) if self.heard(Event.RESOLVED) else len(self.ears.events)
        in_order = Event.OPENED not in self.ears.events[first:]
        return Verdict(hit, self.heard(Event.OPENED), self.heard(Event.RESOLVED), in_order, self.unsent())

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

    def unsent(self) -> int:
        import sqlalchemy as sa

        from watchdog.store.database import Database, Unusable
        from watchdog.store.tables import outbox, waiting

        database = Database(self.database)
        try:
            with database.read() as connection:
                unsent: int = connection.execute(
                    sa.select(sa.func.count()).select_from(outbox).where(waiting)
                ).scalar_one()
                return unsent
        except Unusable:
            return -1
        finally:
            database.close()
