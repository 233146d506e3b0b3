"""`watchdog test-alert`: tell a receiver something now, to see how it looks and whether it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import DEFAULT, ConfigFile, Exit, fail, loaded

if TYPE_CHECKING:
    from watchdog.config import Loaded


def send_test(
    receiver: Annotated[str, typer.Argument(help="A receiver's name, or one of its destinations: oncall/slack.")],
    config: ConfigFile = DEFAULT,
) -> None:
    """Tell a receiver something, marked as a test.

    An alert that opens, then its end. Exits 3 when one did not arrive.
    """
    given = loaded(config)

    from watchdog.app import destinations

    every = destinations(given)
    chosen = [name for name in every if receiver in (name, name.partition("/")[0])]
    if not chosen:
        called = "destination" if "/" in receiver else "receiver"
        known = sorted(every if "/" in receiver else {name.partition("/")[0] for name in every})
        told = f"there are {', '.join(known)}" if known else "there are none: add `receivers`"
        fail(f"no {called} is called {receiver!r}; {told}")

    import asyncio

    from watchdog.cli.logs import set_up

    set_up(given.mask)
    failures = asyncio.run(_send(given, chosen))
    if failures:
        raise typer.Exit(Exit.UNJUDGED)


async def _send(given: Loaded, chosen: list[str]) -> int:
    import asyncio
    from dataclasses import replace

    from watchdog.app import destinations
    from watchdog.model import Event, Incident, Json, Notification, Outcome, ProbeInfo, Run, Severity
    from watchdog.notifiers.base import Delivery, DeliveryError
    from watchdog.service.clock import wall
    from watchdog.service.delivery import SEND
    from watchdog.store.story import unsent
    from watchdog.wire import Wire

    now, minute, failures = wall(), 60_000, 0
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
    runs = [Run(now - i * minute, Outcome.PASS if i > 2 else Outcome.FAIL, 180 + i) for i in reversed(range(20))]
    resolved = replace(opened, resolved_at=now)
    every = destinations(given)
    async with Wire() as wire:
        for name in chosen:
            receipt: dict[str, Json] = {}
            for seq, (event, incident) in enumerate([(Event.OPENED, opened), (Event.RESOLVED, resolved)]):
                notification = Notification(incident.id, name, seq, event)
                story = unsent(event, incident, probe, now, runs)
                try:
                    async with asyncio.timeout(SEND):
                        receipt = await every[name].send(Delivery(notification, story, receipt, wire))
                except (DeliveryError, TimeoutError) as e:
                    failures += 1
                    print(f"{name}: {event} did not arrive: {given.mask(str(e)) or 'no answer in time'}")
                    break
                print(f"{name}: {event} arrived at {every[name].address}")
    return failures
