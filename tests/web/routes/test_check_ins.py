"""Where jobs check in: what each address means, what is refused, and that nobody learns a key there."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from tests.support.web import running_app
from watchdog.domain.heartbeat import CheckInKind
from watchdog.web.auth.login_throttle import MAX_FAILED_ATTEMPTS
from watchdog.web.routes import check_ins
from watchdog.web.routes.check_ins import (
    MAX_BODY_TAIL_BYTES,
    MAX_CHECK_IN_AGE_MS,
    MAX_CHECK_INS_PER_WINDOW,
    RATE_LIMIT_WINDOW_MS,
    CheckInEndpoint,
)

NOW = 1_777_723_200_000
KEY, OTHER = "0123456789abcdef-backup", "0123456789abcdef_digest"
START, OK, FAIL, LOG = CheckInKind


class Taken(NamedTuple):
    probe: str
    kind: CheckInKind
    at: int
    run: str
    code: int | None
    body: bytes


class Lobby:
    """A door in front of one page, and what came through it."""

    def __init__(self) -> None:
        self.now, self.keeps = NOW, True
        self.taken: list[Taken] = []
        self.door = CheckInEndpoint(self._page, {KEY: "backup", OTHER: "digest"}, self.take, lambda: self.now)
        self.client = httpx.Client()

    async def take(self, probe: str, kind: CheckInKind, at: int, run: str, code: int | None, body: bytes) -> bool:
        if self.keeps:
            self.taken.append(Taken(probe, kind, at, run, code, body))
        return self.keeps

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"a page"})

    def ask(self, path: str, method: str = "GET", **more: Any) -> httpx.Response:
        return self.client.request(method, f"{self.url}{path}", **more)

    url = ""


@pytest.fixture
def lobby() -> Iterator[Lobby]:
    lobby = Lobby()
    with running_app(lobby.door) as lobby.url, lobby.client:
        yield lobby


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    ("path", "kind", "code"),
    [
        ("", OK, None),
        ("/", OK, None),
        ("/start", START, None),
        ("/fail", FAIL, None),
        ("/log", LOG, None),
        ("/0", OK, 0),
        ("/1", FAIL, 1),
        ("/137", FAIL, 137),
        ("/255", FAIL, 255),
    ],
)
def test_what_an_address_means(lobby: Lobby, method: str, path: str, kind: CheckInKind, code: int | None) -> None:
    answer = lobby.ask(f"/in/{KEY}{path}", method)
    assert (answer.status_code, answer.text) == (200, "" if method == "HEAD" else "ok\n")
    assert lobby.taken == [("backup", kind, NOW, "", code, b"")]


@pytest.mark.parametrize("path", ["/256", "/-1", "/1.0", "/1e2", "/started", "/START", "/fail/1", "//"])
def test_what_means_nothing_is_said_to(lobby: Lobby, path: str) -> None:
    answer = lobby.ask(f"/in/{KEY}{path}")
    expected = "expected nothing after the key, or start, fail, log, or an exit code from 0 to 255\n"
    assert (answer.status_code, answer.text, lobby.taken) == (404, expected, [])


def test_other_methods_are_refused(lobby: Lobby) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = lobby.ask(f"/in/{KEY}", method)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert lobby.taken == []


def test_all_else_is_for_the_pages(lobby: Lobby) -> None:
    for path in ("/", "/in", "/inside", f"/x/in/{KEY}"):
        assert lobby.ask(path).text == "a page"
    assert lobby.taken == []


# --- runs, and when


def test_the_run_and_when_it_was(lobby: Lobby) -> None:
    lobby.ask(f"/in/{KEY}/start?rid=2f1e-a.b:7_~&ago=0")
    lobby.ask(f"/in/{KEY}?ago=172800000&rid=x&create=1")
    assert [(t.run, t.at) for t in lobby.taken] == [("2f1e-a.b:7_~", NOW), ("x", NOW - 48 * 3_600_000)]


def test_the_senders_clock_is_never_asked(lobby: Lobby) -> None:
    for hours in (-48, 48):
        skewed = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(NOW / 1000 + hours * 3600))
        lobby.ask(f"/in/{KEY}", headers={"Date": skewed})
    assert [t.at for t in lobby.taken] == [NOW, NOW]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("rid=" + "x" * 65, "rid: expected up to 64 letters"),
        ("rid=%3Cscript%3E", "rid: expected up to 64 letters"),
        ("rid=%00", "rid: expected"),
        ("ago=-1", "ago: expected milliseconds"),
        ("ago=1.5", "ago: expected milliseconds"),
        ("ago=yesterday", "ago: expected milliseconds"),
        (f"ago={MAX_CHECK_IN_AGE_MS + 1}", "ago: expected milliseconds, at most 31 days"),
        ("ago=%D9%A1", "ago: expected milliseconds"),
    ],
)
def test_what_cannot_be_read_is_said(lobby: Lobby, query: str, says: str) -> None:
    answer = lobby.ask(f"/in/{KEY}?{query}")
    assert answer.status_code == 400
    assert answer.text.startswith(says)
    assert lobby.taken == []


# --- bodies


def test_the_end_of_a_long_body_is_kept(lobby: Lobby) -> None:
    lobby.ask(f"/in/{KEY}", "POST", content=b"a" * 5_000_000 + b"the end")
    lobby.ask(f"/in/{KEY}", "POST", content=iter([b"a" * 60_000, b"b" * 60_000, b"no length told"]))
    lobby.ask(f"/in/{KEY}", "POST", content=b"short")
    assert [len(t.body) for t in lobby.taken] == [MAX_BODY_TAIL_BYTES, MAX_BODY_TAIL_BYTES, 5]
    assert [t.body[-7:] for t in lobby.taken] == [b"the end", b"th told", b"short"]


def raw(lobby: Lobby) -> socket.socket:
    host, port = lobby.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 10)


def test_a_body_that_does_not_end_is_cut_short(lobby: Lobby, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_ins, "BODY_TIMEOUT_S", 0.2)
    with raw(lobby) as line:
        line.sendall(f"POST /in/{KEY}/3 HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nas far as".encode())
        assert line.recv(99).startswith(b"HTTP/1.1 200")
    assert [(t.code, t.body) for t in lobby.taken] == [(3, b"as far as")]


def test_who_leaves_in_the_middle_said_nothing(lobby: Lobby) -> None:
    with raw(lobby) as line:
        line.sendall(f"POST /in/{KEY} HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nas far as".encode())
    assert lobby.ask(f"/in/{OTHER}").status_code == 200
    assert [t.probe for t in lobby.taken] == ["digest"]


def test_the_body_of_a_stranger_is_not_read(lobby: Lobby) -> None:
    with raw(lobby) as line:
        line.sendall(b"POST /in/0123456789abcdef HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        assert line.recv(99).startswith(b"HTTP/1.1 404")


# --- keys


def test_a_thousand_guessed_keys_find_nothing_and_slow_nobody(lobby: Lobby) -> None:
    answers = []
    for n in range(1_000):
        answers.append(lobby.ask(f"/in/{n:016x}/{'start' if n % 2 else ''}").status_code)
        if n % 100 == 0:
            assert lobby.ask(f"/in/{KEY}").status_code == 200
    assert answers == [404] * MAX_FAILED_ATTEMPTS + [429] * (1_000 - MAX_FAILED_ATTEMPTS)
    assert len(lobby.taken) == 10
    refused = lobby.ask("/in/nope")
    assert refused.headers["retry-after"] == "60"
    lobby.now += RATE_LIMIT_WINDOW_MS
    assert lobby.ask("/in/nope").status_code == 404


@pytest.mark.parametrize("key", ["", KEY[:-1], KEY + "x", KEY.upper(), f"{KEY}%00", "..", "backup", "caf%C3%A9"])
def test_a_wrong_key_is_unknown_however_near_it_is(lobby: Lobby, key: str) -> None:
    answer = lobby.ask(f"/in/{key}")
    assert (answer.status_code, answer.text) in ((404, "no job has this key\n"), (200, "a page"))
    assert lobby.taken == []


def test_no_answer_is_kept_anywhere_or_tells_the_key(lobby: Lobby) -> None:
    answers = [lobby.ask(f"/in/{KEY}{path}") for path in ("", "/start", "/what", "?ago=x")]
    answers += [lobby.ask("/in/nope"), lobby.ask(f"/in/{KEY}", "PUT")]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "set-cookie" not in answer.headers
        assert KEY not in str(answer.headers) + answer.text
        assert len(answer.content) < 100


# --- limits


def test_what_cannot_be_kept_is_no_success(lobby: Lobby) -> None:
    lobby.keeps = False
    answer = lobby.ask(f"/in/{KEY}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")


def test_a_job_that_runs_wild_is_held_up_alone(lobby: Lobby) -> None:
    for _ in range(MAX_CHECK_INS_PER_WINDOW):
        assert lobby.ask(f"/in/{KEY}").status_code == 200
    lobby.now += 20_000
    answer = lobby.ask(f"/in/{KEY}")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "40")
    assert lobby.ask(f"/in/{OTHER}").status_code == 200
    lobby.now += 40_000
    assert lobby.ask(f"/in/{KEY}").status_code == 200
