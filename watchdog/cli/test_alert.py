"""`watchdog test-alert`: tell a receiver something now, to see how it looks and whether it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, ExitCode, exit_with_error, load_config_or_exit

if TYPE_CHECKING:
    from watchdog.config.load import LoadedConfig


def send_test_alert(
    receiver: Annotated[str, typer.Argument(help="A receiver's name, or one of its destinations: oncall/slack.")],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
) -> None:
    """Tell a receiver something, marked as a test.

    An alert that opens, then its end. Exits 3 when one did not arrive.
    """
    given = load_config_or_exit(config)

    from watchdog.app import notifiers_by_destination

    every = notifiers_by_destination(given)
    chosen = [name for name in every if receiver in (name, name.partition("/")[0])]
    if not chosen:
        called = "destination" if "/" in receiver else "receiver"
        known = sorted(every if "/" in receiver else {name.partition("/")[0] for name in every})
        told = f"there are {', '.join(known)}" if known else "there are none: add `receivers`"
        exit_with_error(f"no {called} is called {receiver!r}; {told}")

    import asyncio

    from watchdog.cli.logs import configure_logging

    configure_logging(given.mask)
    failures = asyncio.run(_send_test_notifications(given, chosen))
    if failures:
        raise typer.Exit(ExitCode.UNKNOWN)


async def _send_test_notifications(loaded_config: LoadedConfig, destinations: list[str]) -> int:
    import asyncio
    from dataclasses import replace

    from watchdog.app import notifiers_by_destination
    from watchdog.domain.model import (
        Incident,
        IncidentEvent,
        Json,
        Notification,
        Outcome,
        ProbeInfo,
        RunSummary,
        Severity,
    )
    from watchdog.net import Network
    from watchdog.notifiers.base import DeliveryError, DeliveryRequest
    from watchdog.service.clock import wall_clock_ms
    from watchdog.service.notifications import SEND_TIMEOUT_S
    from watchdog.store.read.alert_context import make_test_alert_context

    now, minute, failures = wall_clock_ms(), 60_000, 0
    probe = ProbeInfo(0, "test-alert", "Test alert", "http", cadence="every 60 s")
    opened = Incident(
        f"test-{now}",
        0,
        "availability",
        "",
        Severity.INFO,
        now - 2 * minute,
        now,
        "delivery.test",
        "this is a test: nothing is wrong",
    )
    runs = [RunSummary(now - i * minute, Outcome.PASS if i > 2 else Outcome.FAIL, 180 + i) for i in reversed(range(20))]
    resolved = replace(opened, resolved_at=now)
    every = notifiers_by_destination(loaded_config)
    async with Network() as wire:
        for name in destinations:
            receipt: dict[str, Json] = {}
            for seq, (event, incident) in enumerate(
                [(IncidentEvent.OPENED, opened), (IncidentEvent.RESOLVED, resolved)]
            ):
                notification = Notification(incident.id, name, seq, event)
                story = make_test_alert_context(event, incident, probe, now, runs)
                try:
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        receipt = await every[name].send(DeliveryRequest(notification, story, receipt, wire))
                except (DeliveryError, TimeoutError) as e:
                    failures += 1
                    print(f"{name}: {event} did not arrive: {loaded_config.mask(str(e)) or 'no answer in time'}")
                    break
                print(f"{name}: {event} arrived at {every[name].recipient}")
    return failures
