"""`watchdog test-alert`: what it sends to each kind of receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.alert_contexts import NOW
from tests.support.apprise_library import load_apprise
from tests.support.command_line import invoke_command
from tests.support.fakes import CannedResponse, FakeMailServer, FakePagerDuty, FakeSlack, FakeWebhookReceiver
from watchdog.domain.model import Outcome, Severity
from watchdog.notifiers.message import compose_alert_message
from watchdog.service.receiver_tests import build_opened_and_resolved_test_alerts


class Receivers(NamedTuple):
    slack: FakeSlack
    mail: FakeMailServer
    pagerduty: FakePagerDuty
    hook: FakeWebhookReceiver


@pytest.fixture(scope="module", autouse=True)
def _loaded_library() -> None:
    load_apprise()


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with ExitStack() as stack:
        enter = stack.enter_context
        yield Receivers(
            enter(FakeSlack()), enter(FakeMailServer()), enter(FakePagerDuty()), enter(FakeWebhookReceiver())
        )


def test_the_parts_of_the_alerts_agree() -> None:
    (_, opened), (_, resolved) = build_opened_and_resolved_test_alerts("oncall/slack", NOW)
    for context in (opened, resolved):
        incident, bad = context.incident, [run for run in context.recent_runs if run.outcome is Outcome.FAIL]
        assert (len(bad), context.bad_count, context.threshold) == (3, 3, 3)
        assert bad[0].slot == incident.since
        assert bad[-1].slot == incident.opened_at
        assert context.last_good == context.recent_runs[context.recent_runs.index(bad[0]) - 1]
        assert context.latest is not None
        assert context.first_bad is not None
        assert (context.latest.slot, context.latest.outcome) == context.recent_runs[-1][:2]
        assert (context.first_bad.slot, context.first_bad.reason) == (incident.since, incident.reason)
        assert {incident.severity, context.probe.severity} == {Severity.INFO}
        assert len(context.recent_runs) == 20
    assert (opened.incident.state, resolved.incident.state) == ("open", "resolved")
    assert resolved.incident.resolved_at == resolved.recent_runs[-1].slot == NOW
    message = compose_alert_message(resolved)
    assert message.headline == (
        "Test alert for oncall/slack: Example probe recovered (was: example failure) · down 3\u00a0min"
    )


def test_every_kind_of_receiver_gets_both_alerts(write: Callable[..., Path], receivers: Receivers) -> None:
    slack, mail, pagerduty, hook = receivers
    kinds: dict[str, Any] = {
        "slack": {"bot_token": slack.token, "channel": slack.channel, "api_url": slack.url},
        "email": {"to": ["oncall@acme.example"]},
        "pagerduty": {"routing_key": pagerduty.routing_key, "api_url": pagerduty.url},
        "webhook": {"url": f"{hook.url}own"},
        "apprise": [f"json://127.0.0.1:{hook.port}/apprise"],
        "log": {},
    }
    write(
        email={"host": "127.0.0.1", "port": mail.port, "security": "none", "from": "watchdog@acme.example"},
        receivers={
            "all": kinds,
            "bridge": {"webhook": {"url": f"{hook.url}bridge", "format": "alertmanager"}},
        },
    )
    ran = invoke_command("test-alert", "all")
    assert (ran.exit_code, ran.output.count("alert sent")) == (0, 12), ran.output
    assert list(pagerduty.alerts.values()) == ["resolved"]
    assert len(mail.received) == 2
    assert [request.json["type"] for request in hook.received if request.path == "/apprise"] == ["info", "success"]
    assert [request.json["test"] for request in hook.received if request.path == "/own"] == [True, True]
    ran = invoke_command("test-alert", "bridge/webhook")
    assert ran.exit_code == 0
    statuses = [request.json["alerts"][0]["status"] for request in hook.received if request.path == "/bridge"]
    assert statuses == ["firing", "resolved"]


def test_the_results_as_json(write: Callable[..., Path], receivers: Receivers) -> None:
    """As the API returns them: an answer that is refused has its error, and does not hide the others."""
    receivers.hook.canned_responses.append(CannedResponse(401))
    slack = {"bot_token": receivers.slack.token, "channel": "#oncall", "api_url": receivers.slack.url}
    write(receivers={"oncall": {"webhook": {"url": f"{receivers.hook.url}own"}, "slack": slack}})
    ran = invoke_command("test-alert", "oncall", "-o", "json")
    assert (ran.exit_code, ran.json["receiver"]) == (3, "oncall")
    chat, hook = sorted(ran.json["destinations"], key=lambda each: str(each["destination"]))
    assert (chat["destination"], chat["address"]) == ("oncall/slack", "#oncall")
    assert (chat["delivered"], chat["error"]) == (True, "")
    assert (hook["destination"], hook["delivered"]) == ("oncall/webhook", False)
    assert "401" in hook["error"]
    ran = invoke_command("test-alert", "oncall", "-o", "json")
    assert (ran.exit_code, [each["delivered"] for each in ran.json["destinations"]]) == (0, [True, True])


def test_a_refusal_shows_no_secret(write: Callable[..., Path], receivers: Receivers) -> None:
    key = "R0" + "c" * 30
    receivers.hook.canned_responses.append(CannedResponse(401))
    write(
        receivers={
            "wrong": {
                "pagerduty": {"routing_key": key, "api_url": receivers.pagerduty.url},
                "apprise": [f"json://127.0.0.1:{receivers.hook.port}/sesame-token"],
            }
        }
    )
    ran = invoke_command("test-alert", "wrong/pagerduty")
    assert ran.exit_code == 3
    assert "opened alert failed: PagerDuty refuses the event" in ran.output
    assert "Invalid routing key •••" in ran.output
    assert key not in ran.output
    ran = invoke_command("test-alert", "wrong/apprise-json")
    assert ran.exit_code == 3
    assert "sesame" not in ran.output
