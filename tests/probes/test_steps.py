"""Runs of `steps` probes: the order of requests, what is carried from one to the next, and faults with their step."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.polling import HANG_S, wait_until_async
from tests.support.ports import find_free_port
from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import (
    CertificateAuthority,
    ConnectionHandler,
    count_open_descriptors,
    http_response,
    running_server,
)
from tests.support.step_sites import (
    SITE,
    StepsProbeRun,
    build_steps_probe,
    json_response,
    run_steps,
    run_steps_on_site,
    running_site,
)
from watchdog.domain.formatting import NBSP
from watchdog.domain.measurements import read_step_records
from watchdog.domain.model import Outcome
from watchdog.domain.rules import derive_findings_from_result
from watchdog.net import NetworkAccess
from watchdog.probes.base import ProbeAttemptContext
from watchdog.service.registration import build_registered_probe

TOKEN = "t0ken-of-the-login/+=1"
LOGIN = {
    "name": "Log in",
    "http": {"url": f"{SITE}/login", "method": "POST", "json": {"user": "canary"}},
    "capture": {"token": "body.token", "cart": "body.cart"},
}
CART = {"name": "Cart", "http": {"url": f"{SITE}/carts/{{cart}}", "headers": {"Authorization": "Bearer {token}"}}}
BUY = {"name": "Buy", "http": {"url": f"{SITE}/buy", "method": "POST", "json": {"cart": "{cart}"}}}
STEPS = [LOGIN, CART, BUY]
LOGGED_IN = json_response({"token": TOKEN, "cart": 17})
ITEMS = json_response({"items": [1, 2]})
BOUGHT = json_response({"order": "o-1"}, "201 Created")


def test_steps_are_run_one_after_another() -> None:
    run = run_steps([LOGGED_IN, ITEMS, BOUGHT], STEPS)
    assert run.verdict == ("pass", "", "")
    assert run.targets == ["POST /login", "GET /carts/17", "POST /buy"]
    assert run.requests[1].header("Authorization") == f"Bearer {TOKEN}"
    assert json.loads(run.requests[2].body) == {"cart": 17}
    assert run.steps == ["Log in: HTTP 200", "Cart: HTTP 200", "Buy: HTTP 201"]
    result = run.recorded.result
    assert list(result.phases) == ["connect", "first_byte", "body"]
    records = read_step_records(result.measurements)
    assert [(step.name, step.status, step.failed) for step in records] == [
        ("Log in", 200, False),
        ("Cart", 200, False),
        ("Buy", 201, False),
    ]
    assert all(step.duration_ms is not None for step in records)
    assert result.duration is not None
    assert result.duration >= sum(result.phases.values()) - 1


def test_the_evidence_is_about_the_step_that_failed() -> None:
    run = run_steps([LOGGED_IN, json_response({"why": "maintenance"}, "503 Unavailable")], STEPS)
    assert run.verdict == ("fail", "http.503", "step 2 (Cart): HTTP 503, expected 2xx")
    assert run.targets == ["POST /login", "GET /carts/17"], "the third step is not run"
    assert run.steps == ["Log in: HTTP 200", "Cart: HTTP 503", "Buy: not run"]
    facts = run.recorded.evidence.facts
    assert facts["step"] == "2 of 3: Cart"
    assert facts["url"].endswith("/carts/{cart}")
    assert facts["status"] == 503
    assert facts["address"].startswith("127.0.0.1:")
    assert run.recorded.evidence.excerpt.endswith('\n\n{"why": "maintenance"}')
    measurements = run.recorded.result.measurements
    assert measurements["failed_step"] == 2
    assert [step.was_run for step in read_step_records(measurements)] == [True, True, False]


@pytest.mark.parametrize(
    ("reply", "expect", "verdict"),
    [
        (ITEMS, ["size(body.items) > 2"],
         ("fail", "expectation.failed", "step 2 (Cart): size(body.items) is 2, expected > 2")),
        (ITEMS, ["size(body.items) == 2", "status == 204"],
         ("fail", "expectation.failed", "step 2 (Cart): HTTP 200, expected 204")),
        (ITEMS, ["body.none == 1"],
         ("fail", "expectation.evaluation_failed",
          "step 2 (Cart): an expression cannot be evaluated: body has no field 'none'")),
        (json_response({}, "404 Not Found"), ["status == 404"], ("pass", "", "")),
    ],
)  # fmt: skip
def test_a_step_is_judged_as_an_http_probe(reply: bytes, expect: list[str], verdict: tuple[str, str, str]) -> None:
    run = run_steps([LOGGED_IN, reply], [LOGIN, CART | {"expect": expect}])
    assert run.verdict == verdict
    results = run.recorded.evidence.facts["expect"]
    assert results.keys() == set(expect)


def test_preferences_name_their_step() -> None:
    steps = [LOGIN | {"prefer": ["status == 200"]}, CART | {"prefer": ["status == 200", "size(body.items) > 2"]}]
    run = run_steps([LOGGED_IN, ITEMS], steps)
    assert run.verdict == ("pass", "", "")
    policy = build_registered_probe(build_steps_probe("http://127.0.0.1:1", steps), "").policy
    findings = derive_findings_from_result(policy, run.recorded.result)
    assert {finding.subject: finding.message for finding in findings if finding.rule == "preference"} == {
        "Log in: status == 200": "",
        "Cart: status == 200": "",
        "Cart: size(body.items) > 2": "step 2 (Cart): size(body.items) is 2, expected > 2",
    }
    failed = run_steps([LOGGED_IN, json_response({}, "500 Oops")], steps)
    assert failed.recorded.result.listings == {}


# --- what is carried over


def step(name: str, path: str = "/", method: str = "GET", **http: Any) -> dict[str, Any]:
    return {"name": name, "http": {"url": f"{SITE}{path}", "method": method, **http}}


def capturing(expression: str) -> dict[str, Any]:
    return step("First") | {"capture": {"value": expression}}


def run_with_captured(value: Any, second: dict[str, Any]) -> StepsProbeRun:
    return run_steps([json_response({"value": value}), http_response()], [capturing("body.value"), second])


@pytest.mark.parametrize(
    ("value", "path", "sent"),
    [
        ("a b/c?d=e&f#g%2F", "/x/{value}/y", "/x/a%20b%2Fc%3Fd%3De%26f%23g%252F/y"),
        ("a b/c?d=e&f#g+", "/x?q={value}&r=1", "/x?q=a%20b%2Fc%3Fd%3De%26f%23g%2B&r=1"),
        ("ü", "/{value}", "/%C3%BC"),
        ("..", "/x?q={value}", "/x?q=.."),
        ("..", "/x/a{value}", "/x/a.."),
        (17, "/x/{value}-{value}", "/x/17-17"),
        (True, "/x/{value}", "/x/true"),
        (0.5, "/x/{value}", "/x/0.5"),
        ("{value}", "/x/{value}", "/x/%7Bvalue%7D"),
    ],
)
def test_a_value_in_a_url_is_percent_encoded(value: Any, path: str, sent: str) -> None:
    assert run_with_captured(value, step("Second", path)).targets[1] == f"GET {sent}"


@pytest.mark.parametrize(
    ("value", "template", "sent"),
    [
        ("a", {"x": ["{value}", {"y": "<{value}>"}], "{value}": 1}, {"x": ["a", {"y": "<a>"}], "{value}": 1}),
        (17, {"x": "{value}", "y": "{value} items"}, {"x": 17, "y": "17 items"}),
        (True, ["{value}"], [True]),
        ('a", "b": "c', {"x": "{value}"}, {"x": 'a", "b": "c'}),
        ("{value}", {"x": "{value}{value}"}, {"x": "{value}{value}"}),
    ],
)
def test_a_value_in_json_keeps_its_type_if_it_stands_alone(value: Any, template: Any, sent: Any) -> None:
    assert json.loads(run_with_captured(value, step("Second", method="POST", json=template)).requests[1].body) == sent


def test_a_value_in_a_body_and_a_header_is_sent_as_text() -> None:
    second = step("Second", method="PUT", body="v={value}&braces={ value }{}", headers={"X-Value": "<{value}>"})
    request = run_with_captured(17, second).requests[1]
    assert request.body == b"v=17&braces={ value }{}"
    assert request.header("X-Value") == "<17>"


@pytest.mark.parametrize(
    ("expression", "sent"),
    [
        ("headers['location']", "/orders/17"),
        ("cookies.session", "s3ssion-of-acme"),
        ("cookies['lang']", "en"),
        ("string(status)", "201"),
        ("body.items[1].id", "b"),
        ("body.items.filter(item, item.id != 'a')[0].id", "b"),
        ("size(body.items)", "2"),
        ("status < 300", "true"),
    ],
)
def test_what_can_be_captured(expression: str, sent: str) -> None:
    head = b"HTTP/1.1 201 Created\r\nLocation: /orders/17\r\nContent-Type: application/json\r\n"
    head += b"Set-Cookie: session=s3ssion-of-acme; Path=/; HttpOnly\r\nSet-Cookie: lang=en\r\nSet-Cookie: nonsense\r\n"
    body = b'{"items": [{"id": "a"}, {"id": "b"}]}'
    reply = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    run = run_steps([reply, http_response()], [capturing(expression), step("Second", headers={"X-Value": "{value}"})])
    assert (run.verdict, run.requests[1].header("X-Value")) == (("pass", "", ""), sent)


def test_a_later_step_replaces_what_an_earlier_one_has_captured() -> None:
    replies = [json_response({"value": "first-value"}), json_response({"value": "second-value"}), http_response()]
    steps = [capturing("body.value"), capturing("body.value") | {"name": "Again"}, step("Last", "/{value}")]
    run = run_steps(replies, steps)
    assert run.targets[2] == "GET /second-value"
    assert "first-value" not in run.everything_shown


def with_cookies(*cookies: str, status: str = "200 OK", location: str = "") -> bytes:
    lines = "".join(f"Set-Cookie: {cookie}\r\n" for cookie in cookies)
    lines += f"Location: {location}\r\n" if location else ""
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: 0\r\n\r\n".encode()


def test_cookies_are_sent_to_the_following_steps() -> None:
    replies = [
        with_cookies("session=first; Path=/", "admin=1; Path=/admin", "secure=1; Secure"),
        with_cookies("session=second; Path=/", "lang=en; Path=/"),
        with_cookies("lang=; Path=/; Max-Age=0"),
        http_response(),
    ]
    steps = [step("1", "/login", "POST"), step("2", "/a"), step("3", "/admin/b"), step("4", "/c")]
    run = run_steps(replies, steps)
    cookies = [request.header("Cookie") for request in run.requests]
    assert cookies == [None, "session=first", "admin=1; session=second; lang=en", "session=second"]


def test_cookies_of_a_redirect_are_sent_to_the_following_steps() -> None:
    replies = [with_cookies("seen=1; Path=/", status="302 Found", location="/b"), with_cookies("b=2; Path=/")]
    steps = [step("1"), step("2", headers={"cookie": "lang=en"}), step("3", follow_redirects=False)]
    run = run_steps([*replies, http_response(), http_response()], steps)
    cookies = [request.header("Cookie") for request in run.requests]
    assert cookies == [None, "seen=1", "lang=en; seen=1; b=2", "seen=1; b=2"]


def test_cookies_and_a_header_go_to_their_own_origin_alone() -> None:
    async def script() -> tuple[StepsProbeRun, str | None]:
        async with running_site([http_response()]) as other:
            foreign = {"name": "Other", "http": f"{other.url}/x"}
            run = await run_steps_on_site(
                [with_cookies("session=s3ssion-of-acme; Path=/"), http_response()], [step("1"), foreign, step("3")]
            )
            return run, other.requests[0].header("Cookie")

    run, foreign_cookie = asyncio.run(script())
    assert run.verdict == ("pass", "", "")
    assert foreign_cookie is None
    assert run.requests[1].header("Cookie") == "session=s3ssion-of-acme"


def test_runs_share_no_cookies_and_no_captured_values() -> None:
    async def script() -> list[str | None]:
        async with running_site([with_cookies("a=1"), http_response()] * 2) as site:
            probe = build_steps_probe(site.url, [step("1"), step("2")])
            await run_probe(probe)
            await run_probe(probe)
            return [request.header("Cookie") for request in site.requests]

    assert asyncio.run(script()) == [None, "a=1", None, "a=1"]


# --- retries


def test_all_steps_are_repeated_with_the_same_idempotency_keys() -> None:
    replies = [LOGGED_IN, json_response({}, "502 Bad Gateway"), LOGGED_IN, ITEMS, BOUGHT]
    run = run_steps(replies, STEPS, retries=2)
    assert run.verdict == ("pass", "", "")
    assert run.recorded.result.measurements["attempts"] == 2
    keys = [request.header("Idempotency-Key") for request in run.requests]
    assert keys[0] == keys[2]
    assert keys[0] is not None
    assert keys[4] is not None
    assert keys[0] != keys[4], "two requests of one run are not the same"
    assert (keys[1], keys[3]) == (None, None), "a GET changes nothing"


def test_a_failed_expectation_is_not_retried() -> None:
    run = run_steps([LOGGED_IN, ITEMS], [LOGIN, CART | {"expect": ["size(body.items) > 2"]}], retries=2)
    assert (run.verdict[1], run.targets) == ("expectation.failed", ["POST /login", "GET /carts/17"])


# --- faults

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LONG = b'{"value": "' + b"x" * 300_000 + b'"}'
CAPTURE_FAULTS: dict[str, tuple[bytes, str, tuple[str, str, str]]] = {
    "the field is missing": (
        json_response({"tokens": 1}),
        "body.token",
        ("fail", "capture.missing", "value cannot be captured: body has no field 'token'; it has 'tokens'"),
    ),
    "the header is missing": (
        http_response(),
        "headers['location']",
        ("fail", "capture.missing", "value cannot be captured: headers has no field 'location'"),
    ),
    "the cookie is missing": (
        http_response(),
        "cookies.session",
        ("fail", "capture.missing", "value cannot be captured: cookies has no field 'session'"),
    ),
    "null": (json_response({"token": None}), "body.token", ("fail", "capture.missing", "it is null")),
    "empty": (json_response({"token": " "}), "body.token", ("fail", "capture.missing", "it is empty")),
    "an object": (
        json_response({"token": {"value": "x"}}),
        "body.token",
        ("fail", "capture.unusable", "it is an object, expected text, a number, or true or false"),
    ),
    "a list": (
        json_response({"token": ["x"]}),
        "body.token",
        ("fail", "capture.unusable", "it is a list, expected text, a number, or true or false"),
    ),
    "another type": (
        http_response(),
        "duration('1h')",
        ("fail", "capture.unusable", "it is of another type, expected text, a number, or true or false"),
    ),
    "too long": (
        json_response({"token": "x" * 8_193}),
        "body.token",
        ("fail", "capture.unusable", "it is longer than 8,192 characters"),
    ),
    "a number that is too large": (
        json_response({"token": 2**64 + 1}),
        "body.token",
        ("fail", "capture.unusable", "it is a number that cannot be sent exactly"),
    ),
    "no number": (
        http_response(b'{"token": NaN}'),
        "body.token",
        ("fail", "capture.unusable", "it is a number that cannot be sent exactly"),
    ),
    "a page instead of JSON": (
        http_response(b"<html>Sign in</html>", Content_Type="application/json"),
        "body.token",
        ("fail", "json.invalid", "value cannot be captured: the body is not valid JSON: "),
    ),
    "half of the JSON": (
        http_response(b'{"token": "abc', Content_Type="application/json"),
        "body.token",
        ("fail", "json.truncated", "value cannot be captured: the body ends before its JSON is complete"),
    ),
    "a body that is not read as a whole": (
        http_response(LONG),
        "body.value",
        ("error", "body.too_large", "value cannot be captured: the body is longer than 256 KiB (max_body)"),
    ),
    "too many entries": (
        json_response({"n": list(range(20_000))}),
        "body.n.all(a, body.n.all(b, a >= 0))",
        ("error", "expectation.over_budget", "it iterates over more entries than Watchdog allows"),
    ),
}


@pytest.mark.parametrize("fault", CAPTURE_FAULTS)
def test_a_value_that_cannot_be_captured(fault: str) -> None:
    reply, expression, (outcome, reason, message) = CAPTURE_FAULTS[fault]
    run = run_steps([reply, http_response()], [capturing(expression), step("Second", "/{value}")])
    assert run.verdict[:2] == (outcome, reason)
    assert run.verdict[2].startswith("step 1 (First): value cannot be captured: ")
    assert message in run.verdict[2]
    assert len(run.requests) == 1, "the second step needs the value"
    assert run.steps == ["First: HTTP 200", "Second: not run"]


def test_every_value_that_cannot_be_captured_is_named() -> None:
    steps = [step("First") | {"capture": {"a": "body.a", "b": "body.b", "c": "body.c"}}]
    run = run_steps([json_response({"b": "x", "c": []})], steps)
    problems = "a cannot be captured: body has no field 'a'; c cannot be captured: it is a list, expected text, "
    assert run.verdict[2].startswith(f"step 1 (First): {problems}")


def test_a_status_precedes_what_cannot_be_captured() -> None:
    run = run_steps([json_response({"error": "wrong password"}, "401 Unauthorized")], STEPS)
    assert run.verdict == ("fail", "http.401", "step 1 (Log in): HTTP 401, expected 2xx")


@pytest.mark.parametrize("value", ["x\r\nX-Admin: 1", "x\ny", "\x1b[1m", "\x7f"])
def test_a_value_with_a_line_break_is_not_sent_in_a_header(value: str) -> None:
    run = run_with_captured(value, step("Second", headers={"X-Value": "{value}"}))
    message = "step 2 (Second): value cannot be sent in the header X-Value: it contains a line break or another "
    assert run.verdict[:2] == ("fail", "capture.invalid_in_header")
    assert run.verdict[2] == f"{message}control character"
    assert len(run.requests) == 1
    assert run.steps == ["First: HTTP 200", "Second: not sent"]


@pytest.mark.parametrize(("value", "path"), [("..", "/a/{value}/b"), (".", "/a/{value}"), (".", "/{value}{value}?x=1")])
def test_a_value_does_not_change_the_path_of_a_url(value: str, path: str) -> None:
    run = run_with_captured(value, step("Second", path))
    assert run.verdict[:2] == ("fail", "capture.invalid_in_url")
    assert "cannot be sent in the path of the URL: it is . or .., which would change the path" in run.verdict[2]
    assert len(run.requests) == 1


NO_HTTP = "the response is not HTTP"
REPLY_FAULTS: dict[str, tuple[bytes | ConnectionHandler, tuple[str, str, str]]] = {
    "no response": (b"", ("fail", "connection.closed", "connection closed by the server")),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2p1\r\n", ("fail", "protocol.not_http", NO_HTTP)),
    "malformed header": (
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        ("fail", "protocol.invalid_response", "the response is not valid HTTP"),
    ),
    "half a body": (
        HEAD + b'Content-Length: 30\r\n\r\n{"items": [',
        ("fail", "body.truncated", "the response body is incomplete: received 11 bytes, expected 30"),
    ),
    "not compressed": (
        http_response(b"plain", Content_Encoding="gzip"),
        ("fail", "body.invalid_encoding", "the response body is not compressed as its headers state"),
    ),
    "half compressed": (
        http_response(gzip.compress(b'{"items": [1]}')[:-9], Content_Encoding="gzip"),
        ("fail", "body.truncated", "the response body is incomplete"),
    ),
    "redirect to nowhere": (
        http_response(status="302 Found", Location="mailto:x@acme.example"),
        ("fail", "http.invalid_redirect", "cannot be followed"),
    ),
    "invalid JSON": (
        http_response(b"{items", Content_Type="application/json"),
        ("fail", "json.invalid", "the body is not valid JSON"),
    ),
    "large and nested too deeply": (
        http_response(b"[" * 100_000, Content_Type="application/json"),
        ("error", "json.too_complex", "the body's JSON is nested deeper than Watchdog reads"),
    ),
}


@pytest.mark.parametrize("fault", REPLY_FAULTS)
def test_a_fault_names_its_step(fault: str) -> None:
    reply, (outcome, reason, message) = REPLY_FAULTS[fault]
    run = run_steps([LOGGED_IN, reply], [LOGIN, CART | {"expect": ["size(body.items) > 0"]}, BUY])
    assert run.verdict[:2] == (outcome, reason)
    assert run.verdict[2].startswith("step 2 (Cart): ")
    assert message in run.verdict[2]
    assert run.recorded.evidence.facts["step"] == "2 of 3: Cart"
    assert run.steps[::2] == ["Log in: HTTP 200", "Buy: not run"]


def test_a_server_that_is_down_is_named() -> None:
    port = find_free_port()
    down = {"name": "Payment", "http": f"http://127.0.0.1:{port}/pay"}
    run = run_steps([LOGGED_IN], [LOGIN, down])
    assert run.verdict == ("fail", "connection.refused", "step 2 (Payment): connection refused")
    assert run.recorded.evidence.facts["url"] == f"http://127.0.0.1:{port}/pay"
    assert run.recorded.result.duration is not None, "the first step reached its server"
    first = run_steps([], [down, LOGIN])
    assert first.verdict[2] == "step 1 (Payment): connection refused"
    assert first.recorded.result.duration is None


def test_the_address_filter_applies_to_every_step() -> None:
    steps = [{"name": "Metadata", "http": "http://169.254.169.254/latest"}]
    run = run_steps([], steps)
    assert run.verdict[:2] == ("fail", "connection.address_blocked")
    private = run_steps([LOGGED_IN], [LOGIN], allow_private_addresses=False)
    assert (private.verdict[1], private.requests) == ("connection.address_blocked", [])


# --- time


def hang_after(start: bytes) -> ConnectionHandler:
    """Sends this, and then nothing until the client closes the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        await reader.read()

    return handle


HANGING = hang_after(b"")
HANGING_BODY = hang_after(HEAD + b'Content-Length: 30\r\n\r\n{"items": [')


@pytest.mark.parametrize(
    ("reply", "reason", "activity"),
    [
        (HANGING, "timeout.first_byte", "waiting for the first byte"),
        (HANGING_BODY, "timeout.body", "reading the response"),
    ],
)
def test_a_step_has_a_time_limit_of_its_own(reply: ConnectionHandler, reason: str, activity: str) -> None:
    run = run_steps([LOGGED_IN, reply], [LOGIN, CART | {"timeout": "100ms"}, BUY], timeout="60s")
    assert run.verdict == ("fail", reason, f"step 2 (Cart): timed out after 100 ms while {activity}")
    facts = run.recorded.evidence.facts
    assert facts["timeout"] == f"100{NBSP}ms for this step"
    assert facts["steps"].endswith("; Buy: not run")


def test_all_steps_share_one_deadline() -> None:
    started = time.monotonic()
    run = run_steps([LOGGED_IN, HANGING], [LOGIN, CART | {"timeout": "60s"}, BUY], timeout="3s", retries=3)
    assert run.verdict == (
        "fail",
        "timeout.first_byte",
        "step 2 (Cart): timed out after 3 s while waiting for the first byte",
    )
    assert run.recorded.evidence.facts["timeout"] == f"3{NBSP}s for all steps"
    assert 2.5 <= time.monotonic() - started < HANG_S
    assert run.steps == ["Log in: HTTP 200", "Cart: no response", "Buy: not run"]


def test_a_late_event_loop_does_not_hide_the_step() -> None:
    async def block_event_loop(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        time.sleep(2.5)  # noqa: ASYNC251 - beyond the time limit of the step and that of the run at once
        await reader.read()

    run = run_steps([LOGGED_IN, block_event_loop], [LOGIN, CART], timeout="2s")
    assert run.verdict[:2] == ("fail", "timeout.first_byte")
    assert run.verdict[2] == "step 2 (Cart): timed out after 2 s while waiting for the first byte"


def test_a_step_that_timed_out_is_retried() -> None:
    replies: list[bytes | ConnectionHandler] = [LOGGED_IN, HANGING, LOGGED_IN, ITEMS]
    run = run_steps(replies, [LOGIN, CART | {"timeout": "100ms"}], timeout="60s", retries=1)
    assert run.verdict[1] in ("", "timeout.first_byte")
    assert run.targets[2] == "POST /login"


def test_no_descriptor_and_no_task_remains() -> None:
    async def script() -> set[str]:
        counts: list[int] = []
        replies: list[bytes | ConnectionHandler] = [
            b"",
            LOGGED_IN,
            HANGING,
            LOGGED_IN,
            REPLY_FAULTS["half a body"][0],
            LOGGED_IN,
            ITEMS,
            BOUGHT,
        ]
        async with running_site(replies * 3) as site:
            probe = build_steps_probe(site.url, [LOGIN, CART | {"timeout": "100ms"}, BUY])
            for _ in range(3):
                for _ in range(4):
                    await run_probe(probe)
                counts.append(count_open_descriptors())
            await wait_until_async(lambda: count_open_descriptors() <= counts[0])
        own = asyncio.current_task()
        return {repr(task) for task in asyncio.all_tasks() if task is not own}

    assert asyncio.run(script()) == set()


def test_a_large_response_is_judged_and_captured_in_the_worker_process() -> None:
    large = json_response({"value": "v4lue-of-the-worker", "padding": "x" * 100_000})
    run = run_steps([large, http_response()], [capturing("body.value"), step("Second", "/{value}")])
    assert run.verdict == ("pass", "", "")
    assert run.targets[1] == "GET /v4lue-of-the-worker"
    assert "judge" in run.recorded.result.phases


# --- TLS


def run_over_tls(folder: Path, *valid_until_days: float) -> StepsProbeRun:
    """One step for each server, whose certificate is valid for that long."""
    authority = CertificateAuthority(folder)

    async def script() -> StepsProbeRun:
        async with AsyncExitStack() as stack:
            steps = []
            for number, days in enumerate(valid_until_days, start=1):
                tls = authority.server_tls_context("127.0.0.1", begin=-90, end=days)
                site = await stack.enter_async_context(running_site([http_response()], tls))
                http = {"url": site.server.url_of(scheme="https"), "tls": {"ca_file": authority.ca_file}}
                steps.append({"name": f"{number}", "http": http, "expect": ["cert_days > 10"]})
            return StepsProbeRun(await run_probe(build_steps_probe("", steps)), [])

    return asyncio.run(script())


def test_the_certificate_that_expires_first_is_measured(tmp_path: Path) -> None:
    run = run_over_tls(tmp_path, 60.5, 30.5, 90.5)
    assert run.verdict == ("pass", "", "")
    assert run.recorded.result.measurements["cert_days"] == 30
    assert "tls" in run.recorded.result.phases
    assert "cert_days" not in run_steps([http_response()], [step("First")]).recorded.result.measurements


def test_an_expired_certificate_names_its_step(tmp_path: Path) -> None:
    run = run_over_tls(tmp_path, 60.5, -3)
    assert run.verdict[:2] == ("fail", "tls.expired")
    assert run.verdict[2].startswith("step 2 (2): ")


def test_an_interrupted_run_reports_the_step_without_its_secrets() -> None:
    """The service interrupts a run whose own time limit came too late."""

    async def script() -> tuple[dict[str, Any], str]:
        partial = HEAD + b'Content-Length: 90\r\n\r\n{"echo": "' + TOKEN.encode() + b'", '
        async with running_site([LOGGED_IN, hang_after(partial)]) as site, NetworkAccess() as network:
            probe = build_steps_probe(site.url, STEPS)
            context = ProbeAttemptContext(0, 1_800_000_000_000, 60.0, "wd-key", {}, network)
            running = asyncio.create_task(probe.observe(context))
            await wait_until_async(lambda: TOKEN in context.phase_timer.attempt_evidence_so_far.excerpt)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
            evidence = context.phase_timer.attempt_evidence_so_far
            return dict(evidence.facts), evidence.excerpt

    facts, excerpt = asyncio.run(script())
    assert facts["step"] == "2 of 3: Cart"
    assert '{"echo": "•••"' in excerpt
    assert TOKEN not in excerpt


async def _count_connections(probe_timeout: str) -> int:
    async with running_server(HANGING) as server:
        await run_probe(build_steps_probe(server.url_of(""), [step("1"), step("2")], timeout=probe_timeout))
        return server.connection_count


def test_no_step_follows_one_that_timed_out() -> None:
    assert asyncio.run(_count_connections("100ms")) == 1


def test_an_error_of_watchdog_is_no_failure_of_the_target() -> None:
    run = run_steps([LOGGED_IN, http_response(LONG)], [LOGIN, CART | {"expect": ["body.value == ''"]}])
    result = run.recorded.result
    assert (result.outcome, result.reason) == (Outcome.ERROR, "body.too_large")
    assert result.message.startswith("step 2 (Cart): an expression cannot be evaluated: ")
