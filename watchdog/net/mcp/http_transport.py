"""The state of a connection to an MCP server over HTTP, and the translation of its errors."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass, field

from mcp import MCPError
from mcp.shared.message import SessionMessage
from mcp.types import CONNECTION_CLOSED, PARSE_ERROR

from watchdog.domain.model import Evidence, Json
from watchdog.net.body_limits import MIN_MCP_SESSION_BYTES_LIMIT
from watchdog.net.connector import TcpConnector
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.mcp.client import McpMessageSender
from watchdog.net.mcp.http_response import McpHttpResponse
from watchdog.net.mcp.large_messages import build_mcp_session_too_large_error
from watchdog.net.mcp.received_messages import McpMessageInspector
from watchdog.net.mcp.reply_errors import MAX_MCP_ERROR_EXCERPT_CHARS
from watchdog.net.mcp.request_log import McpHttpRequestLog
from watchdog.net.proxy import ProxyAddress
from watchdog.net.tls import TlsConfig

MCP_HTTP_READ_CHUNK_BYTES = 16 << 10
_GATEWAY_REJECTION_STATUSES = frozenset({401, 403, 407, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class McpHttpEndpoint:
    """An MCP server behind a URL."""

    url: str
    use_sse: bool = False
    """Use the transport that preceded streamable HTTP."""
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: TlsConfig = field(default_factory=TlsConfig)
    allow_private_addresses: bool = True
    max_session_bytes: int = MIN_MCP_SESSION_BYTES_LIMIT
    """Bytes read in one session, as received and as decompressed; the SDK has no limit of its own."""
    proxy: ProxyAddress | None = None
    proxy_ca_file: str = ""
    reject_credentials: Callable[[], object] = lambda: None
    """Called if the server does not accept them."""


class McpHttpTransport:
    """An open connection to an MCP server over HTTP.

    Everything that the SDK sends and receives passes through it, so that sizes are bounded, phases timed, and errors
    kept that the SDK swallows or replaces by its own. `facts` is filled in as connections are made.
    """

    def __init__(
        self,
        connector: TcpConnector,
        endpoint: McpHttpEndpoint,
        received: McpMessageInspector,
        facts: dict[str, Json],
        now: int,
    ) -> None:
        self.connector, self.endpoint, self.received = connector, endpoint, received
        self.phase_timer, self.facts, self.now = received.phase_timer, facts, now
        self.request_log = McpHttpRequestLog(facts)
        self.incoming: AsyncIterable[SessionMessage | Exception]
        self.message_sender: McpMessageSender
        self.response_info: McpHttpResponse | None = None
        self.reads_event_stream = False
        """Whether the replies come on the event stream of an SSE session, and not in the responses to their POSTs."""
        self.unread_responses: dict[str, McpHttpResponse] = {}
        """Over SSE: id of a request -> the response to its POST."""
        self.transport_error: Exception | None = None
        """The last error below the SDK, which may swallow it."""
        self.cancel_session: Callable[[], None] = lambda: None
        """Ends the session."""
        self.io_deadline: float | None = None
        """Loop time at which reading and writing end. None: the caller decides."""
        self._bytes_read = 0

    def count_bytes_within_limit(self, byte_count: int) -> None:
        self._bytes_read += byte_count
        if self._bytes_read > self.endpoint.max_session_bytes:
            raise build_mcp_session_too_large_error(self.endpoint.max_session_bytes)

    @property
    def rejected_by_gateway(self) -> bool:
        return self.response_info is not None and self.response_info.status in _GATEWAY_REJECTION_STATUSES

    def build_server_output_evidence(self) -> Evidence:
        """The response that is being read."""
        if self.response_info is None:
            return Evidence()
        excerpt = self.response_info.body_start[:MAX_MCP_ERROR_EXCERPT_CHARS].decode(errors="replace")
        return Evidence({"status": self.response_info.status, "bytes_received": self._bytes_read}, excerpt)

    def record_failure(self, error: Exception) -> None:
        """Over SSE the SDK ignores the error and keeps waiting, so this ends the session."""
        self.transport_error = error
        if self.endpoint.use_sse:
            self.cancel_session()

    def fail_for_missing_sse_endpoint(self) -> None:
        """Over SSE the SDK waits without a limit for the event that names the address of requests."""
        if self.response_info is not None:
            self.record_failure(ProbeError("mcp.not_mcp", "the event stream names no endpoint"))

    def find_error_known_before_deadline(self) -> ProbeError | None:
        """Why the awaited reply did not come, if more than that is known when the session is cancelled."""
        error = self.transport_error if isinstance(self.transport_error, ProbeError) else None
        if error is not None and error.precedes_deadline:
            return error
        for id_, method in self.received.requests.awaited_method_by_request_id.items():
            if (response := self.unread_responses.get(id_)) and (
                error := response.build_missing_sse_reply_error(method)
            ):
                error.precedes_deadline = True
                return error
        return None

    def translate_mcp_sdk_exception(self, error: Exception) -> ProbeError | None:
        """Translates an exception that came through the SDK. None: it is a bug."""
        errors = [error, self.transport_error] if self.transport_error else [error]
        response = self.response_info
        if translated := build_probe_error_from_exception(ExceptionGroup("", errors)) or (
            response and response.find_mcp_response_error()
        ):
            return translated
        if self.endpoint.use_sse and response is not None:  # the stream ended early, or is not a stream of events
            return response.attach_evidence(ProbeError("mcp.not_mcp", "the event stream is not MCP"))
        return None

    async def translate_error(self, error: MCPError, *, was_received: bool) -> ProbeError | None:
        if was_received and self.endpoint.use_sse:  # the SDK makes up errors over streamable HTTP only
            return None
        response = self.response_info
        if self.transport_error is not None and (translated := build_probe_error_from_exception(self.transport_error)):
            return translated
        if response is not None:
            if translated := response.find_mcp_response_error():
                return translated
            if response.status == 202 and not self.endpoint.use_sse:
                return ProbeError("mcp.invalid_response", "HTTP 202: the server accepted the request but sent no reply")
            if error.code == PARSE_ERROR:
                problem = "is not JSON-RPC" if response.body_start.strip() else "is empty"
                return response.attach_evidence(ProbeError("mcp.not_mcp", f"the response {problem}"))
        if error.code == CONNECTION_CLOSED and not (response and response.is_jsonrpc_error):
            return ProbeError("connection.closed", "connection closed before the reply arrived", retryable=True)
        return None
