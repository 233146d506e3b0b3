"""One HTTP exchange on a fresh connection, every phase timed, every length bounded."""

from __future__ import annotations

import asyncio
import base64
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING

import h11

from watchdog.domain.text import shorten
from watchdog.net.connector import format_socket_address
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.handshake import perform_tls_handshake
from watchdog.net.phases import PhaseTimer
from watchdog.net.redact import redact_url
from watchdog.net.tls import TlsConfig
from watchdog.net.url import Url, parse_url

if TYPE_CHECKING:
    from watchdog.net.network import Network

MAX_HEADER_BYTES = 64 * 1024
MAX_RAW_RESPONSE_BYTES = 1024 * 1024
"""Bytes read from a connection, headers and all. Nothing is read beyond."""
MAX_BODY_BYTES = 256 * 1024
"""Bytes of body kept, decoded. Nothing is decoded beyond."""
MAX_REDIRECTS = 5
MAX_INTERIM_RESPONSES = 20
"""Interim (1xx) answers before the real one."""
READ_CHUNK_BYTES = 16 * 1024
"""Bytes taken in one step: small, for a hostile answer costs the most time a byte while the event loop waits."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to ask. The caller bounds it in time."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    tls: TlsConfig = field(default_factory=TlsConfig)
    follow_redirects: bool = False
    """Follow up to 5 redirects of a GET or HEAD. Headers and client certificate are for the first origin alone."""
    allow_private_addresses: bool = True
    phase_timer: PhaseTimer = field(default_factory=PhaseTimer)
    now: int = 0
    """The clock, ms since the epoch: certificates are judged against it."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What came back."""

    status: int
    reason_phrase: str
    """What the server calls the status: "Service Unavailable"."""
    headers: dict[str, str]
    """Lower-case name -> value; repeated ones joined by ", "."""
    body: bytes
    """Decoded, at most 256 KiB."""
    body_incomplete_reason: str
    """Why `body` is not all of it: "the body is longer than 256 KiB"; empty when it is."""
    encoded_body_bytes: int
    """Bytes of body as they came over the wire, at most 1 MiB."""
    elapsed_ms: float
    """Milliseconds from the first look-up to the end of the body, redirects included."""
    http_version: str
    peer_address: str
    """The peer's address and port."""
    url: str
    """Where the answer came from. Has the query: show it through `shown_url`."""
    redirect_count: int
    cert_days: int | None
    """Whole days until the server's certificate ends, negative when it has ended; None without TLS."""

    @property
    def text(self) -> str:
        """The body as text: UTF-8, else the charset it declares if that is a plain one, else with `�`."""
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
"""Some of Python's codecs take quadratic time; these do not."""


async def send_http_request(network: Network, request: HttpRequest) -> HttpResponse:
    """Asks, and follows redirects when told to. Raises Fault."""
    started = perf_counter()
    url = parse_url(request.url)
    if url.userinfo and "authorization" not in map(str.lower, request.headers):
        basic = base64.b64encode(url.userinfo.encode()).decode()
        request = replace(request, headers={**request.headers, "Authorization": f"Basic {basic}"})
    follows = request.follow_redirects and request.method in ("GET", "HEAD")
    for hop in range(MAX_REDIRECTS + 1):
        try:
            answer = await _send_single_request(network, request, url)
        except ProbeError as fault:
            if hop:
                fault.facts["redirected_to"] = redact_url(url.url_without_credentials)
            raise
        location = answer.headers.get("location")
        if not (follows and location and answer.status in (301, 302, 303, 307, 308)):
            return replace(answer, elapsed_ms=(perf_counter() - started) * 1000, redirect_count=hop)
        try:
            target = url.join(location)
        except ValueError:
            where = redact_url(location)
            raise ProbeError(
                "http.invalid_redirect", f"redirected to {shorten(where, 80)}, which cannot be followed"
            ) from None
        if target.origin != url.origin:
            request = replace(
                request, headers={}, tls=TlsConfig(verify=request.tls.verify, ca_file=request.tls.ca_file)
            )
        url = target
    raise ProbeError(
        "http.too_many_redirects",
        f"more than {MAX_REDIRECTS} redirects, the last to {shorten(redact_url(url.url_without_credentials), 80)}",
    )


async def _send_single_request(network: Network, request: HttpRequest, url: Url) -> HttpResponse:
    if url.scheme == "https":
        network.ssl_context(request.tls)  # files of no use to us are no reason to bother the server
    sock = await network.connect(url.host, url.port, request.phase_timer, request.allow_private_addresses)
    address, cert_days, writer = "", None, None
    try:
        address = format_socket_address(sock.getpeername())
        reader, writer = await asyncio.open_connection(sock=sock, limit=READ_CHUNK_BYTES)
        if url.scheme == "https":
            cert_days = await perform_tls_handshake(network, writer, url, request)
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
        writer.write(
            _encode_request(connection, request, url)
        )  # not drained: a server may answer before it has read it all
        response, headers, body = await _ResponseReader(connection, reader, request.phase_timer).read()
    except Exception as error:
        if fault := error_from_exception(error):
            fault.facts.setdefault("address", address)
            raise fault from None
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
        peer_address=address,
        url=url.url_without_credentials,
        redirect_count=0,
        cert_days=cert_days,
    )


def _encode_request(connection: h11.Connection, request: HttpRequest, url: Url) -> bytes:
    """The request as bytes. Configured headers win over ours."""
    ours = {"Host": url.authority, "User-Agent": "watchdog-monitor", "Accept": "*/*", "Accept-Encoding": "gzip"}
    if request.body or request.method not in ("GET", "HEAD", "OPTIONS"):
        ours["Content-Length"] = str(len(request.body))
    configured = {name.lower() for name in request.headers}
    headers = [(k, v) for k, v in ours.items() if k.lower() not in configured]
    headers += request.headers.items()
    if "connection" not in configured:
        headers.append(("Connection", "close"))
    head = h11.Request(
        method=request.method, target=url.path_and_query, headers=[(k.encode(), v.encode()) for k, v in headers]
    )
    events = (head, h11.Data(data=request.body), h11.EndOfMessage()) if request.body else (head, h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


class _ResponseReader:
    """Hears one answer out, as far as the limits go."""

    def __init__(self, connection: h11.Connection, reader: asyncio.StreamReader, phase_timer: PhaseTimer) -> None:
        self._connection, self._reader, self._phase_timer = connection, reader, phase_timer
        self._response_start, self._raw_bytes_read = b"", 0

    async def read(self) -> tuple[h11.Response, dict[str, str], _BodyDecoder]:
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
        raise ProbeError("protocol.error", f"more than {MAX_INTERIM_RESPONSES} interim answers and no real one")

    async def _read_body(self, encoding: str) -> _BodyDecoder:
        body = _BodyDecoder(encoding)
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
                await asyncio.sleep(0)  # a reader that has data returns at once, and others want to run
            data = await self._reader.read(READ_CHUNK_BYTES)
            if not self._raw_bytes_read:
                if not data:
                    raise ProbeError("connection.lost", "connection closed by the server", retryable=True)
                self._phase_timer.end_phase("first_byte")
                self._phase_timer.start_phase("body")
                self._response_start = data[:200]
            self._raw_bytes_read += len(data)
            self._connection.receive_data(data)
        return event

    def _malformed_response_error(self, error: h11.RemoteProtocolError) -> ProbeError:
        fault = error_from_exception(error) or ProbeError("protocol.error", "the answer is not proper HTTP")
        fault.excerpt = self._response_start.decode(errors="replace")
        return fault


_BODY_TOO_LONG_MESSAGE = f"the body is longer than {MAX_BODY_BYTES // 1024} KiB"


class _BodyDecoder:
    """What is kept of a body."""

    def __init__(self, encoding: str) -> None:
        encoding = encoding.strip().lower()
        self._gzip_decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding in ("gzip", "x-gzip") else None
        known = self._gzip_decompressor or encoding in ("", "identity")
        self.incomplete_reason = "" if known else f"the body is encoded as {encoding}, which is not read here"
        self.decoded_body = bytearray()
        self.encoded_bytes = 0

    def feed(self, data: bytes | bytearray) -> None:
        self.encoded_bytes += len(data)
        if self.incomplete_reason:
            return
        try:
            self.decoded_body += (
                self._gzip_decompressor.decompress(data, MAX_BODY_BYTES + 1 - len(self.decoded_body))
                if self._gzip_decompressor
                else data
            )
        except zlib.error:
            raise ProbeError("protocol.error", "the body says that it is gzip, but it is not") from None
        if len(self.decoded_body) > MAX_BODY_BYTES:
            del self.decoded_body[MAX_BODY_BYTES:]
            self.incomplete_reason = _BODY_TOO_LONG_MESSAGE

    def finish(self) -> None:
        if (
            self._gzip_decompressor
            and self.encoded_bytes
            and not self.incomplete_reason
            and not self._gzip_decompressor.eof
        ):
            raise ProbeError("protocol.error", "the compressed body ends in the middle")


def _combine_headers(response: h11.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("ascii", "replace"), raw_value.decode(errors="replace")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
