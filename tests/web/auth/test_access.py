"""Access control: every route of the router with every kind of API key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems
from tests.support.web import FakeMcpApp, create_test_app, filled_database, list_requests, request_page
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import Silence, SilenceMatcher
from watchdog.service.process_metrics import WatchdogActivityMetrics
from watchdog.service.transition_feed import TransitionFeed
from watchdog.store.database import Database
from watchdog.store.write.silences import begin_silence
from watchdog.web import ApiKey, StatusPageConfig, create_web_app, forms
from watchdog.web.auth.access import Authenticator, strip_port_from_host
from watchdog.web.auth.acts import SAFE_HTTP_METHODS
from watchdog.web.auth.login_throttle import (
    LOGIN_ATTEMPT_WINDOW_MS,
    MAX_FAILED_LOGIN_ATTEMPTS,
    MAX_FAILED_LOGIN_ATTEMPTS_IN_TOTAL,
    MAX_TRACKED_LOGIN_ADDRESSES,
    LoginThrottle,
)
from watchdog.web.auth.session import SESSION_COOKIE_NAME, WEB_SESSION_LIFETIME_MS
from watchdog.web.forms import MAX_FORM_BYTES
from watchdog.web.routes.sign_in import restrict_redirect_path_to_site

READER, OPERATOR = (
    ApiKey("grafana", "reader", "read-me-0123456789"),
    ApiKey("ops é", "operator", "operate-ü-0123456789"),
)
KEYS = (READER, OPERATOR)

PUBLIC = {
    *((path, method) for path in ("/", "/healthz", "/readyz") for method in ("GET", "HEAD")),
    *(("/static/{name}", "GET"), ("/login", "GET"), ("/login", "POST"), ("/logout", "POST")),
    ("/slack/interactivity", "POST"),  # Slack signs its requests
}
"""Every other route requires an API key. A new public route must be added here."""
ACCEPTED_ACT_STATUSES = (200, 303, 404, 409, 422)
"""Of an act without a form or a body, whose author may act."""


class ManualClock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One probe, one incident, one silence and one maintenance window."""
    rows = FixtureRows()
    id = rows.add_probe("Checkout")
    rows.add_passing_results(id, count=1)
    rows.add_incident(id, "availability", "HTTP 503", NOW)
    assert rows.add_maintenance([id], NOW, NOW + HOUR_MS) == "m-1"
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('access') / 'a.db'}", rows) as database:
        ops = Actor("ops", OperatorInterfaceKind.PAGE)
        matcher = SilenceMatcher(ProbeMatcher(group="Core"))
        begin_silence(database, Silence(id="s-1", matcher=matcher, started_at=NOW, ends_at=NOW + HOUR_MS, actor=ops))
        yield database


@pytest.fixture
def keyed(database: Database, clock: ManualClock) -> FastAPI:
    return create_test_app(database, api_keys=KEYS, clock=clock)


@pytest.fixture(scope="module")
def shared_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
def shared(database: Database, shared_clock: ManualClock) -> FastAPI:
    """One application for many requests: to build it takes longer than to answer them."""
    return create_test_app(database, api_keys=KEYS, clock=shared_clock)


@pytest.fixture(scope="module")
def keyless(database: Database) -> FastAPI:
    return create_test_app(database)


def bearer(key: str) -> dict[str, bytes]:
    """As bytes, since a key may contain any character."""
    return {"Authorization": b"Bearer " + key.encode()}


def routes() -> list[tuple[str, str]]:
    """Every (path, method) of the application's routers."""

    async def read(_: Any) -> Any:
        raise AssertionError

    app = create_web_app(
        run_read_query=read,
        run_act=read,
        clock=lambda: NOW,
        not_ready_reason=str,
        status_page=StatusPageConfig(),
        api_keys=KEYS,
        collect_process_metrics=WatchdogActivityMetrics,
        mcp_app=FakeMcpApp(),
        transition_feed=TransitionFeed(read, partial(read, None)),
    )
    return list_requests(app)


ROUTES = routes()
BEHIND = [route for route in ROUTES if route not in PUBLIC]


def is_act(path: str, method: str) -> bool:
    """Or only operators may read it."""
    is_form_of_operators = path.startswith(("/config/", "/api/v1/config/probes", "/receivers/test"))
    return (method not in SAFE_HTTP_METHODS and path != "/mcp") or is_form_of_operators


def address(path: str) -> str:
    """The path of an object that exists in the database."""
    return (
        path.replace("{probe_id}", "checkout")
        .replace("{incident_id}", f"{1:024x}")
        .replace("{name}", "none.css")
        .replace("{silence_id}", "s-1")
        .replace("{window_id}", "m-1")
    )


def test_every_public_route_exists_and_other_routes_require_a_key() -> None:
    assert set(ROUTES) >= PUBLIC
    behind = {
        "/probes",
        "/probes/{probe_id}",
        "/incidents",
        "/incidents/{incident_id}",
        "/jobs",
        "/receivers",
        "/undelivered",
        "/service",
        "/metrics",
        "/api/v1/jobs",
        "/api/v1/probes",
        "/api/v1/incidents",
        "/api/v1/probes/{probe_id}",
        "/api/v1/incidents/{incident_id}",
        "/api/v1/openapi.json",
        "/mcp",
    }
    assert {path for path, _ in BEHIND} >= behind


@pytest.mark.parametrize(("path", "method"), sorted(PUBLIC))
def test_public_routes_need_no_key(keyed: FastAPI, path: str, method: str) -> None:
    response = request_page(keyed, address(path), method, client="203.0.113.9", host="status.acme.example")
    assert response.status_code in ({401} if (path, method) == ("/login", "POST") else {200, 303, 404})
    if path.startswith("/static"):
        assert response.status_code == 404


@pytest.mark.parametrize(("path", "method"), BEHIND)
@pytest.mark.parametrize(
    ("sentence", "headers", "status"),
    [
        ("no key", {}, 401),
        ("a wrong key", bearer("wrong"), 401),
        ("the empty key", bearer(""), 401),
        ("part of a key", bearer(READER.secret[:-1]), 401),
        ("a key with letters after it", bearer(READER.secret + "x"), 401),
        ("a key under another scheme", {"Authorization": f"Basic {READER.secret}"}, 401),
        ("a key without its scheme", {"Authorization": READER.secret}, 401),
        ("a session with an invalid signature", {"Cookie": f"{SESSION_COOKIE_NAME}=b3Bz.99999999999999.00"}, 401),
        ("a cookie without a value", {"Cookie": SESSION_COOKIE_NAME.encode() + b"=\xff.1.x"}, 401),
        ("a cookie whose name is not text", {"Cookie": f"{SESSION_COOKIE_NAME}=_w==.1.x"}, 401),
        ("the reader's key", bearer(READER.secret), 200),
        ("the operator's key", bearer(OPERATOR.secret), 200),
    ],
)
def test_every_route_with_every_key(
    shared: FastAPI,
    shared_clock: ManualClock,
    path: str,
    method: str,
    sentence: str,
    headers: dict[str, Any],
    status: int,
) -> None:
    shared_clock.now += LOGIN_ATTEMPT_WINDOW_MS  # earlier attempts do not count
    response = request_page(
        shared, address(path), method, headers=headers, client="203.0.113.9", host="status.acme.example"
    )
    if is_act(path, method) and sentence == "the reader's key":
        assert (response.status_code, response.json()["reason"]) == (403, "access.operator_required")
    elif is_act(path, method) and sentence == "the operator's key":
        assert response.status_code in ACCEPTED_ACT_STATUSES
    else:
        assert response.status_code == status, sentence
    is_stream = path == "/api/v1/events"
    is_read = path.startswith("/api/v1/") and status == 200 and not is_act(path, method) and not is_stream
    cached = "private, no-cache" if is_read else "no-store"
    assert response.headers["cache-control"] == cached
    if status == 401:
        assert "checkout" not in response.text.lower().replace("/probes/checkout", "")
        assert "HTTP 503" not in response.text
        assert READER.secret not in response.text


def test_a_program_without_a_key_gets_json_and_a_person_a_form(keyed: FastAPI) -> None:
    program = request_page(keyed, "/api/v1/probes")
    assert program.headers["www-authenticate"] == "Bearer"
    assert program.headers["content-type"] == "application/problem+json"
    assert program.json() == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "An API key is required. Sign in, or send `Authorization: Bearer ...`.",
        "reason": "access.missing_key",
    }
    person = request_page(keyed, "/probes?state=down")
    assert person.status_code == 401
    assert '<input type="hidden" name="next" value="/probes?state=down">' in person.text
    assert find_html_problems(person.text) == []


def sign_in(app: FastAPI, key: str, **options: Any) -> httpx.Response:
    return request_page(app, "/login", "POST", data={"key": key, **options.pop("data", {})}, **options)


def test_signing_in_sets_a_cookie_that_is_valid_until_it_expires(keyed: FastAPI, clock: ManualClock) -> None:
    response = sign_in(keyed, OPERATOR.secret, data={"next": "/incidents?state=open"})
    assert (response.status_code, response.headers["location"]) == (303, "/incidents?state=open")
    set_cookie = response.headers["set-cookie"]
    assert all(
        part in set_cookie
        for part in ("HttpOnly", "SameSite=strict", f"Max-Age={WEB_SESSION_LIFETIME_MS // 1000}", "Path=/")
    )
    assert OPERATOR.secret not in set_cookie
    cookie = {"Cookie": set_cookie.partition(";")[0]}
    page = request_page(keyed, "/probes", headers=cookie)
    assert page.status_code == 200
    assert "Sign out ops é" in page.text
    clock.now += WEB_SESSION_LIFETIME_MS
    assert request_page(keyed, "/probes", headers=cookie).status_code == 401
    clock.now = NOW


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_form_without_end_is_read_up_to_a_limit(keyed: FastAPI, content_type: str) -> None:
    """Anyone may send it: it must fill neither the memory nor the disk."""
    chunks_read = 0

    async def send_forever() -> AsyncIterator[bytes]:
        nonlocal chunks_read
        yield b'--x\r\nContent-Disposition: form-data; name="key"; filename="a"\r\n\r\n'
        while chunks_read < 1_000:
            chunks_read += 1
            yield b"x" * 1_024 + b"&"

    headers = {"Content-Type": content_type}
    response = request_page(keyed, "/login", "POST", content=send_forever(), headers=headers)
    assert response.status_code == 413
    assert chunks_read * 1_024 <= MAX_FORM_BYTES + 1_024


def test_a_form_that_does_not_arrive_is_not_awaited(keyed: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "FORM_RECEIVE_TIMEOUT_S", 0.05)

    async def send_nothing_more() -> AsyncIterator[bytes]:
        yield b"key="
        await asyncio.Event().wait()

    response = request_page(keyed, "/login", "POST", content=send_nothing_more())
    assert response.status_code == 408
    assert "The form was not sent in time." in response.text


@pytest.mark.parametrize(("content", "status_code"), [(b"", 401), (b"key", 401), (b"&" * 200, 401), (b"\xff=%ff", 401)])
def test_a_form_without_a_key_is_refused(keyed: FastAPI, content: bytes, status_code: int) -> None:
    assert request_page(keyed, "/login", "POST", content=content).status_code == status_code


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_the_cookie_is_secure_if_the_request_was(keyed: FastAPI, scheme: str, secure: bool) -> None:
    response = sign_in(keyed, OPERATOR.secret, host="localhost", scheme=scheme)
    assert ("secure" in response.headers["set-cookie"].lower()) is secure


def test_changing_a_key_ends_its_sessions_and_a_restart_does_not(database: Database, keyed: FastAPI) -> None:
    cookie = {"Cookie": sign_in(keyed, READER.secret).headers["set-cookie"].partition(";")[0]}
    assert request_page(keyed, "/probes", headers=cookie).status_code == 200
    assert request_page(create_test_app(database, api_keys=KEYS), "/probes", headers=cookie).status_code == 200
    changed = ApiKey(READER.name, "reader", "another-key")
    assert (
        request_page(create_test_app(database, api_keys=(changed, OPERATOR)), "/probes", headers=cookie).status_code
        == 401
    )


def test_signing_out_forgets_the_cookie(keyed: FastAPI) -> None:
    response = request_page(keyed, "/logout", "POST")
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert f'{SESSION_COOKIE_NAME}=""' in response.headers["set-cookie"]


def program(app: FastAPI, key: str, client: str = "203.0.113.9") -> httpx.Response:
    return request_page(app, "/api/v1/probes", headers=bearer(key), client=client)


def test_failed_attempts_are_throttled(keyed: FastAPI, clock: ManualClock) -> None:
    """Attempts by form and by header count alike."""
    assert program(keyed, READER.secret).status_code == 200
    for n in range(MAX_FAILED_LOGIN_ATTEMPTS):
        clock.now += 1_000
        tried = program(keyed, "wrong") if n % 2 else sign_in(keyed, "wrong", client="203.0.113.9")
        assert tried.status_code == 401
    refused = sign_in(keyed, OPERATOR.secret, client="203.0.113.9")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "51")
    assert "Too many failed attempts. Try again in 51 s." in refused.text
    assert find_html_problems(refused.text) == []
    refused = program(keyed, "wrong")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "51")
    assert refused.json()["reason"] == "access.too_many_attempts"
    assert program(keyed, READER.secret).status_code == 200, "a key that was accepted from this address before"
    assert program(keyed, OPERATOR.secret, client="203.0.113.10").status_code == 200, "another address"
    clock.now += 51_000
    assert program(keyed, OPERATOR.secret).status_code == 200


def test_failed_attempts_from_many_addresses_are_throttled_together(keyed: FastAPI, clock: ManualClock) -> None:
    assert program(keyed, READER.secret, "203.0.113.1").status_code == 200
    cookie = {"Cookie": sign_in(keyed, OPERATOR.secret, client="203.0.113.2").headers["set-cookie"].partition(";")[0]}
    statuses = [program(keyed, "wrong", f"10.0.{n // 250}.{n % 250}").status_code for n in range(1_000)]
    refused_count = 1_000 - MAX_FAILED_LOGIN_ATTEMPTS_IN_TOTAL
    assert statuses == [401] * MAX_FAILED_LOGIN_ATTEMPTS_IN_TOTAL + [429] * refused_count
    assert sign_in(keyed, OPERATOR.secret, client="203.0.113.9").status_code == 429, "a guess might be right"
    assert program(keyed, READER.secret, "203.0.113.1").status_code == 200, "a key that was accepted from this address"
    assert request_page(keyed, "/probes", headers=cookie).status_code == 200, "a session"
    clock.now += LOGIN_ATTEMPT_WINDOW_MS
    assert program(keyed, OPERATOR.secret, "203.0.113.9").status_code == 200


def test_valid_keys_are_never_counted(keyed: FastAPI) -> None:
    assert {program(keyed, READER.secret).status_code for _ in range(3 * MAX_FAILED_LOGIN_ATTEMPTS)} == {200}


def test_an_ipv6_network_is_one_address_and_memory_is_bounded(clock: ManualClock) -> None:
    throttle = LoginThrottle(clock, limits_total=False)
    for n in range(MAX_FAILED_LOGIN_ATTEMPTS):
        throttle.record_login_attempt(f"2001:db8::{n}", None)
        throttle.record_login_attempt(f"::ffff:192.0.2.{n}", None)
    assert throttle.retry_after_s("2001:db8::ffff:1", None) == 60
    assert (
        throttle.retry_after_s("2001:db8:0:1::1", None)
        == throttle.retry_after_s("192.0.2.1", None)
        == throttle.retry_after_s("", None)
        == 0
    )
    clock.now -= 1
    assert throttle.retry_after_s("2001:db8::1", None) == 0, "the clock was set back"
    for n in range(MAX_TRACKED_LOGIN_ADDRESSES + 1):
        throttle.record_login_attempt(f"10.0.{n // 256}.{n % 256}", None)
        throttle.record_login_attempt(f"10.0.{n // 256}.{n % 256}", "ci")
    assert len(throttle._failed_attempts) == len(throttle._accepted_keys) == MAX_TRACKED_LOGIN_ADDRESSES


def test_an_invalid_key_is_refused(keyed: FastAPI) -> None:
    response = sign_in(keyed, "wrong <b>")
    assert response.status_code == 401
    assert "The API key is not valid." in response.text
    assert "wrong <b>" not in response.text
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ("/probes?q=a", "/probes?q=a"),
        ("https://evil.example/", "/probes"),
        ("//evil.example/", "/probes"),
        ("/\\evil.example", "/probes"),
        ("\\/evil.example", "/probes"),
        ("/a\r\nSet-Cookie: x=y", "/probes"),
        ("javascript:alert(1)", "/probes"),
        ("", "/probes"),
        ("/probes/ü", "/probes/%C3%BC"),
    ],
)
def test_signing_in_never_leads_to_another_site(requested: str, expected: str) -> None:
    assert restrict_redirect_path_to_site(requested) == expected


@pytest.mark.parametrize(
    ("sentence", "headers", "refused"),
    [
        ("the form of this site", {"Origin": "http://localhost:8080"}, False),
        (
            "the form of this site, with Sec-Fetch-Site",
            {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8080"},
            False,
        ),
        ("no headers", {}, False),
        ("another site's form", {"Origin": "https://evil.example"}, True),
        ("a page without an origin", {"Origin": "null"}, True),
        ("another site, with Sec-Fetch-Site", {"Sec-Fetch-Site": "cross-site"}, True),
        ("a sibling domain", {"Sec-Fetch-Site": "same-site"}, True),
    ],
)
def test_forms_of_other_sites_are_refused(
    keyed: FastAPI, sentence: str, headers: dict[str, str], refused: bool
) -> None:
    response = sign_in(keyed, OPERATOR.secret, headers=headers)
    assert response.status_code == (403 if refused else 303), sentence


@pytest.mark.parametrize(("path", "method"), BEHIND)
@pytest.mark.parametrize(
    ("sentence", "client", "host", "headers", "status"),
    [
        ("this machine by its name", "127.0.0.1", "localhost:8080", {}, 200),
        ("this machine by its address", "127.0.0.1", "127.0.0.1:8080", {}, 200),
        ("this machine over IPv6", "::1", "[::1]:8080", {}, 200),
        ("this machine over IPv4 in IPv6", "::ffff:127.0.0.1", "localhost", {}, 200),
        ("another machine", "192.168.1.5", "localhost:8080", {}, 403),
        ("a foreign name that resolves to this machine", "127.0.0.1", "evil.example:8080", {}, 403),
        ("a foreign address that is forwarded to this machine", "127.0.0.1", "192.168.1.5:8080", {}, 403),
        ("a name that starts like the public name", "127.0.0.1", "localhost.evil.example", {}, 403),
        ("a client behind a proxy", "127.0.0.1", "127.0.0.1:8080", {"X-Forwarded-For": "203.0.113.9"}, 403),
        (
            "a client behind a proxy with another header",
            "127.0.0.1",
            "localhost",
            {"Forwarded": "for=203.0.113.9"},
            403,
        ),
    ],
)
def test_without_keys_pages_are_served_to_this_machine_only(
    keyless: FastAPI,
    path: str,
    method: str,
    sentence: str,
    client: str,
    host: str,
    headers: dict[str, str],
    status: int,
) -> None:
    response = request_page(keyless, address(path), method, client=client, host=host, headers=headers)
    assert response.status_code in (ACCEPTED_ACT_STATUSES if is_act(path, method) and status == 200 else (status,)), (
        sentence
    )
    if status == 403 and not path.startswith(("/api", "/mcp")):
        assert "Access denied" in response.text
        assert "access.api_keys" in response.text
        assert find_html_problems(response.text) == []


def test_without_keys_there_is_no_sign_in_page(keyless: FastAPI) -> None:
    assert request_page(keyless, "/login").status_code == 404


def test_a_key_with_any_characters_is_compared_as_bytes() -> None:
    access = Authenticator(KEYS, lambda: NOW)
    assert access.find_api_key("operate-ü-0123456789".encode()) is OPERATOR
    assert access.find_api_key(b"\xff\xfe") is None
    assert repr(OPERATOR) == "ApiKey(name='ops é', role='operator')"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:80", "LOCALHOST"),
        ("127.1.2.3:1", "127.1.2.3"),
        ("[::1]:8080", "::1"),
        ("[::1]", "::1"),
        ("", ""),
        ("acme.example:8080", "acme.example"),
    ],
)
def test_names_in_a_host_header(header: str, name: str) -> None:
    assert strip_port_from_host(header) == name
