"""The endpoint of check-ins, `/in/<token>`. It answers before any other part of the web application is reached."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.heartbeat import CheckInKind, ReceivedCheckIn
from watchdog.domain.output_text import (
    MAX_BYTE_ORDER_MARK_BYTES,
    BodyFirstAndLastBytes,
    decode_body_tail,
    find_python_text_codec,
)
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.store.read.query import STORE_READ_QUERY_ERRORS, STORE_READ_QUERY_TIMEOUT_S
from watchdog.web.auth.login_throttle import LoginThrottle

CHECK_IN_PATH_PREFIX = "/in/"
MAX_CHECK_IN_BODY_TAIL_BYTES = 12_288
"""The part of a body that is passed on: the output that is stored, and a margin for a secret that starts before it."""
CHECK_IN_BODY_TIMEOUT_S = 30.0
MAX_CHECK_IN_BODY_BYTES = 67_108_864
"""How long a body may take, and how much of it is received; then what has arrived counts as the whole body."""
MAX_CHECK_INS_PER_WINDOW, CHECK_IN_RATE_LIMIT_WINDOW_MS = 600, 60_000
"""Check-ins of one job within a window; more than that is a runaway job."""
MAX_CONCURRENT_CHECK_IN_TOKEN_LOOKUPS = 2
"""Lookups of tokens of other processes at once. Others wait, because a limit in total would refuse valid tokens."""
MAX_CHECK_IN_AGE_MS = 31 * DAY_MS
MAX_CHECK_IN_PARAMETERS = 20
MAX_QUOTED_CHECK_IN_REQUEST_CHARS = 200
CHECK_IN_MEDIA_TYPES_READ_AS_TEXT = ("", "application/x-www-form-urlencoded", "application/octet-stream")
"""Of senders that name no type, or that of their tool, for a body of any text."""
_QUOTABLE_PARAMETER_NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,15}")
"""A name that can be repeated in a response: it is shorter than any token."""
_CHECK_IN_RUN_ID_PATTERN = re.compile(r"[A-Za-z0-9._:~-]{0,64}")
_CHECK_IN_KIND_BY_PATH_SUFFIX = {
    "": CheckInKind.OK,
    **{kind.value: kind for kind in (CheckInKind.START, CheckInKind.FAIL, CheckInKind.LOG)},
}


class CheckInResponse(NamedTuple):
    status_code: int
    text: str
    retry_after_s: int = 0
    send_allow_header: bool = False


CHECK_IN_OK_RESPONSE = CheckInResponse(200, "ok")
CHECK_IN_UNKNOWN_TOKEN_RESPONSE = CheckInResponse(404, "unknown check-in token")
CHECK_IN_UNAVAILABLE_RESPONSE = CheckInResponse(503, "the check-in cannot be stored at the moment", 10)


class InvalidCheckInRequestError(Exception):
    """A check-in of a known token was not understood. The text states what is accepted."""

    def __init__(self, text: str, *, status_code: int = 400):
        super().__init__(text)
        self.response = CheckInResponse(status_code, text, send_allow_header=status_code == 405)


class CheckInMiddleware:
    """An ASGI application that accepts check-ins and passes every other request on to `inner`.

    `probe_ids_by_token`: of this process's heartbeats. `accept_check_in`: stores a check-in of the probe with an id;
    False: it cannot be stored at the moment. `find_probe_id`: looks up the token of another process's one; raises
    StoreUnavailableError. `clock`: epoch ms. Unknown tokens are throttled by address, known ones by job. A rejected
    check-in of a known token is kept as such: it is no evidence about the job.
    """

    def __init__(
        self,
        inner: ASGIApp,
        probe_ids_by_token: Mapping[str, str],
        accept_check_in: Callable[[str, ReceivedCheckIn], Awaitable[bool]],
        clock: Callable[[], int],
        find_probe_id: Callable[[str], Awaitable[str | None]],
    ):
        self._inner, self._probe_ids_by_token, self._find_probe_id = inner, probe_ids_by_token, find_probe_id
        self._accept_check_in, self._clock = accept_check_in, clock
        self._login_throttle = LoginThrottle(clock, limits_total=False)
        self._lookup_places = asyncio.Semaphore(MAX_CONCURRENT_CHECK_IN_TOKEN_LOOKUPS)
        self._check_in_counts: dict[str, tuple[int, int]] = {}
        """Probe id -> start of its window, and check-ins since."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(CHECK_IN_PATH_PREFIX):
            await self._inner(scope, receive, send)
        elif (response := await self._handle_check_in(scope, receive)) is not None:
            await _send_check_in_response(response, scope, send)

    async def _handle_check_in(self, scope: Scope, receive: Receive) -> CheckInResponse | None:
        """None: the client has disconnected."""
        now = self._clock()
        token, _, action = scope["path"][len(CHECK_IN_PATH_PREFIX) :].partition("/")
        probe_id = self._probe_ids_by_token.get(token)
        if probe_id is None:
            looked_up = await self._find_probe_id_of_token_or_response(
                token, scope["client"][0] if scope.get("client") else ""
            )
            if isinstance(looked_up, CheckInResponse):
                return looked_up
            probe_id = looked_up
        if wait_s := self._count_check_in_and_get_retry_after_s(probe_id, now):
            return CheckInResponse(429, "too many check-ins from this job", wait_s)
        body = await _receive_check_in_body_keeping_its_end(receive)
        if body is None:
            return None
        query = scope["query_string"].decode("latin-1")
        try:
            check_in = _parse_check_in_path_and_query(scope["method"], action, query, now)
            output = _decode_check_in_body(body, scope["headers"])
        except InvalidCheckInRequestError as error:
            quoted = _quote_check_in_request(scope["method"], action, query)
            await self._store_rejected_check_in(probe_id, now, f"{quoted}: {error.response.text}")
            return error.response
        stored = await self._accept_check_in(probe_id, check_in._replace(output=output.encode()))
        return CHECK_IN_OK_RESPONSE if stored else CHECK_IN_UNAVAILABLE_RESPONSE

    async def _store_rejected_check_in(self, probe_id: str, now: int, explanation: str) -> None:
        """Keep a check-in that was not understood, so that the mistake is visible on the probe's page."""
        rejected = ReceivedCheckIn(CheckInKind.REJECTED, now, output=explanation.encode())
        await self._accept_check_in(probe_id, rejected)

    async def _find_probe_id_of_token_or_response(self, token: str, address: str) -> str | CheckInResponse:
        """The probe id of another process's heartbeat; the response if there is none."""
        if wait_s := self._login_throttle.retry_after_s(address, None):
            return CheckInResponse(429, "too many unknown tokens from this address", wait_s)
        try:
            async with asyncio.timeout(STORE_READ_QUERY_TIMEOUT_S), self._lookup_places:
                probe_id = await self._find_probe_id(token)
        except STORE_READ_QUERY_ERRORS:
            return CHECK_IN_UNAVAILABLE_RESPONSE
        if probe_id is None:
            self._login_throttle.record_login_attempt(address, None)
            return CHECK_IN_UNKNOWN_TOKEN_RESPONSE
        return probe_id

    def _count_check_in_and_get_retry_after_s(self, probe_id: str, now: int) -> int:
        started_at, count = self._check_in_counts.get(probe_id, (now, 0))
        if not 0 <= now - started_at < CHECK_IN_RATE_LIMIT_WINDOW_MS:
            started_at, count = now, 0
        self._check_in_counts[probe_id] = (started_at, count + 1)
        return (
            -(-(started_at + CHECK_IN_RATE_LIMIT_WINDOW_MS - now) // 1000) if count >= MAX_CHECK_INS_PER_WINDOW else 0
        )


def _parse_check_in_path_and_query(method: str, action: str, query: str, now: int) -> ReceivedCheckIn:
    """The check-in without its body. `action`: the path after the token. Raises InvalidCheckInRequestError."""
    if method not in ("GET", "HEAD", "POST"):
        raise InvalidCheckInRequestError("expected GET, HEAD or POST", status_code=405)
    kind, exit_code = _CHECK_IN_KIND_BY_PATH_SUFFIX.get(action), None
    if kind is None:
        if not re.fullmatch(r"[0-9]{1,3}", action) or int(action) > 255:
            raise InvalidCheckInRequestError(
                "after the token: expected nothing, start, fail, log, or an exit code from 0 to 255"
            )
        exit_code = int(action)
        kind = CheckInKind.FAIL if exit_code else CheckInKind.OK
    if not query:
        return ReceivedCheckIn(kind, now, exit_code=exit_code)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_CHECK_IN_PARAMETERS)
    except ValueError:
        raise InvalidCheckInRequestError("too many parameters: expected only rid and ago") from None
    parameters = dict(pairs)
    if unknown := next((name for name in parameters if name not in ("rid", "ago")), None):
        name = unknown if _QUOTABLE_PARAMETER_NAME_PATTERN.fullmatch(unknown) else "unknown parameter"
        raise InvalidCheckInRequestError(f"{name}: expected only the parameters rid and ago")
    if len(pairs) > len(parameters) or "" in parameters:
        raise InvalidCheckInRequestError("expected only the parameters rid and ago, each once")
    run_id, age = parameters.get("rid", ""), parameters.get("ago", "0")
    if not _CHECK_IN_RUN_ID_PATTERN.fullmatch(run_id):
        raise InvalidCheckInRequestError("rid: expected up to 64 letters, digits and . _ : ~ -")
    if not re.fullmatch(r"[0-9]{1,10}", age) or int(age) > MAX_CHECK_IN_AGE_MS:
        raise InvalidCheckInRequestError("ago: expected milliseconds, at most 31 days")
    return ReceivedCheckIn(kind, now - int(age), run_id, exit_code)


def _decode_check_in_body(body: BodyFirstAndLastBytes, header_pairs: Iterable[tuple[bytes, bytes]]) -> str:
    """The output of the job. Raises InvalidCheckInRequestError if the headers announce something else than text."""
    if not body.total_bytes:
        return ""
    headers = {name: value.decode("latin-1").strip().lower() for name, value in header_pairs}
    if headers.get(b"content-encoding", "identity") not in ("identity", ""):
        raise InvalidCheckInRequestError("Content-Encoding: expected none: send the output uncompressed")
    media_type, _, parameters = headers.get(b"content-type", "").partition(";")
    if media_type.strip() not in CHECK_IN_MEDIA_TYPES_READ_AS_TEXT and not media_type.startswith("text/"):
        raise InvalidCheckInRequestError("Content-Type: expected text/plain, or none")
    parameter = re.search(r"charset\s*=\s*\"?([^\s\";]+)", parameters)
    charset = find_python_text_codec(parameter[1]) if parameter else "utf-8"
    if charset is None:
        raise InvalidCheckInRequestError("charset: unknown; expected utf-8, or any other encoding of text")
    return decode_body_tail(body, charset)


def _quote_check_in_request(method: str, action: str, query: str) -> str:
    """What a rejected sender asked for, without the token."""
    request = f"{method} {f'/{action}' if action else ''}{f'?{query}' if query else ''}".strip()
    return truncate_with_ellipsis(request, MAX_QUOTED_CHECK_IN_REQUEST_CHARS)


async def _receive_check_in_body_keeping_its_end(receive: Receive) -> BodyFirstAndLastBytes | None:
    """The end of the body; None: the client has disconnected before it was complete."""
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    tail = bytearray(message.get("body", b""))
    start, total_bytes = bytes(tail[:MAX_BYTE_ORDER_MARK_BYTES]), len(tail)
    try:
        async with asyncio.timeout(CHECK_IN_BODY_TIMEOUT_S if message.get("more_body") else None):
            while message.get("more_body") and total_bytes < MAX_CHECK_IN_BODY_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                data = message.get("body", b"")
                tail += data
                total_bytes += len(data)
                start = start if len(start) == MAX_BYTE_ORDER_MARK_BYTES else bytes(tail[:MAX_BYTE_ORDER_MARK_BYTES])
                del tail[:-MAX_CHECK_IN_BODY_TAIL_BYTES]
    except TimeoutError:
        pass
    return BodyFirstAndLastBytes(bytes(tail[-MAX_CHECK_IN_BODY_TAIL_BYTES:]), start, total_bytes)


async def _send_check_in_response(response: CheckInResponse, scope: Scope, send: Send) -> None:
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
