"""Who may see what: every route, from the router itself, with every kind of key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from tests.web.book import NOW, Book
from tests.web.markup import problems
from tests.web.serving import Agents, app_of, ask, filled
from watchdog.store.database import Database
from watchdog.web import Key, Site, create_app
from watchdog.web.access import COOKIE, SESSION, Access, host_name, is_loopback
from watchdog.web.guesses import KEPT, TRIES, Guesses
from watchdog.web.signin import local

READER, OPERATOR = Key("grafana", "reader", "read-me-0123456789"), Key("ops é", "operator", "operate-ü-0123456789")
KEYS = (READER, OPERATOR)

PUBLIC = {
    *((path, method) for path in ("/", "/healthz", "/readyz") for method in ("GET", "HEAD")),
    *(("/static/{name}", "GET"), ("/login", "GET"), ("/login", "POST"), ("/logout", "POST")),
}
"""Everything else needs a key. Whoever adds a public route says so here."""


class Later:
    """The clock, movable."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Later:
    return Later()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One probe and one incident."""
    book = Book()
    id = book.probe("API")
    book.runs(id, count=1)
    book.incident(id, "availability", "got 503", NOW)
    with filled(f"sqlite:///{tmp_path_factory.mktemp('access') / 'a.db'}", book) as database:
        yield database


@pytest.fixture
def keyed(database: Database, clock: Later) -> FastAPI:
    return app_of(database, keys=KEYS, now=clock)


@pytest.fixture(scope="module")
def keyless(database: Database) -> FastAPI:
    return app_of(database)


def bearer(key: str) -> dict[str, bytes]:
    """As bytes, whatever letters the key has."""
    return {"Authorization": b"Bearer " + key.encode()}


def routes() -> list[tuple[str, str]]:
    """Every (path, method), as the app's own routers have them."""

    def walk(found: Iterable[BaseRoute]) -> Iterator[APIRoute]:
        for route in found:
            if isinstance(route, APIRoute):
                yield route
            elif (inner := getattr(route, "original_router", None)) is not None:
                yield from walk(inner.routes)

    async def read(_: Any) -> Any:
        raise AssertionError

    app = create_app(read=read, now=lambda: NOW, ready=str, site=Site(), keys=KEYS, agents=Agents())
    return [(route.path, method) for route in walk(app.routes) for method in sorted(route.methods or ())]


ROUTES = routes()
BEHIND = [route for route in ROUTES if route not in PUBLIC]


def address(path: str) -> str:
    """A path that exists in the story."""
    return path.replace("{key}", "api").replace("{id}", f"{1:024x}").replace("{name}", "none.css")


def test_the_router_has_what_is_called_public_and_pages_behind_it() -> None:
    assert set(ROUTES) >= PUBLIC
    behind = {
        "/probes",
        "/probes/{key}",
        "/incidents",
        "/incidents/{id}",
        "/jobs",
        "/dead-letters",
        "/api/jobs",
        "/api/probes",
        "/api/incidents",
        "/mcp",
    }
    assert {path for path, _ in BEHIND} >= behind


@pytest.mark.parametrize(("path", "method"), sorted(PUBLIC))
def test_public_routes_answer_anybody(keyed: FastAPI, path: str, method: str) -> None:
    response = ask(keyed, address(path), method, client="203.0.113.9", host="status.acme.example")
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
        ("part of a key", bearer(READER.key[:-1]), 401),
        ("a key with letters after it", bearer(READER.key + "x"), 401),
        ("a key under another scheme", {"Authorization": f"Basic {READER.key}"}, 401),
        ("a key without its scheme", {"Authorization": READER.key}, 401),
        ("a session that nobody signed", {"Cookie": f"{COOKIE}=b3Bz.99999999999999.00"}, 401),
        ("a cookie that is none", {"Cookie": COOKIE.encode() + b"=\xff.1.x"}, 401),
        ("a cookie whose name is no text", {"Cookie": f"{COOKIE}=_w==.1.x"}, 401),
        ("the reader's key", bearer(READER.key), 200),
        ("the operator's key", bearer(OPERATOR.key), 200),
    ],
)
def test_every_route_with_every_key(
    keyed: FastAPI, path: str, method: str, sentence: str, headers: dict[str, Any], status: int
) -> None:
    response = ask(keyed, address(path), method, headers=headers, client="203.0.113.9", host="status.acme.example")
    assert response.status_code == status, sentence
    assert response.headers["cache-control"] == "no-store"
    if status == 401:
        assert "API" not in response.text.replace("JSON", "")
        assert READER.key not in response.text


def test_a_program_without_a_key_gets_json_and_a_person_a_form(keyed: FastAPI) -> None:
    program = ask(keyed, "/api/probes")
    assert program.headers["www-authenticate"] == "Bearer"
    assert program.json() == {"error": "access.missing_key", "message": "These pages need a key."}
    person = ask(keyed, "/probes?state=down")
    assert person.status_code == 401
    assert '<input type="hidden" name="next" value="/probes?state=down">' in person.text
    assert problems(person.text) == []


def sign_in(app: FastAPI, key: str, **options: Any) -> httpx.Response:
    return ask(app, "/login", "POST", data={"key": key, **options.pop("data", {})}, **options)


def test_signing_in_sets_a_cookie_that_opens_pages_until_it_is_over(keyed: FastAPI, clock: Later) -> None:
    response = sign_in(keyed, OPERATOR.key, data={"next": "/incidents?state=open"})
    assert (response.status_code, response.headers["location"]) == (303, "/incidents?state=open")
    set_cookie = response.headers["set-cookie"]
    assert all(part in set_cookie for part in ("HttpOnly", "SameSite=strict", f"Max-Age={SESSION // 1000}", "Path=/"))
    assert OPERATOR.key not in set_cookie
    cookie = {"Cookie": set_cookie.partition(";")[0]}
    page = ask(keyed, "/probes", headers=cookie)
    assert page.status_code == 200
    assert "Sign out ops é" in page.text
    clock.now += SESSION
    assert ask(keyed, "/probes", headers=cookie).status_code == 401
    clock.now = NOW


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_the_cookie_is_secure_where_the_request_was(keyed: FastAPI, scheme: str, secure: bool) -> None:
    response = sign_in(keyed, OPERATOR.key, host="localhost", scheme=scheme)
    assert ("secure" in response.headers["set-cookie"].lower()) is secure


@pytest.mark.parametrize("change", ["name", "until", "seal", "parts"])
def test_a_cookie_that_was_changed_opens_nothing(keyed: FastAPI, change: str) -> None:
    value = sign_in(keyed, READER.key).headers["set-cookie"].partition(";")[0].partition("=")[2]
    name, until, seal = value.split(".")
    changed = {
        "name": f"b3BzIMOp.{until}.{seal}",
        "until": f"{name}.{int(until) + 1}.{seal}",
        "seal": f"{name}.{until}.{seal[:-1]}{'0' if seal[-1] != '0' else '1'}",
        "parts": f"{name}.{until}",
    }[change]
    assert ask(keyed, "/probes", headers={"Cookie": f"{COOKIE}={value}"}).status_code == 200
    assert ask(keyed, "/probes", headers={"Cookie": f"{COOKIE}={changed}"}).status_code == 401


def test_changing_a_key_ends_its_sessions_and_a_restart_does_not(database: Database, keyed: FastAPI) -> None:
    cookie = {"Cookie": sign_in(keyed, READER.key).headers["set-cookie"].partition(";")[0]}
    assert ask(app_of(database, keys=KEYS), "/probes", headers=cookie).status_code == 200
    changed = Key(READER.name, "reader", "another-key")
    assert ask(app_of(database, keys=(changed, OPERATOR)), "/probes", headers=cookie).status_code == 401


def test_signing_out_forgets_the_cookie(keyed: FastAPI) -> None:
    response = ask(keyed, "/logout", "POST")
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert f'{COOKIE}=""' in response.headers["set-cookie"]


def program(app: FastAPI, key: str, client: str = "203.0.113.9") -> httpx.Response:
    return ask(app, "/api/probes", headers=bearer(key), client=client)


def test_guessing_is_slow(keyed: FastAPI, clock: Later) -> None:
    """By form or by header, and whatever is tried next."""
    assert program(keyed, READER.key).status_code == 200
    for n in range(TRIES):
        clock.now += 1_000
        tried = program(keyed, "wrong") if n % 2 else sign_in(keyed, "wrong", client="203.0.113.9")
        assert tried.status_code == 401
    refused = sign_in(keyed, OPERATOR.key, client="203.0.113.9")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "51")
    assert "Too many wrong keys came from this address. Try again in 51 s." in refused.text
    assert problems(refused.text) == []
    refused = program(keyed, "wrong")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "51")
    assert refused.json()["error"] == "access.too_many_attempts"
    assert program(keyed, READER.key).status_code == 200, "known from here before"
    assert program(keyed, OPERATOR.key, client="203.0.113.10").status_code == 200, "another address"
    clock.now += 51_000
    assert program(keyed, OPERATOR.key).status_code == 200


def test_right_keys_are_never_counted(keyed: FastAPI) -> None:
    assert {program(keyed, READER.key).status_code for _ in range(3 * TRIES)} == {200}


def test_an_ipv6_network_is_one_address_and_memory_is_bounded(clock: Later) -> None:
    guesses = Guesses(clock)
    for n in range(TRIES):
        guesses.note(f"2001:db8::{n}", None)
        guesses.note(f"::ffff:192.0.2.{n}", None)
    assert guesses.wait("2001:db8::ffff:1", None) == 60
    assert guesses.wait("2001:db8:0:1::1", None) == guesses.wait("192.0.2.1", None) == guesses.wait("", None) == 0
    clock.now -= 1
    assert guesses.wait("2001:db8::1", None) == 0, "the clock was put back"
    for n in range(KEPT + 1):
        guesses.note(f"10.0.{n // 256}.{n % 256}", None)
        guesses.note(f"10.0.{n // 256}.{n % 256}", "ci")
    assert len(guesses._wrong) == len(guesses._right) == KEPT


def test_a_wrong_key_says_so(keyed: FastAPI) -> None:
    response = sign_in(keyed, "wrong <b>")
    assert response.status_code == 401
    assert "This key is not known." in response.text
    assert "wrong <b>" not in response.text
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    ("asked", "led"),
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
def test_signing_in_never_leads_to_another_site(asked: str, led: str) -> None:
    assert local(asked) == led


@pytest.mark.parametrize(
    ("sentence", "headers", "refused"),
    [
        ("our own form", {"Origin": "http://localhost:8080"}, False),
        (
            "our own form, as browsers say it",
            {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8080"},
            False,
        ),
        ("typed by hand", {}, False),
        ("another site's form", {"Origin": "https://evil.example"}, True),
        ("a page without an origin", {"Origin": "null"}, True),
        ("another site, as browsers say it", {"Sec-Fetch-Site": "cross-site"}, True),
        ("a neighbour of the same site", {"Sec-Fetch-Site": "same-site"}, True),
    ],
)
def test_forms_of_other_sites_are_refused(
    keyed: FastAPI, sentence: str, headers: dict[str, str], refused: bool
) -> None:
    response = sign_in(keyed, OPERATOR.key, headers=headers)
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
        ("a name that was pointed at us", "127.0.0.1", "evil.example:8080", {}, 403),
        ("an address that was pointed at us", "127.0.0.1", "192.168.1.5:8080", {}, 403),
        ("a name that begins like ours", "127.0.0.1", "localhost.evil.example", {}, 403),
        ("somebody behind a proxy here", "127.0.0.1", "127.0.0.1:8080", {"X-Forwarded-For": "203.0.113.9"}, 403),
        ("somebody behind a proxy that says so", "127.0.0.1", "localhost", {"Forwarded": "for=203.0.113.9"}, 403),
    ],
)
def test_without_keys_pages_answer_this_machine_only(
    keyless: FastAPI,
    path: str,
    method: str,
    sentence: str,
    client: str,
    host: str,
    headers: dict[str, str],
    status: int,
) -> None:
    response = ask(keyless, address(path), method, client=client, host=host, headers=headers)
    assert response.status_code == status, sentence
    if status == 403 and not path.startswith(("/api", "/mcp")):
        assert "Not from here" in response.text
        assert "access.keys" in response.text
        assert problems(response.text) == []


def test_without_keys_there_is_nothing_to_sign_in_to(keyless: FastAPI) -> None:
    assert ask(keyless, "/login").status_code == 404


def test_a_key_is_compared_as_bytes_whatever_its_letters() -> None:
    access = Access(KEYS, lambda: NOW)
    assert access.find("operate-ü-0123456789".encode()) is OPERATOR
    assert access.find(b"\xff\xfe") is None
    assert repr(OPERATOR) == "Key(name='ops é', role='operator')"


@pytest.mark.parametrize(
    ("header", "name", "loopback"),
    [
        ("localhost", "localhost", True),
        ("LOCALHOST:80", "LOCALHOST", True),
        ("localhost.", "localhost.", True),
        ("127.1.2.3:1", "127.1.2.3", True),
        ("[::1]:8080", "::1", True),
        ("[::1]", "::1", True),
        ("0.0.0.0:80", "0.0.0.0", False),
        ("2130706433", "2130706433", False),
        ("", "", False),
        ("acme.example:8080", "acme.example", False),
        ("[::ffff:10.0.0.1]", "::ffff:10.0.0.1", False),
    ],
)
def test_names_in_a_host_header(header: str, name: str, loopback: bool) -> None:
    assert (host_name(header), is_loopback(name)) == (name, loopback)
