"""`watchdog test-alert`: send a test alert to a receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, ExitCode, exit_with_error, load_config_or_exit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchdog.config.load import LoadedConfig
    from watchdog.domain.model import AlertMessageContext, ResultWithEvidence, RunSummary
    from watchdog.domain.notification import Notification
    from watchdog.notifiers.base import Notifier


def send_test_alert_command(
    receiver: Annotated[str, typer.Argument(help="A receiver, or one of its destinations, such as oncall/slack.")],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
) -> None:
    """Send a test alert to a receiver.

    Sends an alert and then its resolution, both marked as tests. Exits 3 unless every destination accepts both.

    \b
    Example: watchdog test-alert oncall
    """
    loaded_config = load_config_or_exit(config)

    notifiers = loaded_config.config.build_notifiers_by_destination()
    chosen = {name: notifiers[name] for name in notifiers if receiver in (name, name.partition("/")[0])}
    if not chosen:
        what = "destination" if "/" in receiver else "receiver"
        names = sorted(notifiers if "/" in receiver else {name.partition("/")[0] for name in notifiers})
        exit_with_error(f"no {what} is named {receiver!r}; {what}s: {', '.join(names) or 'none'}")

    import asyncio

    from watchdog.cli.logs import configure_logging

    configure_logging(loaded_config.mask)
    if asyncio.run(_send_test_alerts(loaded_config, chosen)):
        raise typer.Exit(ExitCode.UNKNOWN)


async def _send_test_alerts(loaded_config: LoadedConfig, notifiers: Mapping[str, Notifier]) -> int:
    """Returns the number of destinations that failed."""
    import asyncio

    from watchdog.domain.model import Json
    from watchdog.net import NetworkAccess
    from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest
    from watchdog.service.clock import read_wall_clock_ms
    from watchdog.service.notifications import NOTIFICATION_SEND_TIMEOUT_S

    failures = 0
    async with NetworkAccess() as network:
        for destination, notifier in notifiers.items():
            receipt: dict[str, Json] = {}
            for notification, context in build_opened_and_resolved_test_alerts(destination, read_wall_clock_ms()):
                try:
                    async with asyncio.timeout(NOTIFICATION_SEND_TIMEOUT_S):
                        receipt = await notifier.send(
                            NotificationDeliveryRequest(notification, context, receipt, network)
                        )
                except (NotificationDeliveryError, TimeoutError) as e:
                    failures += 1
                    reason = loaded_config.mask(str(e)) or "no response in time"
                    print(f"{destination}: {notification.event} alert failed: {reason}")
                    break
                print(f"{destination}: {notification.event} alert sent to {notifier.recipient}")
    return failures


def build_opened_and_resolved_test_alerts(destination: str, now: int) -> list[tuple[Notification, AlertMessageContext]]:
    """An incident that opens, and its end at `now`: three checks in a row failed, and the next one passed."""
    from dataclasses import replace

    from watchdog.domain.formatting import MINUTE_MS
    from watchdog.domain.model import (
        LOCAL_LOCATION_NAME,
        AlertMessageContext,
        Incident,
        IncidentEvent,
        Outcome,
        ProbeInfo,
        RunSummary,
        Severity,
    )
    from watchdog.domain.notification import Notification

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
    probe = ProbeInfo(0, "test-alert", "Test alert", "http", severity=Severity.INFO, schedule_text="every 60 s")
    common = AlertMessageContext(
        IncidentEvent.OPENED, incident, probe, now, bad_count=3, threshold=3, last_good=runs[-5], first_bad=first_bad,
        location=LOCAL_LOCATION_NAME, is_test=True,
    )  # fmt: skip
    opened = replace(common, recent_runs=tuple(runs[-21:-1]), latest=last_bad)
    ended = replace(incident, resolved_at=now)
    resolved = replace(common, event=IncidentEvent.RESOLVED, incident=ended, recent_runs=tuple(runs[-20:]), latest=good)
    return [
        (Notification(incident.id, destination, seq, context.event), context)
        for seq, context in enumerate((opened, resolved))
    ]


def _build_sample_result_for_test_alert(run: RunSummary) -> ResultWithEvidence:
    from watchdog.domain.model import LOCAL_LOCATION_NAME, Evidence, Outcome, ResultWithEvidence

    is_bad = run.outcome is Outcome.FAIL
    return ResultWithEvidence(
        slot=run.slot,
        location=LOCAL_LOCATION_NAME,
        outcome=run.outcome,
        reason="delivery.test" if is_bad else "",
        message="this is a test alert; nothing is wrong" if is_bad else "",
        duration=run.duration,
        evidence=Evidence(),
    )
