"""Where jobs check in: `/in/<key>`, answered before anything else of the web is asked."""

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
"""Bytes of a body that are handed on: what is kept of it, and a secret that would be cut in two there."""
BODY_TIMEOUT_S = 30.0
"""Seconds that a body may take; then what came of it is all there is."""
MAX_CHECK_INS_PER_WINDOW, RATE_LIMIT_WINDOW_MS = 600, 60_000
"""So many check-ins of one job in so many ms; beyond it something runs wild."""
MAX_CHECK_IN_AGE_MS = 31 * DAY_MS
"""How late, in ms, a check-in may be told."""
_RUN_ID_PATTERN = re.compile(r"[A-Za-z0-9._:~-]{0,64}")
_KIND_BY_PATH_SUFFIX = {
    "": CheckInKind.OK,
    **{kind.value: kind for kind in (CheckInKind.START, CheckInKind.FAIL, CheckInKind.LOG)},
}


class CheckInHandler(Protocol):
    """Keeps a check-in; False: it cannot be kept at the moment."""

    async def __call__(
        self, probe_id: str, kind: CheckInKind, occurred_at: int, run_id: str, exit_code: int | None, output: bytes
    ) -> bool: ...


class CheckInResponse(NamedTuple):
    status: int
    text: str
    retry_after_s: int = 0
    """Seconds after which to try again."""
    send_allow_header: bool = False


OK_RESPONSE = CheckInResponse(200, "ok")
UNKNOWN_TOKEN_RESPONSE = CheckInResponse(404, "no job has this token")
UNAVAILABLE_RESPONSE = CheckInResponse(503, "this cannot be kept now", 10)
UNKNOWN_ACTION_RESPONSE = CheckInResponse(
    404, "expected nothing after the token, or start, fail, log, or an exit code from 0 to 255"
)
METHOD_NOT_ALLOWED_RESPONSE = CheckInResponse(405, "expected GET, HEAD or POST", send_allow_header=True)


class CheckInRequest(NamedTuple):
    """What a check-in says besides its body."""

    kind: CheckInKind
    exit_code: int | None
    run_id: str
    age_ms: int


class CheckInEndpoint:
    """`keys`: the secret of a job -> its probe. `now`: the clock, ms since the epoch. All that is not for a job goes
    on to `inner`."""

    def __init__(
        self,
        inner: ASGIApp,
        probe_ids_by_token: Mapping[str, str],
        accept_check_in: CheckInHandler,
        clock: Callable[[], int],
    ):
        self._inner, self._keys, self._take, self._now = inner, probe_ids_by_token, accept_check_in, clock
        self._guesses = LoginThrottle(clock)
        self._often: dict[str, tuple[int, int]] = {}
        """Probe -> when its window began, and how often it checked in since."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(CHECK_IN_PATH_PREFIX):
            await self._inner(scope, receive, send)
        elif (answer := await self._respond(scope, receive)) is not None:
            await _send_response(answer, scope, send)

    async def _respond(self, scope: Scope, receive: Receive) -> CheckInResponse | None:
        """None: nobody is there to hear it."""
        now = self._now()
        key, _, what = scope["path"][len(CHECK_IN_PATH_PREFIX) :].partition("/")
        probe = self._keys.get(key)
        if probe is None:
            return self._reject_unknown_token(scope["client"][0] if scope.get("client") else "")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return METHOD_NOT_ALLOWED_RESPONSE
        asked = _parse_check_in(what, scope["query_string"].decode("latin-1"))
        if isinstance(asked, CheckInResponse):
            return asked
        if wait := self._rate_limit_wait_s(probe, now):
            return CheckInResponse(429, "this job checks in too often", wait)
        body = await _read_body_tail(receive) if scope["method"] == "POST" else b""
        if body is None:
            return None
        kept = await self._take(probe, asked.kind, now - asked.age_ms, asked.run_id, asked.exit_code, body)
        return OK_RESPONSE if kept else UNAVAILABLE_RESPONSE

    def _reject_unknown_token(self, address: str) -> CheckInResponse:
        if wait := self._guesses.retry_after_s(address, None):
            return CheckInResponse(429, "too many wrong keys came from this address", wait)
        self._guesses.record_attempt(address, None)
        return UNKNOWN_TOKEN_RESPONSE

    def _rate_limit_wait_s(self, probe_id: str, now: int) -> int:
        began, times = self._often.get(probe_id, (now, 0))
        if not 0 <= now - began < RATE_LIMIT_WINDOW_MS:
            began, times = now, 0
        self._often[probe_id] = (began, times + 1)
        return -(-(began + RATE_LIMIT_WINDOW_MS - now) // 1000) if times >= MAX_CHECK_INS_PER_WINDOW else 0


def _parse_check_in(action: str, query: str) -> CheckInRequest | CheckInResponse:
    kind, code = _KIND_BY_PATH_SUFFIX.get(action), None
    if kind is None:
        if not re.fullmatch(r"[0-9]{1,3}", action) or int(action) > 255:
            return UNKNOWN_ACTION_RESPONSE
        code = int(action)
        kind = CheckInKind.FAIL if code else CheckInKind.OK
    if not query:
        return CheckInRequest(kind, code, "", 0)
    given = {name: values[-1] for name, values in parse_qs(query).items()}
    run, ago = given.get("rid", ""), given.get("ago", "0")
    if not _RUN_ID_PATTERN.fullmatch(run):
        return CheckInResponse(400, "rid: expected up to 64 letters, digits and . _ : ~ -")
    if not re.fullmatch(r"[0-9]{1,10}", ago) or int(ago) > MAX_CHECK_IN_AGE_MS:
        return CheckInResponse(400, "ago: expected milliseconds, at most 31 days")
    return CheckInRequest(kind, code, run, int(ago))


async def _read_body_tail(receive: Receive) -> bytes | None:
    """The end of the body; None: the sender left in the middle of it."""
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
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})
