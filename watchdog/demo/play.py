"""Runs the play, act after act in a loop: breaks a target, waits for the incident, repairs it, waits for the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from watchdog.demo.acts import DemoPlayAct
from watchdog.domain.formatting import format_duration
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.status import IncidentRecord

DEMO_INCIDENT_POLL_INTERVAL_S = 0.5
DEMO_MAX_WAIT_FOR_INCIDENT_S = 90.0
"""The play goes on after this time, for example because the probe is paused."""


class DemoPace:
    """Waits between the steps of the play, so that people can follow it."""

    async def wait_before_first_act(self) -> None:
        await asyncio.sleep(20)

    async def wait_while_broken(self) -> None:
        """From the incident to the repair."""
        await asyncio.sleep(20)

    async def wait_between_acts(self) -> None:
        await asyncio.sleep(15)


class DemoPlay:
    """The play.

    `break_target` and `repair_target` act on the targets. `list_open_incidents` reads those of a probe from the store.
    `show_notice` puts a text on the pages. `announce` prints a line. `incidents_url`: where the pages of incidents are.
    """

    def __init__(
        self,
        *,
        acts: Sequence[DemoPlayAct],
        pace: DemoPace,
        break_target: Callable[[DemoPlayAct], None],
        repair_target: Callable[[DemoPlayAct], None],
        list_open_incidents: Callable[[str], Awaitable[Sequence[IncidentRecord]]],
        show_notice: Callable[[str], None],
        announce: Callable[[str], None],
        incidents_url: str,
    ):
        self.acts, self.pace = acts, pace
        self.break_target, self.repair_target = break_target, repair_target
        self.list_open_incidents, self.show_notice = list_open_incidents, show_notice
        self.announce, self.incidents_url = announce, incidents_url

    async def run_forever(self) -> None:
        await self.pace.wait_before_first_act()
        while True:
            for act in self.acts:
                await self._play_act(act)
                await self.pace.wait_between_acts()
            self.announce("The demo starts again with the first fault.")

    async def _play_act(self, act: DemoPlayAct) -> None:
        self.announce(f"Breaking: {act.broken_text}. Expect an incident within {act.incident_within_s} s.")
        await asyncio.to_thread(self.break_target, act)
        self.show_notice(f"Broken right now: {act.broken_text}.")
        incidents = await self._wait_for_incidents(act, are_open=True)
        if incidents:
            incident = incidents[0].incident
            self.announce(f"Incident: {incidents[0].probe.name}: {incident.message}. {self.incidents_url}{incident.id}")
        else:
            self.announce("No incident has opened. Is the probe paused?")
        await self.pace.wait_while_broken()
        await asyncio.to_thread(self.repair_target, act)
        self.announce(f"Repaired: {act.repaired_text}.")
        self.show_notice("Nothing is broken right now. The next fault follows shortly.")
        if incidents:
            remaining = await self._wait_for_incidents(act, are_open=False)
            lasted = format_duration(int(datetime.now(UTC).timestamp() * 1000) - incidents[0].incident.since)
            self.announce("The incident is still open." if remaining else f"Resolved after {lasted}.")

    async def _wait_for_incidents(self, act: DemoPlayAct, *, are_open: bool) -> Sequence[IncidentRecord]:
        """The open incidents of the act's probe, once there are any, or once there are none."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEMO_MAX_WAIT_FOR_INCIDENT_S
        incidents: Sequence[IncidentRecord] = ()
        while True:
            with suppress(StoreUnavailableError):  # the next attempt may succeed
                incidents = await self.list_open_incidents(act.probe_id)
                if bool(incidents) is are_open:
                    return incidents
            if loop.time() >= deadline:
                return incidents
            await asyncio.sleep(DEMO_INCIDENT_POLL_INTERVAL_S)


def print_demo_announcement(text: str) -> None:
    """One line with the time of day (UTC), as the pages show it."""
    print(f"{datetime.now(UTC):%H:%M:%S}  {text}", flush=True)
