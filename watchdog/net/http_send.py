"""Sends one HTTP request: follows redirects, and answers challenges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

from watchdog.domain.model import Evidence
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.net.connector import TcpConnector
from watchdog.net.cookies import RunCookieJar
from watchdog.net.digest_auth import DigestChallengeCache
from watchdog.net.errors import ProbeError
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.http_hop import HttpHop, exchange_with_server
from watchdog.net.kept_connections import KeptConnections
from watchdog.net.oauth import OAuthTokenCache
from watchdog.net.phases import PhaseTimer
from watchdog.net.proxy import RequestRouting
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.net.request_auth import RequestAuthenticator
from watchdog.net.tls import TlsConfig

MAX_REDIRECTS = 20
"""As browsers."""
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)


class HttpRequestSender:
    """Sends the requests of a process. Owns what later requests use: kept connections, access tokens, and challenges.

    Close it inside the event loop.
    """

    def __init__(self, connector: TcpConnector) -> None:
        self.connector = connector
        self.kept_connections = KeptConnections()
        self.tokens = OAuthTokenCache(self.send)
        self.challenges = DigestChallengeCache()

    async def send(
        self,
        request: HttpRequest,
        phase_timer: PhaseTimer,
        now: int,
        routing: RequestRouting,
        *,
        cookies: RunCookieJar | None = None,
    ) -> HttpResponse:
        """Sends the request and follows redirects if it asks for that. `now`: in ms since the epoch; certificates are
        judged against it. `cookies`: those of earlier requests, which are sent as well, and to which those of the
        responses are added. Raises ProbeError."""
        authenticator = None
        if request.auth is not None:
            authenticator = RequestAuthenticator(request, routing, self.tokens, self.challenges, now)
        run = _RequestRun(
            self.connector,
            self.kept_connections,
            request,
            routing,
            now,
            authenticator=authenticator,
            cookies=RunCookieJar() if cookies is None else cookies,
        )
        return await run.send(phase_timer)

    def close(self) -> None:
        self.tokens.close()
        self.kept_connections.close()


@dataclass
class _RequestRun:
    """One request and the redirects that it follows."""

    connector: TcpConnector
    kept_connections: KeptConnections
    request: HttpRequest
    routing: RequestRouting
    now: int
    authenticator: RequestAuthenticator | None
    """None once a redirect has left the first origin."""
    cookies: RunCookieJar
    redirect_count: int = 0

    def __post_init__(self) -> None:
        self._started_monotonic_s = perf_counter()
        # Of the current hop:
        self._url, self._tls = self.request.parsed_url, self.request.tls
        self._headers = self.request.headers_with_credentials

    async def send(self, phase_timer: PhaseTimer) -> HttpResponse:
        request = self.request
        follow_redirects = request.follow_redirects and request.method in ("GET", "HEAD")
        while True:
            try:
                response = await self._send_to_current_url(phase_timer)
            except ProbeError as error:
                if self.redirect_count:
                    error.facts["redirected_to"] = strip_url_to_scheme_host_and_path(self._url.url_without_credentials)
                raise
            if response.set_cookies:
                self.cookies.store(self._url, response.set_cookies)
            if self.authenticator is not None and self.authenticator.may_try_again(self._url, response):
                self._forget_response(phase_timer)
                continue
            location = response.headers.get("location")
            if not (follow_redirects and location and response.status in _REDIRECT_STATUSES):
                return response
            self._redirect_to(location, phase_timer)

    def _redirect_to(self, location: str, phase_timer: PhaseTimer) -> None:
        try:
            url = self._url.join(location)
        except ValueError:
            shown_url = truncate_with_ellipsis(strip_url_to_scheme_host_and_path(location), 80)
            raise ProbeError("http.invalid_redirect", f"redirect to {shown_url} cannot be followed") from None
        shown_url = strip_url_to_scheme_host_and_path(url.url_without_credentials)
        if self.redirect_count == MAX_REDIRECTS:
            last = truncate_with_ellipsis(shown_url, 80)
            raise ProbeError("http.too_many_redirects", f"more than {MAX_REDIRECTS} redirects, the last one to {last}")
        if url.origin != self._url.origin:
            self._headers, self._tls = {}, TlsConfig(verify=self._tls.verify, ca_file=self._tls.ca_file)
            self.authenticator = None
        self.redirect_count += 1
        self._url = url
        self._forget_response(phase_timer)
        phase_timer.facts["redirected_to"] = shown_url

    @staticmethod
    def _forget_response(phase_timer: PhaseTimer) -> None:
        """What is known of the response that redirects or refuses is evidence of nothing else."""
        phase_timer.facts.clear()
        phase_timer.describe_response = Evidence

    async def _send_to_current_url(self, phase_timer: PhaseTimer) -> HttpResponse:
        request, url, routing = self.request, self._url, self.routing
        headers, authorization = self._headers, ""
        if self.authenticator is not None:
            authorization = await self.authenticator.get_authorization(url, phase_timer)
        if authorization:
            headers = {**headers, "Authorization": authorization}
        if cookie_header := self.cookies.build_cookie_header(url):
            headers = _add_cookies_to_headers(headers, cookie_header)
        hop = HttpHop(
            self.connector,
            self.kept_connections,
            request,
            url,
            routing.add_ca_file(self._tls),
            now=self.now,
            proxy=routing.find_proxy_for_host(url.host) if routing.proxy else None,
            proxy_ca_file=routing.ca_file,
        )
        is_as_configured = not self.redirect_count and headers is self._headers
        response = await exchange_with_server(hop, None if is_as_configured else headers, phase_timer)
        response.elapsed_ms = (perf_counter() - self._started_monotonic_s) * 1000
        response.redirect_count = self.redirect_count
        return response


def _add_cookies_to_headers(headers: Mapping[str, str], cookies: str) -> Mapping[str, str]:
    """The configured headers, with the cookies of this run added to a configured Cookie header."""
    configured = [value for name, value in headers.items() if name.lower() == "cookie"]
    others = {name: value for name, value in headers.items() if name.lower() != "cookie"}
    return others | {"Cookie": "; ".join([*configured, cookies])}
