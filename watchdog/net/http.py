"""Sends one HTTP request, each hop on a new connection, and follows redirects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter

from watchdog.domain.model import Evidence
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.net.auth import build_basic_authorization
from watchdog.net.body_limits import DEFAULT_MAX_BODY_BYTES
from watchdog.net.connector import TcpConnector
from watchdog.net.cookies import RunCookieJar
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.handshake import EarliestCertificateExpiry, TlsHandshaker
from watchdog.net.http_exchange import HttpExchangeProtocol
from watchdog.net.phases import PhaseTimer
from watchdog.net.received_body import BodyNotFullyReadProblem, BoundedBodyCollector
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.net.response_parser import HttpResponseParser
from watchdog.net.text_encoding import decode_body_text
from watchdog.net.tls import TlsConfig
from watchdog.net.url import ParsedHttpUrl, parse_http_url

MAX_REDIRECTS = 20
"""As browsers."""
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class HttpRequest:
    """A request, which can be sent any number of times. The caller limits the time."""

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

    @cached_property
    def parsed_url(self) -> ParsedHttpUrl:
        return parse_http_url(self.url)

    @cached_property
    def headers_with_credentials(self) -> Mapping[str, str]:
        """The headers, with the credentials of the URL."""
        userinfo = self.parsed_url.userinfo
        if not userinfo or "authorization" in map(str.lower, self.headers):
            return self.headers
        return {**self.headers, "Authorization": build_basic_authorization(userinfo)}

    @cached_property
    def encoded(self) -> bytes:
        """The bytes for the URL itself, not for the target of a redirect."""
        return self.encode_for(self.parsed_url, self.headers_with_credentials)

    def encode_for(self, url: ParsedHttpUrl, headers: Mapping[str, str]) -> bytes:
        """The bytes for this URL. `headers` replace the default ones."""
        defaults = {"Host": url.authority, "User-Agent": "watchdog-monitor", "Accept": "*/*", "Accept-Encoding": "gzip"}
        if self.body or self.method not in ("GET", "HEAD", "OPTIONS"):
            defaults["Content-Length"] = str(len(self.body))
        configured = {name.lower() for name in headers}
        lines = [f"{name}: {value}" for name, value in defaults.items() if name.lower() not in configured]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if "connection" not in configured:
            lines.append("Connection: close")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header contains a line break")  # the configuration refuses it
        return "\r\n".join([f"{self.method} {url.path_and_query} HTTP/1.1", *lines, "", ""]).encode() + self.body


@dataclass(slots=True)
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


async def send_http_request(
    connector: TcpConnector,
    request: HttpRequest,
    phase_timer: PhaseTimer,
    now: int,
    cookies: RunCookieJar | None = None,
) -> HttpResponse:
    """Sends the request and follows redirects if it asks for that. `now`: in ms since the epoch; certificates are
    judged against it. `cookies`: those of earlier requests, which are sent as well, and to which those of the responses
    are added. Raises ProbeError."""
    jar = RunCookieJar() if cookies is None else cookies
    return await _RequestRun(connector, request, phase_timer, now, jar).send()


class _RequestRun:
    """One request and the redirects that it follows, each on a connection of its own."""

    def __init__(
        self,
        connector: TcpConnector,
        request: HttpRequest,
        phase_timer: PhaseTimer,
        now: int,
        cookies: RunCookieJar,
    ) -> None:
        self._connector, self._request, self._phase_timer, self._now = connector, request, phase_timer, now
        self._started_monotonic_s = perf_counter()
        self._redirect_count = 0
        self._cookies = cookies
        # Of the current hop:
        self._url, self._tls = request.parsed_url, request.tls
        self._headers, self._request_bytes = request.headers_with_credentials, request.encoded
        if cookie_header := cookies.build_cookie_header(self._url):
            headers = _add_cookies_to_headers(self._headers, cookie_header)
            self._request_bytes = request.encode_for(self._url, headers)

    async def send(self) -> HttpResponse:
        follow_redirects = self._request.follow_redirects and self._request.method in ("GET", "HEAD")
        while True:
            try:
                response = await self._send_to_current_url()
            except ProbeError as error:
                if self._redirect_count:
                    error.facts["redirected_to"] = strip_url_to_scheme_host_and_path(self._url.url_without_credentials)
                raise
            self._cookies.store(self._url, response.set_cookies)
            location = response.headers.get("location")
            if not (follow_redirects and location and response.status in _REDIRECT_STATUSES):
                return response
            self._redirect_to(location)

    def _redirect_to(self, location: str) -> None:
        try:
            url = self._url.join(location)
        except ValueError:
            shown_url = truncate_with_ellipsis(strip_url_to_scheme_host_and_path(location), 80)
            raise ProbeError("http.invalid_redirect", f"redirect to {shown_url} cannot be followed") from None
        shown_url = strip_url_to_scheme_host_and_path(url.url_without_credentials)
        if self._redirect_count == MAX_REDIRECTS:
            last = truncate_with_ellipsis(shown_url, 80)
            raise ProbeError("http.too_many_redirects", f"more than {MAX_REDIRECTS} redirects, the last one to {last}")
        if url.origin != self._url.origin:
            self._headers, self._tls = {}, TlsConfig(verify=self._tls.verify, ca_file=self._tls.ca_file)
        self._redirect_count += 1
        self._url = url
        headers = _add_cookies_to_headers(self._headers, self._cookies.build_cookie_header(url))
        self._request_bytes = self._request.encode_for(url, headers)
        # Facts about the redirecting response are not evidence about the next one.
        self._phase_timer.facts.clear()
        self._phase_timer.describe_response = Evidence
        self._phase_timer.facts["redirected_to"] = shown_url

    def _create_handshaker(self) -> TlsHandshaker:
        allow_private_addresses = self._request.allow_private_addresses
        return TlsHandshaker(self._connector, self._url, self._tls, allow_private_addresses, self._now)

    async def _send_to_current_url(self) -> HttpResponse:
        request, phase_timer, url = self._request, self._phase_timer, self._url
        if url.scheme == "https":
            self._connector.get_ssl_context(self._tls)  # if a file is unusable, fails before connecting
        parser = HttpResponseParser(phase_timer, request.max_body_bytes, is_head_request=request.method == "HEAD")
        expiry: EarliestCertificateExpiry | None = None
        connection = await self._connector.connect_protocol(
            HttpExchangeProtocol,
            url.host,
            url.port,
            phase_timer,
            allow_private_addresses=request.allow_private_addresses,
        )
        try:
            phase_timer.facts["address"] = peer_address = connection.peer_address
            if url.scheme == "https":
                expiry = await self._create_handshaker().perform_and_find_certificate_expiry(
                    connection.start_tls, phase_timer
                )
            await connection.exchange(self._request_bytes, parser, phase_timer)
        except Exception as exception:
            error = build_probe_error_from_exception(exception)
            if error is None:
                raise
            if phase_timer.current_phase == "first_byte":
                error = await self._create_handshaker().inspect_and_explain_unanswered_request(error)
            error.facts.setdefault("address", peer_address)
            raise error from None
        finally:
            connection.close()
        return HttpResponse(
            status=parser.status,
            reason_phrase=parser.reason_phrase,
            headers=parser.headers,
            received_body=parser.received_body,
            elapsed_ms=(perf_counter() - self._started_monotonic_s) * 1000,
            http_version=parser.http_version,
            peer_address=peer_address,
            url=url.url_without_credentials,
            redirect_count=self._redirect_count,
            cert_days=expiry and expiry.days,
            cert_expiry=expiry.description if expiry else "",
            cert_expires_at_text=expiry.expires_at_text if expiry else "",
            set_cookies=parser.set_cookies,
        )


def _add_cookies_to_headers(headers: Mapping[str, str], cookies: str) -> Mapping[str, str]:
    """The configured headers, with the cookies of this run added to a configured Cookie header."""
    if not cookies:
        return headers
    configured = [value for name, value in headers.items() if name.lower() == "cookie"]
    others = {name: value for name, value in headers.items() if name.lower() != "cookie"}
    return others | {"Cookie": "; ".join([*configured, cookies])}
