"""HTTP requests and responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from watchdog.net.auth import build_basic_authorization
from watchdog.net.body_limits import DEFAULT_MAX_BODY_BYTES
from watchdog.net.received_body import BodyNotFullyReadProblem, BoundedBodyCollector
from watchdog.net.text_encoding import decode_body_text
from watchdog.net.tls import TlsConfig
from watchdog.net.url import ParsedHttpUrl, parse_http_url

if TYPE_CHECKING:
    from watchdog.net.auth import HttpDigestAuth, OAuth2ClientCredentials
    from watchdog.net.proxy import ProxyAddress


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
    auth: HttpDigestAuth | OAuth2ClientCredentials | None = None
    """Credentials whose `Authorization` header depends on what a server answers. They go to the first origin only."""
    http2: bool = False
    """Whether HTTP/2 is required of every https:// URL."""
    keep_alive: bool = False
    """Whether the connection is kept for the next request to the same server. Only for methods that change nothing: a
    request is sent again if the server closes a kept connection at the same moment."""

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

    def encode_for(
        self, url: ParsedHttpUrl, headers: Mapping[str, str], forwarding_proxy: ProxyAddress | None = None
    ) -> bytes:
        """The bytes for this URL over HTTP/1.1. `headers` replace the default ones. `forwarding_proxy`: which gets
        the request in place of the server."""
        lines = [f"{name}: {value}" for name, value in self.list_headers_for(url, headers)]
        if not self.keep_alive and "connection" not in (name.lower() for name in headers):
            lines.append("Connection: close")
        target = url.path_and_query
        if forwarding_proxy is not None:
            target = f"{url.scheme}://{url.authority}{target}"
            if authorization := forwarding_proxy.authorization_header:
                lines.append(f"Proxy-Authorization: {authorization}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header contains a line break")  # the configuration refuses it
        return "\r\n".join([f"{self.method} {target} HTTP/1.1", *lines, "", ""]).encode() + self.body

    def list_headers_for(self, url: ParsedHttpUrl, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """The headers that are sent to this URL. `headers` replace the default ones."""
        defaults = {"Host": url.authority, "User-Agent": "watchdog-monitor", "Accept": "*/*", "Accept-Encoding": "gzip"}
        if self.body or self.method not in ("GET", "HEAD", "OPTIONS"):
            defaults["Content-Length"] = str(len(self.body))
        configured = {name.lower() for name in headers}
        return [
            *((name, value) for name, value in defaults.items() if name.lower() not in configured),
            *headers.items(),
        ]

    def list_http2_head_for(self, url: ParsedHttpUrl, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """The pseudo-headers and headers that are sent to this URL over HTTP/2."""
        listed = self.list_headers_for(url, headers)
        authority = next(value for name, value in listed if name.lower() == "host")
        pseudo = {":method": self.method, ":scheme": url.scheme, ":authority": authority, ":path": url.path_and_query}
        return [*pseudo.items(), *listed]


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
    """Address and port of the server, or of the proxy that the request was sent through."""
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
    proxy: str = ""
    """Host and port of the proxy that the request was sent through."""
    is_connection_reused: bool = False
    """Whether the connection was kept from an earlier request."""

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
