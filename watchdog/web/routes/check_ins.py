"""The endpoint of check-ins, `/in/<token>`. It answers before any other part of the web application is reached."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.heartbeat import CheckInKind
from watchdog.web.auth.login_throttle import LoginThrottle

CHECK_IN_PATH_PREFIX = "/in/"
MAX_BODY_TAIL_BYTES = 12_288
"""The part of a body that is passed on: the output that is stored, and a margin for a secret that starts before it."""
BODY_TIMEOUT_S = 30.0
"""How long a body may take; afterwards what has arrived counts as the whole body."""
MAX_CHECK_INS_PER_WINDOW, RATE_LIMIT_WINDOW_MS = 600, 60_000
"""Check-ins of one job within a window; more than that is a runaway job."""
MAX_CHECK_IN_AGE_MS = 31 * DAY_MS
_RUN_ID_PATTERN = re.compile(r"[A-Za-z0-9._:~-]{0,64}")
_KIND_BY_PATH_SUFFIX = {
    "": CheckInKind.OK,
    **{kind.value: kind for kind in (CheckInKind.START, CheckInKind.FAIL, CheckInKind.LOG)},
}


class CheckInHandler(Protocol):
    """Stores a check-in. False: it cannot be stored at the moment."""

    async def __call__(
        self, probe_id: str, kind: CheckInKind, occurred_at: int, run_id: str, exit_code: int | None, output: bytes
    ) -> bool: ...


class CheckInResponse(NamedTuple):
    status_code: int
    text: str
    retry_after_s: int = 0
    send_allow_header: bool = False


OK_RESPONSE = CheckInResponse(200, "ok")
UNKNOWN_TOKEN_RESPONSE = CheckInResponse(404, "unknown check-in token")
UNAVAILABLE_RESPONSE = CheckInResponse(503, "the check-in cannot be stored at the moment", 10)
UNKNOWN_ACTION_RESPONSE = CheckInResponse(
    404, "after the token: expected nothing, start, fail, log, or an exit code from 0 to 255"
)
METHOD_NOT_ALLOWED_RESPONSE = CheckInResponse(405, "expected GET, HEAD or POST", send_allow_header=True)


class CheckInRequest(NamedTuple):
    """A check-in without its body."""

    kind: CheckInKind
    exit_code: int | None
    run_id: str
    age_ms: int
    """How long ago it happened, by the sender."""


class CheckInEndpoint:
    """An ASGI application that accepts check-ins and passes every other request on to `inner`.

    `probe_ids_by_token`: of the heartbeat probes. `clock`: epoch ms. Unknown tokens are throttled by address, known
    ones by job. A rejected check-in is never stored.
    """

    def __init__(
        self,
        inner: ASGIApp,
        probe_ids_by_token: Mapping[str, str],
        accept_check_in: CheckInHandler,
        clock: Callable[[], int],
    ):
        self._inner, self._probe_ids_by_token = inner, probe_ids_by_token
        self._accept_check_in, self._clock = accept_check_in, clock
        self._login_throttle = LoginThrottle(clock)
        self._check_in_counts: dict[str, tuple[int, int]] = {}
        """Probe id -> start of its window, and check-ins since."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(CHECK_IN_PATH_PREFIX):
            await self._inner(scope, receive, send)
        elif (response := await self._respond(scope, receive)) is not None:
            await _send_response(response, scope, send)

    async def _respond(self, scope: Scope, receive: Receive) -> CheckInResponse | None:
        """None: the client has disconnected."""
        now = self._clock()
        token, _, action = scope["path"][len(CHECK_IN_PATH_PREFIX) :].partition("/")
        probe_id = self._probe_ids_by_token.get(token)
        if probe_id is None:
            return self._reject_unknown_token(scope["client"][0] if scope.get("client") else "")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return METHOD_NOT_ALLOWED_RESPONSE
        request = _parse_check_in(action, scope["query_string"].decode("latin-1"))
        if isinstance(request, CheckInResponse):
            return request
        if wait_s := self._rate_limit_wait_s(probe_id, now):
            return CheckInResponse(429, "too many check-ins from this job", wait_s)
        output = await _read_body_tail(receive) if scope["method"] == "POST" else b""
        if output is None:
            return None
        stored = await self._accept_check_in(
            probe_id, request.kind, now - request.age_ms, request.run_id, request.exit_code, output
        )
        return OK_RESPONSE if stored else UNAVAILABLE_RESPONSE

    def _reject_unknown_token(self, address: str) -> CheckInResponse:
        if wait_s := self._login_throttle.retry_after_s(address, None):
            return CheckInResponse(429, "too many unknown tokens from this address", wait_s)
        self._login_throttle.record_attempt(address, None)
        return UNKNOWN_TOKEN_RESPONSE

    def _rate_limit_wait_s(self, probe_id: str, now: int) -> int:
        started_at, count = self._check_in_counts.get(probe_id, (now, 0))
        if not 0 <= now - started_at < RATE_LIMIT_WINDOW_MS:
            started_at, count = now, 0
        self._check_in_counts[probe_id] = (started_at, count + 1)
        return -(-(started_at + RATE_LIMIT_WINDOW_MS - now) // 1000) if count >= MAX_CHECK_INS_PER_WINDOW else 0


def _parse_check_in(action: str, query: str) -> CheckInRequest | CheckInResponse:
    """`action`: the path after the token. Returns the response if the request is not valid."""
    kind, exit_code = _KIND_BY_PATH_SUFFIX.get(action), None
    if kind is None:
        if not re.fullmatch(r"[0-9]{1,3}", action) or int(action) > 255:
            return UNKNOWN_ACTION_RESPONSE
        exit_code = int(action)
        kind = CheckInKind.FAIL if exit_code else CheckInKind.OK
    if not query:
        return CheckInRequest(kind, exit_code, "", 0)
    parameters = {name: values[-1] for name, values in parse_qs(query).items()}
    run_id, age = parameters.get("rid", ""), parameters.get("ago", "0")
    if not _RUN_ID_PATTERN.fullmatch(run_id):
        return CheckInResponse(400, "rid: expected up to 64 letters, digits and . _ : ~ -")
    if not re.fullmatch(r"[0-9]{1,10}", age) or int(age) > MAX_CHECK_IN_AGE_MS:
        return CheckInResponse(400, "ago: expected milliseconds, at most 31 days")
    return CheckInRequest(kind, exit_code, run_id, int(age))


async def _read_body_tail(receive: Receive) -> bytes | None:
    """The end of the body; None: the client has disconnected before it was complete."""
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    tail = bytearray(message.get("body", b""))
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S if message.get("more_body") else None):
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                tail += message.get("body", b"")
                del tail[:-MAX_BODY_TAIL_BYTES]
    except TimeoutError:
        pass
    return bytes(tail[-MAX_BODY_TAIL_BYTES:])


async def _send_response(response: CheckInResponse, scope: Scope, send: Send) -> None:
    text = f"{response.text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
        (b"cache-control", b"no-store"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if response.retry_after_s:
        headers.append((b"retry-after", b"%d" % response.retry_after_s))
    if response.send_allow_header:
        headers.append((b"allow", b"GET, HEAD, POST"))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})
