"""Who has been notified of an incident, in one line: a sentence for each row."""

from __future__ import annotations

import pytest

from watchdog.domain.formatting import NBSP, SECOND_MS
from watchdog.domain.model import DeliveryState, IncidentEvent
from watchdog.domain.notification import UNACKNOWLEDGED_MESSAGE_TEXT, UNEDITABLE_MESSAGE_TEXT
from watchdog.store.read.status import DeliveryRecord
from watchdog.web.pages.delivery import (
    build_delivery_page_row,
    describe_who_was_notified,
    format_delivery_counts_by_state,
)

NOW = 1_700_006_400_000  # 2023-11-15 00:00:00 UTC
SENT, WAITING, MERGED = DeliveryState.SENT, DeliveryState.WAITING, DeliveryState.MERGED
REMINDER, RESOLVED = IncidentEvent.REMINDER, IncidentEvent.RESOLVED
ACKNOWLEDGED = IncidentEvent.ACKNOWLEDGED


def delivery(
    destination: str,
    state: DeliveryState,
    due_in_s: int = 0,
    attempts: int = 0,
    detail: str = "",
    event: IncidentEvent = IncidentEvent.OPENED,
) -> DeliveryRecord:
    due_at = NOW + due_in_s * SECOND_MS
    return DeliveryRecord(
        "i1", destination, list(IncidentEvent).index(event), event, state, NOW - 1, due_at, attempts, detail,
        NOW if state is SENT else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("deliveries", "text"),
    [
        ([], ""),
        ([delivery("a/slack", SENT)], "Notified: a/slack"),
        ([delivery("b/email", SENT), delivery("a/slack", SENT)], "Notified: a/slack, b/email"),
        ([delivery("a/slack", SENT), delivery("a/slack", WAITING, event=REMINDER)], "Notified: a/slack"),
        ([delivery("a/slack", SENT), delivery("a/slack", SENT, event=RESOLVED)], "Notified: a/slack"),
        ([delivery("a/slack", SENT), delivery("a/slack", MERGED, event=RESOLVED)], "Notified: a/slack"),
        (
            [delivery("a/slack", SENT), delivery("a/slack", WAITING, 40, 9, "[timeout]", RESOLVED)],
            "Notified: a/slack. Not sent yet: a/slack (resolved): 9 attempts failed ([timeout]), next at 00:00:40 UTC",
        ),
        (
            [delivery("a/slack", SENT), delivery("a/slack", DeliveryState.SILENCED, event=RESOLVED)],
            "Notified: a/slack. Not sent yet: a/slack (resolved): held back by a silence",
        ),
        (
            [delivery("a/slack", SENT), delivery("b/email", WAITING, 33)],
            "Notified: a/slack. Not sent yet: b/email: to be sent at 00:00:33 UTC",
        ),
        ([delivery("a/slack", WAITING)], "No one has been notified yet. a/slack: waits to be sent"),
        (
            [delivery("a/slack", WAITING)._replace(lead_incident="i0")],
            "No one has been notified yet. a/slack: waits for the next message of its group",
        ),
        (
            [delivery("a/slack", WAITING)._replace(lead_incident="i1")],
            "No one has been notified yet. a/slack: waits to be sent",
        ),
        (
            [delivery("a/slack", WAITING, 40, 2, "[timeout]"), delivery("b/email", DeliveryState.SILENCED)],
            "No one has been notified yet. a/slack: 2 attempts failed ([timeout]), next at 00:00:40 UTC; b/email: held "
            "back by a silence",
        ),
        (
            [delivery("a/slack", WAITING, 40, 1)],
            "No one has been notified yet. a/slack: 1 attempt failed, next at 00:00:40 UTC",
        ),
        (
            [delivery("a/slack", DeliveryState.MUTED)],
            "No one has been notified yet. a/slack: held back because of another probe",
        ),
        (
            [delivery("a/slack", DeliveryState.FLAPPING)],
            "No one has been notified yet. a/slack: held back while the alert flaps",
        ),
        (
            [delivery("a/slack", WAITING, -40, 2)],
            "No one has been notified yet. a/slack: 2 attempts failed, waits to be sent again",
        ),
        ([delivery("a/slack", MERGED)], "Notified: a/slack"),
        (
            [delivery("a/slack", WAITING, 40), delivery("a/slack", MERGED, event=REMINDER)],
            "No one has been notified yet. a/slack: to be sent at 00:00:40 UTC",
        ),
        ([delivery("a/slack", MERGED, event=REMINDER)], ""),
        ([delivery("a/slack", SENT), delivery("b/email", DeliveryState.UNDELIVERED)], ""),
        ([delivery("a/slack", DeliveryState.UNCONFIRMED)], ""),
    ],
)
def test_who_was_notified(deliveries: list[DeliveryRecord], text: str) -> None:
    assert describe_who_was_notified(deliveries, NOW).replace(NBSP, " ") == text


def test_what_waits_for_another_probe_is_not_being_sent() -> None:
    text = describe_who_was_notified([delivery("a/slack", WAITING)], NOW, is_muted=True)
    assert text == "No one has been notified yet. a/slack: held back because of another probe"


def test_of_an_incident_that_is_over_no_one_is_notified_later() -> None:
    text = describe_who_was_notified([delivery("a/slack", DeliveryState.SILENCED)], NOW, is_open=False)
    assert text == "No one was notified. a/slack: held back by a silence"


@pytest.mark.parametrize(
    ("record", "label"),
    [
        (delivery("a/slack", WAITING, event=ACKNOWLEDGED), "Not sent yet"),
        (delivery("a/slack", MERGED, event=ACKNOWLEDGED, detail=UNEDITABLE_MESSAGE_TEXT), "Not sent"),
        (delivery("a/pagerduty", MERGED, event=ACKNOWLEDGED, detail=UNACKNOWLEDGED_MESSAGE_TEXT), "Not sent"),
        (delivery("a/slack", MERGED, event=ACKNOWLEDGED), "Merged"),
        (delivery("a/slack", WAITING, 40, 1, event=ACKNOWLEDGED), "Queued"),
        (delivery("a/slack", WAITING), "Queued"),
    ],
)
def test_an_edit_is_queued_only_where_messages_can_be_edited(record: DeliveryRecord, label: str) -> None:
    """An incoming webhook of Slack is sent no acknowledgement, so its delivery is never shown as queued or merged."""
    assert build_delivery_page_row(record, {}).label == label
    assert format_delivery_counts_by_state([record]) == f"1 {label.lower()}"
