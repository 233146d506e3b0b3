from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from pydantic import SecretStr, ValidationError

from tests.notifiers.conftest import SendFixture
from tests.support import alert_contexts
from tests.support.alert_contexts import (
    CHANGED_ALERT,
    MINIMAL_ALERT,
    NOW,
    OPENED_ALERT,
    RESOLVED_ALERT,
    TASK_ALERT,
    notification_for,
)
from tests.support.fakes import CannedResponse, FakeWebhookReceiver, ReceivedRequest
from tests.support.scripted_servers import ConnectionHandler, http_response, running_server, send_forever, send_parts
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.formatting import to_utc_datetime
from watchdog.domain.model import Json
from watchdog.domain.reasons import REASON_CATALOGUE
from watchdog.net import NetworkAccess
from watchdog.notifiers import post
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest
from watchdog.notifiers.webhook import WebhookNotifier, build_webhook_payload

SECRET = "a secret of some length"


def later(when: str) -> CannedResponse:
    return CannedResponse(429, b"", (("Retry-After", when),))


DOCS = (Path(__file__).parents[2] / "docs/webhook.md").read_text(encoding="utf-8")


def signed(request: ReceivedRequest, secret: str, now: float = NOW / 1_000) -> bool:
    """Verify with the code that the documentation gives to receivers."""
    code = re.search(r"```python\n(.*?)```", DOCS, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"hashlib": hashlib, "hmac": hmac}
    exec(code[1], names)
    genuine: bool = names["genuine"](secret.encode(), request.headers["watchdog-signature"], request.body, now)
    return genuine


def test_every_field_is_documented() -> None:
    payload = build_webhook_payload("k", OPENED_ALERT)
    rows = [row.split("|")[1] for row in DOCS.partition("## Document")[2].splitlines() if row.startswith("| `")]
    documented = set()
    for row in rows:
        first, *others = re.findall(r"`([^`]+)`", row)
        documented |= {first, *(first.partition(".")[0] + other for other in others)}
    fields = {
        f"{name}.{inner}" if name in ("incident", "probe", "evidence") else name
        for name, value in payload.items()
        for inner in (value if isinstance(value, dict) else ("",))
    }
    assert fields == documented
    shape = re.findall(r"`([^`]+)`", next(row for row in DOCS.splitlines() if "first_bad" in row).split("|")[2])
    assert shape == list(payload["evidence"]["first_bad"])


def test_a_message_is_signed_and_named(hook: FakeWebhookReceiver, send: SendFixture) -> None:
    notifier = WebhookNotifier(url=f"{hook.url}alert?token=x", secret=SecretStr(SECRET), headers={"X-Api-Key": "k"})
    assert send(notifier, OPENED_ALERT) == {}
    (request,) = hook.received
    assert request.path == "/alert?token=x"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == notification_for(OPENED_ALERT).idempotency_key
    assert request.headers["x-api-key"] == "k"
    assert signed(request, SECRET)
    assert not signed(request, "another secret")
    assert not signed(request, SECRET, now=NOW / 1_000 + 301)
    assert not signed(replace(request, body=request.body + b" "), SECRET)


def test_without_a_secret_nothing_is_signed(hook: FakeWebhookReceiver, send: SendFixture) -> None:
    send(WebhookNotifier(url=hook.url), OPENED_ALERT)
    assert "watchdog-signature" not in hook.received[0].headers


def test_an_opened_incident(hook: FakeWebhookReceiver, send: SendFixture) -> None:
    send(WebhookNotifier(url=hook.url), TASK_ALERT)
    body = hook.received[0].json
    recent_runs, evidence = body.pop("recent"), body.pop("evidence")
    assert body == {
        "version": 1,
        "event": "opened",
        "idempotency_key": "5d41402abc4b2a76b9719d91:oncall/slack:0",
        "sent_at": "2026-11-22T01:50:07.000Z",
        "test": False,
        "merged": False,
        "escalated_after_ms": None,
        "muted_probes": [],
        "flapping": None,
        "title": "Search MCP: task reindex is stale: last run 00:53 UTC, limit 15 min",
        "text": "Degraded: Search MCP: task reindex is stale: last run 00:53 UTC, limit 15 min · warning",
        "incident": {
            "id": "5d41402abc4b2a76b9719d91",
            "state": "open",
            "rule": "task",
            "subject": "reindex",
            "severity": "warning",
            "reason": "task.stale",
            "message": "task reindex is stale: last run 00:53 UTC, limit 15 min",
            "first_reason": "task.stale",
            "first_message": "task reindex is stale: last run 00:53 UTC, limit 15 min",
            "since": "2026-11-22T01:48:00.000Z",
            "opened_at": "2026-11-22T01:50:06.700Z",
            "resolved_at": None,
            "resolution": "",
            "closed_by": None,
            "closure_comment": None,
            "bad_count": 3,
            "threshold": 3,
            "url": "https://status.acme.example/incidents/5d41402abc4b2a76b9719d91",
            "advice": REASON_CATALOGUE["task.stale"].advice,
            "other_destinations": ["ops/email", "pager/webhook"],
        },
        "probe": {
            "id": "api",
            "name": "Search MCP",
            "kind": "http",
            "group": "Search",
            "tags": ["prod"],
            "target": "https://api.acme.example/health",
            "cadence": "every 60 s",
            "location": "eu",
            "runbook": "https://wiki.acme.example/api?a=1&b=2",
            "url": "https://status.acme.example/probes/api",
        },
        "last_good": {"slot": "2026-11-22T01:47:00.000Z", "outcome": "pass", "duration_ms": 182},
        "shared_cause": None,
        "group_labels": None,
        "members": [],
    }
    assert len(recent_runs) == 20
    assert evidence["latest"]["excerpt"].startswith('{"healthy": false')
    assert evidence["latest"]["facts"] == {"tool": "health_check", "isError": True}
    assert evidence["first_bad"] is None
    assert evidence["text"].startswith("tool: health_check\n")


def test_a_resolved_incident(hook: FakeWebhookReceiver, send: SendFixture) -> None:
    send(WebhookNotifier(url=hook.url), RESOLVED_ALERT)
    body = hook.received[0].json
    assert (body["event"], body["incident"]["state"], body["incident"]["bad_count"]) == ("resolved", "resolved", 54)
    assert body["incident"]["resolved_at"] == "2026-11-22T02:42:00.000Z"
    assert body["title"] == "API recovered (was: HTTP 503, expected 200)"


def test_missing_values_are_null() -> None:
    body = build_webhook_payload("k", replace(MINIMAL_ALERT, first_bad=None))
    assert body["last_good"] is body["evidence"]["latest"] is body["evidence"]["first_bad"] is None
    assert body["incident"]["url"] is body["probe"]["runbook"] is None


@pytest.mark.parametrize("context", [s for s in vars(alert_contexts).values() if isinstance(s, AlertMessageContext)])
def test_every_document_has_the_same_fields(context: AlertMessageContext) -> None:
    def shape(value: Any) -> Any:
        return {k: shape(v) for k, v in value.items() if k != "facts"} if isinstance(value, dict) else "…"

    sections = ("incident", "probe")
    here, there = build_webhook_payload("k", context), build_webhook_payload("k", OPENED_ALERT)
    assert here.keys() == there.keys()
    assert [shape(here[s]) for s in sections] == [shape(there[s]) for s in sections]


@pytest.mark.parametrize(
    ("response", "reason", "retried", "retry_after"),
    [
        (CannedResponse(400, b"what?\r\nx"), "http.400", "never", None),
        (CannedResponse(413), "http.413", "never", None),
        (CannedResponse(422), "http.422", "never", None),
        (CannedResponse(401), "http.401", "an hour", None),
        (CannedResponse(403), "http.403", "an hour", None),
        (CannedResponse(404), "http.404", "an hour", None),
        (CannedResponse(410), "http.410", "an hour", None),
        (CannedResponse(408), "http.408", "always", None),
        (CannedResponse(425), "http.425", "always", None),
        (later("12"), "http.429", "always", 12),
        (later("0.5"), "http.429", "always", 0.5),
        (later(format_datetime(to_utc_datetime(NOW + 90_000), usegmt=True)), "http.429", "always", 90),
        (later(format_datetime(to_utc_datetime(NOW - 90_000), usegmt=True)), "http.429", "always", 0),
        (later("-5"), "http.429", "always", 0),
        (later("99999999"), "http.429", "always", 3_600),
        (later("nan"), "http.429", "always", None),
        (later("soon"), "http.429", "always", None),
        (CannedResponse(503, b"", (("Retry-After", "4"),)), "http.503", "always", 4),
        (
            CannedResponse(503, b"", (("Retry-After", "Mon, 1 Jan 99999999999999 10:00:00 GMT"),)),
            "http.503",
            "always",
            None,
        ),
        (CannedResponse(500), "http.500", "always", None),
        (CannedResponse(301, b"", (("Location", "/elsewhere"),)), "http.301", "always", None),
    ],
)
def test_refusals(
    hook: FakeWebhookReceiver,
    fail: SendFixture,
    response: CannedResponse,
    reason: str,
    retried: str,
    retry_after: float | None,
) -> None:
    hook.canned_responses.append(response)
    failed = fail(WebhookNotifier(url=hook.url), OPENED_ALERT)
    assert (failed["reason"], failed["retried"], failed["retry_after"]) == (reason, retried, retry_after)
    assert len(hook.received) == 1
    assert "\n" not in str(failed["message"])


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_confirms(hook: FakeWebhookReceiver, send: SendFixture, status: int) -> None:
    hook.canned_responses.append(CannedResponse(status))
    send(WebhookNotifier(url=hook.url), OPENED_ALERT)


@pytest.mark.parametrize(
    ("body", "confirm", "reason"),
    [
        (b"", None, ""),
        (b"accepted", None, ""),
        (b'{"ok": true}', None, ""),
        (b'{"status": "queued"}', None, ""),
        (b'["ok", false]', None, ""),
        (b'{"ok": null}', None, ""),
        (b"<p>thanks</p>", None, ""),
        (b'{"ok": false, "error": "unknown channel"}', None, "delivery.denied"),
        (b"<!DOCTYPE html>\n<title>Sign in</title>", None, "delivery.unconfirmed"),
        (b"\n <HTML><body>Welcome to the hotel</body>", None, "delivery.unconfirmed"),
        (b"<!-- portal -->\n<html>", None, "delivery.unconfirmed"),
        (b"\xef\xbb\xbf<!doctype html><title>Sign in</title>", None, "delivery.unconfirmed"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html><html xmlns="x">', None, "delivery.unconfirmed"),
        (b'<?xml version="1.0"?><receipt/>', None, ""),
        (b"<!-- a -->\n<!-- b --> <html>", None, "delivery.unconfirmed"),
        (b"<!---->" * 9_000 + b"<receipt/>", None, ""),
        (b"<!--" * 16_000, None, ""),
        (b"[" * 65_536, None, ""),
        (b'\xef\xbb\xbf{"ok": false}', None, "delivery.denied"),
        (b'\xef\xbb\xbf{"status": "queued"}', "body.status == 'queued'", ""),
        (b'{"status": "queued"}', "body.status == 'queued'", ""),
        (b'{"status": "dropped"}', "body.status == 'queued'", "delivery.unconfirmed"),
        (b"not JSON", "body.status == 'queued'", "delivery.unconfirmed"),
        (b'{"ok": false}', "status == 200", ""),
        (b'{"ok": false}', "body.ok", "delivery.denied"),
        (b"<html>", "status == 200", ""),
        (b"x", "headers['content-type'] == 'application/json'", "delivery.unconfirmed"),
    ],
)
def test_what_confirms_a_delivery(
    hook: FakeWebhookReceiver, send: SendFixture, body: bytes, confirm: str | None, reason: str
) -> None:
    hook.canned_responses.append(CannedResponse(200, body))
    notifier = WebhookNotifier(url=hook.url, confirm=confirm)
    if not reason:
        assert send(notifier, OPENED_ALERT) == {}
        return
    with pytest.raises(NotificationDeliveryError) as failed:
        send(notifier, OPENED_ALERT)
    assert (failed.value.reason, failed.value.retry_for_s) == (reason, math.inf)
    assert failed.value.maybe_delivered is (reason == "delivery.unconfirmed")


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_body_is_judged_by_its_content(
    hook: FakeWebhookReceiver, send: SendFixture, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    """A proxy may compress a page that it has stored, although the request asks for no compression."""

    def respond(body: bytes) -> None:
        hook.canned_responses.append(CannedResponse(200, compress(body), (("Content-Encoding", encoding),)))

    notifier = WebhookNotifier(url=hook.url)
    for body, reason in (
        (b"<!doctype html><title>Sign in</title>", "delivery.unconfirmed"),
        (b'{"ok": false}', "delivery.denied"),
    ):
        respond(body)
        with pytest.raises(NotificationDeliveryError) as failed:
            send(notifier, OPENED_ALERT)
        assert failed.value.reason == reason
    respond(b"accepted" * 1_000_000)
    send(notifier, OPENED_ALERT)


def test_an_invalid_confirm_is_refused() -> None:
    with pytest.raises(ValidationError, match="confirm"):
        WebhookNotifier(url="https://events.acme.example/", confirm="bodi.ok")


def test_an_endless_response_confirms(hook: FakeWebhookReceiver, send: SendFixture) -> None:
    hook.canned_responses.append(CannedResponse(200, b"x" * 3_000_000))
    send(WebhookNotifier(url=hook.url), OPENED_ALERT)


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (send_parts(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"), "the body is cut"),
        (send_parts(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "the body is invalid"),
        (send_parts(b"HTTP/1.1 200 OK\r\n\r\nok", delay_s=60), "the body never ends"),
        (send_forever(b"x", interval_s=0.02, first=b"HTTP/1.1 200 OK\r\n\r\n"), "the body is slow and endless"),
        (send_parts(http_response(b"bomb", Content_Encoding="gzip")), "the body is compressed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_2xx_confirms_regardless_of_its_body(
    monkeypatch: pytest.MonkeyPatch, handler: ConnectionHandler, why: str
) -> None:
    monkeypatch.setattr(post, "NOTIFICATION_RESPONSE_BODY_TIMEOUT_S", 0.2)

    async def sent() -> dict[str, Json]:
        async with running_server(handler) as server, NetworkAccess() as network:
            return await WebhookNotifier(url=server.url_of()).send(
                NotificationDeliveryRequest(notification_for(OPENED_ALERT), OPENED_ALERT, {}, network)
            )

    assert asyncio.run(sent()) == {}


@pytest.mark.parametrize(
    ("url", "reason", "message"),
    [
        ("http://user:secret@127.0.0.1:9/secret?secret", "connection.refused", "connection refused (127.0.0.1:9)"),
        ("http://localhost:9/secret", "connection.refused", "connection refused (localhost:9)"),
        ("http://[::1]:9/secret", "connection.refused", "connection refused ([::1]:9)"),
        ("https://nowhere.invalid/secret", "dns.not_found", None),
    ],
)
def test_connection_errors_have_the_same_messages_as_in_probes(
    fail: SendFixture, url: str, reason: str, message: str | None
) -> None:
    failed = fail(WebhookNotifier(url=url), OPENED_ALERT)
    assert (failed["reason"], failed["retried"]) == (reason, "always")
    assert message in (failed["message"], None)


@pytest.mark.parametrize("error", [httpx.ReadTimeout("secret"), httpx.ConnectError("secret"), ConnectionResetError()])
def test_network_faults_are_retried(fail: SendFixture, error: Exception) -> None:
    with respx.mock(using="httpx") as mock:
        mock.post("https://events.acme.example/alert").mock(side_effect=error)
        failed = fail(WebhookNotifier(url="https://events.acme.example/alert"), OPENED_ALERT)
    assert failed["retried"] == "always"
    assert "secret" not in str(failed["message"])


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"url": "events.acme.example"},
        {"url": "ftp://x/"},
        {"url": "https://x/", "headers": {"a b": "c"}},
        {"url": "https://x/", "headers": {"Content-Type": "text/plain"}},
        {"url": "https://x/", "headers": {"Watchdog-Signature": "x"}},
        {"url": "https://x/", "headers": {"X-Key": "se\r\ncret"}},
        {"url": "https://x/", "headers": {"X-Key": "sécret"}},
        {"url": "https://x/", "method": "PUT"},
    ],
    ids=str,
)
def test_invalid_configurations_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        WebhookNotifier.model_validate(config)
    assert "cret" not in str(caught.value)


def test_a_key_that_is_invalid_in_a_header_is_percent_encoded(hook: FakeWebhookReceiver, send: SendFixture) -> None:
    odd = replace(OPENED_ALERT, incident=replace(OPENED_ALERT.incident, id="é\r\nx"))
    send(WebhookNotifier(url=hook.url), odd)
    assert hook.received[0].headers["idempotency-key"] == "%C3%A9%0D%0Ax:oncall/slack:0"
    assert json.loads(hook.received[0].body)["idempotency_key"] == "é\r\nx:oncall/slack:0"


def test_the_recipient_is_the_host_only() -> None:
    assert (
        WebhookNotifier(url="https://user:secret@events.acme.example/alert?key=secret").recipient
        == "events.acme.example"
    )


def test_a_change_has_the_current_cause_and_the_first(hook: FakeWebhookReceiver, send: SendFixture) -> None:
    send(WebhookNotifier(url=hook.url), CHANGED_ALERT)
    body = hook.received[0].json
    assert (body["event"], body["idempotency_key"]) == ("changed", "5d41402abc4b2a76b9719d91:oncall/slack:1")
    assert body["title"] == "API: connection refused"
    assert body["text"] == "Still down: API: connection refused (was: HTTP 503, expected 200) · critical"
    causes = {name: body["incident"][name] for name in ("reason", "message", "first_reason", "first_message")}
    assert causes == {
        "reason": "connection.refused",
        "message": "connection refused",
        "first_reason": "expectation.failed",
        "first_message": "HTTP 503, expected 200",
    }
