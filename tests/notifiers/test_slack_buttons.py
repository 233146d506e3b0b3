"""The buttons of Slack messages: which messages have them, and that Slack accepts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
from pydantic import ValidationError
from slack_sdk.models.blocks import ActionsBlock, Block, ButtonElement

from tests.notifiers.conftest import SendFixture
from tests.notifiers.test_shared_message import make_context, make_member
from tests.support.alert_contexts import (
    CHANGED_ALERT,
    HOSTILE_TEXTS,
    MINIMAL_ALERT,
    NOW,
    OPENED_ALERT,
    RESOLVED_ALERT,
    TEST_ALERT,
    hostile_alert,
)
from tests.support.fakes import FakeSlack, are_blocks_valid
from tests.support.slack_clicks import SIGNING_SECRET, find_buttons
from watchdog.domain.acts import Acknowledgement, Actor, OperatorInterfaceKind
from watchdog.domain.alert_message import AlertMessageContext, IncidentWithProbe
from watchdog.domain.formatting import NBSP, format_number
from watchdog.domain.model import IncidentEvent
from watchdog.notifiers import slack as slack_module
from watchdog.notifiers.blocks import build_slack_blocks
from watchdog.notifiers.message import AlertMessage, compose_alert_message
from watchdog.notifiers.slack import SlackNotifier
from watchdog.notifiers.slack_buttons import SlackButtonValue

REFERENCE = SlackButtonValue("5d41402abc4b2a76b9719d91", NOW)
ANA = Acknowledgement(NOW, Actor("Ana", OperatorInterfaceKind.SLACK), "")
BEN = Acknowledgement(NOW - 60_000, Actor("Ben", OperatorInterfaceKind.CLI), "")
ACT_BUTTONS = ["Acknowledge", "Silence 1 h", "Silence 4 h", "Silence until resolved", "Run now"]


def make_bot(slack: FakeSlack, **changed: Any) -> SlackNotifier:
    values = {"bot_token": slack.token, "channel": "#oncall", "api_url": slack.url, "signing_secret": SIGNING_SECRET}
    return SlackNotifier.model_validate(values | changed)


def list_labels(blocks: list[Any]) -> list[str]:
    buttons = find_buttons({"blocks": blocks}).values()
    return [button["text"]["text"].replace(NBSP, " ") for button in buttons]


def compose_group(members: Sequence[IncidentWithProbe], event: IncidentEvent = IncidentEvent.OPENED) -> AlertMessage:
    return compose_alert_message(replace(make_context(members), event=event))


def acknowledged(member: IncidentWithProbe, acknowledgement: Acknowledgement = ANA) -> IncidentWithProbe:
    return member._replace(incident=replace(member.incident, acknowledgement=acknowledgement))


def test_a_message_about_an_open_incident_has_buttons(slack: FakeSlack, send: SendFixture) -> None:
    send(make_bot(slack), OPENED_ALERT)
    (post,) = slack.posts
    assert list_labels(post["blocks"]) == [*ACT_BUTTONS, "Details"]
    buttons = find_buttons(post)
    assert buttons["acknowledge"]["style"] == "primary"
    assert "confirm" not in buttons["acknowledge"]
    value = f"{OPENED_ALERT.incident.id}:{OPENED_ALERT.now}"
    assert {button.get("value") for button in buttons.values()} == {value, None}
    assert SlackButtonValue.decode_button_value(value) == (OPENED_ALERT.incident.id, OPENED_ALERT.now)
    assert buttons["details"]["url"] == OPENED_ALERT.incident_url


def test_no_public_url_is_necessary(slack: FakeSlack, send: SendFixture) -> None:
    send(make_bot(slack), MINIMAL_ALERT)
    assert list_labels(slack.posts[0]["blocks"]) == ACT_BUTTONS


@pytest.mark.parametrize(
    "context", [RESOLVED_ALERT, TEST_ALERT, make_context([make_member("1"), make_member("2")], "")]
)
def test_what_is_over_a_test_or_merged_has_no_buttons(
    slack: FakeSlack, send: SendFixture, context: AlertMessageContext
) -> None:
    send(make_bot(slack), context)
    assert set(list_labels(slack.posts[0]["blocks"])) & set(ACT_BUTTONS) == set()


@pytest.mark.parametrize(
    ("secrets", "labels"),
    [
        ({"signing_secret": None}, ["Details"]),
        ({"signing_secret": None, "app_token": "xapp-1-a"}, [*ACT_BUTTONS, "Details"]),
        ({"app_token": "xapp-1-a"}, [*ACT_BUTTONS, "Details"]),
    ],
)
def test_there_are_buttons_if_slack_can_send_clicks(
    slack: FakeSlack, send: SendFixture, secrets: dict[str, Any], labels: list[str]
) -> None:
    send(make_bot(slack, **secrets), OPENED_ALERT)
    assert list_labels(slack.posts[0]["blocks"]) == labels


def test_without_the_library_the_remedy_is_stated(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slack_module, "find_spec", lambda name: None if name == "websockets" else find_spec(name))
    make_bot(slack)
    with pytest.raises(ValidationError, match="install Watchdog with the `slack` extra") as caught:
        make_bot(slack, app_token="xapp-1-hush")
    assert len(caught.value.errors()) == 1
    assert "hush" not in str(caught.value)


def test_an_edit_refers_to_the_state_that_it_shows(slack: FakeSlack, send: SendFixture) -> None:
    receipt = send(make_bot(slack), OPENED_ALERT)
    assert send(make_bot(slack), CHANGED_ALERT, receipt) == receipt
    (value,) = {button["value"] for button in find_buttons(slack.posts[0]).values() if "value" in button}
    assert SlackButtonValue.decode_button_value(value).shown_at == CHANGED_ALERT.now > OPENED_ALERT.now


def test_an_acknowledged_incident_has_no_button_to_acknowledge_it(slack: FakeSlack, send: SendFixture) -> None:
    receipt = send(make_bot(slack), OPENED_ALERT)
    incident = replace(OPENED_ALERT.incident, acknowledgement=ANA)
    send(make_bot(slack), replace(OPENED_ALERT, event=IncidentEvent.ACKNOWLEDGED, incident=incident), receipt)
    root, reply = slack.posts
    assert list_labels(root["blocks"]) == [*ACT_BUTTONS[1:], "Details"]
    assert "*Acknowledged* by Ana at 01:50 UTC" in str(root["blocks"])
    assert "blocks" not in reply


def test_the_buttons_of_a_group_name_how_many_incidents_they_are_about() -> None:
    message = compose_group([make_member(f"API {number}") for number in range(1, 4)])
    blocks = build_slack_blocks(message, REFERENCE)
    assert list_labels(blocks)[:3] == ["Acknowledge all 3", "Silence all 1 h", "Silence all 4 h"]
    confirmation = find_buttons({"blocks": blocks})["acknowledge"]["confirm"]
    assert confirmation["title"]["text"] == "Acknowledge 3 incidents?"
    assert are_blocks_valid(blocks)


def test_only_a_message_about_one_probe_that_can_be_run_has_a_button_to_run_it() -> None:
    probe = make_member("API").probe
    for kind, may_run in (("http", True), ("heartbeat", False), ("service", False)):
        member = make_member("API")._replace(probe=replace(probe, kind=kind))
        alone = replace(OPENED_ALERT, probe=replace(OPENED_ALERT.probe, kind=kind))
        for context in (alone, replace(make_context([member, member]), probe=member.probe)):
            labels = list_labels(build_slack_blocks(compose_alert_message(context), REFERENCE))
            assert ("Run now" in labels) == may_run, kind
    several = build_slack_blocks(compose_group([make_member("API 1"), make_member("API 2")]), REFERENCE)
    assert "Run now" not in list_labels(several)


def test_a_group_shows_who_takes_care_of_how_many() -> None:
    first, second, third = (make_member(f"API {number}") for number in range(1, 4))
    some = compose_group([acknowledged(first), second, make_member("API 4", ended=True)], IncidentEvent.ACKNOWLEDGED)
    assert some.change_text == "Acknowledged 1 of 2 by Ana at 01:50 UTC"
    assert list_labels(build_slack_blocks(some, REFERENCE))[0] == "Acknowledge"
    every = compose_group(
        [acknowledged(first, BEN), acknowledged(second), acknowledged(third)], IncidentEvent.ACKNOWLEDGED
    )
    assert every.change_text == "Acknowledged by Ana at 01:50 UTC; by Ben at 01:49 UTC"
    assert [field.text for field in every.main_fields if field.label == "Acknowledged"] == [
        "by Ana at 01:50 UTC; by Ben at 01:49 UTC"
    ]
    assert list_labels(build_slack_blocks(every, REFERENCE))[0] == "Silence all 1 h"
    none = compose_group([first, second], IncidentEvent.ACKNOWLEDGED)
    assert none.change_text == "No longer acknowledged"


def test_a_group_names_the_newest_acknowledgements_only() -> None:
    members = [
        acknowledged(
            make_member(f"API {number}"), Acknowledgement(NOW + number, Actor(f"P{number}", ANA.actor.interface), "")
        )
        for number in range(1, 8)
    ]
    assert compose_group(members, IncidentEvent.ACKNOWLEDGED).change_text == (
        "Acknowledged by P7 at 01:50 UTC; by P6 at 01:50 UTC; by P5 at 01:50 UTC; 4 more"
    )


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_buttons_are_valid_with_any_incident(text: str) -> None:
    reference = SlackButtonValue("x" * 64, 10**15 - 1)
    blocks = build_slack_blocks(compose_alert_message(hostile_alert(text)), reference)
    assert are_blocks_valid(blocks)
    (act,) = [block for block in blocks if block["type"] == "actions"]
    parsed = Block.parse(act)
    assert isinstance(parsed, ActionsBlock)
    parsed.validate_json()
    assert all(isinstance(button, ButtonElement) for button in parsed.elements)


def test_large_groups_are_valid() -> None:
    message = compose_group([make_member(f"API {number}") for number in range(1, 2_001)])
    blocks = build_slack_blocks(message, REFERENCE)
    assert are_blocks_valid(blocks)
    assert list_labels(blocks)[0] == f"Acknowledge all {format_number(2_000)}"
    for block in blocks:
        parsed = Block.parse(block)
        assert parsed is not None
        parsed.validate_json()
