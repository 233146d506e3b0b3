"""Fake receivers and targets on free loopback ports: Slack, a mail server, a webhook receiver, an HTTP endpoint.

Each receiver is a context manager. `received` holds the requests, oldest first. Each entry of
`canned_responses`, a queue, replaces one response.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP as MAIL
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class CannedResponse(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ReceivedRequest:
    """A request. `received_at`: seconds of the monotonic clock."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    received_at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeHttpReceiver:
    """Responds to every POST with `default_response` (200), or with the next canned response."""

    def __init__(self) -> None:
        self.received: list[ReceivedRequest] = []
        self.canned_responses: deque[CannedResponse | Callable[[], CannedResponse]] = deque()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                names = {name.lower(): value for name, value in self.headers.items()}
                response = receiver._respond(ReceivedRequest(self.path, names, body, time.monotonic()))
                self.send_response(response.status)
                self.send_header("content-length", str(len(response.body)))
                for name, value in response.headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(response.body)

            def log_message(self, *_: object) -> None:
                pass

        self._lock = threading.Lock()

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """Ignores clients that were killed; prints a traceback for anything else."""
                if not isinstance(sys.exception(), ConnectionError):
                    super().handle_error(request, client_address)

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def _respond(self, request: ReceivedRequest) -> CannedResponse:
        with self._lock:
            self.received.append(request)
            response = self.canned_responses.popleft() if self.canned_responses else self.default_response(request)
        return response() if callable(response) else response

    def default_response(self, request: ReceivedRequest) -> CannedResponse | Callable[[], CannedResponse]:
        """A function is called without the lock, and may wait."""
        return CannedResponse()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class FakeWebhookReceiver(FakeHttpReceiver):
    """A receiver of webhooks."""


class FakePagerDuty(FakeHttpReceiver):
    """PagerDuty's Events API v2, as strict about events as it is. `alerts`: dedup key -> "triggered", "acknowledged" or
    "resolved"."""

    def __init__(self, routing_key: str = "R0" + "a" * 30) -> None:
        super().__init__()
        self.routing_key = routing_key
        self.url += "v2/enqueue"
        self.alerts: dict[str, str] = {}

    def default_response(self, request: ReceivedRequest) -> CannedResponse:
        event, accepted = request.json, (("content-type", "application/json"),)
        if errors := self._find_errors(event, request):
            refusal = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
            return CannedResponse(400, json.dumps(refusal).encode(), accepted)
        key, action, state = event["dedup_key"], event["event_action"], self.alerts.get(event["dedup_key"])
        if action == "trigger" and state != "acknowledged":  # a further trigger does not undo an acknowledgement
            self.alerts[key] = "triggered"
        elif action == "resolve" and state is not None:  # without an alert, it changes nothing
            self.alerts[key] = "resolved"
        elif action == "acknowledge" and state == "triggered":
            self.alerts[key] = "acknowledged"
        reply = {"status": "success", "message": "Event processed", "dedup_key": key}
        return CannedResponse(202, json.dumps(reply).encode(), accepted)

    def _find_errors(self, event: dict[str, Any], request: ReceivedRequest) -> list[str]:
        checks = {
            f"Invalid routing key {event['routing_key']}": event["routing_key"] == self.routing_key,
            "'event_action' is invalid": event["event_action"] in ("trigger", "acknowledge", "resolve"),
            "'dedup_key' is longer than 255": 0 < len(event["dedup_key"]) <= 255,
            "the event is larger than 512 KB": len(request.body) <= 512 * 1024,
        }
        if event["event_action"] == "trigger":
            payload = event["payload"]
            summary = payload["summary"]
            checks |= {
                "'summary' is longer than 1024": 0 < len(summary.encode("utf-16-le")) // 2 <= 1_024,
                "'severity' is invalid": payload["severity"] in ("critical", "error", "warning", "info"),
                "'source' is missing or blank": bool(payload["source"].strip()),
                "'links' is invalid": all(link["href"].startswith("http") for link in event.get("links", ())),
            }
        return [error for error, is_met in checks.items() if not is_met]


class FakeSlack(FakeHttpReceiver):
    """Slack's chat.postMessage, chat.update, chat.postEphemeral, apps.connections.open and incoming webhooks, as strict
    about blocks as Slack is.

    `url` is the API's base, `webhook` an incoming webhook; `posts` are the messages as they stand in the channel;
    `texts_to_one_person` those that only one person sees. `socket_url`: of a FakeSlackSockets.
    """

    def __init__(self, token: str = "xoxb-1-stand-in", channel: str = "C0ONCALL") -> None:
        super().__init__()
        self.token, self.channel, self.team = token, channel, "T0ACME"
        self.app_token, self.socket_url, self.ticket_count = "xapp-1-stand-in", "", 0
        self.webhook = f"{self.url}services/T0/B0/hook"
        self.url += "api/"
        self.posts: list[dict[str, Any]] = []
        self.texts_to_one_person: list[tuple[str, str]] = []
        """Person and text."""

    @property
    def thread_roots(self) -> list[dict[str, Any]]:
        return [post for post in self.posts if "thread_ts" not in post]

    def default_response(self, request: ReceivedRequest) -> CannedResponse | Callable[[], CannedResponse]:
        if request.path.startswith("/services/"):
            error = "" if request.path.endswith("/hook") else "no_service"
            error = error or self._call_api_method("chat.postMessage", {"channel": self.channel, **request.json}).get(
                "error", ""
            )
            return CannedResponse(404 if error == "no_service" else 400 if error else 200, (error or "ok").encode())
        reply: dict[str, Any] = {"ok": False, "error": "invalid_auth"}
        if request.path == "/api/apps.connections.open":
            reply = self._open_connection(request.headers.get("authorization", ""))
        elif request.headers.get("authorization") == f"Bearer {self.token}":
            reply = self._call_api_method(request.path.removeprefix("/api/"), request.json)
        return CannedResponse(200, json.dumps(reply).encode(), (("content-type", "application/json"),))

    def _open_connection(self, authorization: str) -> dict[str, Any]:
        if authorization != f"Bearer {self.app_token}":
            is_app_token = authorization.startswith("Bearer xapp-")
            return {"ok": False, "error": "invalid_auth" if is_app_token else "not_allowed_token_type"}
        self.ticket_count += 1
        return {"ok": True, "url": f"{self.socket_url}?ticket=t1cket-{self.ticket_count:06}&app_id=A0WATCHDOG"}

    def _call_api_method(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        error = self._find_error(method, body)
        if error:
            return {"ok": False, "error": error}
        if method == "chat.postEphemeral":
            self.texts_to_one_person.append((body["user"], body["text"]))
            return {"ok": True, "message_ts": "1795312999.000100"}
        if method == "chat.update":
            post = next(post for post in reversed(self.posts) if post["ts"] == body["ts"])
            post.update(body, edited=True)
        else:
            ts = f"{1_795_312_000 + len(self.posts)}.000100"
            post = {**body, "channel": self.channel, "ts": ts}
            self.posts.append(post)
        return {
            "ok": True,
            "channel": self.channel,
            "ts": post["ts"],
            "message": {"text": body["text"], "team": self.team},
        }

    def _find_error(self, method: str, body: dict[str, Any]) -> str:
        if method not in ("chat.postMessage", "chat.update", "chat.postEphemeral"):
            return "unknown_method"
        if method == "chat.postEphemeral" and not body.get("user"):
            return "user_not_in_channel"
        if body.get("channel") not in (self.channel, "#oncall"):
            return "channel_not_found"
        if method == "chat.update" and (not self._has_post(body.get("ts")) or body["channel"] != self.channel):
            return "message_not_found"
        if "thread_ts" in body and not self._has_post(body["thread_ts"]):
            return "thread_not_found"
        if not body.get("text"):
            return "no_text"
        return "" if are_blocks_valid(body.get("blocks", [])) else "invalid_blocks"

    def _has_post(self, ts: str | None) -> bool:
        return any(post["ts"] == ts for post in reversed(self.posts))


def are_blocks_valid(blocks: list[dict[str, Any]]) -> bool:
    """Whether the blocks stay within Slack's documented limits."""
    ids = [block.get("block_id", i) for i, block in enumerate(blocks)]
    return len(blocks) <= 50 and len(set(ids)) == len(ids) and all(map(_is_block_valid, blocks))


def _is_block_valid(block: dict[str, Any]) -> bool:
    def text(of: dict[str, Any], max_chars: int, *kinds: str) -> bool:
        return of["type"] in kinds and 0 < len(of["text"]) <= max_chars

    match block["type"]:
        case "header":
            return text(block["text"], 150, "plain_text")
        case "section":
            fields = block.get("fields", [])
            whole = "text" not in block or text(block["text"], 3_000, "mrkdwn", "plain_text")
            return whole and len(fields) <= 10 and all(text(f, 2_000, "mrkdwn", "plain_text") for f in fields)
        case "context":
            elements = block["elements"]
            return 0 < len(elements) <= 10 and all(text(e, 3_000, "mrkdwn", "plain_text") for e in elements)
        case "actions":
            buttons = block["elements"]
            action_ids = {button["action_id"] for button in buttons}
            return 0 < len(buttons) <= 25 and len(action_ids) == len(buttons) and all(map(_is_button_valid, buttons))
        case "rich_text":
            return all(text(t, 3_000, "text") for element in block["elements"] for t in element["elements"])
    return False


def _is_button_valid(button: dict[str, Any]) -> bool:
    def text(of: dict[str, Any], max_chars: int) -> bool:
        return of["type"] in ("plain_text",) and 0 < len(of["text"]) <= max_chars

    confirm = button.get("confirm")
    limits = {"title": 100, "text": 300, "confirm": 30, "deny": 30}
    return (
        button["type"] in ("button",)
        and text(button["text"], 75)
        and 0 < len(button["action_id"]) <= 255
        and button.get("style", "primary") in ("primary", "danger")
        and (0 < len(button.get("url", "")) <= 3_000 or 0 < len(button.get("value", "")) <= 2_000)
        and (confirm is None or all(text(confirm[name], limit) for name, limit in limits.items()))
    )


class FakeHttpTarget:
    """An HTTP endpoint that responds with 200 while `up`, else with 503."""

    def __init__(self) -> None:
        target = self
        self.up = True
        self.request_count = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target.request_count += 1
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


@dataclass
class ReceivedMail:
    """An email with its envelope."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    raw_message: bytes
    tls: bool
    login_user: str = ""
    received_at: float = field(default_factory=time.monotonic)


class FakeMailServer:
    """An SMTP server. `canned_responses`: ("MAIL" | "RCPT" | "DATA", "451 later"), which replaces a response to that
    command."""

    def __init__(
        self,
        security: Literal["none", "starttls", "tls"] = "none",
        certificate: Path | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.received: list[ReceivedMail] = []
        self.canned_responses: deque[tuple[str, str]] = deque()
        self.login = login
        self.ehlo_names: list[str | None] = []
        """The name in EHLO, for each email."""
        context = None
        if security != "none":
            assert certificate is not None
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            self._loop.create_server(
                lambda: SMTP(
                    self,
                    loop=self._loop,
                    hostname="localhost",
                    tls_context=context if security == "starttls" else None,
                    authenticator=self._authenticate if login else None,
                    auth_require_tls=security == "starttls",
                ),
                "127.0.0.1",
                ssl=context if security == "tls" else None,
            )
        )
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        is_valid = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == self.login
        return AuthResult(success=is_valid, handled=False, auth_data=data)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd looks for this name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.ehlo_names.append(session.host_name)
        if response := self._next_canned_response("MAIL"):
            return response
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 fine"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd looks for this name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if response := self._next_canned_response("RCPT"):
            return response
        envelope.rcpt_tos.append(address)
        return "250 fine"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if response := self._next_canned_response("DATA"):
            return response
        raw = envelope.content
        assert isinstance(raw, bytes)
        mail = BytesParser(EmailMessage, policy=MAIL).parsebytes(raw)
        user = session.auth_data.login.decode() if isinstance(session.auth_data, LoginPassword) else ""
        assert server.transport is not None
        tls = session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None
        self.received.append(ReceivedMail(envelope.mail_from or "", list(envelope.rcpt_tos), mail, raw, tls, user))
        return "250 kept"

    def _next_canned_response(self, command: str) -> str:
        if self.canned_responses and self.canned_responses[0][0] == command:
            return self.canned_responses.popleft()[1]
        return ""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop_server(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _stop_server(self) -> None:
        self._server.close()
        sessions = asyncio.all_tasks() - {asyncio.current_task()}
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)


def make_certificate(folder: Path) -> Path:
    """A PEM file with a key and its self-signed certificate, for localhost and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "localhost.pem"
    file.write_bytes(secret + certificate.public_bytes(pem))
    return file
