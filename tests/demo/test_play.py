"""The play of the demo: the order of what it does, and what it announces."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from tests.support.polling import wait_until_async
from watchdog.demo import play as play_module
from watchdog.demo.acts import DEMO_PLAY_ACTS, DemoPlayAct
from watchdog.demo.faults import DemoFault
from watchdog.demo.play import DemoPace, DemoPlay
from watchdog.domain.model import Incident, ProbeInfo, Severity
from watchdog.store.read.status import IncidentRecord

ACTS = DEMO_PLAY_ACTS[:2]
AGAIN = "The demo starts again with the first fault."


def make_incident_record(probe_id: str) -> IncidentRecord:
    incident = Incident("1f", 1, "availability", "", Severity.WARNING, 0, 0, "http.503", "HTTP 503")
    return IncidentRecord(
        incident=incident,
        probe=ProbeInfo(1, probe_id, "Checkout", "http"),
        opened_slot=0,
        threshold=2,
        routing_log=(),
        resolved_slot=None,
        generation=0,
    )


class NoPauses(DemoPace):
    async def wait_before_first_act(self) -> None: ...

    async def wait_while_broken(self) -> None: ...

    async def wait_between_acts(self) -> None: ...


class PlayedTargets:
    """Targets whose incident opens and resolves `polls` polls after they were broken or repaired."""

    def __init__(self, polls: int = 2, *, open_incidents: bool = True) -> None:
        self.polls, self.open_incidents = polls, open_incidents
        self.log: list[str] = []
        self.broken: DemoPlayAct | None = None
        self.polls_left = 0

    def break_target(self, act: DemoPlayAct) -> None:
        assert self.broken is None, "one thing is broken at a time"
        self.broken, self.polls_left = act, self.polls
        self.log.append(f"break {act.fault.value}")

    def repair_target(self, act: DemoPlayAct) -> None:
        assert self.broken is act
        self.broken, self.polls_left = None, self.polls
        self.log.append(f"repair {act.fault.value}")

    async def list_open_incidents(self, probe_id: str) -> Sequence[IncidentRecord]:
        self.polls_left -= 1
        is_open = self.open_incidents and (self.broken is not None) == (self.polls_left < 0)
        return [make_incident_record(probe_id)] if is_open else []

    def show_notice(self, text: str) -> None:
        self.log.append(f"notice {text}")

    def announce(self, text: str) -> None:
        self.log.append(text)


async def play_once(targets: PlayedTargets) -> list[str]:
    """The log of one loop."""
    play = DemoPlay(
        acts=ACTS,
        pace=NoPauses(),
        break_target=targets.break_target,
        repair_target=targets.repair_target,
        list_open_incidents=targets.list_open_incidents,
        show_notice=targets.show_notice,
        announce=targets.announce,
        incidents_url="http://pages/incidents/",
    )
    task = asyncio.create_task(play.run_forever())
    await wait_until_async(lambda: AGAIN in targets.log)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return targets.log[: targets.log.index(AGAIN)]


@pytest.fixture(autouse=True)
def _short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play_module, "DEMO_INCIDENT_POLL_INTERVAL_S", 0)


async def test_each_act_waits_for_its_incident_and_its_end() -> None:
    log = await play_once(PlayedTargets())
    assert len(log) == 16
    assert [line.rpartition(" after ")[0] or line for line in log[:8]] == [
        "Breaking: the checkout answers every request with 503. Expect an incident within 10 s.",
        "break checkout",
        "notice Broken right now: the checkout answers every request with 503.",
        "Incident: Checkout: HTTP 503. http://pages/incidents/1f",
        "repair checkout",
        "Repaired: the checkout has database connections again.",
        "notice Nothing is broken right now. The next fault follows shortly.",
        "Resolved",
    ]
    assert log[9] == "break tools"


async def test_it_goes_on_if_no_incident_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play_module, "DEMO_MAX_WAIT_FOR_INCIDENT_S", 0)
    log = await play_once(PlayedTargets(open_incidents=False))
    assert log.count("No incident has opened. Is the probe paused?") == 2
    assert log[-2:] == [
        "Repaired: the MCP server lists its tools again.",
        "notice Nothing is broken right now. The next fault follows shortly.",
    ]


async def test_it_goes_on_if_an_incident_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play_module, "DEMO_MAX_WAIT_FOR_INCIDENT_S", 0)
    log = await play_once(PlayedTargets(polls=0))
    assert "The incident is still open." not in log

    class Stuck(PlayedTargets):
        async def list_open_incidents(self, probe_id: str) -> Sequence[IncidentRecord]:
            return [make_incident_record(probe_id)]

    log = await play_once(Stuck())
    assert log.count("The incident is still open.") == 2


def test_every_fault_is_an_act() -> None:
    assert sorted(act.fault for act in DEMO_PLAY_ACTS) == sorted(DemoFault)
