from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
import respx
from pydantic import SecretStr, ValidationError

from tests.notifiers.conftest import SendFixture
from tests.support.alert_contexts import (
    CHANGED_ALERT,
    INCIDENT_SINCE,
    MERGED_ALERT,
    MINIMAL_ALERT,
    OPENED_ALERT,
    PROBE,
    RESOLVED_ALERT,
    TASK_ALERT,
    make_incident,
    notification_for,
)
from tests.support.fakes import CannedResponse, FakePagerDuty
from tests.support.scripted_servers import running_server, send_parts
from watchdog.domain.alert_message import IncidentWithProbe
from watchdog.domain.model import IncidentEvent, Severity
from watchdog.domain.notification import Notification
from watchdog.net import NetworkAccess
from watchdog.net.redact import SecretMask
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest
from watchdog.notifiers.pagerduty import PagerDutyNotifier, build_pagerduty_event

KEY = "5d41402abc4b2a76b9719d91:oncall/slack"
MEMBERS = tuple(
    IncidentWithProbe(
        make_incident(
            "availability",
            "connection refused",
            id=f"i{n}",
            probe=n,
            severity=Severity.CRITICAL if n == 7 else Severity.WARNING,
        ),
        replace(PROBE, database_id=n, id=f"p{n}", name=f"Probe {n} 🚨"),
    )
    for n in range(2_000)
)


def notifier_for(pagerduty: FakePagerDuty) -> PagerDutyNotifier:
    return PagerDutyNotifier(routing_key=SecretStr(pagerduty.routing_key), api_url=pagerduty.url)


def test_an_opened_incident_triggers_an_alert(pagerduty: FakePagerDuty, send: SendFixture) -> None:
    assert send(notifier_for(pagerduty), OPENED_ALERT) == {}
    (request,) = pagerduty.received
    assert request.path == "/v2/enqueue"
    event = request.json
    details = event["payload"].pop("custom_details")
    assert event == {
        "routing_key": pagerduty.routing_key,
        "dedup_key": KEY,
        "event_action": "trigger",
        "client": "Watchdog",
        "links": [
            {"href": "https://status.acme.example/incidents/5d41402abc4b2a76b9719d91", "text": "Incident"},
            {"href": "https://status.acme.example/probes/api", "text": "Probe"},
            {"href": "https://wiki.acme.example/api?a=1&b=2", "text": "Runbook"},
        ],
        "payload": {
            "summary": "Down: API: HTTP 503, expected 200",
            "source": "https://api.acme.example/health",
            "severity": "critical",
            "timestamp": "2026-11-22T01:48:00.000Z",
            "component": "API",
            "group": "Core",
            "class": "expectation.failed",
        },
    }
    assert details["Expected"] == "status == 200 · observed 503"
    assert details["Since"] == "01:48:00 UTC, 3 checks; last good 01:47:00 UTC, response time 182 ms"
    assert details["Severity"] == "critical"
    assert details["Incident id"] == OPENED_ALERT.incident.id
    assert "pool exhausted" in details["Evidence (includes untrusted text from the target)"]
    assert pagerduty.alerts == {KEY: "triggered"}


@pytest.mark.parametrize("severity", list(Severity))
def test_each_severity_of_an_incident_is_one_of_pagerduty(
    pagerduty: FakePagerDuty, send: SendFixture, severity: Severity
) -> None:
    send(notifier_for(pagerduty), replace(OPENED_ALERT, incident=replace(OPENED_ALERT.incident, severity=severity)))
    assert pagerduty.received[0].json["payload"]["severity"] == severity.value


def test_a_change_updates_the_alert_and_the_end_resolves_it(pagerduty: FakePagerDuty, send: SendFixture) -> None:
    for context in (OPENED_ALERT, CHANGED_ALERT):
        send(notifier_for(pagerduty), context)
        assert pagerduty.alerts == {KEY: "triggered"}
    change = pagerduty.received[1].json["payload"]
    assert change["summary"] == "Still down: API: connection refused (was: HTTP 503, expected 200)"
    assert change["class"] == "connection.refused"
    send(notifier_for(pagerduty), RESOLVED_ALERT)
    assert pagerduty.received[2].json == {
        "routing_key": pagerduty.routing_key, "dedup_key": KEY, "event_action": "resolve"
    }  # fmt: skip
    assert pagerduty.alerts == {KEY: "resolved"}


def test_an_acknowledgement_acknowledges_the_alert(pagerduty: FakePagerDuty, send: SendFixture) -> None:
    send(notifier_for(pagerduty), OPENED_ALERT)
    acknowledged = replace(OPENED_ALERT, event=IncidentEvent.ACKNOWLEDGED)
    for _ in range(2):
        send(notifier_for(pagerduty), acknowledged)
        assert pagerduty.received[-1].json == {
            "routing_key": pagerduty.routing_key, "dedup_key": KEY, "event_action": "acknowledge"
        }  # fmt: skip
        assert pagerduty.alerts == {KEY: "acknowledged"}
    send(notifier_for(pagerduty), RESOLVED_ALERT)
    assert pagerduty.alerts == {KEY: "resolved"}


def test_a_second_copy_changes_nothing(pagerduty: FakePagerDuty, send: SendFixture) -> None:
    for _ in range(2):
        send(notifier_for(pagerduty), OPENED_ALERT)
    assert pagerduty.received[0].body == pagerduty.received[1].body
    assert pagerduty.alerts == {KEY: "triggered"}


def test_an_incident_that_ended_before_its_alert_triggers_none(pagerduty: FakePagerDuty, send: SendFixture) -> None:
    send(notifier_for(pagerduty), MERGED_ALERT)
    assert pagerduty.received[0].json["event_action"] == "resolve"
    assert pagerduty.alerts == {}


def test_another_destination_resolves_only_its_own_alert() -> None:
    def key(incident: str, destination: str, seq: int) -> str:
        notification = Notification(incident, destination, seq, IncidentEvent.OPENED)
        dedup_key: str = build_pagerduty_event("k" * 32, notification, OPENED_ALERT)["dedup_key"]
        return dedup_key

    assert key("i1", "oncall/pagerduty", 0) == key("i1", "oncall/pagerduty", 3)
    assert len({key(i, d, 0) for i in ("i1", "i2") for d in ("oncall/pagerduty", "dba/pagerduty")}) == 4
    long = [key(i, f"{'x' * 300}/pagerduty", 0) for i in ("i1", "i2")]
    assert [len(key) for key in long] == [255, 255]
    assert long[0] != long[1]


def test_a_group_is_one_alert_with_the_highest_severity(pagerduty: FakePagerDuty, send: SendFixture) -> None:
    lead = replace(OPENED_ALERT.incident, severity=Severity.WARNING)
    group = replace(OPENED_ALERT, incident=lead, members=MEMBERS[:9], shared_cause="api.example:443")
    send(notifier_for(pagerduty), group)
    send(notifier_for(pagerduty), replace(group, event=IncidentEvent.CHANGED, members=MEMBERS))
    ended = tuple(m._replace(incident=replace(m.incident, resolved_at=INCIDENT_SINCE + 60_000)) for m in MEMBERS)
    events = [request.json for request in pagerduty.received]
    assert [event["payload"]["severity"] for event in events] == ["critical", "critical"]
    assert events[0]["payload"]["summary"] == "Down: 9 probes (api.example:443): connection refused"
    assert events[0]["payload"]["source"] == "api.example:443"
    assert "Probe 8 🚨" in events[0]["payload"]["custom_details"]["Incidents"]
    assert (
        events[1]["payload"]["custom_details"]["Incidents"]
        .splitlines()[-1]
        .endswith(" more: Watchdog's pages list them")
    )
    assert pagerduty.alerts == {KEY: "triggered"}
    send(notifier_for(pagerduty), replace(group, event=IncidentEvent.RESOLVED, members=ended))
    assert pagerduty.alerts == {KEY: "resolved"}


def test_alerts_are_not_merged(pagerduty: FakePagerDuty) -> None:
    assert not notifier_for(pagerduty).accepts_merged_messages


@pytest.mark.parametrize("text", ["🚨" * 5_000, "日本語 " * 5_000, "é" * 70_000, "\ud800" * 5_000], ids=len)
def test_texts_of_any_length_stay_within_the_limits(pagerduty: FakePagerDuty, send: SendFixture, text: str) -> None:
    incident = replace(CHANGED_ALERT.incident, message=text, reason=text, first_message=text)
    probe = replace(PROBE, name=text, group=text, target=text, runbook=f"https://wiki.acme.example/{text}")
    long = replace(CHANGED_ALERT, incident=incident, probe=probe, previous_cause=f"{text}!")
    members = tuple(IncidentWithProbe(replace(incident, id=f"i{n}"), probe) for n in range(300))
    for context in (long, replace(long, members=members, shared_cause=text)):
        send(notifier_for(pagerduty), context)
    assert pagerduty.alerts == {KEY: "triggered"}
    assert all("Runbook" not in (link["text"] for link in r.json["links"]) for r in pagerduty.received)


def test_a_minimal_alert_has_no_empty_parts(pagerduty: FakePagerDuty, send: SendFixture) -> None:
    send(notifier_for(pagerduty), replace(MINIMAL_ALERT, probe=replace(MINIMAL_ALERT.probe, target="")))
    event = pagerduty.received[0].json
    assert event["links"] == []
    assert event["payload"]["source"] == "API"
    assert "group" not in event["payload"]
    assert all(event["payload"]["custom_details"].values())


def refusal(status: int, message: str = "Event object is invalid", errors: Any = ()) -> CannedResponse:
    body = {"status": "invalid event", "message": message, "errors": list(errors)}
    return CannedResponse(status, json.dumps(body).encode(), (("Retry-After", "7"),) if status in (429, 503) else ())


@pytest.mark.parametrize(
    ("response", "reason", "retried", "message"),
    [
        (
            refusal(400, errors=["'payload.summary' is missing"]),
            "http.400",
            "never",
            "PagerDuty refuses the event: Event object is invalid; 'payload.summary' is missing",
        ),
        (
            refusal(400, errors=["Length of 'routing_key' is incorrect (should be 32 characters)"]),
            "http.400",
            "an hour",
            "PagerDuty refuses the event: Event object is invalid; Length of 'routing_key' is incorrect (should be 32 "
            "characters)",
        ),
        (CannedResponse(400, b"<html>Bad request</html>"), "http.400", "an hour", "HTTP 400: <html>Bad request</html>"),
        (refusal(400, errors=[None, {"a": 1}, "x\r\ny"]), "http.400", "never", None),
        (CannedResponse(400, b'{"errors": {"a": 1}, "message": 7}'), "http.400", "an hour", None),
        (CannedResponse(403), "http.403", "an hour", None),
        (CannedResponse(404), "http.404", "an hour", None),
        (refusal(429), "http.429", "always", None),
        (refusal(503), "http.503", "always", None),
        (CannedResponse(500), "http.500", "always", None),
        (CannedResponse(301), "http.301", "always", None),
        (CannedResponse(200, b"<!doctype html><title>Sign in</title>"), "delivery.invalid_response", "always", None),
        (CannedResponse(202, b"<!doctype html><title>Sign in</title>"), "delivery.invalid_response", "always", None),
        (CannedResponse(200, b'{"status": "success"}'), "delivery.invalid_response", "always", None),
        (CannedResponse(202, b'{"status": "queued"}'), "delivery.invalid_response", "always", None),
        (CannedResponse(202, b'["success"]'), "delivery.invalid_response", "always", None),
        (CannedResponse(202), "delivery.invalid_response", "always", None),
    ],
)
def test_only_202_with_success_confirms(
    pagerduty: FakePagerDuty,
    fail: SendFixture,
    response: CannedResponse,
    reason: str,
    retried: str,
    message: str | None,
) -> None:
    pagerduty.canned_responses.append(response)
    failed = fail(notifier_for(pagerduty), OPENED_ALERT)
    assert (failed["reason"], failed["retried"]) == (reason, retried)
    assert failed["retry_after"] == (7 if response.status in (429, 503) else None)
    assert message in (failed["message"], None)
    assert "\n" not in failed["message"]


def test_the_key_in_a_refusal_is_masked(pagerduty: FakePagerDuty, fail: SendFixture) -> None:
    """The caller masks every secret of the configuration."""
    other = PagerDutyNotifier(routing_key=SecretStr("R0" + "b" * 30), api_url=pagerduty.url)
    failed = fail(other, OPENED_ALERT)
    assert failed["retried"] == "an hour"
    assert SecretMask([other.routing_key.get_secret_value()])(failed["message"]) == (
        "PagerDuty refuses the event: Event object is invalid; Invalid routing key •••"
    )


@pytest.mark.parametrize("error", [httpx.ReadTimeout("R0bbb"), httpx.ConnectError("R0bbb"), ConnectionResetError()])
def test_network_faults_are_retried(fail: SendFixture, error: Exception) -> None:
    notifier = PagerDutyNotifier(routing_key=SecretStr("R0" + "b" * 30))
    with respx.mock(using="httpx") as mock:
        mock.post("https://events.pagerduty.com/v2/enqueue").mock(side_effect=error)
        failed = fail(notifier, OPENED_ALERT)
    assert failed["retried"] == "always"
    assert "R0bbb" not in failed["message"]


def test_a_response_that_is_cut_off_is_no_confirmation() -> None:
    cut = send_parts(b'HTTP/1.1 202 Accepted\r\nContent-Length: 90\r\n\r\n{"status": "success"')

    async def sent() -> None:
        async with running_server(cut) as server, NetworkAccess() as network:
            await PagerDutyNotifier(routing_key=SecretStr("R0" + "b" * 30), api_url=server.url_of()).send(
                NotificationDeliveryRequest(notification_for(TASK_ALERT), TASK_ALERT, {}, network)
            )

    with pytest.raises(NotificationDeliveryError) as failed:
        asyncio.run(sent())
    assert failed.value.reason == "delivery.invalid_response"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"routing_key": ""},
        {"routing_key": "R0bbb"},
        {"routing_key": "R0" + "b" * 31},
        {"routing_key": "R0" + "b" * 29 + "\n"},
        {"routing_key": "R0" + "b" * 29 + "é"},
        {"routing_key": "R0" + "b" * 30, "api_url": "events.pagerduty.com"},
        {"routing_key": "R0" + "b" * 30, "severity": "critical"},
    ],
    ids=str,
)
def test_invalid_configurations_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        PagerDutyNotifier.model_validate(config)
    assert "R0b" not in str(caught.value)


def test_the_recipient_is_the_host() -> None:
    assert PagerDutyNotifier(routing_key=SecretStr("R0" + "b" * 30)).recipient == "events.pagerduty.com"
