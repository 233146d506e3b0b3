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

from watchdog.wire.address import Egress
from watchdog.wire.dial import shown_address
from watchdog.wire.faults import Fault, fault_of
from watchdog.wire.handshake import secure
from watchdog.wire.redact import cap, shown_url
from watchdog.wire.tls import Tls
from watchdog.wire.trace import Trace
from watchdog.wire.url import Url, parse_url

if TYPE_CHECKING:
    from watchdog.wire.wire import Wire

MOST_HEADERS = 64 * 1024
MOST_RAW = 1024 * 1024
"""Bytes read from a connection, headers and all. Nothing is read beyond."""
MOST_BODY = 256 * 1024
"""Bytes of body kept, decoded. Nothing is decoded beyond."""
MOST_REDIRECTS = 5
MOST_INTERIM = 20
"""Interim (1xx) answers before the real one."""
CHUNK = 16 * 1024
"""Bytes taken in one step: small, for a hostile answer costs the most time a byte while the event loop waits."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask. The caller bounds it in time."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    tls: Tls = field(default_factory=Tls)
    follow: bool = False
    """Follow up to 5 redirects of a GET or HEAD. Headers and client certificate are for the first origin alone."""
    egress: Egress = "private"
    trace: Trace = field(default_factory=Trace)
    now: int = 0
    """The clock, ms since the epoch: certificates are judged against it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came back."""

    status: int
    phrase: str
    """What the server calls the status: "Service Unavailable"."""
    headers: dict[str, str]
    """Lower-case name -> value; repeated ones joined by ", "."""
    body: bytes
    """Decoded, at most 256 KiB."""
    unread: str
    """Why `body` is not all of it: "the body is longer than 256 KiB"; empty when it is."""
    size: int
    """Bytes of body as they came over the wire, at most 1 MiB."""
    elapsed: float
    """Milliseconds from the first look-up to the end of the body, redirects included."""
    http_version: str
    address: str
    """The peer's address and port."""
    url: str
    """Where the answer came from. Has the query: show it through `shown_url`."""
    redirects: int
    cert_days: int | None
    """Whole days until the server's certificate ends, negative when it has ended; None without TLS."""

    @property
    def text(self) -> str:
        """The body as text: UTF-8, else the charset it declares if that is a plain one, else with `�`."""
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            declared = re.search(r"charset=[\"']?([\w-]+)", self.headers.get("content-type", ""))
            charset = declared[1].lower() if declared and _PLAIN_CHARSET.match(declared[1]) else "utf-8"
            try:
                return self.body.decode(charset, "replace")
            except LookupError:
                return self.body.decode(errors="replace")


_PLAIN_CHARSET = re.compile(r"(iso-?8859|windows-12|cp12|utf-?16|gb|big5|shift_jis|euc-|koi8|latin)", re.IGNORECASE)
"""Some of Python's codecs take quadratic time; these do not."""


async def exchange(wire: Wire, request: Request) -> Exchange:
    """Asks, and follows redirects when told to. Raises Fault."""
    started = perf_counter()
    url = parse_url(request.url)
    if url.userinfo and "authorization" not in map(str.lower, request.headers):
        basic = base64.b64encode(url.userinfo.encode()).decode()
        request = replace(request, headers={**request.headers, "Authorization": f"Basic {basic}"})
    follows = request.follow and request.method in ("GET", "HEAD")
    for hop in range(MOST_REDIRECTS + 1):
        try:
            answer = await _ask(wire, request, url)
        except Fault as fault:
            if hop:
                fault.facts["redirected_to"] = shown_url(url.text)
            raise
        location = answer.headers.get("location")
        if not (follows and location and answer.status in (301, 302, 303, 307, 308)):
            return replace(answer, elapsed=(perf_counter() - started) * 1000, redirects=hop)
        try:
            target = url.join(location)
        except ValueError:
            where = shown_url(location)
            raise Fault("http.invalid_redirect", f"redirected to {cap(where, 80)}, which cannot be followed") from None
        if target.origin != url.origin:
            request = replace(request, headers={}, tls=Tls(verify=request.tls.verify, ca_file=request.tls.ca_file))
        url = target
    raise Fault(
        "http.too_many_redirects", f"more than {MOST_REDIRECTS} redirects, the last to {cap(shown_url(url.text), 80)}"
    )


async def _ask(wire: Wire, request: Request, url: Url) -> Exchange:
    if url.scheme == "https":
        wire.context(request.tls)  # files of no use to us are no reason to bother the server
    sock = await wire.dial(url.host, url.port, request.trace, request.egress)
    address, cert_days, writer = "", None, None
    try:
        address = shown_address(sock.getpeername())
        reader, writer = await asyncio.open_connection(sock=sock, limit=CHUNK)
        if url.scheme == "https":
            cert_days = await secure(wire, writer, url, request)
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEADERS)
        writer.write(_sent(connection, request, url))  # not drained: a server may answer before it has read it all
        response, headers, body = await _Listener(connection, reader, request.trace).answer()
    except Exception as error:
        if fault := fault_of(error):
            fault.facts.setdefault("address", address)
            raise fault from None
        raise
    finally:
        if writer:
            writer.transport.abort()
        else:
            sock.close()
    return Exchange(
        status=response.status_code,
        phrase=response.reason.decode(errors="replace"),
        headers=headers,
        body=bytes(body.kept),
        unread=body.unread,
        size=body.size,
        elapsed=0.0,
        http_version=response.http_version.decode(),
        address=address,
        url=url.text,
        redirects=0,
        cert_days=cert_days,
    )


def _sent(connection: h11.Connection, request: Request, url: Url) -> bytes:
    """The request as bytes. Configured headers win over ours."""
    ours = {"Host": url.authority, "User-Agent": "watchdog-monitor", "Accept": "*/*", "Accept-Encoding": "gzip"}
    if request.body or request.method not in ("GET", "HEAD", "OPTIONS"):
        ours["Content-Length"] = str(len(request.body))
    configured = {name.lower() for name in request.headers}
    headers = [(k, v) for k, v in ours.items() if k.lower() not in configured]
    headers += request.headers.items()
    if "connection" not in configured:
        headers.append(("Connection", "close"))
    head = h11.Request(method=request.method, target=url.path, headers=[(k.encode(), v.encode()) for k, v in headers])
    events = (head, h11.Data(data=request.body), h11.EndOfMessage()) if request.body else (head, h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


class _Listener:
    """Hears one answer out, as far as the limits go."""

    def __init__(self, connection: h11.Connection, reader: asyncio.StreamReader, trace: Trace) -> None:
        self._connection, self._reader, self._trace = connection, reader, trace
        self._beginning, self._raw = b"", 0

    async def answer(self) -> tuple[h11.Response, dict[str, str], _Body]:
        self._trace.begin("first_byte")
        try:
            response = await self._response()
            headers = _joined(response)
            body = await self._body(headers.get("content-encoding", ""))
        except h11.RemoteProtocolError as error:
            raise self._malformed(error) from None
        self._trace.end("body")
        return response, headers, body

    async def _response(self) -> h11.Response:
        for _ in range(MOST_INTERIM):
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
        raise Fault("protocol.error", f"more than {MOST_INTERIM} interim answers and no real one")

    async def _body(self, encoding: str) -> _Body:
        body = _Body(encoding)
        while isinstance(event := await self._next(), h11.Data):
            body.feed(event.data)
            if self._raw >= MOST_RAW:
                body.unread = body.unread or _TOO_LONG
                return body
        body.finish()
        return body

    async def _next(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            if self._raw:
                await asyncio.sleep(0)  # a reader that has data returns at once, and others want to run
            data = await self._reader.read(CHUNK)
            if not self._raw:
                if not data:
                    raise Fault("connection.lost", "connection closed by the server", retryable=True)
                self._trace.end("first_byte")
                self._trace.begin("body")
                self._beginning = data[:200]
            self._raw += len(data)
            self._connection.receive_data(data)
        return event

    def _malformed(self, error: h11.RemoteProtocolError) -> Fault:
        fault = fault_of(error) or Fault("protocol.error", "the answer is not proper HTTP")
        fault.excerpt = self._beginning.decode(errors="replace")
        return fault


_TOO_LONG = f"the body is longer than {MOST_BODY // 1024} KiB"


class _Body:
    """What is kept of a body."""

    def __init__(self, encoding: str) -> None:
        encoding = encoding.strip().lower()
        self._gzip = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding in ("gzip", "x-gzip") else None
        known = self._gzip or encoding in ("", "identity")
        self.unread = "" if known else f"the body is encoded as {encoding}, which is not read here"
        self.kept = bytearray()
        self.size = 0

    def feed(self, data: bytes | bytearray) -> None:
        self.size += len(data)
        if self.unread:
            return
        try:
            self.kept += self._gzip.decompress(data, MOST_BODY + 1 - len(self.kept)) if self._gzip else data
        except zlib.error:
            raise Fault("protocol.error", "the body says that it is gzip, but it is not") from None
        if len(self.kept) > MOST_BODY:
            del self.kept[MOST_BODY:]
            self.unread = _TOO_LONG

    def finish(self) -> None:
        if self._gzip and self.size and not self.unread and not self._gzip.eof:
            raise Fault("protocol.error", "the compressed body ends in the middle")


def _joined(response: h11.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("ascii", "replace"), raw_value.decode(errors="replace")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
