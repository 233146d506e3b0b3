"""`steps` probes against servers of others: nginx with a session, Django's login, and an MCP server on Node.js."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.django_site import PASSWORD, USERNAME, running_django_site
from tests.support.ports import find_free_port
from tests.support.probe_runs import run_probe
from tests.support.step_sites import SITE, StepsProbeRun, build_steps_probe
from tests.support.third_party import ThirdPartyServers, listening_process


def run_against(url: str, steps: list[dict[str, Any]], **fields: Any) -> StepsProbeRun:
    return StepsProbeRun(asyncio.run(run_probe(build_steps_probe(url, steps, timeout="60s", **fields))), [])


# --- nginx

SHOP_LOGIN: dict[str, Any] = {
    "name": "Log in",
    "http": {"url": f"{SITE}/shop/login", "method": "POST", "json": {"user": "canary"}},
    "capture": {"token": "body.token", "cart": "body.cart.id"},
}
SHOP_CART: dict[str, Any] = {
    "name": "Cart",
    "http": {"url": f"{SITE}/shop/carts/{{cart}}", "headers": {"Authorization": "Bearer {token}"}},
    "expect": ["body.cart == 17", "size(body.items) > 0"],
}


def test_a_shop_on_nginx(nginx: str) -> None:
    run = run_against(nginx, [SHOP_LOGIN, SHOP_CART])
    assert run.verdict == ("pass", "", "")
    assert run.steps == ["Log in: HTTP 200", "Cart: HTTP 200"]
    assert "of-nginx" not in run.everything_shown


def test_a_shop_without_its_session_cookie(nginx: str) -> None:
    run = run_against(nginx, [{"name": "Cart", "http": f"{SITE}/shop/carts/17"}])
    assert run.verdict == ("fail", "http.403", "step 1 (Cart): HTTP 403, expected 2xx")
    assert run.recorded.evidence.excerpt.endswith('{"why": "no session"}')


def test_a_shop_with_another_token(nginx: str) -> None:
    cart = {**SHOP_CART["http"], "headers": {"Authorization": "Bearer x{token}"}}
    run = run_against(nginx, [SHOP_LOGIN, {"name": "Cart", "http": cart}])
    assert run.verdict == ("fail", "http.401", "step 2 (Cart): HTTP 401, expected 2xx")
    assert run.recorded.evidence.excerpt.endswith('{"why": "no token"}')


def test_a_shop_that_refuses_the_method(nginx: str) -> None:
    run = run_against(nginx, [{"name": "Log in", "http": f"{SITE}/shop/login"}, SHOP_CART | {"http": f"{SITE}/"}])
    assert run.verdict == ("fail", "http.405", "step 1 (Log in): HTTP 405, expected 2xx")
    assert run.steps == ["Log in: HTTP 405", "Cart: not run"]


# --- Django


@pytest.fixture(scope="module")
def django_site() -> Iterator[str]:
    with running_django_site() as url:
        yield url


FORM = {
    "name": "Form",
    "http": f"{SITE}/admin/",
    "expect": ["status == 200", "body.contains('csrfmiddlewaretoken')"],
    "capture": {"csrf": "cookies.csrftoken"},
}


def log_in(password: str = PASSWORD) -> dict[str, Any]:
    form = f"username={USERNAME}&password={password}&csrfmiddlewaretoken={{csrf}}"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    url = f"{SITE}/admin/login/?next=/admin/"
    return {
        "name": "Log in",
        "http": {"url": url, "method": "POST", "headers": headers, "body": form},
        "expect": ["status == 302", "headers['location'] == '/admin/'"],
        "capture": {"csrf": "cookies.csrftoken", "session": "cookies.sessionid"},
    }


INDEX = {"name": "Index", "http": f"{SITE}/admin/", "expect": ["body.contains('Log out')", "body.contains('canary')"]}
LOG_OUT = {
    "name": "Log out",
    "http": {"url": f"{SITE}/admin/logout/", "method": "POST", "headers": {"X-CSRFToken": "{csrf}"}},
    "expect": ["body.contains('Logged out')"],
}


def test_the_login_of_django(django_site: str) -> None:
    run = run_against(django_site, [FORM, log_in(), INDEX, LOG_OUT])
    assert run.verdict == ("pass", "", "")
    assert run.steps == ["Form: HTTP 200", "Log in: HTTP 302", "Index: HTTP 200", "Log out: HTTP 200"]


def test_a_wrong_password_for_django(django_site: str) -> None:
    run = run_against(django_site, [FORM, log_in("wrong"), INDEX])
    assert run.verdict[:2] == ("fail", "expectation.failed")
    assert run.verdict[2].startswith("step 2 (Log in): HTTP 200, expected 302")
    assert run.steps == ["Form: HTTP 200", "Log in: HTTP 200", "Index: not run"]


def test_a_login_for_django_without_the_token_of_its_form(django_site: str) -> None:
    without_token = log_in()
    without_token["http"]["body"] = without_token["http"]["body"].replace("{csrf}", "x")
    run = run_against(django_site, [FORM, without_token | {"expect": []}])
    assert run.verdict == ("fail", "http.403", "step 2 (Log in): HTTP 403, expected 2xx")


def test_a_page_of_django_without_a_login(django_site: str) -> None:
    run = run_against(django_site, [FORM, INDEX])
    assert run.verdict[:2] == ("fail", "expectation.failed")
    assert run.verdict[2] == "step 2 (Index): body does not contain 'Log out'; body does not contain 'canary'"


# --- an MCP server

RPC_HEADERS = {"Accept": "application/json, text/event-stream"}
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "canary", "version": "1"},
}


def rpc(name: str, message: dict[str, Any], **headers: str) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", **message}
    return {
        "name": name,
        "http": {"url": f"{SITE}/mcp", "method": "POST", "headers": RPC_HEADERS | headers, "json": body},
    }


def test_a_session_with_an_mcp_server(peers: ThirdPartyServers) -> None:
    port = find_free_port()
    session = {"Mcp-Session-Id": "{session}"}
    end = {"url": f"{SITE}/mcp", "method": "DELETE", "headers": session}
    steps = [
        rpc("Initialize", {"id": 1, "method": "initialize", "params": INITIALIZE})
        | {"capture": {"session": "headers['mcp-session-id']"}},
        rpc("Confirm", {"method": "notifications/initialized"}, **session) | {"expect": ["status == 202"]},
        rpc("Tools", {"id": 2, "method": "tools/list"}, **session) | {"expect": ["body.contains('echo')"]},
        {"name": "End", "http": end},
        rpc("Again", {"id": 3, "method": "tools/list"}, **session),
    ]
    with listening_process([*peers.mcp_server_everything, "streamableHttp"], port, {"PORT": str(port)}):
        run = run_against(f"http://127.0.0.1:{port}", steps)
    assert run.verdict[1].startswith("http.4"), "the session has ended"
    assert run.verdict[2].startswith("step 5 (Again): HTTP 4")
    assert run.steps[:4] == ["Initialize: HTTP 200", "Confirm: HTTP 202", "Tools: HTTP 200", "End: HTTP 200"]
