"""The request of an HTTP probe, and its evaluation of the response."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.polling import HANG_S
from tests.support.scripted_servers import ConnectionHandler, http_response, running_server, send_parts
from watchdog.domain.model import Observation, Outcome
from watchdog.net import NetworkAccess, SecretMask, mask_and_truncate_json_tree
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.http import HttpProbe


def probe(http: Any, **fields: Any) -> HttpProbe:
    return HttpProbe.model_validate({"name": "API", "http": http, **fields})


async def observed(watched: HttpProbe) -> Observation:
    async with NetworkAccess() as network:
        attempt = ProbeAttemptContext(0, 1_800_000_000_000, 10.0, "wd-key", {}, network)
        observation = await asyncio.wait_for(watched.observe(attempt), HANG_S)
        assert list(observation.phases) == list(attempt.phase_timer.phase_durations_ms)
        return observation


async def _observe(
    handler: ConnectionHandler, http: Mapping[str, Any], fields: Mapping[str, Any]
) -> tuple[Observation, str]:
    async with running_server(handler) as server:
        observation = await observed(probe({"url": server.url_of("/health?key=of-query")} | dict(http), **fields))
        return observation, server.request_heads[0]


def observe(handler: ConnectionHandler, http: Mapping[str, Any] | None = None, **fields: Any) -> Observation:
    return asyncio.run(_observe(handler, http or {}, fields))[0]


def sent(http: Mapping[str, Any]) -> str:
    """The head of the request."""
    return asyncio.run(_observe(send_parts(http_response()), http, {}))[1]


HEALTH = json.dumps({"ok": True, "queue": {"failed": 61, "waiting": 3}, "names": ["a", "b"]}).encode()
JSON = {"Content_Type": "application/json"}


# --- verdicts


@pytest.mark.parametrize(
    ("status", "expect", "outcome", "reason", "message"),
    [
        # without expectations, only 2xx is good
        ("200 OK", [], "pass", "", ""),
        ("204 No Content", [], "pass", "", ""),
        ("301 Moved", [], "fail", "http.301", "HTTP 301, expected 2xx"),
        ("404 Not Found", [], "fail", "http.404", "HTTP 404, expected 2xx"),
        ("503 Unavailable", [], "fail", "http.503", "HTTP 503, expected 2xx"),
        # an expectation about the status decides which statuses are good
        ("503 Unavailable", ["status == 503"], "pass", "", ""),
        ("503 Unavailable", ["body.ok", "status in [200, 503]"], "pass", "", ""),
        ("503 Unavailable", ["status < 500 || body.ok"], "pass", "", ""),
        # any other does not
        ("503 Unavailable", ["body.ok"], "fail", "http.503", "HTTP 503, expected 2xx"),
        ("301 Moved", ["body.ok"], "fail", "http.301", "HTTP 301, expected 2xx"),
        ("503 Unavailable", ["body.names.all(status, status != 'c')"], "fail", "http.503", "HTTP 503, expected 2xx"),
        ("503 Unavailable", ["headers['content-type'] != 'status'"], "fail", "http.503", "HTTP 503, expected 2xx"),
        ("503 Unavailable", ["!has(body.status) // status"], "fail", "http.503", "HTTP 503, expected 2xx"),
        ("200 OK", ["status == 204"], "fail", "expectation.failed", "HTTP 200, expected 204"),
        (
            "200 OK",
            ["body.ok", "body.queue.failed <= 50", "status == 1"],
            *("fail", "expectation.failed", "body.queue.failed is 61, expected <= 50; HTTP 200, expected 1"),
        ),
        (
            "200 OK",
            ["'c' in body.names"],
            *("fail", "expectation.failed", "body.names is a list of 2, expected to contain 'c'"),
        ),
        # an unexpected status precedes the expression that it breaks
        (
            "500 Oops",
            ["body.queue.failed <= 50"],
            *("fail", "http.500", "HTTP 500, expected 2xx; body.queue.failed is 61, expected <= 50"),
        ),
        (
            "502 Bad Gateway",
            ["body.health == 'good'"],
            *("fail", "http.502", "HTTP 502, expected 2xx; an expression cannot be evaluated: "),
        ),
        ("500 Oops", ["status == 200"], "fail", "expectation.failed", "HTTP 500, expected 200"),
        # an expression that cannot be evaluated has its own reason
        (
            "200 OK",
            ["body.queue.paused == 0"],
            *(
                "fail",
                "expectation.evaluation_failed",
                "an expression cannot be evaluated: body.queue has no field 'paused'",
            ),
        ),
        (
            "200 OK",
            ["headers['x-none'] == ''"],
            *("fail", "expectation.evaluation_failed", "an expression cannot be evaluated: "),
        ),
        ("200 OK", ["headers['content-type'] == 'application/json'"], "pass", "", ""),
        ("200 OK", ["elapsed_ms < 5000 && elapsed_ms >= 0"], "pass", "", ""),
        ("200 OK", ["body.names.size() == 2 && body.queue.waiting in [1, 2, 3]"], "pass", "", ""),
    ],
)
def test_the_verdict(status: str, expect: list[str], outcome: str, reason: str, message: str) -> None:
    observation = observe(send_parts(http_response(HEALTH, status, **JSON)), expect=expect)
    assert (observation.outcome, observation.reason) == (outcome, reason)
    assert observation.message.startswith(message)
    assert bool(observation.message) == bool(message)
    assert observation.retryable == (outcome == "fail" and status.startswith("5"))


@pytest.mark.parametrize(
    ("body", "content_type", "expression"),
    [
        (b'{"a": 1}', "text/plain", "body.a == 1"),
        (b" [1, 2]", "text/plain", "body[1] == 2"),
        (b'"word"', "application/json", "body == 'word'"),
        (b"17", "application/problem+json", "body == 17"),
        (b"17", "text/plain", "body == '17'"),
        (b"all is well", "text/html", "body.contains('well')"),
        (b"{not json", "application/json", "body == '{not json'"),
        (b"[" * 100_000, "application/json", "body.startsWith('[[')"),
        (b"", "application/json", "body == ''"),
        (b'{"n": null}', "application/json", "body.n == null"),
    ],
)
def test_the_body_is_json_by_its_type_or_content_and_text_otherwise(
    body: bytes, content_type: str, expression: str
) -> None:
    observation = observe(send_parts(http_response(body, Content_Type=content_type)), expect=[expression])
    assert (observation.outcome, observation.message) == (Outcome.PASS, "")


@pytest.mark.parametrize(
    ("handler", "reason", "why"),
    [
        (
            send_parts(http_response(b'{"a": "' + b"x" * 300_000 + b'"}')),
            "body.too_large",
            "the body is longer than 256 KiB (max_body)",
        ),
        (
            send_parts(http_response(gzip.compress(b'{"a": "' + b"x" * 300_000 + b'"}'), Content_Encoding="gzip")),
            "body.decoded_too_large",
            "the decoded body is longer than 256 KiB (max_body)",
        ),
        (
            send_parts(http_response(b"\x1f\x9d\x90", Content_Encoding="compress")),
            "body.unsupported_encoding",
            "the body is encoded as compress, which Watchdog cannot decode",
        ),
    ],
)
def test_what_watchdog_did_not_read_is_no_failure_of_the_target(
    handler: ConnectionHandler, reason: str, why: str
) -> None:
    assert observe(handler).outcome is Outcome.PASS
    assert observe(handler, expect=["status == 200"]).outcome is Outcome.PASS
    observation = observe(handler, expect=["status == 200", "body.a == ''"])
    assert (observation.outcome, observation.reason) == (Outcome.ERROR, reason)
    assert observation.message == f"an expression cannot be evaluated: {why}"
    assert observation.evidence.facts["body_incomplete"] == why
    preferred = observe(handler, prefer=["body.a == ''"])
    assert (preferred.outcome, preferred.reason, preferred.listings) == (Outcome.ERROR, reason, {})
    broken = observe(handler, expect=["body.a == ''", "status == 204"])
    assert (broken.outcome, broken.reason) == (Outcome.FAIL, "expectation.failed")


PAGE = b"<html>Checkout" + b"x" * 300_000 + b"</html>"


@pytest.mark.parametrize(
    ("expression", "outcome"),
    [
        # what stands in the part that was read is certain
        ("body.contains('Checkout')", "pass"),
        ("body.startsWith('<html>')", "pass"),
        ("body.matches('Check(in|out)')", "pass"),
        ("!body.startsWith('<?xml')", "pass"),
        ("body.contains('Checkout') && status == 200", "pass"),
        ("body.contains('Checkout') || body.contains('Kasse')", "pass"),
        ("!body.contains('Checkout')", "fail"),
        ("body.startsWith('<?xml')", "fail"),
        ("body.contains('Kasse') && status == 204", "fail"),
        # what does not may follow
        ("body.contains('Kasse')", "error"),
        ("!body.contains('Fatal error')", "error"),
        ("body.contains('Checkout') && !body.contains('Fatal error')", "error"),
        ("body.endsWith('</html>')", "error"),
        ("body.size() > 1000", "error"),
        ("body.matches('x$')", "error"),
        ("body.contains('Checkout') && body.size() < 400000", "error"),
    ],
)
def test_a_long_page_is_judged_by_its_beginning_where_that_decides(expression: str, outcome: str) -> None:
    observation = observe(send_parts(http_response(PAGE, Content_Type="text/html")), expect=[expression])
    assert observation.outcome == outcome, observation.message
    assert observation.reason == {"pass": "", "fail": "expectation.failed", "error": "body.too_large"}[outcome]


@pytest.mark.parametrize("max_body", ["512KiB", "1MiB", "16 MiB"])
def test_max_body_lets_a_longer_page_be_judged(max_body: str) -> None:
    handler = send_parts(http_response(PAGE, Content_Type="text/html"))
    assert observe(handler, {"max_body": max_body}, expect=["body.endsWith('</html>')"]).outcome is Outcome.PASS


@pytest.mark.parametrize("max_body", ["512", 512, "1GiB", "17MiB", "0KiB", "-1MiB", "512 KB"])
def test_an_invalid_max_body_is_refused(max_body: str | int) -> None:
    with pytest.raises(ValidationError, match="expected"):
        probe({"url": "http://a.example/", "max_body": max_body})


def test_an_expression_over_budget_is_no_failure_of_the_target() -> None:
    numbers = json.dumps({"n": list(range(20_000))}).encode()
    expensive = "body.n.all(a, body.n.all(b, a >= 0))"
    for field in ("expect", "prefer"):
        observation = observe(send_parts(http_response(numbers, **JSON)), None, **{field: [expensive]})
        assert (observation.outcome, observation.reason) == (Outcome.ERROR, "expectation.over_budget")
        assert observation.message.endswith("cannot be evaluated: it iterates over more entries than Watchdog allows")


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        (b'{"ok": tru', "json.invalid", "the body is not valid JSON: Expecting value at line 1, column 8"),
        (b'{"ok": true', "json.truncated", "the body ends before its JSON is complete: 11 characters"),
        (b'{"ok": true, "name": "a', "json.truncated", "the body ends before its JSON is complete: 23 characters"),
        (b"", "json.truncated", "the body ends before its JSON is complete: it is empty"),
        (b"<br>Warning{}", "json.invalid", "the body is not valid JSON: Expecting value at line 1, column 1"),
        (b'{"ok": true} x', "json.invalid", "the body is not valid JSON: Extra data at line 1, column 14"),
        (b"[" * 100_000, "json.too_complex", "the body's JSON is nested deeper than Watchdog reads"),
    ],
)
def test_json_that_cannot_be_read_is_the_cause(body: bytes, reason: str, message: str) -> None:
    observation = observe(send_parts(http_response(body, **JSON)), expect=["body.ok"])
    assert (observation.reason, observation.message) == (reason, message)
    assert observation.outcome is (Outcome.ERROR if reason == "json.too_complex" else Outcome.FAIL)


@pytest.mark.parametrize(
    "member",
    [
        rb'"half": "\ud83d"',
        rb'"half": "\uDE00 and \\ud83d"',
        rb'"whole": "\ud83d\ude00"',
        b'"long": ' + b"9" * 5_000,
        b'"long": 18446744073709551616',
        b'"number": NaN',
        b'"number": 1e999',
    ],
)
def test_json_is_read_as_browsers_read_it(member: bytes) -> None:
    body = b'{"status": "ok", ' + member + b"}"
    assert observe(send_parts(http_response(body, **JSON)), expect=["body.status == 'ok'"]).message == ""


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_json_is_read_in_every_encoding_of_unicode(encoding: str) -> None:
    body = '{"status": "ok", "name": "grün"}'.encode(encoding)
    expect = ["body.status == 'ok'", "body.name == 'grün'"]
    assert observe(send_parts(http_response(body, **JSON)), expect=expect).message == ""
    assert observe(send_parts(http_response(body)), expect=expect).message == ""


def preference_problems(observation: Observation) -> dict[str, str] | None:
    listing = observation.listings.get("preference")
    return None if listing is None else {text: facts.problem for text, facts in listing.subjects.items()}


def test_preferences_are_evaluated_only_for_a_good_response() -> None:
    prefer = ["body.queue.failed <= 50", "status == 200", "body.none == 1"]
    good = observe(send_parts(http_response(HEALTH)), prefer=prefer)
    assert good.outcome is Outcome.PASS
    problems = preference_problems(good)
    assert problems is not None
    assert problems["body.queue.failed <= 50"] == "body.queue.failed is 61, expected <= 50"
    assert problems["status == 200"] == ""
    assert problems["body.none == 1"].startswith("an expression cannot be evaluated: ")
    assert observe(send_parts(http_response(HEALTH, "500 Oops")), prefer=prefer).listings == {}
    assert observe(send_parts(), prefer=prefer).listings == {}


# --- evidence


def test_measurements_and_evidence_of_an_answer() -> None:
    headers = {**JSON, "Retry_After": "30", "Set_Cookie": "session=s3cr3t", "X_Internal": "10.0.0.1"}
    observation = observe(
        send_parts(http_response(HEALTH, "503 Service Unavailable", **headers)), expect=["status == 200", "body.ok"]
    )
    assert observation.measurements == {"status": 503, "size": len(HEALTH), "http_version": "1.1"}
    assert observation.duration is not None
    assert observation.duration >= sum(observation.phases.values())
    assert list(observation.phases) == ["connect", "first_byte", "body"]
    facts = dict(observation.evidence.facts)
    assert facts.pop("address").startswith("127.0.0.1:")
    assert facts.pop("elapsed_ms") == round(observation.duration)
    assert facts == {"status": 503, "expect": {"status == 200": "false: observed 503", "body.ok": "true"}}
    assert observation.evidence.excerpt == (
        "HTTP/1.1 503 Service Unavailable\ncontent-type: application/json\nretry-after: 30\n\n" + HEALTH.decode()
    )


def test_a_binary_body_is_not_shown() -> None:
    observation = observe(send_parts(http_response(b"\x89PNG", Content_Type="image/png")))
    assert observation.evidence.excerpt.endswith("\n\n(4 bytes of image/png)")
    observation = observe(send_parts(http_response(b"\0" * 9)))
    assert observation.evidence.excerpt.endswith("\n\n(9 bytes of binary data)")


def test_a_location_is_shown_without_its_query() -> None:
    observation = observe(
        send_parts(http_response(status="302 Found", Location="https://u:p@x.example/login?token=1")),
        {"method": "POST"},
    )
    assert (observation.reason, observation.message) == ("http.302", "HTTP 302, expected 2xx")
    assert "location: https://x.example/login\n" in observation.evidence.excerpt + "\n"
    assert "token" not in observation.evidence.excerpt


def test_a_fault_is_an_observation() -> None:
    observation = asyncio.run(observed(probe("http://127.0.0.1:1/")))
    assert (observation.outcome, observation.reason, observation.message) == (
        Outcome.FAIL,
        "connection.refused",
        "connection refused",
    )
    assert (observation.duration, observation.retryable) == (None, True)
    assert observation.evidence.facts == {"phase": "connect", "address": "127.0.0.1:1"}
    closed = observe(send_parts(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"))
    assert closed.reason == "body.truncated"
    assert closed.duration is not None


def test_a_local_error_is_no_failure_of_the_target() -> None:
    observation = asyncio.run(observed(probe({"url": "https://127.0.0.1:1/", "tls": {"ca_file": "/none.pem"}})))
    assert (observation.outcome, observation.reason) == (Outcome.ERROR, "tls.invalid_file")


PLANTED = {
    "in_header": "s3cret-header-value",
    "in_bearer": "s3cret-bearer-token",
    "in_body": "s3cret&body=value",
    "in_query": "s3cret-query/value",
    "in_path": "s3cret-path-segment",
    "in_user": "s3cret-url-password",
}


@pytest.mark.parametrize("status", ["200 OK", "500 Oops"])
def test_secrets_that_the_server_returns_are_masked(status: str) -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = heads[-1]
        length = re.search(r"Content-Length: (\d+)", head)
        everything = head.encode() + await reader.readexactly(int(length[1]) if length else 0)
        tag = head.replace("\r\n", " ").strip()
        writer.write(http_response(everything, status, Server=tag, Location=f"/{PLANTED['in_path']}"))

    heads: list[str] = []

    async def run_scenario(http: dict[str, Any]) -> Observation:
        async with running_server(repeat) as server:
            server.request_heads = heads
            url = f"http://user:{PLANTED['in_user']}@127.0.0.1:{server.port}/{PLANTED['in_path']}"
            return await observed(
                probe({"url": f"{url}?q={PLANTED['in_query']}", **http}, expect=["status == 200", "body == ''"])
            )

    mask = SecretMask(PLANTED.values())
    for http in (
        {"headers": {"X-Key": PLANTED["in_header"]}},
        {"auth": {"bearer": PLANTED["in_bearer"]}},
        {"auth": {"basic": {"username": "u", "password": PLANTED["in_bearer"]}}},
        {"method": "POST", "body": PLANTED["in_body"]},
        {"method": "POST", "json": {"k": PLANTED["in_body"]}},
    ):
        observation = asyncio.run(run_scenario(http))
        assert observation.reason
        stored = json.dumps(
            [
                mask(observation.message),
                mask(observation.evidence.excerpt),
                mask_and_truncate_json_tree(dict(observation.evidence.facts), mask),
            ]
        )
        assert "s3cret" not in stored
        assert "czNjcmV0" not in stored  # the same in base64
        assert "•••" in json.loads(stored)[1]
        facts_unmasked = json.dumps({k: v for k, v in observation.evidence.facts.items() if k != "expect"})
        assert "s3cret" not in facts_unmasked


# --- requests


def test_a_post_has_json_and_an_idempotency_key() -> None:
    head = sent({"method": "POST", "json": {"pool": "puzzles"}})
    assert head.startswith("POST /health?key=of-query HTTP/1.1\r\n")
    assert "Content-Type: application/json\r\n" in head
    assert "Content-Length: 19\r\n" in head
    assert "Idempotency-Key: wd-key\r\n" in head


@pytest.mark.parametrize(
    ("http", "present", "absent"),
    [
        ({}, [], ["idempotency-key", "authorization", "content-type", "content-length"]),
        ({"method": "PATCH"}, ["Idempotency-Key: wd-key"], []),
        ({"method": "PUT"}, ["Content-Length: 0"], ["idempotency-key"]),
        ({"method": "DELETE"}, [], ["idempotency-key"]),
        ({"method": "POST", "headers": {"idempotency-key": "mine"}}, ["idempotency-key: mine"], ["wd-key"]),
        ({"method": "POST", "json": None}, ["Content-Length: 4"], []),
        (
            {"method": "POST", "json": [], "headers": {"content-type": "application/vnd.x+json"}},
            *(["content-type: application/vnd.x+json"], ["Content-Type: application/json"]),
        ),
        ({"method": "POST", "body": "a=1"}, ["Content-Length: 3"], ["content-type"]),
        ({"auth": {"bearer": "t0ken"}}, ["Authorization: Bearer t0ken"], []),
        ({"auth": {"basic": {"username": "u", "password": "pä"}}}, ["Authorization: Basic dTpww6Q="], []),
        ({"headers": {"Host": "other.example"}}, ["Host: other.example"], ["host: 127"]),
        ({"headers": {"Accept-Encoding": "identity"}}, ["Accept-Encoding: identity"], ["gzip"]),
    ],
)
def test_headers_that_are_sent(http: dict[str, Any], present: list[str], absent: list[str]) -> None:
    head = sent(http)
    assert all(f"\r\n{line}\r\n" in head for line in present)
    assert not any(line.lower() in head.lower() for line in absent if line.islower())
    assert not any(line in head for line in absent)


def test_redirects_are_followed_by_default(nginx: str) -> None:
    followed = asyncio.run(observed(probe(f"{nginx}/old")))
    assert (followed.outcome, followed.measurements["redirects"]) == (Outcome.PASS, 1)
    assert followed.evidence.facts["redirected_to"] == f"{nginx}/new"
    observation = asyncio.run(
        observed(probe({"url": f"{nginx}/old", "follow_redirects": False}, expect=["status == 301"]))
    )
    assert (observation.outcome, observation.measurements["status"]) == (Outcome.PASS, 301)


# --- against nginx


def test_nginx_passes_with_its_phases_timed(nginx: str) -> None:
    observation = asyncio.run(observed(probe(nginx, expect=["status == 200", "body.queue.failed == 61"])))
    assert (observation.outcome, observation.message) == (Outcome.PASS, "")
    assert list(observation.phases) == ["connect", "first_byte", "body"]
    assert all(ms > 0 for ms in observation.phases.values())


def test_nginx_by_name_times_the_lookup_too(nginx: str) -> None:
    observation = asyncio.run(observed(probe(nginx.replace("127.0.0.1", "localhost"))))
    assert (observation.outcome, next(iter(observation.phases))) == (Outcome.PASS, "dns")


def test_nginx_with_compression(nginx: str) -> None:
    observation = asyncio.run(observed(probe(f"{nginx}/zipped", expect=["body.zipped.size() == 5000"])))
    assert (observation.outcome, observation.message) == (Outcome.PASS, "")
    assert isinstance(observation.measurements["size"], int)
    assert observation.measurements["size"] < 500


def test_nginx_in_maintenance_fails_with_its_answer_as_evidence(nginx: str) -> None:
    observation = asyncio.run(observed(probe(f"{nginx}/down")))
    assert (observation.outcome, observation.reason, observation.message) == (
        Outcome.FAIL,
        "http.503",
        "HTTP 503, expected 2xx",
    )
    assert observation.retryable
    assert '"why": "maintenance"' in observation.evidence.excerpt


# --- configuration


def test_a_url_is_a_complete_configuration() -> None:
    assert probe("https://acme.example/").http == probe({"url": "https://acme.example/"}).http


def test_the_target_and_endpoint_of_a_url() -> None:
    watched = probe("https://user:secret@API.acme.example:8443/health?key=secret")
    assert watched.target == "https://api.acme.example:8443/health"
    assert watched.network_endpoint == "api.acme.example:8443"


@pytest.mark.parametrize(
    ("http", "fields", "message"),
    [
        ("acme.example", {}, "expected a URL that starts with http:// or https://"),
        ({}, {}, "Field required"),
        ({"url": "https://h/", "method": "FETCH"}, {}, "Input should be 'GET', 'HEAD'"),
        ({"url": "https://h/", "body": "x"}, {}, "GET requests have no body: set method to POST, PUT or PATCH"),
        ({"url": "https://h/", "json": {}, "method": "HEAD"}, {}, "HEAD requests have no body"),
        ({"url": "https://h/", "method": "POST", "json": {}, "body": ""}, {}, "`body` and `json` cannot be combined"),
        ({"url": "https://h/", "json_body": {}}, {}, "Extra inputs are not permitted"),
        ({"url": "https://h/", "headers": {"a b": "c"}}, {}, "not a valid header name"),
        ({"url": "https://h/", "headers": {"a": "b\r\nc: d"}}, {}, "expected a header value without line breaks"),
        ({"url": "https://h/", "headers": {"a": " b"}}, {}, "expected a header value without line breaks"),
        ({"url": "https://h/", "headers": {"Content-Length": "1"}}, {}, "Watchdog sets this header itself"),
        ({"url": "https://h/", "auth": {}}, {}, "expected exactly one of basic, bearer"),
        (
            {"url": "https://h/", "auth": {"bearer": "x", "basic": {"username": "u", "password": "p"}}},
            *({}, "expected exactly one of basic, bearer"),
        ),
        (
            {"url": "https://h/", "auth": {"bearer": "x"}, "headers": {"authorization": "y"}},
            *({}, "`auth` and an `Authorization` header cannot be combined"),
        ),
        ("http://h/", {"expect": ["cert_days > 14"]}, "cert_days requires an https:// URL"),
        ("http://h/", {"prefer": ["status == 200", "cert_days > 14"]}, "cert_days requires an https:// URL"),
        ("https://h/", {"expect": ["stauts == 200"]}, "stauts"),
    ],
)
def test_invalid_configurations_are_refused(http: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        probe(http, **fields)
    assert message in str(caught.value)


def test_cert_days_is_allowed_with_https() -> None:
    assert probe("https://h/", prefer=["cert_days >= 14"]).preference_expressions[0].used_variables == {"cert_days"}
