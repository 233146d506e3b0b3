"""Where jobs check in: `/in/<key>`, answered before anything else of the web is asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from watchdog.beat import Kind
from watchdog.web.guesses import Guesses
from watchdog.words import DAY

UNDER = "/in/"
KEPT = 12_288
"""Bytes of a body that are handed on: what is kept of it, and a secret that would be cut in two there."""
PATIENCE = 30.0
"""Seconds that a body may take; then what came of it is all there is."""
OFTEN, WINDOW = 600, 60_000
"""So many check-ins of one job in so many ms; beyond it something runs wild."""
LONGEST = 31 * DAY
"""How late, in ms, a check-in may be told."""
_RUN = re.compile(r"[A-Za-z0-9._:~-]{0,64}")
_WORDS = {"": Kind.OK, **{kind.value: kind for kind in (Kind.START, Kind.FAIL, Kind.LOG)}}


class Take(Protocol):
    """Keeps a check-in; False: it cannot be kept at the moment."""

    async def __call__(self, probe: str, kind: Kind, at: int, run: str, code: int | None, body: bytes) -> bool: ...


class Answer(NamedTuple):
    status: int
    text: str
    wait: int = 0
    """Seconds after which to try again."""
    allow: bool = False


OK = Answer(200, "ok")
UNKNOWN = Answer(404, "no job has this key")
FULL = Answer(503, "this cannot be kept now", 10)
WHAT = Answer(404, "expected nothing after the key, or start, fail, log, or an exit code from 0 to 255")
HOW = Answer(405, "expected GET, HEAD or POST", allow=True)


class Asked(NamedTuple):
    """What a check-in says besides its body."""

    kind: Kind
    code: int | None
    run: str
    ago: int


class Door:
    """`keys`: the secret of a job -> its probe. `now`: the clock, ms since the epoch. All that is not for a job goes
    on to `inner`."""

    def __init__(self, inner: ASGIApp, keys: Mapping[str, str], take: Take, now: Callable[[], int]):
        self._inner, self._keys, self._take, self._now = inner, keys, take, now
        self._guesses = Guesses(now)
        self._often: dict[str, tuple[int, int]] = {}
        """Probe -> when its window began, and how often it checked in since."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(UNDER):
            await self._inner(scope, receive, send)
        elif (answer := await self._answer(scope, receive)) is not None:
            await _send(answer, scope, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | None:
        """None: nobody is there to hear it."""
        now = self._now()
        key, _, what = scope["path"][len(UNDER) :].partition("/")
        probe = self._keys.get(key)
        if probe is None:
            return self._wrong(scope["client"][0] if scope.get("client") else "")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return HOW
        asked = _asked(what, scope["query_string"].decode("latin-1"))
        if isinstance(asked, Answer):
            return asked
        if wait := self._too_often(probe, now):
            return Answer(429, "this job checks in too often", wait)
        body = await _body(receive) if scope["method"] == "POST" else b""
        if body is None:
            return None
        kept = await self._take(probe, asked.kind, now - asked.ago, asked.run, asked.code, body)
        return OK if kept else FULL

    def _wrong(self, address: str) -> Answer:
        if wait := self._guesses.wait(address, None):
            return Answer(429, "too many wrong keys came from this address", wait)
        self._guesses.note(address, None)
        return UNKNOWN

    def _too_often(self, probe: str, now: int) -> int:
        began, times = self._often.get(probe, (now, 0))
        if not 0 <= now - began < WINDOW:
            began, times = now, 0
        self._often[probe] = (began, times + 1)
        return -(-(began + WINDOW - now) // 1000) if times >= OFTEN else 0


def _asked(what: str, query: str) -> Asked | Answer:
    kind, code = _WORDS.get(what), None
    if kind is None:
        if not re.fullmatch(r"[0-9]{1,3}", what) or int(what) > 255:
            return WHAT
        code = int(what)
        kind = Kind.FAIL if code else Kind.OK
    if not query:
        return Asked(kind, code, "", 0)
    given = {name: values[-1] for name, values in parse_qs(query).items()}
    run, ago = given.get("rid", ""), given.get("ago", "0")
    if not _RUN.fullmatch(run):
        return Answer(400, "rid: expected up to 64 letters, digits and . _ : ~ -")
    if not re.fullmatch(r"[0-9]{1,10}", ago) or int(ago) > LONGEST:
        return Answer(400, "ago: expected milliseconds, at most 31 days")
    return Asked(kind, code, run, int(ago))


async def _body(receive: Receive) -> bytes | None:
    """The end of the body; None: the sender left in the middle of it."""
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    tail = bytearray(message.get("body", b""))
    try:
        async with asyncio.timeout(PATIENCE if message.get("more_body") else None):
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                tail += message.get("body", b"")
                del tail[:-KEPT]
    except TimeoutError:
        pass
    return bytes(tail[-KEPT:])


async def _send(answer: Answer, scope: Scope, send: Send) -> None:
    text = f"{answer.text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
        (b"cache-control", b"no-store"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if answer.wait:
        headers.append((b"retry-after", b"%d" % answer.wait))
    if answer.allow:
        headers.append((b"allow", b"GET, HEAD, POST"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})
