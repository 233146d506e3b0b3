"""Sends one HTTP request on a new connection. Every phase is timed, every length bounded."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter

import h11

from watchdog.domain.text import shorten
from watchdog.net.connector import Connector, format_socket_address
from watchdog.net.content_encoding import ContentDecoder, UnsupportedEncodingError
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.foreign_protocol import MAX_BANNER_BYTES, foreign_protocol_error
from watchdog.net.handshake import TlsHandshake
from watchdog.net.phases import PhaseTimer
from watchdog.net.redact import redact_url
from watchdog.net.tls import TlsConfig
from watchdog.net.url import Url, parse_url

MAX_HEADER_BYTES = 64 * 1024
MAX_RAW_RESPONSE_BYTES = 1024 * 1024
"""Bytes read from a connection, headers included; the rest is not read."""
MAX_BODY_BYTES = 256 * 1024
"""Bytes of the decoded body that are kept; the rest is not decoded."""
MAX_REDIRECTS = 5
MAX_INTERIM_RESPONSES = 20
"""Interim (1xx) responses before the final one."""
READ_CHUNK_BYTES = 16 * 1024
"""Small, because a hostile response costs the most time per byte, and the event loop waits meanwhile."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request. The caller bounds its time."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    tls: TlsConfig = field(default_factory=TlsConfig)
    follow_redirects: bool = False
    """Whether a GET or HEAD follows up to 5 redirects. Headers and client certificate go to the first origin only."""
    allow_private_addresses: bool = True
    phase_timer: PhaseTimer = field(default_factory=PhaseTimer)
    now: int = 0
    """In ms since the epoch; certificates are judged against it."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response, its body decoded."""

    status: int
    reason_phrase: str
    """From the status line: "Service Unavailable"."""
    headers: dict[str, str]
    """Lower-case name -> value; repeated ones joined by ", "."""
    body: bytes
    """Decoded, at most 256 KiB."""
    body_incomplete_reason: str
    """Why `body` is not the whole body: "the body is longer than 256 KiB". Empty if it is."""
    encoded_body_bytes: int
    """Size of the body as it was received, at most 1 MiB."""
    elapsed_ms: float
    """From the first name lookup to the end of the body, redirects included."""
    http_version: str
    peer_address: str
    """Address and port of the server."""
    url: str
    """The URL that responded, query included; `redact_url` makes it safe to show."""
    redirect_count: int
    cert_days: int | None
    """Whole days until the server's certificate expires, negative once it has. None without TLS."""

    @property
    def text(self) -> str:
        """The body as text: as UTF-8, else in the declared charset if it is a safe one, else with `�`."""
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            declared = re.search(r"charset=[\"']?([\w-]+)", self.headers.get("content-type", ""))
            charset = declared[1].lower() if declared and _SAFE_CHARSET_PATTERN.match(declared[1]) else "utf-8"
            try:
                return self.body.decode(charset, "replace")
            except LookupError:
                return self.body.decode(errors="replace")


_SAFE_CHARSET_PATTERN = re.compile(
    r"(iso-?8859|windows-12|cp12|utf-?16|gb|big5|shift_jis|euc-|koi8|latin)", re.IGNORECASE
)
"""Some of Python's codecs take quadratic time; these take linear time."""


async def send_http_request(connector: Connector, request: HttpRequest) -> HttpResponse:
    """Sends the request and follows redirects if it asks for that. Raises ProbeError."""
    started = perf_counter()
    url = parse_url(request.url)
    if url.userinfo and "authorization" not in map(str.lower, request.headers):
        basic = base64.b64encode(url.userinfo.encode()).decode()
        request = replace(request, headers={**request.headers, "Authorization": f"Basic {basic}"})
    follow_redirects = request.follow_redirects and request.method in ("GET", "HEAD")
    for hop in range(MAX_REDIRECTS + 1):
        try:
            response = await _send_single_request(connector, request, url)
        except ProbeError as error:
            if hop:
                error.facts["redirected_to"] = redact_url(url.url_without_credentials)
            raise
        location = response.headers.get("location")
        if not (follow_redirects and location and response.status in (301, 302, 303, 307, 308)):
            return replace(response, elapsed_ms=(perf_counter() - started) * 1000, redirect_count=hop)
        try:
            target = url.join(location)
        except ValueError:
            raise ProbeError(
                "http.invalid_redirect", f"redirect to {shorten(redact_url(location), 80)} cannot be followed"
            ) from None
        if target.origin != url.origin:
            request = replace(
                request, headers={}, tls=TlsConfig(verify=request.tls.verify, ca_file=request.tls.ca_file)
            )
        url = target
    raise ProbeError(
        "http.too_many_redirects",
        f"more than {MAX_REDIRECTS} redirects, the last one to {shorten(redact_url(url.url_without_credentials), 80)}",
    )


async def _send_single_request(connector: Connector, request: HttpRequest, url: Url) -> HttpResponse:
    handshake = TlsHandshake(connector, url, request.tls, request.allow_private_addresses, request.now)
    if url.scheme == "https":
        connector.ssl_context(request.tls)  # fails before connecting if a file is unusable
    sock = await connector.connect(url.host, url.port, request.phase_timer, request.allow_private_addresses)
    peer_address, cert_days, writer = "", None, None
    try:
        peer_address = format_socket_address(sock.getpeername())
        reader, writer = await asyncio.open_connection(sock=sock, limit=READ_CHUNK_BYTES)
        if url.scheme == "https":
            cert_days = (await handshake.perform(writer, request.phase_timer)).days
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
        writer.write(_encode_request(connection, request, url))  # not drained: a server may respond before reading all
        response, headers, body = await _ResponseReader(connection, reader, request.phase_timer).read()
    except Exception as exception:
        if error := error_from_exception(exception):
            if url.scheme == "https" and request.phase_timer.current_phase == "first_byte":
                error = await handshake.explain_lost_connection(error)
            error.facts.setdefault("address", peer_address)
            raise error from None
        raise
    finally:
        if writer:
            writer.transport.abort()
        else:
            sock.close()
    return HttpResponse(
        status=response.status_code,
        reason_phrase=response.reason.decode(errors="replace"),
        headers=headers,
        body=bytes(body.decoded_body),
        body_incomplete_reason=body.incomplete_reason,
        encoded_body_bytes=body.encoded_bytes,
        elapsed_ms=0.0,
        http_version=response.http_version.decode(),
        peer_address=peer_address,
        url=url.url_without_credentials,
        redirect_count=0,
        cert_days=cert_days,
    )


def _encode_request(connection: h11.Connection, request: HttpRequest, url: Url) -> bytes:
    """The request as bytes. Configured headers replace the default ones."""
    defaults = {"Host": url.authority, "User-Agent": "watchdog-monitor", "Accept": "*/*", "Accept-Encoding": "gzip"}
    if request.body or request.method not in ("GET", "HEAD", "OPTIONS"):
        defaults["Content-Length"] = str(len(request.body))
    configured = {name.lower() for name in request.headers}
    headers = [(k, v) for k, v in defaults.items() if k.lower() not in configured]
    headers += request.headers.items()
    if "connection" not in configured:
        headers.append(("Connection", "close"))
    head = h11.Request(
        method=request.method, target=url.path_and_query, headers=[(k.encode(), v.encode()) for k, v in headers]
    )
    events = (head, h11.Data(data=request.body), h11.EndOfMessage()) if request.body else (head, h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


class _ResponseReader:
    """Reads one response within the limits."""

    def __init__(self, connection: h11.Connection, reader: asyncio.StreamReader, phase_timer: PhaseTimer) -> None:
        self._connection, self._reader, self._phase_timer = connection, reader, phase_timer
        self._response_start, self._raw_bytes_read = b"", 0

    async def read(self) -> tuple[h11.Response, dict[str, str], _BodyReader]:
        self._phase_timer.start_phase("first_byte")
        try:
            response = await self._read_response_head()
            headers = _combine_headers(response)
            body = await self._read_body(headers.get("content-encoding", ""))
        except h11.RemoteProtocolError as error:
            raise self._malformed_response_error(error) from None
        self._phase_timer.end_phase("body")
        return response, headers, body

    async def _read_response_head(self) -> h11.Response:
        for _ in range(MAX_INTERIM_RESPONSES):
            event = await self._next_event()
            if isinstance(event, h11.Response):
                return event
        raise ProbeError.from_reason("protocol.no_final_response", limit=str(MAX_INTERIM_RESPONSES))

    async def _read_body(self, content_encoding: str) -> _BodyReader:
        body = _BodyReader(content_encoding)
        while isinstance(event := await self._next_event(), h11.Data):
            body.feed(event.data)
            if self._raw_bytes_read >= MAX_RAW_RESPONSE_BYTES:
                body.incomplete_reason = body.incomplete_reason or _BODY_TOO_LONG_MESSAGE
                return body
        body.finish()
        return body

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            if self._raw_bytes_read:
                if foreign := foreign_protocol_error(self._response_start):
                    raise foreign
                await asyncio.sleep(0)  # a read returns at once while data is buffered; let other tasks run
            data = await self._reader.read(READ_CHUNK_BYTES)
            if not self._raw_bytes_read:
                if not data:
                    raise ProbeError("connection.closed", "connection closed by the server", retryable=True)
                self._phase_timer.end_phase("first_byte")
                self._phase_timer.start_phase("body")
                self._response_start = data[:MAX_BANNER_BYTES]
            self._raw_bytes_read += len(data)
            self._connection.receive_data(data)
        return event

    def _malformed_response_error(self, error: h11.RemoteProtocolError) -> ProbeError:
        translated = error_from_exception(error) or ProbeError.from_reason("protocol.invalid_response")
        if translated.reason == "protocol.invalid_response":
            facts = translated.facts
            translated = foreign_protocol_error(self._response_start) or translated
            translated.facts |= facts
        translated.excerpt = self._response_start.decode(errors="replace")
        return translated


_BODY_TOO_LONG_MESSAGE = f"the body is longer than {MAX_BODY_BYTES // 1024} KiB"


class _BodyReader:
    """Collects a body, decoded, up to MAX_BODY_BYTES."""

    def __init__(self, content_encoding: str) -> None:
        self.incomplete_reason = ""
        self.decoded_body = bytearray()
        self.encoded_bytes = 0
        try:
            self._decoder: ContentDecoder | None = ContentDecoder(content_encoding, MAX_BODY_BYTES)
        except UnsupportedEncodingError as error:
            self._decoder = None
            self.incomplete_reason = f"the body is encoded as {error}, which is not supported"

    def feed(self, data: bytes | bytearray) -> None:
        self.encoded_bytes += len(data)
        if self.incomplete_reason or self._decoder is None:
            return
        self.decoded_body += self._decoder.decode(data)
        if len(self.decoded_body) > MAX_BODY_BYTES:
            del self.decoded_body[MAX_BODY_BYTES:]
            self.incomplete_reason = _BODY_TOO_LONG_MESSAGE

    def finish(self) -> None:
        if self.incomplete_reason or self._decoder is None or not self.encoded_bytes:
            return
        if not self._decoder.is_complete:
            raise ProbeError.from_reason("body.truncated", retryable=True, problem="the compressed data has no end")


def _combine_headers(response: h11.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("ascii", "replace"), raw_value.decode(errors="replace")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
