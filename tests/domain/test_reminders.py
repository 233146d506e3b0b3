"""When a destination is reminded: a sentence for each row."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.reminders import ReminderDecision, ReminderDecisionReason, decide_reminder

OPENED_AT = 1_700_000_000_000
INTERVAL_MS = 4 * HOUR_MS
DUE_AT = OPENED_AT + INTERVAL_MS


@pytest.mark.parametrize(
    ("sentence", "facts", "is_due", "reason", "decide_again_at"),
    [
        ("an incident that is open after the interval", {}, True, "still_open", DUE_AT + INTERVAL_MS),
        ("a moment before, it is too early", {"now": DUE_AT - 1}, False, "too_early", DUE_AT),
        ("a later message postpones it", {"last_message_at": OPENED_AT + 1}, False, "too_early", DUE_AT + 1),
        (
            "after a long downtime, it is late, and the next one counts from then",
            {"now": DUE_AT + 10 * INTERVAL_MS},
            True,
            "still_open",
            DUE_AT + 11 * INTERVAL_MS,
        ),
        ("an incident that is over", {"is_open": False}, False, "incident_is_over", None),
        ("no interval, no reminder", {"repeat_interval_ms": 0}, False, "off", None),
        ("after an acknowledgement there is none", {"is_acknowledged": True}, False, "acknowledged", None),
        ("during a silence there is none", {"is_silenced": True}, False, "silenced", None),
        ("while the probe is paused there is none", {"is_paused": True}, False, "paused", None),
        ("during maintenance there is none", {"is_in_maintenance": True}, False, "in_maintenance", None),
        ("of what another probe mutes there is none", {"is_muted": True}, False, "muted", None),
        ("while its alert flaps there is none", {"is_flapping": True}, False, "flapping", None),
        (
            "a destination that is no longer configured gets none",
            {"is_destination_configured": False},
            False,
            "destination_not_configured",
            None,
        ),
        (
            "a destination that reminds people itself gets none",
            {"destination_repeats_alerts": True},
            False,
            "destination_repeats_alerts",
            None,
        ),
        (
            "who does not know of the incident is not reminded of it",
            {"last_message_at": None},
            False,
            "opening_not_delivered",
            DUE_AT + INTERVAL_MS,
        ),
        (
            "what waits to be sent is the reminder",
            {"is_message_waiting": True},
            False,
            "message_is_waiting",
            DUE_AT + INTERVAL_MS,
        ),
        (
            "the end comes before every other reason",
            {"is_open": False, "is_acknowledged": True, "is_silenced": True, "repeat_interval_ms": 0},
            False,
            "incident_is_over",
            None,
        ),
        (
            "a message from before the clock was set back postpones it by the interval",
            {"last_message_at": DUE_AT + HOUR_MS},
            False,
            "too_early",
            DUE_AT + HOUR_MS + INTERVAL_MS,
        ),
    ],
)
def test_when_a_destination_is_reminded(
    sentence: str, facts: dict[str, Any], is_due: bool, reason: str, decide_again_at: int | None
) -> None:
    defaults: dict[str, Any] = {"repeat_interval_ms": INTERVAL_MS, "last_message_at": OPENED_AT, "now": DUE_AT}
    defaults |= {"is_open": True, "is_acknowledged": False, "is_silenced": False, "is_paused": False}
    defaults |= {"is_in_maintenance": False, "is_muted": False, "is_flapping": False}
    defaults |= {"is_destination_configured": True, "destination_repeats_alerts": False, "is_message_waiting": False}
    decision = decide_reminder(**{**defaults, **facts})
    assert decision == ReminderDecision(is_due, ReminderDecisionReason(reason), decide_again_at), sentence
