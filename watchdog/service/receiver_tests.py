"""Sends test alerts to receivers, for `watchdog test-alert`, pages, the API and tools, and reports the results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import structlog

from watchdog.domain.acts import Actor, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.formatting import MINUTE_MS
from watchdog.domain.model import (
    LOCAL_LOCATION_NAME,
    Evidence,
    Incident,
    IncidentEvent,
    Json,
    Outcome,
    ProbeInfo,
    ResultWithEvidence,
    RunSummary,
    Severity,
)
from watchdog.domain.notification import Notification
from watchdog.domain.reasons import get_reason_advice
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.net import NetworkAccess, SecretMask
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest, Notifier
from watchdog.service.acts import ActRunner, record_receiver_test_start_or_refuse
from watchdog.service.clock import Clock
from watchdog.service.notifications import NOTIFICATION_SEND_TIMEOUT_S
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.write.outbox_retries import make_retries_due

log = structlog.get_logger()

MAX_NAME_CHARS_IN_REFUSAL = 100


class SentTestAlertOutcome(NamedTuple):
    """One of the two alerts of a test, and whether the destination confirmed it."""

    event: IncidentEvent
    error: str = ""
    """Without secrets; empty: it was confirmed."""
    advice: str = ""
    """What to do, in Markdown; empty: the error states it, or it is not known."""


class DestinationTestResult(NamedTuple):
    """The result of the test of a destination."""

    destination: str
    recipient: str
    alerts: tuple[SentTestAlertOutcome, ...]
    """That an incident opened, and its end, which is sent only if the first was confirmed."""

    @property
    def failure(self) -> SentTestAlertOutcome | None:
        return next((alert for alert in self.alerts if alert.error), None)


class ReceiverTestDependencies(Protocol):
    """The parts of the sender of notifications that a test uses. A reload changes them."""

    @property
    def notifiers(self) -> Mapping[str, Notifier]:
        """By destination."""

    @property
    def network(self) -> NetworkAccess: ...

    @property
    def mask(self) -> SecretMask: ...

    @property
    def clock(self) -> Clock: ...


@dataclass(frozen=True, slots=True)
class ConfiguredReceiverTestDependencies:
    """The destinations of a configuration, in a process that sends no notifications itself."""

    notifiers: Mapping[str, Notifier]
    network: NetworkAccess
    mask: SecretMask
    clock: Clock


class ReceiverTester:
    """Sends test alerts to destinations of the running configuration at a person's request."""

    def __init__(self, access: ReceiverTestDependencies):
        self._access = access

    def has_destination(self, receiver: str) -> bool:
        """`receiver`: a receiver, or one of its destinations."""
        return bool(select_notifiers_of_receiver_or_destination(self._access.notifiers, receiver))

    async def test(self, receiver: str, actor: Actor, comment: str, run_act: ActRunner) -> list[DestinationTestResult]:
        """Returns the results by destination. A destination can be tested once in 30 s. The test is in the audit log
        before anything is sent. What failed at a destination that confirms the test is due at once. Raises
        OperatorActRefusedError, and what `run_act` raises."""
        notifiers = select_notifiers_of_receiver_or_destination(self._access.notifiers, receiver)
        if not notifiers:
            raise OperatorActRefusedError(
                OperatorActRefusalReason.INVALID, describe_unknown_receiver(self._access.notifiers, receiver)
            )
        await run_act(
            lambda database, now: record_receiver_test_start_or_refuse(database, sorted(notifiers), actor, comment, now)
        )
        tests = (self._test_destination(name, each) for name, each in sorted(notifiers.items()))
        results = await asyncio.gather(*tests)
        if working := [result.destination for result in results if result.failure is None]:
            with suppress(StoreUnavailableError, TimeoutError):  # the notifications stay due at their own time
                await run_act(lambda database, now: make_retries_due(database, working, now))
        return results

    async def _test_destination(self, destination: str, notifier: Notifier) -> DestinationTestResult:
        access = self._access
        sent = send_opened_and_resolved_test_alerts(
            destination, notifier, access.network, access.mask, now=access.clock()
        )
        result = DestinationTestResult(destination, notifier.recipient, tuple([alert async for alert in sent]))
        error = result.failure.error if result.failure else ""
        log.info("receiver_tested", destination=destination, delivered=not error, error=error)
        return result


def select_notifiers_of_receiver_or_destination(
    notifiers: Mapping[str, Notifier], receiver: str
) -> dict[str, Notifier]:
    """`receiver`: a receiver, or one of its destinations."""
    return {name: notifier for name, notifier in notifiers.items() if receiver in (name, name.partition("/")[0])}


def describe_unknown_receiver(notifiers: Mapping[str, Notifier], receiver: str) -> str:
    what = "destination" if "/" in receiver else "receiver"
    names = sorted(notifiers if "/" in receiver else {name.partition("/")[0] for name in notifiers})
    name = truncate_with_ellipsis(receiver, MAX_NAME_CHARS_IN_REFUSAL)
    return f"no {what} is named {name!r}; {what}s: {', '.join(names) or 'none'}"


async def send_opened_and_resolved_test_alerts(
    destination: str, notifier: Notifier, network: NetworkAccess, mask: SecretMask, *, now: int
) -> AsyncIterator[SentTestAlertOutcome]:
    """Send an alert and then its end, both marked as tests; stop after a failure."""
    receipt: dict[str, Json] = {}
    for notification, context in build_opened_and_resolved_test_alerts(destination, now):
        request = NotificationDeliveryRequest(notification, context, receipt, network)
        try:
            async with asyncio.timeout(NOTIFICATION_SEND_TIMEOUT_S):
                receipt = await notifier.send(request)
        except NotificationDeliveryError as e:
            yield SentTestAlertOutcome(notification.event, mask(str(e)) or e.reason, get_reason_advice(e.reason))
            return
        except TimeoutError:
            yield SentTestAlertOutcome(notification.event, "no response in time", get_reason_advice("timeout.exceeded"))
            return
        except Exception as e:
            log.exception("notifier_error", destination=destination)
            advice = get_reason_advice("watchdog.internal_error")
            yield SentTestAlertOutcome(notification.event, f"{type(e).__name__} inside Watchdog", advice)
            return
        yield SentTestAlertOutcome(notification.event)


def build_opened_and_resolved_test_alerts(destination: str, now: int) -> list[tuple[Notification, AlertMessageContext]]:
    """An incident that opens, and its end at `now`: three checks in a row failed, and the next one passed."""
    runs = [RunSummary(now - i * MINUTE_MS, Outcome.PASS, 180 + i) for i in reversed(range(24))]
    runs[-4:-1] = [run._replace(outcome=Outcome.FAIL) for run in runs[-4:-1]]
    first_bad, last_bad, good = (_build_sample_result_for_test_alert(run) for run in (runs[-4], runs[-2], runs[-1]))
    incident = Incident(
        id=f"test-{now}",
        probe=0,
        rule="availability",
        subject="",
        severity=Severity.INFO,
        since=first_bad.slot,
        opened_at=last_bad.slot,
        reason=first_bad.reason,
        message=first_bad.message,
    )
    probe = ProbeInfo(0, "test-alert", "Example probe", "http", severity=Severity.INFO, schedule_text="every 60 s")
    common = AlertMessageContext(
        IncidentEvent.OPENED, incident, probe, now, bad_count=3, threshold=3, last_good=runs[-5], first_bad=first_bad,
        location=LOCAL_LOCATION_NAME, tested_destination=destination,
    )  # fmt: skip
    opened = replace(common, recent_runs=tuple(runs[-21:-1]), latest=last_bad)
    ended = replace(incident, resolved_at=now)
    resolved = replace(common, event=IncidentEvent.RESOLVED, incident=ended, recent_runs=tuple(runs[-20:]), latest=good)
    return [
        (Notification(incident.id, destination, seq, context.event), context)
        for seq, context in enumerate((opened, resolved))
    ]


def _build_sample_result_for_test_alert(run: RunSummary) -> ResultWithEvidence:
    is_bad = run.outcome is Outcome.FAIL
    return ResultWithEvidence(
        slot=run.slot,
        location=LOCAL_LOCATION_NAME,
        outcome=run.outcome,
        reason="delivery.test" if is_bad else "",
        message="example failure" if is_bad else "",
        duration=run.duration,
        evidence=Evidence(),
    )
