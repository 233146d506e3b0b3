"""The check-in endpoint: its paths, its refusals, and that no response contains a token."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from tests.support.web import running_app
from watchdog.domain.heartbeat import CheckInKind, ReceivedCheckIn
from watchdog.store.errors import StoreUnavailableError
from watchdog.web.auth.login_throttle import MAX_FAILED_LOGIN_ATTEMPTS
from watchdog.web.routes import check_ins
from watchdog.web.routes.check_ins import (
    CHECK_IN_RATE_LIMIT_WINDOW_MS,
    MAX_CHECK_IN_AGE_MS,
    MAX_CHECK_IN_BODY_TAIL_BYTES,
    MAX_CHECK_INS_PER_WINDOW,
    CheckInMiddleware,
)

NOW = 1_777_723_200_000
TOKEN, OTHER_TOKEN = "0123456789abcdef-backup", "0123456789abcdef_digest"
START, OK, FAIL, LOG, REJECTED = CheckInKind


class EndpointHarness:
    """A check-in endpoint in front of one page, and the check-ins that it accepted."""

    def __init__(self) -> None:
        self.now, self.can_store = NOW, True
        self.accepted_probes: list[str] = []
        self.accepted: list[ReceivedCheckIn] = []
        tokens = {TOKEN: "backup", OTHER_TOKEN: "digest"}
        self.elsewhere: dict[str, str] = {}
        self.store_available = True
        self.endpoint = CheckInMiddleware(
            self._page, tokens, self.accept_check_in, lambda: self.now, self.find_probe_id
        )
        self.client = httpx.Client(timeout=60)

    async def accept_check_in(self, probe_id: str, check_in: ReceivedCheckIn) -> bool:
        if self.can_store:
            self.accepted_probes.append(probe_id)
            self.accepted.append(check_in)
        return self.can_store

    async def find_probe_id(self, token: str) -> str | None:
        if not self.store_available:
            raise StoreUnavailableError("away")
        return self.elsewhere.get(token)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"a page"})

    def request(self, path: str, method: str = "GET", **more: Any) -> httpx.Response:
        return self.client.request(method, f"{self.url}{path}", **more)

    url = ""


@pytest.fixture
def endpoint() -> Iterator[EndpointHarness]:
    endpoint = EndpointHarness()
    with running_app(endpoint.endpoint) as endpoint.url, endpoint.client:
        yield endpoint


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
def test_paths(endpoint: EndpointHarness, method: str, path: str, kind: CheckInKind, code: int | None) -> None:
    response = endpoint.request(f"/in/{TOKEN}{path}", method)
    assert (response.status_code, response.text) == (200, "" if method == "HEAD" else "ok\n")
    assert endpoint.accepted_probes == ["backup"]
    assert endpoint.accepted == [ReceivedCheckIn(kind, NOW, exit_code=code)]


def rejected(endpoint: EndpointHarness) -> list[str]:
    """The explanations that were kept; nothing else was accepted."""
    assert set(endpoint.accepted_probes) <= {"backup"}
    assert all(check_in[:4] == (REJECTED, NOW, "", None) for check_in in endpoint.accepted)
    return [check_in.output.decode() for check_in in endpoint.accepted]


@pytest.mark.parametrize(
    "path",
    ["/256", "/1000", "/3221225786", "/-1", "/+1", "/1.0", "/1e2", "/0x1", "/started", "/START", "/success", "/down",
     "/fail/1", "/start/extra", "/start/", "//", "/ok", "/rejected"],
)  # fmt: skip
def test_an_unknown_action_is_refused_and_kept(endpoint: EndpointHarness, path: str) -> None:
    response = endpoint.request(f"/in/{TOKEN}{path}")
    expected = "after the token: expected nothing, start, fail, log, or an exit code from 0 to 255"
    assert (response.status_code, response.text) == (400, f"{expected}\n")
    assert rejected(endpoint) == [f"GET {path}: {expected}"]


def test_other_methods_are_refused_and_kept(endpoint: EndpointHarness) -> None:
    methods = ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "REPORT")
    for method in methods:
        response = endpoint.request(f"/in/{TOKEN}/0", method)
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, POST")
        assert response.text == "expected GET, HEAD or POST\n"
    assert rejected(endpoint) == [f"{method} /0: expected GET, HEAD or POST" for method in methods]


def test_other_requests_go_to_the_pages(endpoint: EndpointHarness) -> None:
    for path in ("/", "/in", "/inside", f"/x/in/{TOKEN}"):
        assert endpoint.request(path).text == "a page"
    assert endpoint.accepted == []


# --- run id and age


def test_run_id_and_age(endpoint: EndpointHarness) -> None:
    endpoint.request(f"/in/{TOKEN}/start?rid=2f1e-a.b:7_~&ago=0")
    endpoint.request(f"/in/{TOKEN}?ago=172800000&rid=x")
    endpoint.request(f"/in/{TOKEN}?rid=&ago=0")
    assert [(check_in.run_id, check_in.occurred_at) for check_in in endpoint.accepted] == [
        ("2f1e-a.b:7_~", NOW),
        ("x", NOW - 48 * 3_600_000),
        ("", NOW),
    ]


def test_the_clock_of_the_sender_is_ignored(endpoint: EndpointHarness) -> None:
    for hours in (-48, 48):
        skewed = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(NOW / 1000 + hours * 3600))
        endpoint.request(f"/in/{TOKEN}", headers={"Date": skewed})
    assert [check_in.occurred_at for check_in in endpoint.accepted] == [NOW, NOW]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("rid=" + "x" * 65, "rid: expected up to 64 letters"),
        ("rid=%3Cscript%3E", "rid: expected up to 64 letters"),
        ("rid=%00", "rid: expected"),
        ("ago=-1", "ago: expected milliseconds"),
        ("ago=1.5", "ago: expected milliseconds"),
        ("ago=yesterday", "ago: expected milliseconds"),
        (f"ago={MAX_CHECK_IN_AGE_MS + 1}", "ago: expected milliseconds, at most 31 days"),
        ("ago=%D9%A1", "ago: expected milliseconds"),
        ("ago=", "ago: expected milliseconds"),
        ("ago=5s", "ago: expected milliseconds"),
        ("status=down", "status: expected only the parameters rid and ago"),
        ("status=down&msg=disk+full&ping=", "status: expected only"),
        ("status=", "status: expected only"),
        ("status", "status: expected only"),
        ("rid=a&state=fail", "state: expected only"),
        ("RID=a", "RID: expected only"),
        ("exit_code=1", "exit_code: expected only"),
        ("disk+full", "unknown parameter: expected only"),
        (f"{TOKEN}=1", "unknown parameter: expected only"),
        ("=1", "expected only the parameters rid and ago, each once"),
        ("rid=a&rid=b", "expected only the parameters rid and ago, each once"),
        ("ago=0&ago=60000", "expected only the parameters rid and ago, each once"),
        ("&".join(f"p{n}=1" for n in range(30)), "too many parameters: expected only"),
    ],
)
def test_invalid_parameters_are_refused_and_kept(endpoint: EndpointHarness, query: str, message: str) -> None:
    response = endpoint.request(f"/in/{TOKEN}?{query}")
    assert response.status_code == 400
    assert response.text.startswith(message)
    (explanation,) = rejected(endpoint)
    assert explanation.startswith("GET ?")
    assert explanation.endswith(response.text.strip())


def test_a_rejected_request_is_quoted_in_part(endpoint: EndpointHarness) -> None:
    endpoint.request(f"/in/{TOKEN}/0?msg={'x' * 5_000}")
    (explanation,) = rejected(endpoint)
    assert explanation.startswith("GET /0?msg=xxx")
    assert len(explanation) < 300


def test_rejected_check_ins_of_a_runaway_job_are_not_kept(endpoint: EndpointHarness) -> None:
    for _ in range(MAX_CHECK_INS_PER_WINDOW + 5):
        endpoint.request(f"/in/{TOKEN}/nonsense")
    assert len(endpoint.accepted) == MAX_CHECK_INS_PER_WINDOW
    assert endpoint.request(f"/in/{TOKEN}/nonsense").status_code == 429


def test_a_rejected_check_in_is_refused_even_if_it_cannot_be_stored(endpoint: EndpointHarness) -> None:
    endpoint.can_store = False
    assert endpoint.request(f"/in/{TOKEN}/nonsense").status_code == 400


# --- bodies


def test_the_end_of_a_long_body_is_passed_on(endpoint: EndpointHarness) -> None:
    endpoint.request(f"/in/{TOKEN}", "POST", content=b"a" * 5_000_000 + b"the end")
    endpoint.request(f"/in/{TOKEN}", "POST", content=iter([b"a" * 60_000, b"b" * 60_000, b"without a length"]))
    endpoint.request(f"/in/{TOKEN}", "POST", content=b"short")
    assert [len(check_in.output) for check_in in endpoint.accepted] == [
        MAX_CHECK_IN_BODY_TAIL_BYTES,
        MAX_CHECK_IN_BODY_TAIL_BYTES,
        5,
    ]
    assert [check_in.output[-7:] for check_in in endpoint.accepted] == [b"the end", b" length", b"short"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        ("\ufeffError: Größe\r\n".encode("utf-16-le"), ""),
        ("\ufeffError: Größe\r\n".encode("utf-16-be"), "application/x-www-form-urlencoded"),
        ("Error: Größe\r\n".encode("utf-16-le"), ""),
        ("\ufeffError: Größe\r\n".encode("utf-32-le"), "text/plain"),
        ("Error: Größe\r\n".encode("utf-8-sig"), "application/octet-stream"),
        ("Error: Größe\r\n".encode("latin-1"), "text/plain; charset=ISO-8859-1"),
        ("Error: Größe\r\n".encode("cp1252"), 'Text/Plain; Charset="windows-1252"'),
        ("Error: Größe\r\n".encode(), "text/plain;charset=UTF-8"),
        ("Error: Größe\r\n".encode(), ""),
    ],
)
def test_a_body_is_read_in_the_encoding_of_its_sender(
    endpoint: EndpointHarness, method: str, content: bytes, content_type: str
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    assert endpoint.request(f"/in/{TOKEN}/1", method, content=content, headers=headers).status_code == 200
    assert [check_in.output.decode() for check_in in endpoint.accepted] == ["Error: Größe\r\n"]


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"content-type": "application/json"}, "Content-Type: expected text/plain, or none"),
        ({"content-type": "multipart/form-data; boundary=x"}, "Content-Type: expected text/plain, or none"),
        ({"content-type": "image/png"}, "Content-Type: expected text/plain, or none"),
        ({"content-encoding": "gzip"}, "Content-Encoding: expected none: send the output uncompressed"),
        ({"content-type": "text/plain; charset=klingon"}, "charset: unknown; expected utf-8, or any other"),
        ({"content-type": "text/plain; charset=base64"}, "charset: unknown; expected utf-8, or any other"),
        ({"content-type": "text/plain; charset=idna"}, "charset: unknown; expected utf-8, or any other"),
        ({"content-type": "text/plain; charset=punycode"}, "charset: unknown; expected utf-8, or any other"),
    ],
)
def test_a_body_that_is_announced_as_something_else_is_refused(
    endpoint: EndpointHarness, headers: dict[str, str], message: str
) -> None:
    response = endpoint.request(f"/in/{TOKEN}", "POST", content=b'{"status": "down"}', headers=headers)
    assert response.status_code == 400
    assert response.text.startswith(message)
    assert rejected(endpoint) == [f"POST: {response.text.strip()}"]
    endpoint.accepted.clear()
    assert endpoint.request(f"/in/{TOKEN}", "POST", headers=headers).status_code == 200  # without a body


def raw(endpoint: EndpointHarness) -> socket.socket:
    host, port = endpoint.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 10)


def test_a_body_that_does_not_end_is_cut_short(endpoint: EndpointHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_ins, "CHECK_IN_BODY_TIMEOUT_S", 0.2)
    with raw(endpoint) as line:
        line.sendall(f"POST /in/{TOKEN}/3 HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nas far as".encode())
        assert line.recv(99).startswith(b"HTTP/1.1 200")
    assert [(check_in.exit_code, check_in.output) for check_in in endpoint.accepted] == [(3, b"as far as")]


def test_a_client_that_disconnects_has_not_checked_in(endpoint: EndpointHarness) -> None:
    with raw(endpoint) as line:
        line.sendall(f"POST /in/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nas far as".encode())
    assert endpoint.request(f"/in/{OTHER_TOKEN}").status_code == 200
    assert endpoint.accepted_probes == ["digest"]


def test_the_body_of_an_unknown_token_is_not_read(endpoint: EndpointHarness) -> None:
    with raw(endpoint) as line:
        line.sendall(b"POST /in/0123456789abcdef HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        assert line.recv(99).startswith(b"HTTP/1.1 404")


# --- keys


def test_a_thousand_guessed_tokens_are_throttled_and_delay_no_job(endpoint: EndpointHarness) -> None:
    responses = []
    for n in range(1_000):
        responses.append(endpoint.request(f"/in/{n:016x}/{'start' if n % 2 else ''}").status_code)
        if n % 100 == 0:
            assert endpoint.request(f"/in/{TOKEN}").status_code == 200
    assert responses == [404] * MAX_FAILED_LOGIN_ATTEMPTS + [429] * (1_000 - MAX_FAILED_LOGIN_ATTEMPTS)
    assert len(endpoint.accepted) == 10
    refused = endpoint.request("/in/nope")
    assert refused.headers["retry-after"] == "60"
    endpoint.now += CHECK_IN_RATE_LIMIT_WINDOW_MS
    assert endpoint.request("/in/nope").status_code == 404


@pytest.mark.parametrize(
    "key", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), f"{TOKEN}%00", "..", "backup", "caf%C3%A9"]
)
def test_a_similar_token_is_unknown(endpoint: EndpointHarness, key: str) -> None:
    response = endpoint.request(f"/in/{key}")
    assert (response.status_code, response.text) in ((404, "unknown check-in token\n"), (200, "a page"))
    assert endpoint.accepted == []


def test_no_response_is_cached_or_contains_the_token(endpoint: EndpointHarness) -> None:
    responses = [endpoint.request(f"/in/{TOKEN}{path}") for path in ("", "/start", "/what", "?ago=x")]
    responses += [endpoint.request("/in/nope"), endpoint.request(f"/in/{TOKEN}", "PUT")]
    for response in responses:
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert "set-cookie" not in response.headers
        assert TOKEN not in str(response.headers) + response.text
        assert len(response.content) < 100


# --- limits


def test_a_check_in_that_cannot_be_stored_is_an_error(endpoint: EndpointHarness) -> None:
    endpoint.can_store = False
    response = endpoint.request(f"/in/{TOKEN}")
    assert (response.status_code, response.headers["retry-after"]) == (503, "10")


def test_a_runaway_job_is_throttled_alone(endpoint: EndpointHarness) -> None:
    for _ in range(MAX_CHECK_INS_PER_WINDOW):
        assert endpoint.request(f"/in/{TOKEN}").status_code == 200
    endpoint.now += 20_000
    response = endpoint.request(f"/in/{TOKEN}")
    assert (response.status_code, response.headers["retry-after"]) == (429, "40")
    assert endpoint.request(f"/in/{OTHER_TOKEN}").status_code == 200
    endpoint.now += 40_000
    assert endpoint.request(f"/in/{TOKEN}").status_code == 200


# ------------------------------------------------------------------------------------- heartbeats of other processes


def test_a_check_in_of_another_process_is_accepted(endpoint: EndpointHarness) -> None:
    token = "0123456789abcdef-elsewhere"
    endpoint.elsewhere = {token: "nightly"}
    assert endpoint.request(f"/in/{token}/start?rid=7").text == "ok\n"
    (accepted,) = endpoint.accepted
    assert (endpoint.accepted_probes, accepted.kind) == (["nightly"], CheckInKind.START)
    endpoint.elsewhere = {}
    assert endpoint.request(f"/in/{token}").status_code == 404, "its probe is retired"


def test_a_token_that_cannot_be_looked_up_is_sent_again(endpoint: EndpointHarness) -> None:
    """The token may belong to another process: after a 404 the sender would give up."""
    endpoint.store_available = False
    response = endpoint.request("/in/0123456789abcdef-elsewhere")
    assert (response.status_code, response.headers["retry-after"]) == (503, "10")
    assert endpoint.request(f"/in/{TOKEN}").status_code == 200, "its own heartbeats need no database"
