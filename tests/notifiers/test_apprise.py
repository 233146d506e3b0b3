from __future__ import annotations

import asyncio
import io
import logging
import threading
from importlib.util import find_spec
from typing import Any

import pytest
from pydantic import ValidationError

from tests.notifiers.conftest import SendFixture
from tests.support.alert_contexts import (
    CHANGED_ALERT,
    HOSTILE_TEXTS,
    OPENED_ALERT,
    RESOLVED_ALERT,
    TASK_ALERT,
    hostile_alert,
    notification_for,
)
from tests.support.apprise_library import load_apprise
from tests.support.fakes import CannedResponse, FakeWebhookReceiver
from tests.support.polling import HANG_S
from watchdog.config.models import ReceiverNotifiersSettings
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.net import NetworkAccess
from watchdog.notifiers import apprise as apprise_module
from watchdog.notifiers.apprise import AppriseNotifier, neutralize_mentions_and_links
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest


@pytest.fixture(scope="module", autouse=True)
def _loaded_library() -> None:
    load_apprise()


def url_for(hook: FakeWebhookReceiver, service: str = "json", rest: str = "sesame-token?x=1") -> str:
    return f"{service}://127.0.0.1:{hook.port}/{rest}"


def notifier_for(*urls: str) -> AppriseNotifier:
    return AppriseNotifier.model_validate(list(urls))


@pytest.mark.parametrize(
    ("context", "notify_type", "title"),
    [
        (OPENED_ALERT, "failure", "✕ Down: API: HTTP 503, expected 200"),
        (TASK_ALERT, "warning", "▲ Degraded: Search MCP: task reindex is stale: last run 00:53 UTC, limit 15 min"),
        (CHANGED_ALERT, "failure", "✕ Still down: API: connection refused (was: HTTP 503, expected 200)"),
        (RESOLVED_ALERT, "success", "✓ API recovered (was: HTTP 503, expected 200) · down 54 min"),
    ],
    ids=["opened", "warning", "changed", "resolved"],
)
def test_a_message(
    hook: FakeWebhookReceiver, send: SendFixture, context: AlertMessageContext, notify_type: str, title: str
) -> None:
    assert send(notifier_for(url_for(hook)), context) == {}
    (request,) = hook.received
    body = request.json
    assert (body["type"], body["title"][2:]) == (notify_type, title[2:])
    assert "Severity: " in body["message"]
    assert "Incident: https://status.acme.example/incidents/" in body["message"]
    assert title not in body["message"]


def test_another_service_gets_the_message_in_its_own_form(hook: FakeWebhookReceiver, send: SendFixture) -> None:
    send(notifier_for(url_for(hook, "xml")), OPENED_ALERT)
    assert b"<Subject>" in hook.received[0].body


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_refusal_is_retried_and_contains_no_part_of_the_url(
    hook: FakeWebhookReceiver, fail: SendFixture, status: int
) -> None:
    hook.canned_responses.append(CannedResponse(status, b"sesame-token"))
    logged, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(logged)
    root.addHandler(handler)
    try:
        failed = fail(notifier_for(url_for(hook)), OPENED_ALERT)
    finally:
        root.removeHandler(handler)
    assert (failed["reason"], failed["retried"]) == ("apprise.not_accepted", "always")
    assert f"error={status}" in failed["message"]
    assert "sesame" not in failed["message"]
    assert logged.getvalue() == "", "the library logs parts of the URL"
    assert len(hook.received) == 1


def test_a_service_that_cannot_be_reached(fail: SendFixture) -> None:
    failed = fail(notifier_for("json://me:sesame-word@127.0.0.1:9/sesame-token"), OPENED_ALERT)
    assert failed["reason"] == "apprise.not_accepted"
    assert "sesame" not in failed["message"]


def deliver(notifier: AppriseNotifier) -> NotificationDeliveryError:
    async def sent() -> None:
        async with NetworkAccess() as network:
            request = NotificationDeliveryRequest(notification_for(OPENED_ALERT), OPENED_ALERT, {}, network)
            await notifier.send(request)

    with pytest.raises(NotificationDeliveryError) as failed:
        asyncio.run(sent())
    return failed.value


def test_only_a_lost_response_may_be_a_delivery(hook: FakeWebhookReceiver) -> None:
    hook.canned_responses.append(CannedResponse(500))
    assert deliver(notifier_for(url_for(hook))).maybe_delivered is False
    assert deliver(notifier_for("json://127.0.0.1:9/")).maybe_delivered is False
    released = threading.Event()

    def respond_late() -> CannedResponse:
        released.wait(20)
        return CannedResponse()

    hook.canned_responses.append(respond_late)
    assert deliver(notifier_for(url_for(hook, rest="?rto=0.2"))).maybe_delivered is True
    released.set()


def test_the_deadline_ends_a_delivery_that_may_have_arrived(
    hook: FakeWebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apprise_module, "APPRISE_TIMEOUT_S", HANG_S)
    received, released = threading.Event(), threading.Event()
    deadlines: list[tuple[asyncio.AbstractEventLoop, asyncio.Timeout]] = []
    open_timeout = asyncio.timeout

    def open_recorded_timeout(delay_s: float | None) -> asyncio.Timeout:
        deadline = open_timeout(delay_s)
        if delay_s == HANG_S:
            deadlines.append((asyncio.get_running_loop(), deadline))
        return deadline

    monkeypatch.setattr(asyncio, "timeout", open_recorded_timeout)

    def respond_late() -> CannedResponse:
        """The deadline comes when the message has arrived."""
        received.set()
        [(loop, deadline)] = deadlines
        loop.call_soon_threadsafe(lambda: deadline.reschedule(loop.time()))
        released.wait(20)
        return CannedResponse()

    hook.canned_responses.append(respond_late)
    error = deliver(notifier_for(url_for(hook, rest="?rto=15")))
    assert received.wait(10)
    assert (error.reason, error.maybe_delivered) == ("timeout.exceeded", True)
    released.set()


def test_an_attempt_that_was_given_up_before_it_began_sends_nothing(
    hook: FakeWebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example while the library was being loaded."""
    monkeypatch.setattr(apprise_module, "APPRISE_TIMEOUT_S", 0.05)
    released, ended = threading.Event(), threading.Event()
    create_service = apprise_module._create_apprise_service

    class CountingService:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("nothing may be sent any more")

    def create_late(url: str, log: Any) -> Any:
        released.wait(20)
        create_service(url, log)
        threading.Timer(0, ended.set).start()
        return CountingService()

    monkeypatch.setattr(apprise_module, "_create_apprise_service", create_late)
    error = deliver(notifier_for(url_for(hook)))
    assert (error.reason, error.maybe_delivered) == ("timeout.exceeded", False)
    released.set()
    assert ended.wait(20)
    assert hook.received == []


def test_a_url_that_the_library_cannot_use(fail: SendFixture) -> None:
    for url in ("nosuchservice://sesame-token", "tgram://sesame-token"):
        failed = fail(notifier_for(url), OPENED_ALERT)
        assert (failed["reason"], failed["retried"]) == ("apprise.invalid_url", "an hour")
        assert "sesame" not in failed["message"]


def test_each_url_is_a_destination_that_keeps_its_name() -> None:
    def destinations(*urls: str) -> list[str]:
        receiver = ReceiverNotifiersSettings.model_validate({"apprise": list(urls), "log": {}})
        return list(receiver.build_notifiers_by_destination("oncall"))

    assert destinations("ntfys://a") == ["oncall/apprise-ntfys", "oncall/log"]
    assert destinations("JSON://h/1", "ntfys://other", "json://h/2", "json://h/3") == [
        "oncall/apprise-json",
        "oncall/apprise-ntfys",
        "oncall/apprise-json-2",
        "oncall/apprise-json-3",
        "oncall/log",
    ]


@pytest.mark.parametrize(
    "config", ["ntfys://sesame-token", ["ntfys://sesame-token"], {"urls": ["ntfys://sesame-token"]}]
)
def test_the_forms_of_the_configuration(config: Any) -> None:
    notifier = AppriseNotifier.model_validate(config)
    assert [url.get_secret_value() for url in notifier.urls] == ["ntfys://sesame-token"]
    assert notifier.recipient == "ntfys (Apprise)"
    assert "sesame" not in repr(notifier)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ([], "at least 1"),
        ({}, "required"),
        (["sesame"], "expected an Apprise URL"),
        ([""], "expected an Apprise URL"),
        (["json://sesame-a json://sesame-b"], "expected an Apprise URL"),
        (["ntfys://sesame", "syslog://sesame"], "syslog:// reaches only the machine"),
        (["SYSLOG://"], "syslog:// reaches only the machine"),
        (["dbus://"], "dbus:// reaches only the machine"),
        ([7], "string"),
        ({"urls": ["ntfys://sesame"], "title": "x"}, "extra"),
    ],
    ids=str,
)
def test_invalid_configurations_are_refused(config: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as caught:
        AppriseNotifier.model_validate(config)
    assert "sesame" not in str(caught.value)


def test_every_local_service_of_the_library_is_refused() -> None:
    """A service whose address may consist of the schema alone reaches the machine itself."""
    from apprise import Apprise

    details = Apprise().details(show_disabled=True)
    local = {
        protocol
        for service in details["schemas"]
        for protocol in (*(service["protocols"] or ()), *(service["secure_protocols"] or ()))
        if "{schema}://" in service["details"]["templates"]
    }
    assert local - apprise_module.LOCAL_APPRISE_SCHEMAS == set()
    assert "syslog" in local


def test_without_the_library_the_remedy_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apprise_module, "find_spec", lambda name: None if name == "apprise" else find_spec(name))
    with pytest.raises(ValidationError, match="install Watchdog with the `apprise` extra") as caught:
        notifier_for("ntfys://sesame-token")
    assert len(caught.value.errors()) == 1


@pytest.mark.parametrize(
    ("text", "neutral"),
    [
        ("@everyone and <@U123>", "\uff20everyone and \u2039\uff20U123>"),
        ("<!channel> <#C1> <@&99>", "\u2039!channel> \u2039#C1> \u2039@&99>"),
        ("<https://evil.example|Runbook>", "\u2039https://evil.example|Runbook>"),
        ("[Runbook](https://evil.example)", "[Runbook] (https://evil.example)"),
        ("oncall@acme.example: a < b, f(x) [1]", "oncall@acme.example: a < b, f(x) [1]"),
    ],
)
def test_mentions_and_links_are_neutralized(text: str, neutral: str) -> None:
    assert neutralize_mentions_and_links(text) == neutral


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_hostile_text_stays_text(hook: FakeWebhookReceiver, send: SendFixture, text: str) -> None:
    send(notifier_for(url_for(hook)), hostile_alert(text))
    body = hook.received[0].json
    assert "\n" not in body["title"]
    assert not any(mention in body["title"] + body["message"] for mention in ("<!", "<@", " @", "]("))
    assert len(body["message"]) < 10_000
