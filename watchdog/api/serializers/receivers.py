"""Receivers as JSON: one entry for each destination, a way to reach a receiver."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.service.receiver_tests import DestinationTestResult
from watchdog.store.read.destinations import DestinationSummary


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ReceiverJson(TypedDict):
    """A way to reach a receiver, and how its deliveries go."""

    destination: str
    """The receiver and the notifier, such as oncall/slack."""
    receiver: str
    notifier: str
    address: str
    """Such as a channel, an email address or a host name, without secrets; empty: only another process has it."""
    last_success: str | None
    """When it last confirmed one of the stored notifications."""
    failing_since: str | None
    """null: its last delivery did not fail."""
    error: str
    """Of the last delivery, if it failed."""
    waiting_count: int
    """Notifications that are to be sent."""
    undelivered_count: int
    """Notifications that were given up."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class DestinationTestResultJson(TypedDict):
    """The result of the test of a destination."""

    destination: str
    """The receiver and the notifier, such as oncall/slack."""
    address: str
    """Such as a channel, an email address or a host name, without secrets."""
    delivered: bool
    """Whether it confirmed the test alert and its end."""
    error: str
    """Why it did not confirm them; empty: it did."""
    advice: str
    """What to do, in Markdown; empty: the error states it, or nothing is known."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ReceiverTestJson(TypedDict):
    """A test of a receiver."""

    receiver: str
    """As in the request."""
    destinations: list[DestinationTestResultJson]
    """By name."""


def serialize_receiver_test(receiver: str, results: Iterable[DestinationTestResult]) -> ReceiverTestJson:
    return {"receiver": receiver, "destinations": [_serialize_receiver_test_result(result) for result in results]}


def _serialize_receiver_test_result(result: DestinationTestResult) -> DestinationTestResultJson:
    failure = result.failure
    return {
        "destination": result.destination,
        "address": result.recipient,
        "delivered": failure is None,
        "error": "" if failure is None else failure.error,
        "advice": "" if failure is None else failure.advice,
    }


def serialize_destination_summary(summary: DestinationSummary, address: str) -> ReceiverJson:
    receiver, _, notifier = summary.name.partition("/")
    deliveries, failure = summary.deliveries, summary.failure
    return {
        "destination": summary.name,
        "receiver": receiver,
        "notifier": notifier,
        "address": address,
        "last_success": format_optional_iso8601(deliveries.last_sent_at),
        "failing_since": format_optional_iso8601(None if failure is None else failure.failing_since),
        "error": "" if failure is None else failure.error,
        "waiting_count": deliveries.waiting_count,
        "undelivered_count": deliveries.undelivered_count,
    }
