"""The buttons of a Slack message through which people act on its incidents, and what a click on them sends back."""

from __future__ import annotations

import re
from typing import NamedTuple

from watchdog.domain.formatting import HOUR_MS, format_duration, format_number
from watchdog.domain.model import Json
from watchdog.notifiers.message import AlertMessage

ACKNOWLEDGE_ACTION_ID = "acknowledge"
DETAILS_ACTION_ID = "details"
"""A link; Slack sends a click on it nevertheless."""
RUN_NOW_ACTION_ID = "run_now"
SILENCE_UNTIL_RESOLVED_ACTION_ID = "silence_until_resolved"
SILENCE_DURATION_MS_BY_ACTION_ID = {"silence_1h": HOUR_MS, "silence_4h": 4 * HOUR_MS}


class SlackButtonValue(NamedTuple):
    """Identifies a message at a destination, and the state in which a person read it: the value of its buttons."""

    lead_incident: str
    """The first incident of the message, by which it is stored."""
    shown_at: int
    """Epoch ms: when it was sent or edited. It did not list what happened later."""

    def encode_as_button_value(self) -> str:
        return f"{self.lead_incident}:{self.shown_at}"

    @classmethod
    def decode_button_value(cls, value: str) -> SlackButtonValue:
        """Raises ValueError."""
        match = re.fullmatch(r"([A-Za-z0-9_-]{1,64}):([0-9]{1,15})", value)
        if match is None:
            raise ValueError("the value of the button is not one of Watchdog's")
        return cls(match[1], int(match[2]))


def build_slack_act_buttons(message: AlertMessage, reference: SlackButtonValue) -> list[Json]:
    """Of an open message: Acknowledge, unless each of its open incidents is acknowledged, Silence, and Run now if it is
    about a single probe."""
    value, is_group = reference.encode_as_button_value(), bool(message.members)
    buttons: list[Json] = []
    if count := message.unacknowledged_count:
        label = f"Acknowledge all {format_number(count)}" if count > 1 else "Acknowledge"
        button = {**_build_slack_button(ACKNOWLEDGE_ACTION_ID, label, value), "style": "primary"}
        buttons.append(button | ({"confirm": _build_slack_acknowledge_all_confirm_dialog(count)} if count > 1 else {}))
    for action_id, duration_ms in SILENCE_DURATION_MS_BY_ACTION_ID.items():
        label = f"Silence{' all' * is_group} {format_duration(duration_ms)}"
        buttons.append(_build_slack_button(action_id, label, value))
    label = f"Silence{' all' * is_group} until resolved"
    buttons.append(_build_slack_button(SILENCE_UNTIL_RESOLVED_ACTION_ID, label, value))
    if message.can_run_now:
        buttons.append(_build_slack_button(RUN_NOW_ACTION_ID, "Run now", value))
    return buttons


def build_slack_details_button(url: str) -> Json:
    return {
        "type": "button",
        "action_id": DETAILS_ACTION_ID,
        "text": _build_plain_text_object("Details"),
        "url": url,
    }


def _build_slack_button(action_id: str, label: str, value: str) -> dict[str, Json]:
    return {"type": "button", "action_id": action_id, "text": _build_plain_text_object(label), "value": value}


def _build_slack_acknowledge_all_confirm_dialog(count: int) -> Json:
    """Asked before all incidents of a message are acknowledged."""
    return {
        "title": _build_plain_text_object(f"Acknowledge {format_number(count)} incidents?"),
        "text": _build_plain_text_object("Reminders and escalation stop for all of them."),
        "confirm": _build_plain_text_object("Acknowledge"),
        "deny": _build_plain_text_object("Cancel"),
    }


def _build_plain_text_object(text: str) -> Json:
    return {"type": "plain_text", "text": text}
