"""Sends one HTTP request, each hop on a new connection, and follows redirects."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter

import h11

from watchdog.domain.model import Evidence
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.net.body_limits import DEFAULT_MAX_BODY_BYTES
from watchdog.net.connector import TcpConnector, format_socket_address
from watchdog.net.cookies import RunCookieJar
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.handshake import TlsHandshaker
from watchdog.net.http_exchange import HTTP_READ_CHUNK_BYTES, MAX_RESPONSE_HEADER_BYTES, HttpResponseReader
from watchdog.net.phases import PhaseTimer
from watchdog.net.received_body import BodyNotFullyReadProblem, BoundedBodyCollector
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.net.text_encoding import decode_body_text
from watchdog.net.tls import TlsConfig
from watchdog.net.url import ParsedHttpUrl, parse_http_url

MAX_REDIRECTS = 20
"""As browsers."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request. The caller bounds its time."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    tls: TlsConfig = field(default_factory=TlsConfig)
    follow_redirects: bool = False
    """Whether a GET or HEAD follows up to 20 redirects. Headers and client certificate go to the first origin only;
    cookies go back to the origin that set them."""
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    """Bytes of the decoded body that are kept; the rest is not decoded."""
    allow_private_addresses: bool = True
    phase_timer: PhaseTimer = field(default_factory=PhaseTimer)
    now: int = 0
    """In ms since the epoch; certificates are judged against it."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response. What depends on a body that may be large is judged by
    `NetworkAccess.run_cpu_work_inline_or_in_worker`."""

    status: int
    reason_phrase: str
    """From the status line: "Service Unavailable"."""
    headers: dict[str, str]
    """Lower-case name -> value; repeated ones joined by ", "."""
    received_body: BoundedBodyCollector
    elapsed_ms: float
    """From the first name lookup to the end of the body, redirects included."""
    http_version: str
    peer_address: str
    """Address and port of the server."""
    url: str
    """The URL that responded, query included; `strip_url_to_scheme_host_and_path` makes it safe to show."""
    redirect_count: int
    cert_days: int | None
    """Whole days until the first certificate of the server's chain expires, negative once it has. None without TLS."""
    cert_expiry: str = ""
    """Which certificate that is, and when: "CN=api.example expires on 1 Dec 2026 10:00 UTC"."""
    cert_expires_at_text: str = ""
    """ "1 Dec 2026 10:00 UTC"."""
    set_cookies: tuple[str, ...] = ()
    """The values of the Set-Cookie headers."""

    @property
    def body(self) -> bytes:
        """Decoded, at most `max_body_bytes`. Raises ProbeError if it is large and cannot be decoded."""
        return self.received_body.decompress()

    @property
    def body_problem(self) -> BodyNotFullyReadProblem | None:
        """Why `body` is not the whole body; None if it is. Raises ProbeError as `body` does."""
        self.received_body.decompress()
        return self.received_body.problem

    def needs_worker_process(self, *, loops: bool = False) -> bool:
        """Whether the body must not be judged in the event loop. `loops`: the judgement evaluates an expression for
        each element of the body."""
        return self.received_body.is_large or (loops and self.received_body.has_many_json_elements)

    @property
    def encoded_body_size_bytes(self) -> int:
        """Size of the body as it was received, as far as it was read."""
        return self.received_body.encoded_bytes

    @property
    def text(self) -> str:
        """The body as text, without a byte-order mark; see `decode_body_text`."""
        return decode_body_text(self.body, self.headers.get("content-type", ""))


async def send_http_request(connector: TcpConnector, request: HttpRequest) -> HttpResponse:
    """Sends the request and follows redirects if it asks for that. Raises ProbeError."""
    started = perf_counter()
    url = parse_http_url(request.url)
    if url.userinfo and "authorization" not in map(str.lower, request.headers):
        basic = base64.b64encode(url.userinfo.encode()).decode()
        request = replace(request, headers={**request.headers, "Authorization": f"Basic {basic}"})
    follow_redirects = request.follow_redirects and request.method in ("GET", "HEAD")
    cookies = RunCookieJar()
    for hop in range(MAX_REDIRECTS + 1):
        request.phase_timer.facts.clear()  # of the response that redirects
        request.phase_timer.describe_response = Evidence
        if hop:
            request.phase_timer.facts["redirected_to"] = strip_url_to_scheme_host_and_path(url.url_without_credentials)
        try:
            response = await _send_single_request(connector, request, url, cookies.build_cookie_header(url))
        except ProbeError as error:
            if hop:
                error.facts["redirected_to"] = strip_url_to_scheme_host_and_path(url.url_without_credentials)
            raise
        location = response.headers.get("location")
        if not (follow_redirects and location and response.status in (301, 302, 303, 307, 308)):
            return replace(response, elapsed_ms=(perf_counter() - started) * 1000, redirect_count=hop)
        cookies.store(url, response.set_cookies)
        try:
            target = url.join(location)
        except ValueError:
            shown_url = truncate_with_ellipsis(strip_url_to_scheme_host_and_path(location), 80)
            raise ProbeError("http.invalid_redirect", f"redirect to {shown_url} cannot be followed") from None
        if target.origin != url.origin:
            request = replace(
                request, headers={}, tls=TlsConfig(verify=request.tls.verify, ca_file=request.tls.ca_file)
            )
        url = target
    last_url = truncate_with_ellipsis(strip_url_to_scheme_host_and_path(url.url_without_credentials), 80)
    raise ProbeError(
        "http.too_many_redirects",
        f"more than {MAX_REDIRECTS} redirects, the last one to {last_url}",
    )


async def _send_single_request(
    connector: TcpConnector, request: HttpRequest, url: ParsedHttpUrl, cookies: str
) -> HttpResponse:
    handshake = TlsHandshaker(connector, url, request.tls, request.allow_private_addresses, request.now)
    if url.scheme == "https":
        connector.get_ssl_context(request.tls)  # fails before connecting if a file is unusable
    sock = await connector.connect(url.host, url.port, request.phase_timer, request.allow_private_addresses)
    peer_address, expiry, writer = "", None, None
    try:
        request.phase_timer.facts["address"] = peer_address = format_socket_address(sock.getpeername())
        reader, writer = await asyncio.open_connection(sock=sock, limit=HTTP_READ_CHUNK_BYTES)
        if url.scheme == "https":
            expiry = await handshake.perform_and_find_certificate_expiry(writer, request.phase_timer)
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_RESPONSE_HEADER_BYTES)
        # Not drained: a server may respond before it has read everything.
        writer.write(_encode_http_request(connection, request, url, cookies))
        response, headers, body = await HttpResponseReader(
            connection, reader, request.phase_timer, request.max_body_bytes
        ).read()
    except Exception as exception:
        if error := build_probe_error_from_exception(exception):
            if request.phase_timer.current_phase == "first_byte":
                error = await handshake.inspect_and_explain_unanswered_request(error)
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
        received_body=body,
        elapsed_ms=0.0,
        http_version=response.http_version.decode(),
        peer_address=peer_address,
        url=url.url_without_credentials,
        redirect_count=0,
        cert_days=expiry and expiry.days,
        cert_expiry=expiry.description if expiry else "",
        cert_expires_at_text=expiry.expires_at_text if expiry else "",
        set_cookies=tuple(value.decode(errors="replace") for name, value in response.headers if name == b"set-cookie"),
    )


def _encode_http_request(connection: h11.Connection, request: HttpRequest, url: ParsedHttpUrl, cookies: str) -> bytes:
    """The request as bytes. Configured headers replace the default ones."""
    defaults = {"Host": url.authority, "User-Agent": "watchdog-monitor", "Accept": "*/*", "Accept-Encoding": "gzip"}
    if request.body or request.method not in ("GET", "HEAD", "OPTIONS"):
        defaults["Content-Length"] = str(len(request.body))
    configured = {name.lower() for name in request.headers}
    headers = [(k, v) for k, v in defaults.items() if k.lower() not in configured]
    headers += _add_cookies_to_headers(request.headers, cookies).items()
    if "connection" not in configured:
        headers.append(("Connection", "close"))
    head = h11.Request(
        method=request.method, target=url.path_and_query, headers=[(k.encode(), v.encode()) for k, v in headers]
    )
    events = (head, h11.Data(data=request.body), h11.EndOfMessage()) if request.body else (head, h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


def _add_cookies_to_headers(headers: Mapping[str, str], cookies: str) -> Mapping[str, str]:
    """The configured headers, with the cookies of this run added to a configured Cookie header."""
    if not cookies:
        return headers
    configured = [value for name, value in headers.items() if name.lower() == "cookie"]
    others = {name: value for name, value in headers.items() if name.lower() != "cookie"}
    return others | {"Cookie": "; ".join([*configured, cookies])}
