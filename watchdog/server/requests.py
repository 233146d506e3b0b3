"""An ASGI application around the web application, which reports to the guard when a request begins and ends."""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchdog.domain.client_addresses import TrustedProxies
from watchdog.server.connections import HttpRequestInProgress
from watchdog.server.guard import InboundConnectionGuard

PRIORITY_REQUEST_PATHS = ("/healthz", "/readyz")
PRIORITY_REQUEST_PATH_PREFIXES = ("/in/",)
STREAM_REQUEST_PATHS = ("/api/v1/events",)
"""A successful response of these lasts. Each path limits how many there are."""
_PIPELINING_REJECTED_RESPONSE = PlainTextResponse("Send one request at a time.\n", 400, {"Connection": "close"})


class RequestConcurrencyLimitMiddleware:
    """Passes requests on to `app` when there is a place for them."""

    def __init__(self, app: ASGIApp, guard: InboundConnectionGuard):
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = self._guard.find_connection_of_peer(scope.get("client")) if scope["type"] == "http" else None
        if connection is None:  # the visitor has left
            await self._app(scope, receive, send)
            return
        scope = build_scope_with_forwarded_client_and_scheme(scope, self._guard.trusted_proxies)
        request = HttpRequestInProgress(
            self._guard.clock(),
            has_priority=is_priority_path(scope["path"]),
            body_bytes=_get_declared_request_body_bytes(scope),
        )

        async def receive_and_watch_body() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                request.is_body_incomplete = False
            return message

        async def send_and_watch_response(message: Message) -> None:
            connection.count_sent_bytes(len(message.get("body", b"")))
            if message["type"] == "http.response.start" and message["status"] == 200:
                request.is_stream = scope["path"] in STREAM_REQUEST_PATHS
            if message["type"] == "http.response.start" and request.is_last_request_of_connection:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._guard.end_request(connection, request)

        try:
            is_accepted = await self._guard.try_admit_request(connection, request, scope["client"][0])
            app = self._app if is_accepted else _PIPELINING_REJECTED_RESPONSE
            await app(scope, receive_and_watch_body, send_and_watch_response)
        finally:
            self._guard.end_request(connection, request)


def is_priority_path(path: str) -> bool:
    """Whether places are reserved for requests of this path: check-ins, liveness and readiness."""
    return path in PRIORITY_REQUEST_PATHS or path.startswith(PRIORITY_REQUEST_PATH_PREFIXES)


def build_scope_with_forwarded_client_and_scheme(scope: Scope, trusted_proxies: TrustedProxies) -> Scope:
    """The scope with the client and the scheme that a trusted proxy states; of any other peer, the scope itself."""
    peer = scope["client"][0]
    if not trusted_proxies.is_trusted_proxy(peer):
        return scope
    client = trusted_proxies.find_client_address(peer, _list_header_elements(scope, b"x-forwarded-for"))
    scheme = (_list_header_elements(scope, b"x-forwarded-proto") or [""])[-1].lower()
    return {**scope, "client": (client, 0), "scheme": scheme if scheme in ("http", "https") else scope["scheme"]}


def _list_header_elements(scope: Scope, name: bytes) -> list[str]:
    """The elements of all headers of this name."""
    values = [value.decode("latin-1") for header, value in scope["headers"] if header == name]
    return [element.strip() for value in values for element in value.split(",")]


def _get_declared_request_body_bytes(scope: Scope) -> int | None:
    """The length of the body; None if only its end will show it. The server has refused invalid lengths."""
    headers = dict(scope["headers"])
    return None if b"transfer-encoding" in headers else int(headers.get(b"content-length", b"0"))
