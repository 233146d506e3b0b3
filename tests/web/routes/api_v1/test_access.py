"""Who may use the API: every operation with every kind of key, and acts that another site may have sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI, Request

from tests.support.fixture_rows import NOW
from tests.support.web import create_test_app, list_requests, request_page
from watchdog.domain.acts import OperatorActRefusalReason, OperatorActRefusedError
from watchdog.store.database import Database
from watchdog.web import ApiKey
from watchdog.web.auth import acts
from watchdog.web.auth.access import Authenticator
from watchdog.web.auth.acts import get_actor_name
from watchdog.web.auth.session import SESSION_COOKIE_NAME
from watchdog.web.routes.api_v1.jobs import add_job_routes
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation
from watchdog.web.routes.operators import OperatorRouteContext

READER = ApiKey("grafana", "reader", "read-me-0123456789")
OPERATOR = ApiKey("ops é", "operator", "operate-0123456789")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
ACT = "/api/v1/acts"
REMOTE: dict[str, Any] = {"client": "203.0.113.9", "host": "status.acme.example"}
CREDENTIALS: Mapping[str, tuple[dict[str, str], str, int]] = {
    "no key": ({}, "", 401),
    "a wrong key": ({"Authorization": "Bearer wrong"}, "", 401),
    "a key in the query string": ({}, f"?key={OPERATOR.secret}&access_token={OPERATOR.secret}", 401),
    "a reader": ({"Authorization": f"Bearer {READER.secret}"}, "", 200),
    "an operator": ({"Authorization": f"Bearer {OPERATOR.secret}"}, "", 200),
}


@pytest.fixture
def with_act(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds an act to the API, declared as every route that changes something."""

    def add_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
        add_job_routes(router, context)

        @declare_act_operation(router, "/acts", summary="Act", shape=dict[str, str], example={"actor": "ci"})
        async def act(request: Request, body: Annotated[dict[str, str], Body()]) -> dict[str, str]:
            return {"actor": get_actor_name(request), **body}

    monkeypatch.setattr("watchdog.web.routes.api_v1.router.add_job_routes", add_routes)


class RefusingActRunner:
    """Refuses every act, and counts them."""

    count = 0

    async def __call__(self, _: object) -> Any:
        self.count += 1
        raise OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, "no act takes place in these tests")


@pytest.fixture
def act_runner() -> RefusingActRunner:
    return RefusingActRunner()


@pytest.fixture
def keyed(full_database: Database, with_act: None, act_runner: RefusingActRunner) -> FastAPI:
    return create_test_app(full_database, api_keys=(READER, OPERATOR), run_act=act_runner)


@pytest.fixture
def keyless(full_database: Database, with_act: None, act_runner: RefusingActRunner) -> FastAPI:
    return create_test_app(full_database, run_act=act_runner)


PATHS_OF_ABSENT_OBJECTS = (
    "/api/v1/silences/{silence_id}",
    "/api/v1/maintenance/{window_id}",
    "/api/v1/config/probes/{probe_id}",
)
"""There is no such silence and no such maintenance, and no managed file."""


def list_api_operations(app: FastAPI) -> list[tuple[str, str]]:
    return [(path, method) for path, method in list_requests(app) if path.startswith("/api/")]


def fill_path(path: str) -> str:
    values = {"{probe_id}": "api", "{incident_id}": f"{1:024x}", "{silence_id}": "s-1", "{window_id}": "m-1",
              "{receiver}": "oncall"}  # fmt: skip
    for name, value in values.items():
        path = path.replace(name, value)
    return path


@pytest.mark.parametrize("sentence", CREDENTIALS)
def test_every_operation_requires_a_key(keyed: FastAPI, act_runner: RefusingActRunner, sentence: str) -> None:
    headers, query, expected = CREDENTIALS[sentence]
    operations = list_api_operations(keyed)
    assert len({path for path, _ in operations}) >= 11
    for path, method in operations:
        response = request_page(keyed, fill_path(path) + query, method, headers=headers, **REMOTE)
        is_read, is_managed = method in acts.SAFE_HTTP_METHODS, path.startswith("/api/v1/config/probes")
        is_act = not is_read or is_managed
        allowed = {200} if not is_act else {403} if sentence == "a reader" else {200, 409, 422}
        if is_read and path in PATHS_OF_ABSENT_OBJECTS and not (is_managed and sentence == "a reader"):
            allowed = {404}
        assert response.status_code in (allowed if expected == 200 else {expected, 429}), (path, method)
        if response.status_code >= 400 and method != "HEAD":
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["detail"].endswith(".")
            assert OPERATOR.secret not in response.text
    assert (act_runner.count > 0) == (sentence == "an operator")


def test_no_other_method_is_accepted(keyed: FastAPI) -> None:
    operations = set(list_api_operations(keyed))
    headers = {"Authorization": f"Bearer {OPERATOR.secret}"}
    for path in {path for path, _ in operations}:
        allowed = {method for method in METHODS if (path, method) in operations}
        for method in set(METHODS) - allowed:
            response = request_page(keyed, fill_path(path), method, headers=headers, **REMOTE)
            assert response.status_code == 405, (path, method)
            assert set(response.headers["allow"].split(", ")) == allowed
            if method != "HEAD":
                assert response.json()["detail"].endswith(f"It accepts {response.headers['allow']}.")


def test_without_keys_only_this_machine_has_access(keyless: FastAPI, act_runner: RefusingActRunner) -> None:
    for path, method in list_api_operations(keyless):
        body: dict[str, Any] = {"json": {}} if method == "POST" else {}
        is_present = path not in PATHS_OF_ABSENT_OBJECTS
        allowed = (200,) if method in acts.SAFE_HTTP_METHODS and is_present else (200, 404, 409, 422)
        assert request_page(keyless, fill_path(path), method, **body).status_code in allowed, (path, method)
        count = act_runner.count
        others: list[tuple[dict[str, Any], dict[str, str]]] = [
            (REMOTE, {}),
            ({"host": "status.acme.example"}, {}),
            ({}, {"X-Forwarded-For": "203.0.113.9"}),
        ]
        for options, headers in others:
            response = request_page(keyless, fill_path(path), method, headers=headers, **options, **body)
            assert response.status_code == 403
            assert method == "HEAD" or response.json()["reason"] == "access.loopback_only"
        assert act_runner.count == count


@pytest.mark.parametrize(
    ("sentence", "headers", "status", "reason"),
    [
        ("a program on this machine", {}, 200, ""),
        ("a page of Watchdog", {"Sec-Fetch-Site": "same-origin"}, 200, ""),
        ("a page elsewhere", {"Sec-Fetch-Site": "cross-site"}, 403, "access.cross_origin_form"),
        ("a page elsewhere, old browser", {"Origin": "https://evil.example"}, 403, "access.cross_origin_form"),
        ("a page without an origin", {"Origin": "null"}, 403, "access.cross_origin_form"),
    ],
)
def test_acts_of_other_sites_are_refused_without_keys(
    keyless: FastAPI, sentence: str, headers: dict[str, str], status: int, reason: str
) -> None:
    response = request_page(keyless, ACT, "POST", headers=headers, json={"a": "b"})
    assert (response.status_code, response.json().get("reason", "")) == (status, reason), sentence
    if status == 200:
        assert response.json() == {"actor": acts.ACTOR_NAME_WITHOUT_API_KEYS, "a": "b"}


def test_an_act_with_a_session_needs_its_csrf_token(keyed: FastAPI) -> None:
    def sign_in(key: ApiKey) -> str:
        response = request_page(keyed, "/login", "POST", data={"key": key.secret})
        return response.headers["set-cookie"].partition(";")[0].partition("=")[2]

    def act(cookie: str, headers: dict[str, str]) -> tuple[int, str]:
        given = {"Cookie": f"{SESSION_COOKIE_NAME}={cookie}", **headers}
        response = request_page(keyed, ACT, "POST", headers=given, json={})
        return response.status_code, response.json().get("reason") or response.json().get("actor", "")

    sessions = Authenticator((READER, OPERATOR), lambda: NOW).sessions
    cookie, other = sign_in(OPERATOR), sign_in(READER)
    token = sessions.make_csrf_token(cookie)
    header = acts.CSRF_TOKEN_HEADER
    assert act(cookie, {}) == (403, "access.csrf_token")
    assert act(cookie, {header: ""}) == (403, "access.csrf_token")
    assert act(cookie, {header: sessions.make_csrf_token(other)}) == (403, "access.csrf_token")
    assert act(cookie, {header: token, "Origin": "https://evil.example"}) == (403, "access.cross_origin_form")
    assert act(cookie, {header: token}) == (200, OPERATOR.name)
    assert act(other, {header: sessions.make_csrf_token(other)}) == (403, "access.operator_required")
    assert sessions.make_csrf_token("forged") == ""


@pytest.mark.parametrize(
    ("sentence", "options", "status"),
    [
        ("JSON", {"json": {"a": "b"}}, 200),
        (
            "JSON in UTF-8",
            {"content": b"{}", "headers": {"Content-Type": "application/json; charset=utf-8"}},
            200,
        ),
        ("a form", {"data": {"a": "b"}}, 415),
        ("text", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ("no type", {"content": b"{}"}, 415),
        ("not JSON", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ("deeply nested", {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400),
        ("an object of another shape", {"json": {"a": 1}}, 422),
        ("no body", {}, 422),
        ("too long", {"content": b" " * 200_000, "headers": {"Content-Type": "application/json"}}, 413),
    ],
)
def test_bodies_that_are_refused(keyless: FastAPI, sentence: str, options: dict[str, Any], status: int) -> None:
    response = request_page(keyless, ACT, "POST", **options)
    assert response.status_code == status, sentence
    if status != 200:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == status
