"""What steps capture, and their cookies, appear in no message, no evidence and no log."""

from __future__ import annotations

import base64
import html
import json
import logging
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.scripted_servers import ConnectionHandler, http_response, send_parts
from tests.support.step_sites import SITE, StepsProbeRun, json_response, run_steps
from watchdog.net.redact import MASK_PLACEHOLDER

TOKEN = "t0k/+ <'\"\\ü-of-acme"
LONG_TOKEN = "eyJhbGciOiJIUzI1NiJ9." + "abcdefgh" * 30
FIRST = {"name": "Log in", "http": {"url": f"{SITE}/login"}, "capture": {"value": "body.value"}}


def second(**fields: Any) -> dict[str, Any]:
    return {"name": "Next", "http": {"url": f"{SITE}/next?v={{value}}"}, **fields}


def run_with_echo(value: Any, reply: bytes | ConnectionHandler, **fields: Any) -> StepsProbeRun:
    """`reply`: of the second step."""
    return run_steps([json_response({"value": value}), reply], [FIRST, second(**fields)])


@pytest.mark.parametrize(
    "spelling",
    [
        TOKEN,
        json.dumps(TOKEN)[1:-1],
        json.dumps(TOKEN, ensure_ascii=False)[1:-1],
        quote(TOKEN, safe=""),
        quote(TOKEN),
        html.escape(TOKEN),
        repr(TOKEN)[1:-1],
        base64.b64encode(b"canary:" + TOKEN.encode()).decode(),
        f"xx{TOKEN}yy",
    ],
)
def test_a_value_that_a_later_response_repeats_is_masked(spelling: str) -> None:
    run = run_with_echo(TOKEN, http_response(f"you sent {spelling}".encode(), "500 Oops"))
    assert run.recorded.evidence.excerpt.endswith("you sent •••") or "•••" in run.recorded.evidence.excerpt
    assert TOKEN not in run.everything_shown
    assert spelling not in run.recorded.evidence.excerpt


def test_a_step_that_captures_shows_no_value_itself() -> None:
    run = run_steps([json_response({"value": TOKEN, "access": f"for {TOKEN}"}, "500 Oops")], [FIRST])
    assert run.verdict == ("fail", "http.500", "step 1 (Log in): HTTP 500, expected 2xx")
    assert json.loads(run.recorded.evidence.excerpt.partition("\n\n")[2]) == {"value": "•••", "access": "for •••"}


@pytest.mark.parametrize(
    ("value", "expect", "message"),
    [
        (TOKEN, "body.value == 'x'", "step 2 (Next): body.value is '•••', expected 'x'"),
        (LONG_TOKEN, "body.value == 'x'", "step 2 (Next): body.value is '•••…', expected 'x'"),
        (LONG_TOKEN, "body.text == 'x'", "step 2 (Next): body.text is 'the value •••…', expected 'x'"),
        ("short", "body.value == 'x'", "step 2 (Next): body.value is '•••', expected 'x'"),
        (4711, "body.value == 1", "step 2 (Next): body.value is •••, expected 1"),
    ],
)
def test_a_message_about_a_value_does_not_show_it(value: Any, expect: str, message: str) -> None:
    run = run_with_echo(value, json_response({"value": value, "text": f"the value {value}"}), expect=[expect])
    assert run.verdict == ("fail", "expectation.failed", message)
    assert run.recorded.evidence.facts["expect"][expect].startswith("false: observed ")
    assert str(value)[:12] not in run.everything_shown.replace("127.0.0.1", "")


def test_a_preference_about_a_value_does_not_show_it() -> None:
    run = run_with_echo(TOKEN, json_response({"value": TOKEN}), prefer=["body.value == 'x'"])
    assert run.verdict == ("pass", "", "")
    (facts,) = run.recorded.result.listings["preference"].subjects.values()
    assert facts.problem == "step 2 (Next): body.value is '•••', expected 'x'"


def test_a_preference_does_not_show_what_a_later_step_captures() -> None:
    first = {"name": "Home", "http": {"url": f"{SITE}/home"}, "prefer": ["body.value == 'x'"]}
    run = run_steps([json_response({"value": TOKEN}), json_response({"value": TOKEN})], [first, FIRST])
    (facts,) = run.recorded.result.listings["preference"].subjects.values()
    assert facts.problem == "step 1 (Home): body.value is '•••', expected 'x'"


@pytest.mark.parametrize("length", range(4_900, 5_010, 7))
def test_a_value_that_is_cut_off_with_the_excerpt_is_masked(length: int) -> None:
    body = "x" * (length - 1) + " " + LONG_TOKEN
    run = run_with_echo(LONG_TOKEN, http_response(body.encode(), "500 Oops"))
    assert LONG_TOKEN[:8] not in run.everything_shown


def test_a_location_is_masked_also_without_its_query() -> None:
    location = "/sessions/0123456789abcdef?key=1"
    http = {"url": f"{SITE}/login", "follow_redirects": False}
    first = {**FIRST, "http": http, "capture": {"value": "headers['location']"}}
    reply = http_response(status="303 See Other", Location=location)
    run = run_steps([reply], [first | {"expect": ["status == 200"]}])
    assert "location: •••" in run.recorded.evidence.excerpt
    assert "0123456789" not in run.everything_shown


def test_the_target_of_a_redirect_is_masked() -> None:
    reply = http_response(status="302 Found", Location=f"/go/{quote(TOKEN, safe='')}")
    replies = [json_response({"value": TOKEN}), reply, http_response(status="404 Not Found")]
    run = run_steps(replies, [FIRST, second()])
    assert run.recorded.evidence.facts["redirected_to"].endswith("/go/•••")
    assert quote(TOKEN, safe="") not in run.everything_shown


def test_a_redirect_that_cannot_be_followed_does_not_show_a_value() -> None:
    run = run_with_echo(LONG_TOKEN, http_response(status="302 Found", Location=f"mailto:{LONG_TOKEN}"))
    assert run.verdict[1] == "http.invalid_redirect"
    assert LONG_TOKEN[:12] not in run.everything_shown


@pytest.mark.parametrize(
    "reply",
    [
        send_parts(b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\nServer: x\r\n\r\n{"value": "t0k-of-the-half"'),
        send_parts(b"HTTP/1.1 200 OK\r\nX-Value: t0k-of-the-half\r\nContent-"),
        send_parts(
            b'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 26\r\n\r\n{"value": "t0k-of-the-half'
        ),
    ],
)
def test_half_of_a_response_with_a_value_is_not_shown(reply: ConnectionHandler) -> None:
    """The value cannot be captured, so it cannot be masked."""
    run = run_steps([reply], [FIRST, second()])
    assert run.recorded.result.outcome == "fail"
    assert run.recorded.evidence.excerpt in ("HTTP/1.1 200 OK", "")
    assert "t0k-of-the-half" not in run.everything_shown


def test_half_of_a_later_response_is_shown_without_the_value() -> None:
    half = f"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nyour token is {LONG_TOKEN}, and {LONG_TOKEN[:40]}"
    run = run_with_echo(LONG_TOKEN, send_parts(half.encode()))
    assert run.verdict[1] == "body.truncated"
    assert run.recorded.evidence.excerpt.endswith("your token is •••, and •••")


def test_a_value_that_cannot_be_used_is_masked_as_well() -> None:
    value = "too-long-" + "xyz1" * 30_000
    run = run_steps([json_response({"value": value})], [FIRST])
    assert run.verdict[1] == "capture.unusable"
    assert "too-long-" not in run.everything_shown
    assert "xyz1" not in run.everything_shown


def test_fields_that_are_named_like_secrets_are_masked() -> None:
    body = json.dumps({"refresh_token": "r3fresh", "user": "canary", "error": "none"}).encode()
    run = run_steps([http_response(body, "500 Oops")], [FIRST])
    assert "r3fresh" not in run.everything_shown
    assert '"user": "canary"' in run.recorded.evidence.excerpt


def test_cookies_are_masked_and_short_ones_are_not() -> None:
    cookies = b"Set-Cookie: session=s3ssion-of-acme; Path=/\r\nSet-Cookie: lang=en\r\n"
    login = b"HTTP/1.1 200 OK\r\n" + cookies + b"Content-Length: 0\r\n\r\n"
    echo = http_response(b"welcome s3ssion-of-acme, language en", "500 Oops")
    steps = [{"name": "1", "http": f"{SITE}/login"}, {"name": "2", "http": f"{SITE}/next"}]
    run = run_steps([login, echo], steps)
    assert run.recorded.evidence.excerpt.endswith(f"welcome {MASK_PLACEHOLDER}, language en")


def test_the_cookie_of_a_session_is_masked_however_many_follow_it() -> None:
    cookies = ["session=s3ssion-of-acme", *(f"setting{number}=value-of-{number:04}" for number in range(49))]
    lines = "".join(f"Set-Cookie: {cookie}\r\n" for cookie in cookies)
    first = f"HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n\r\n".encode()
    steps = [{"name": "1", "http": f"{SITE}/login"}, {"name": "2", "http": f"{SITE}/next"}]
    run = run_steps([first, http_response(b"s3ssion-of-acme", "500 Oops")], steps)
    assert run.recorded.evidence.excerpt.endswith("\n\n•••")


def test_short_values_are_masked_as_whole_words() -> None:
    run = run_with_echo(17, http_response(b"cart 17 of 170: x17, /17/, 17%", "500 Oops"))
    assert run.recorded.evidence.excerpt.endswith("cart ••• of 170: x17, /•••/, •••%")
    assert run.verdict[2] == "step 2 (Next): HTTP 500, expected 2xx"


def test_a_truth_value_is_no_secret() -> None:
    run = run_with_echo(True, http_response(b"it is true", "500 Oops"))
    assert run.recorded.evidence.excerpt.endswith("it is true")


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    run_with_echo(f"{TOKEN}\r\n", http_response(), http={"url": f"{SITE}/", "headers": {"X-Value": "{value}"}})
    run_with_echo(TOKEN, b"nonsense")
    assert "of-acme" not in caplog.text
