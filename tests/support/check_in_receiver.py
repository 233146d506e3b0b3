"""A fake Watchdog that jobs check in with, and that records what it received."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

HEARTBEAT_TOKEN = "0123456789abcdef-backup"


class ReceivedCheckIn(NamedTuple):
    path: str
    run_id: str
    ago_ms: int
    body: str


class FakeCheckInReceiver:
    """Accepts check-ins on a free port."""

    def __init__(self) -> None:
        self.received: list[ReceivedCheckIn] = []
        self.status_codes: list[int] = []
        """Statuses of the next responses; then 200."""
        self.explanation = b""
        """The body of responses."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                status = receiver.status_codes.pop(0) if receiver.status_codes else 200
                if status == 200:
                    url = urlsplit(self.path)
                    query = parse_qs(url.query)
                    receiver.received.append(ReceivedCheckIn(url.path, query["rid"][0], int(query["ago"][0]), body))
                self.send_response(status)
                self.send_header("content-length", str(len(receiver.explanation)))
                self.end_headers()
                self.wfile.write(receiver.explanation)

            def log_message(self, *_: object) -> None:
                """Writes no log."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/in/{HEARTBEAT_TOKEN}"

    def received_signals(self) -> list[str]:
        return [check_in.path.removeprefix(f"/in/{HEARTBEAT_TOKEN}").lstrip("/") for check_in in self.received]

    def __enter__(self) -> Self:
        Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def unreachable_url() -> str:
    """An address that refuses connections."""
    with FakeCheckInReceiver().server as server:
        return f"http://127.0.0.1:{server.server_port}/in/{HEARTBEAT_TOKEN}"
