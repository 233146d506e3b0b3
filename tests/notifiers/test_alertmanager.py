from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from tests.notifiers.conftest import SendFixture
from tests.support.alert_contexts import (
    CHANGED_ALERT,
    HOSTILE_TEXTS,
    INCIDENT_SINCE,
    MINIMAL_ALERT,
    OPENED_ALERT,
    PROBE,
    RESOLVED_ALERT,
    TASK_ALERT,
    TEST_ALERT,
    hostile_alert,
    make_incident,
    notification_for,
)
from tests.support.fakes import CannedResponse, FakeWebhookReceiver
from watchdog.domain.alert_message import AlertMessageContext, IncidentWithProbe
from watchdog.domain.model import IncidentEvent, Severity
from watchdog.notifiers.alertmanager import build_alertmanager_payload
from watchdog.notifiers.webhook import WebhookNotifier

DOCS = (Path(__file__).parents[2] / "docs/webhook.md").read_text(encoding="utf-8").partition("## Alertmanager")[2]


def build(context: AlertMessageContext) -> dict[str, Any]:
    return build_alertmanager_payload(notification_for(context, "pager/webhook"), context)


def make_members(count: int, *, over: int = 0) -> tuple[IncidentWithProbe, ...]:
    """Incidents of different probes; the first `over` of them are over, and the last one is critical."""
    return tuple(
        IncidentWithProbe(
            make_incident(
                "availability",
                "connection refused",
                id=f"i{n}",
                probe=n,
                severity=Severity.CRITICAL if n == count - 1 else Severity.WARNING,
                resolved_at=INCIDENT_SINCE + 60_000 if n < over else None,
            ),
            replace(PROBE, database_id=n, id=f"p{n}", name=f"Probe {n}"),
        )
        for n in range(count)
    )


def test_an_opened_incident(hook: FakeWebhookReceiver, send: SendFixture) -> None:
    send(WebhookNotifier(url=hook.url, format="alertmanager", secret=SecretStr("a secret of some length")), TASK_ALERT)
    (request,) = hook.received
    assert "watchdog-signature" in request.headers
    assert request.headers["idempotency-key"] == notification_for(TASK_ALERT).idempotency_key
    body = request.json
    description = body["alerts"][0]["annotations"].pop("description")
    labels = {
        "alertname": "Search MCP",
        "severity": "warning",
        "probe": "api",
        "kind": "http",
        "group": "Search",
        "tags": "prod",
        "instance": "https://api.acme.example/health",
        "rule": "task",
        "subject": "reindex",
    }
    annotations = {
        "summary": "Search MCP: task reindex is stale: last run 00:53 UTC, limit 15 min",
        "reason": "task.stale",
        "incident": "5d41402abc4b2a76b9719d91",
        "runbook_url": "https://wiki.acme.example/api?a=1&b=2",
    }
    fingerprint = body["alerts"][0].pop("fingerprint")
    assert body == {
        "version": "4",
        "groupKey": "5d41402abc4b2a76b9719d91:oncall/slack",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "oncall",
        "groupLabels": {"alertname": "Search MCP"},
        "commonLabels": labels,
        "commonAnnotations": {**annotations, "description": description},
        "externalURL": "https://status.acme.example",
        "alerts": [
            {
                "status": "firing",
                "labels": labels,
                "annotations": annotations,
                "startsAt": "2026-11-22T01:48:00.000Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "https://status.acme.example/incidents/5d41402abc4b2a76b9719d91",
            }
        ],
    }
    assert re.fullmatch(r"[0-9a-f]{16}", fingerprint)
    assert description.startswith("Degraded: Search MCP: task reindex is stale")
    assert "Severity: warning" in description


def test_identity_stays_the_same_from_the_start_to_the_end() -> None:
    documents = [build(context) for context in (OPENED_ALERT, CHANGED_ALERT, RESOLVED_ALERT)]
    assert [document["status"] for document in documents] == ["firing", "firing", "resolved"]
    assert len({document["groupKey"] for document in documents}) == 1
    alerts = [document["alerts"][0] for document in documents]
    assert len({(alert["fingerprint"], alert["startsAt"], str(alert["labels"])) for alert in alerts}) == 1
    assert [alert["annotations"]["reason"] for alert in alerts] == [
        "expectation.failed", "connection.refused", "expectation.failed"
    ]  # fmt: skip
    assert (alerts[2]["status"], alerts[2]["endsAt"]) == ("resolved", "2026-11-22T02:42:00.000Z")


def test_subjects_and_probes_have_fingerprints_of_their_own() -> None:
    contexts = [
        OPENED_ALERT,
        TASK_ALERT,
        replace(OPENED_ALERT, probe=replace(PROBE, id="other")),
        replace(TASK_ALERT, incident=replace(TASK_ALERT.incident, subject="cleanup")),
    ]
    assert len({build(context)["alerts"][0]["fingerprint"] for context in contexts}) == 4


@pytest.mark.parametrize(
    ("event", "over", "status"),
    [
        (IncidentEvent.OPENED, 0, "firing"),
        (IncidentEvent.CHANGED, 2, "firing"),
        (IncidentEvent.RESOLVED, 5, "resolved"),
    ],
)
def test_a_group_has_one_alert_for_each_incident(event: IncidentEvent, over: int, status: str) -> None:
    group = replace(OPENED_ALERT, event=event, members=make_members(5, over=over), shared_cause="api.example:443")
    document = build(group)
    assert document["status"] == status
    assert [alert["status"] for alert in document["alerts"]] == ["resolved"] * over + ["firing"] * (5 - over)
    assert [alert["endsAt"].startswith("2026") for alert in document["alerts"]] == [True] * over + [False] * (5 - over)
    assert [alert["labels"]["severity"] for alert in document["alerts"]] == ["warning"] * 4 + ["critical"]
    assert len({alert["fingerprint"] for alert in document["alerts"]}) == 5
    assert document["alerts"][3]["generatorURL"] == "https://status.acme.example/incidents/i3"
    assert document["groupLabels"] == {}
    assert "severity" not in document["commonLabels"]
    assert document["commonLabels"]["rule"] == "availability"
    assert document["commonAnnotations"]["shared_cause"] == "api.example:443"


@pytest.mark.parametrize("is_single", [False, True])
def test_the_labels_of_a_route_that_groups(*, is_single: bool) -> None:
    """Also while the document is about one incident. A label without a value is left out, as in an alert."""
    labels = {"group": "Search", "severity": "", "probe": "api"}
    members = () if is_single else make_members(3)
    document = build(replace(OPENED_ALERT, members=members, group_labels=labels))
    assert document["groupLabels"] == {"group": "Search", "probe": "api"}
    assert build(replace(OPENED_ALERT, members=members, group_labels={}))["groupLabels"] == {}
    ended = replace(OPENED_ALERT, event=IncidentEvent.RESOLVED, members=members, group_labels=labels)
    assert build(ended)["groupKey"] == document["groupKey"]


def test_without_a_public_url_the_links_are_empty() -> None:
    document = build(MINIMAL_ALERT)
    assert (document["externalURL"], document["alerts"][0]["generatorURL"]) == ("", "")
    assert "runbook_url" not in document["alerts"][0]["annotations"]


def test_a_test_alert_is_marked() -> None:
    annotations = build(TEST_ALERT)["alerts"][0]["annotations"]
    assert annotations["summary"].startswith("Test alert for oncall/slack: ")
    assert annotations["description"].startswith("Test alert for oncall/slack: ")


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_hostile_text_stays_text(hook: FakeWebhookReceiver, send: SendFixture, text: str) -> None:
    send(WebhookNotifier(url=hook.url, format="alertmanager"), hostile_alert(text))
    (request,) = hook.received
    assert request.body.isascii()
    alert = request.json["alerts"][0]
    assert alert["labels"].get("subject", "") == text
    assert "\n" not in alert["annotations"]["summary"]
    assert all(isinstance(value, str) for part in ("labels", "annotations") for value in alert[part].values())


def test_a_response_confirms_as_with_the_other_format(hook: FakeWebhookReceiver, fail: SendFixture) -> None:
    notifier = WebhookNotifier(url=hook.url, format="alertmanager")
    hook.canned_responses.append(CannedResponse(200, b"<!doctype html><title>Sign in</title>"))
    assert fail(notifier, OPENED_ALERT)["reason"] == "delivery.unconfirmed"
    hook.canned_responses.append(CannedResponse(429, b"", (("Retry-After", "9"),)))
    failed = fail(notifier, OPENED_ALERT)
    assert (failed["reason"], failed["retry_after"]) == ("http.429", 9)


def test_only_watchdogs_own_format_reports_merged_messages() -> None:
    assert WebhookNotifier(url="https://x.example/").accepts_merged_messages
    assert not WebhookNotifier(url="https://x.example/", format="alertmanager").accepts_merged_messages


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValidationError, match="format"):
        WebhookNotifier.model_validate({"url": "https://x.example/", "format": "grafana"})


def test_every_field_is_documented() -> None:
    example = re.search(r"```json\n(.*?)```", DOCS, re.DOTALL)
    assert example is not None
    documented, document = json.loads(example[1]), build(OPENED_ALERT)
    assert list(documented) == list(document)
    assert list(documented["alerts"][0]) == list(document["alerts"][0])
    group = replace(OPENED_ALERT, members=make_members(2), shared_cause="x")
    names = {
        name
        for context in (OPENED_ALERT, TASK_ALERT, group)
        for alert in build(context)["alerts"]
        for name in (*alert["labels"], *alert["annotations"])
    }
    assert names <= set(re.findall(r"`([a-z_]+)`", DOCS))
