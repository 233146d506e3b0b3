"""Connections over which a server sends messages by itself (WebSocket, RFC 6455)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.phases import PhaseTimer
from watchdog.net.proxy import RequestRouting
from watchdog.net.proxy_tunnel import ServerRoute, open_socket_by_route
from watchdog.net.received_body import format_binary_byte_size
from watchdog.net.tls import TlsConfig
from watchdog.net.url import parse_websocket_url

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed

    from watchdog.net.connector import TcpConnector

WEBSOCKET_OPEN_TIMEOUT_S = 20.0
"""From the lookup of the name to the end of the handshake."""
WEBSOCKET_PING_INTERVAL_S = WEBSOCKET_PING_TIMEOUT_S = 20.0
"""A connection without any response to a ping counts as lost."""
WEBSOCKET_CLOSE_TIMEOUT_S = 1.0
WITHOUT_PROXY = RequestRouting()
_INVALID_WEBSOCKET_URL_TEXT = "the address of the socket is not valid"
_MESSAGE_TOO_BIG_CLOSE_CODE, _INTERNAL_ERROR_CLOSE_CODE = 1009, 1011


class WebSocket:
    """An open connection. `receive` and `send` raise ProbeError once the connection has ended."""

    def __init__(self, connection: ClientConnection, max_message_bytes: int):
        self._connection, self._max_message_bytes = connection, max_message_bytes

    async def receive(self) -> str:
        """The next message, as text."""
        from websockets.exceptions import ConnectionClosed

        try:
            message = await self._connection.recv()
        except ConnectionClosed as error:
            raise self._build_error_of_websocket_end(error) from None
        return message if isinstance(message, str) else bytes(message).decode(errors="replace")

    async def send(self, text: str) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(text)
        except ConnectionClosed as error:
            raise self._build_error_of_websocket_end(error) from None

    async def close(self) -> None:
        """Returns within WEBSOCKET_CLOSE_TIMEOUT_S or soon after it. Raises nothing."""
        await self._connection.close()

    def _build_error_of_websocket_end(self, error: ConnectionClosed) -> ProbeError:
        """The text that a server gives as its reason is not quoted."""
        if error.rcvd is not None and error.rcvd_then_sent is not False:
            return ProbeError("connection.closed", f"the server closed the connection (code {error.rcvd.code})")
        if error.sent is not None and error.sent.code == _MESSAGE_TOO_BIG_CLOSE_CODE:
            size = format_binary_byte_size(self._max_message_bytes)
            return ProbeError("protocol.invalid_response", f"the server sent a message larger than {size}")
        if error.sent is not None and error.sent.code == _INTERNAL_ERROR_CLOSE_CODE:
            return ProbeError("connection.lost", f"no response to a ping within {WEBSOCKET_PING_TIMEOUT_S:g} s")
        return ProbeError("connection.lost", "the connection was lost")


async def open_websocket(
    connector: TcpConnector, url: str, *, max_message_bytes: int, routing: RequestRouting = WITHOUT_PROXY
) -> WebSocket:
    """Connects to an allowed address, and follows no redirect. Longer messages end the connection. Raises ProbeError,
    whose message does not quote the URL."""
    try:
        async with asyncio.timeout(WEBSOCKET_OPEN_TIMEOUT_S):
            return await _connect_websocket(connector, url, routing, max_message_bytes)
    except TimeoutError:
        raise ProbeError("timeout.exceeded", f"no response within {WEBSOCKET_OPEN_TIMEOUT_S:g} s") from None


async def _connect_websocket(
    connector: TcpConnector, url: str, routing: RequestRouting, max_message_bytes: int
) -> WebSocket:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus, WebSocketException

    try:
        parsed = parse_websocket_url(url)
    except ValueError:
        raise ProbeError("protocol.invalid_response", _INVALID_WEBSOCKET_URL_TEXT) from None
    ssl_context = connector.get_ssl_context(routing.add_ca_file(TlsConfig())) if parsed.scheme == "https" else None
    route = ServerRoute(parsed, True, routing.find_proxy_for_host(parsed.host), routing.ca_file)
    try:
        sock = await open_socket_by_route(connector, route, PhaseTimer())
    except OSError as os_error:  # one that is none of a network, such as the refusal of a firewall of this machine
        error = build_probe_error_from_exception(os_error)
        raise error or ProbeError(
            "connection.failed", f"connection failed: {os_error.strerror or type(os_error).__name__}"
        ) from None
    try:
        opening = connect(
            f"{'wss' if ssl_context else 'ws'}://{parsed.authority}{parsed.path_and_query}",
            ssl=ssl_context,
            sock=sock,
            proxy=None,
            compression=None,
            user_agent_header="watchdog-monitor",
            open_timeout=None,
            ping_interval=WEBSOCKET_PING_INTERVAL_S,
            ping_timeout=WEBSOCKET_PING_TIMEOUT_S,
            close_timeout=WEBSOCKET_CLOSE_TIMEOUT_S,
            max_size=max_message_bytes,
        )
    except (WebSocketException, ValueError):  # it quotes the address
        sock.close()
        raise ProbeError("protocol.invalid_response", _INVALID_WEBSOCKET_URL_TEXT) from None
    except BaseException:
        sock.close()
        raise
    try:
        return WebSocket(await opening, max_message_bytes)
    except (WebSocketException, EOFError, OSError, ValueError) as error:
        for cause in (error, error.__cause__):  # a redirect, which would need another socket, is a cause
            if isinstance(cause, InvalidStatus):
                status = cause.response.status_code
                raise ProbeError(f"http.{status}", f"HTTP {status}, expected a WebSocket") from None
        raise (
            build_probe_error_from_exception(error)
            or ProbeError("protocol.invalid_response", "the server did not complete the WebSocket handshake")
        ) from None


def preload_websocket_library() -> None:
    """In a thread, so that the first connection does not block the event loop."""
    import websockets.asyncio.client  # noqa: F401 - loaded here, used later
