"""Access tokens of OAuth 2.0 by client credentials (RFC 6749, 4.4): requested once for all runs, and renewed early.

The token endpoint is configured, or found by `watchdog.net.oauth_discovery`."""

from __future__ import annotations

import asyncio
import base64
import copy
import math
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple, TypeAlias
from urllib.parse import quote, urlencode

from watchdog.domain.model import Json
from watchdog.net.auth import McpOAuthCredentials
from watchdog.net.errors import ProbeError, build_probe_error_from_exception, build_timeout_error
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.http_evidence import build_http_response_evidence_facts, build_response_head_and_body_excerpt
from watchdog.net.phases import PhaseTimer
from watchdog.net.proxy import RequestRouting
from watchdog.net.redact import SecretMask, strip_url_to_scheme_host_and_path
from watchdog.net.token_endpoint import TokenEndpoint, TokenRequester, parse_json_object
from watchdog.net.url import parse_http_url

TOKEN_REQUEST_TIMEOUT_S = 10.0
DEFAULT_TOKEN_LIFETIME_S, MAX_TOKEN_LIFETIME_S = 300.0, 24 * 3600.0
"""Of a token whose response states no lifetime, and of any token."""
MAX_TOKEN_RENEWAL_LEAD_S, MAX_TOKEN_RENEWAL_LEAD_SHARE = 120.0, 0.4
"""How long before its end a token is renewed at the most: in seconds, and as a share of its lifetime. At least half of
that, at random, so that the tokens of many processes are not renewed at once."""
TOKEN_RENEWAL_RETRY_INTERVAL_S = 10.0
"""After the renewal of a token that is still valid has failed."""
MIN_REJECTED_TOKEN_INTERVAL_S = 60.0
"""Between two tokens that are replaced because a server does not accept them."""
MAX_TOKEN_BYTES, MAX_TOKEN_RESPONSE_BYTES = 16 << 10, 64 << 10
MIN_MASKED_TOKEN_CHARS = 8
_OAUTH_ERROR_CODE_PATTERN = re.compile(r"[a-z_]{1,60}")

_TokenRequestTask: TypeAlias = "asyncio.Task[AccessToken | ProbeError]"
TokenRequestSender: TypeAlias = Callable[[HttpRequest, PhaseTimer, int, RequestRouting], Awaitable[HttpResponse]]


class AccessToken(NamedTuple):
    """A token, with instants of the monotonic clock, in seconds."""

    value: str
    renew_at: float
    expires_at: float


@dataclass(slots=True)
class _TokenEntry:
    """The token of one requester."""

    token: AccessToken | None = None
    request: _TokenRequestTask | None = None
    """The request for a token that is in progress."""
    discovered_endpoint: TokenEndpoint | None = None
    phase_timer: PhaseTimer = field(default_factory=PhaseTimer)
    """Of the newest request."""
    waiter_count: int = 0
    rejected_at: float = -math.inf
    """When a token was last replaced because a server did not accept it."""


@dataclass(slots=True)
class _TokenRequestRun:
    """The requests for one token."""

    requester: TokenRequester
    now: int
    send_request: TokenRequestSender
    phase_timer: PhaseTimer
    urls: list[str] = field(default_factory=list)
    """Those requested so far."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.urls.append(request.url)
        return await self.send_request(request, self.phase_timer, self.now, self.requester.routing)


class OAuthTokenCache:
    """The access tokens of a process. One request at a time is made for each requester, however many runs need its
    token. Close it inside the event loop.

    `send`: sends a request through the network of the process; its third parameter is the time in ms since the epoch.
    """

    def __init__(
        self,
        send: TokenRequestSender,
        clock: Callable[[], float] = monotonic,
        choose_fraction: Callable[[], float] = random.random,
    ) -> None:
        self._send, self._clock, self._choose_fraction = send, clock, choose_fraction
        self._entries: dict[TokenRequester, _TokenEntry] = {}
        self._former_values: dict[TokenRequester, str] = {}
        self.mask = SecretMask(())
        """Masks the tokens in use, and each one's predecessor."""

    async def get_token(self, requester: TokenRequester, phase_timer: PhaseTimer, now: int) -> str:
        """A token that is valid now. Times the phase `token` while a request for it is in progress. `now`: in ms since
        the epoch; certificates are judged against it. Raises ProbeError."""
        entry, now_s = self._entries.setdefault(requester, _TokenEntry()), self._clock()
        if entry.token is not None and now_s < entry.token.expires_at:
            if now_s >= entry.token.renew_at and entry.request is None:
                self._start_request(requester, entry, now)
            return entry.token.value
        request = entry.request or self._start_request(requester, entry, now)
        phase_timer.start_nestable_phase("token")
        try:
            result = await self._wait_for_request(entry, request)
        except asyncio.CancelledError:
            phase_timer.connecting_proxy = entry.phase_timer.connecting_proxy  # the fault of the proxy, if it is silent
            raise
        phase_timer.end_phase("token")
        if isinstance(result, ProbeError):
            raise _copy_error(result)
        return result.value

    def replace_rejected_token(self, requester: TokenRequester, value: str) -> bool:
        """A server does not accept the token. Returns whether another attempt with a new one makes sense."""
        entry, now = self._entries.get(requester), self._clock()
        if entry is None or now - entry.rejected_at < MIN_REJECTED_TOKEN_INTERVAL_S:
            return False
        entry.rejected_at = now
        entry.discovered_endpoint = None  # the server may trust another authorization server by now
        if entry.token is not None and entry.token.value == value:
            entry.token = None
        return True

    def close(self) -> None:
        for entry in self._entries.values():
            if entry.request is not None:
                entry.request.cancel()

    async def _wait_for_request(self, entry: _TokenEntry, request: _TokenRequestTask) -> AccessToken | ProbeError:
        """The request goes on as long as a run waits for it."""
        entry.waiter_count += 1
        try:
            await asyncio.wait([request])
        except asyncio.CancelledError:
            if entry.waiter_count == 1 and entry.request is request:
                entry.request = None  # another run must not wait for what is being cancelled
                request.cancel()
            raise
        finally:
            entry.waiter_count -= 1
        return request.result()

    def _start_request(self, requester: TokenRequester, entry: _TokenEntry, now: int) -> _TokenRequestTask:
        request = asyncio.get_running_loop().create_task(self._renew_token(requester, entry, now))
        entry.request = request

        def forget(done: _TokenRequestTask) -> None:
            if entry.request is done:
                entry.request = None

        request.add_done_callback(forget)
        return request

    async def _renew_token(self, requester: TokenRequester, entry: _TokenEntry, now: int) -> AccessToken | ProbeError:
        """The new token of the entry, or why there is none."""
        entry.phase_timer = PhaseTimer()
        run = _TokenRequestRun(requester, now, self._send, entry.phase_timer)
        try:
            async with asyncio.timeout(TOKEN_REQUEST_TIMEOUT_S):
                token = await self._request_token(run, entry)
        except Exception as exception:
            error = build_probe_error_from_exception(exception)
            if run.phase_timer.connecting_proxy and isinstance(exception, TimeoutError):
                error = build_timeout_error(TOKEN_REQUEST_TIMEOUT_S, run.phase_timer)
            if error is None:
                raise
            if entry.token is not None:
                retry_at = self._clock() + TOKEN_RENEWAL_RETRY_INTERVAL_S
                entry.token = entry.token._replace(renew_at=retry_at)
            return _build_token_error(error, run)
        if entry.token is not None:
            self._former_values[requester] = entry.token.value
        entry.token = token
        values = [*self._former_values.values(), *(e.token.value for e in self._entries.values() if e.token)]
        self.mask = SecretMask(value for value in values if len(value) >= MIN_MASKED_TOKEN_CHARS)
        return token

    async def _request_token(self, run: _TokenRequestRun, entry: _TokenEntry) -> AccessToken:
        """An endpoint that was discovered earlier is discovered anew if it refuses, or cannot be reached."""
        if endpoint := _find_configured_endpoint(run.requester):
            return await self._request_token_from(endpoint, run)
        known_endpoint, entry.discovered_endpoint = entry.discovered_endpoint, None
        try:
            endpoint = known_endpoint or await _discover_endpoint(run)
            token = await self._request_token_from(endpoint, run)
        except ProbeError as error:
            if known_endpoint is None or error.is_internal:
                raise
            if error.reason == "auth.token_unavailable":  # it responds, and is overloaded or out of order
                entry.discovered_endpoint = known_endpoint
                raise
            endpoint = await _discover_endpoint(run)
            token = await self._request_token_from(endpoint, run)
        entry.discovered_endpoint = endpoint
        return token

    async def _request_token_from(self, endpoint: TokenEndpoint, run: _TokenRequestRun) -> AccessToken:
        response = await run.send(_build_token_request(run.requester, endpoint))
        return self._parse_token_response(endpoint, response)

    def _parse_token_response(self, endpoint: TokenEndpoint, response: HttpResponse) -> AccessToken:
        """Raises ProbeError."""
        body = parse_json_object(response)
        if not 200 <= response.status < 300:
            raise _build_refusal_error(endpoint, response, body)
        value, token_type = body.get("access_token"), body.get("token_type", "Bearer")
        problem = ""
        if not isinstance(value, str) or not value:
            problem = "it has no access_token"
        elif not re.fullmatch(r"[\x21-\x7e]+", value) or len(value) > MAX_TOKEN_BYTES:
            problem = "its access_token cannot be sent in a header"
        elif not isinstance(token_type, str) or token_type.lower() != "bearer":
            problem = "its token_type is not Bearer"
        if problem:
            error = ProbeError.from_reason("auth.token_invalid", problem=problem)
            error.facts |= {
                **build_http_response_evidence_facts(response),
                "token_endpoint": strip_url_to_scheme_host_and_path(endpoint.url),
            }
            raise error  # the excerpt would show the token
        now, lifetime_s = self._clock(), _parse_token_lifetime_s(body.get("expires_in"))
        lead_s = min(MAX_TOKEN_RENEWAL_LEAD_S, lifetime_s * MAX_TOKEN_RENEWAL_LEAD_SHARE)
        lead_s *= (1 + self._choose_fraction()) / 2
        return AccessToken(str(value), now + lifetime_s - lead_s, now + lifetime_s)


def _find_configured_endpoint(requester: TokenRequester) -> TokenEndpoint | None:
    """None: it has to be discovered."""
    credentials, resource = requester.credentials, requester.resource
    if isinstance(credentials, McpOAuthCredentials):
        identifier = resource.identifier if resource else ""
        url = credentials.token_url
        return TokenEndpoint(url, credentials.scope, resource=identifier) if url else None
    return TokenEndpoint(
        credentials.token_url, credentials.scope, credentials.audience, client_auth=credentials.client_auth
    )


async def _discover_endpoint(run: _TokenRequestRun) -> TokenEndpoint:
    """Raises ProbeError."""
    from watchdog.net.oauth_discovery import TokenEndpointDiscovery  # only for MCP servers

    if run.requester.resource is None:
        raise ValueError("a token endpoint can be discovered only for a server")
    return await TokenEndpointDiscovery(run.requester, run.requester.resource, run.send).discover()


def _build_token_request(requester: TokenRequester, endpoint: TokenEndpoint) -> HttpRequest:
    credentials = requester.credentials
    client_secret = credentials.client_secret.get_secret_value()
    fields = {
        "grant_type": "client_credentials",
        "scope": endpoint.scope,
        "audience": endpoint.audience,
        "resource": endpoint.resource,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    if endpoint.client_auth == "body":
        fields |= {"client_id": credentials.client_id, "client_secret": client_secret}
    else:  # each part is form-encoded first (RFC 6749, 2.3.1)
        pair = f"{quote(credentials.client_id, safe='')}:{quote(client_secret, safe='')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return HttpRequest(
        endpoint.url,
        method="POST",
        headers=headers,
        body=urlencode({name: value for name, value in fields.items() if value}).encode(),
        max_body_bytes=MAX_TOKEN_RESPONSE_BYTES,
        allow_private_addresses=requester.allow_private_addresses,
    )


def _parse_token_lifetime_s(value: Json) -> float:
    """`expires_in`, which servers also send as text, or not at all. A lifetime that is not positive is one that has
    ended: the token is used once."""
    try:
        lifetime_s = math.nan if isinstance(value, bool | None) else float(str(value))
    except ValueError:
        lifetime_s = math.nan
    if math.isnan(lifetime_s):
        lifetime_s = DEFAULT_TOKEN_LIFETIME_S
    return min(max(lifetime_s, 0.0), MAX_TOKEN_LIFETIME_S)


def _build_refusal_error(endpoint: TokenEndpoint, response: HttpResponse, body: dict[str, Json]) -> ProbeError:
    code = body.get("error")
    is_code = isinstance(code, str) and _OAUTH_ERROR_CODE_PATTERN.fullmatch(code)
    problem = f"HTTP {response.status}{f' ({code})' if is_code else ''}"
    if response.status >= 500 or response.status == 429:
        error = ProbeError.from_reason("auth.token_unavailable", retryable=True, problem=problem)
    else:
        error = ProbeError.from_reason("auth.token_refused", problem=problem)
    error.facts |= {
        **build_http_response_evidence_facts(response),
        "token_endpoint": strip_url_to_scheme_host_and_path(endpoint.url),
    }
    error.excerpt = build_response_head_and_body_excerpt(response)
    return error


def _build_token_error(error: ProbeError, run: _TokenRequestRun) -> ProbeError:
    """`error`: of the requests for a token. A fault of this machine, or of the server that the token is for, stays
    what it is."""
    resource = run.requester.resource
    url = parse_http_url(run.urls[-1])
    is_timeout = error.reason.startswith("timeout.")
    is_of_server = resource is not None and not is_timeout and url.origin == parse_http_url(resource.url).origin
    if error.is_internal or error.reason.startswith("auth.") or is_of_server:
        translated = error
    else:
        problem = f"{error.message} ({url.host_and_port})"
        if is_timeout:
            problem = f"no response within {TOKEN_REQUEST_TIMEOUT_S:g} s ({url.host_and_port})"
        translated = ProbeError.from_reason("auth.token_unavailable", retryable=True, problem=problem)
        translated.excerpt = error.excerpt
        translated.facts = {**error.facts, "token_endpoint": strip_url_to_scheme_host_and_path(run.urls[-1])}
    translated.phase = "token"
    return translated


def _copy_error(error: ProbeError) -> ProbeError:
    """Each run that waited for it adds facts of its own."""
    copied = copy.copy(error)
    copied.facts = dict(error.facts)
    return copied
