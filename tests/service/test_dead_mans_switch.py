"""The dead man's switch: requested while all of Watchdog works, and silent when any part of it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.fakes import FakeHttpTarget
from tests.support.service import ServiceHarness, scripted_probe
from tests.support.store import INTERVAL_MS
from watchdog.domain.model import DeliveryState, IncidentEvent
from watchdog.net import NetworkAccess
from watchdog.service import dead_mans_switch as module
from watchdog.service.dead_mans_switch import (
    DEAD_MANS_SWITCH_REQUIRED_BACKGROUND_TASKS,
    DeadMansSwitchNotPingedError,
    DeadMansSwitchPinger,
)
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.tables import failing_destinations, outbox

DESTINATIONS = ["oncall/slack", "ops/email"]
FIVE_MINUTES_MS = 300_000


class SwitchHarness:
    """A service with one probe, a switch, and the URL that it requests."""

    def __init__(self, service: ServiceHarness, network: NetworkAccess, target: FakeHttpTarget):
        self.harness, self.target = service, target
        self.switch = DeadMansSwitchPinger(f"{target.url}/ping", service.service, network, DESTINATIONS)

    async def work(self, *, without: str = "") -> None:
        """A minute later, the background tasks run, except for one."""
        self.harness.now += INTERVAL_MS
        for name in (task for task in DEAD_MANS_SWITCH_REQUIRED_BACKGROUND_TASKS if task != without):
            await self.harness.service.trigger_task(name)

    @property
    def ping_count(self) -> int:
        return self.target.request_count

    def insert(self, table: sa.Table, **values: Any) -> None:
        with self.harness.store.database.open_write_transaction() as connection:
            connection.execute(sa.insert(table).values(**values))


@pytest.fixture
async def switch(database_url: str) -> AsyncIterator[SwitchHarness]:
    with FakeHttpTarget() as target:
        async with ServiceHarness(database_url, [scripted_probe()]) as service, NetworkAccess() as network:
            yield SwitchHarness(service, network, target)


async def test_it_is_pinged_while_watchdog_works(switch: SwitchHarness) -> None:
    for count in (1, 2):
        await switch.work()
        await switch.switch.ping()
        assert switch.ping_count == count


async def test_no_claim_no_ping(switch: SwitchHarness) -> None:
    await switch.work(without="claim")
    with pytest.raises(DeadMansSwitchNotPingedError, match="not pinged: no slot was claimed since the last ping"):
        await switch.switch.ping()
    assert switch.ping_count == 0


async def test_a_store_that_cannot_be_written_to(switch: SwitchHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    await switch.work()
    switch.harness.service.last_recorded_at = 0  # no run was due since the last ping

    def fail(*_: object) -> None:
        raise StoreUnavailableError("disk full")

    monkeypatch.setattr(switch.harness.service.lease_keeper.membership, "renew_process_lease_and_update_probes", fail)
    with pytest.raises(StoreUnavailableError):
        await switch.switch.ping()
    assert switch.ping_count == 0


@pytest.mark.parametrize("name", ["claim", "record", "wake", "deliver"])
async def test_a_background_task_that_fails(switch: SwitchHarness, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    await switch.work()
    switch.harness.service.tasks[name].record_failure(switch.harness.now, "KeyError: x")
    with pytest.raises(DeadMansSwitchNotPingedError, match=f"the background task {name} does not work: KeyError: x"):
        await switch.switch.ping()


async def test_a_background_task_that_hangs(switch: SwitchHarness) -> None:
    await switch.work()
    switch.harness.now += FIVE_MINUTES_MS
    await switch.work(without="wake")
    with pytest.raises(
        DeadMansSwitchNotPingedError, match="the background task wake does not work: no run has ended for"
    ):
        await switch.switch.ping()


def fail_delivery(switch: SwitchHarness, destination: str, age_ms: int) -> None:
    at = switch.harness.now - age_ms
    switch.insert(failing_destinations, destination=destination, failing_since=at, given_up=False, error="refused")


def leave_unsent(switch: SwitchHarness, destination: str, age_ms: int) -> None:
    at = switch.harness.now - age_ms
    switch.insert(
        outbox, incident="i", destination=destination, seq=1, event=IncidentEvent.OPENED, state=DeliveryState.WAITING,
        created_at=at, due_at=at, attempts=0, detail="",
    )  # fmt: skip


@pytest.mark.parametrize("leave_stuck", [fail_delivery, leave_unsent])
@pytest.mark.parametrize(
    ("destinations", "age_ms", "is_pinged"),
    [
        (DESTINATIONS, FIVE_MINUTES_MS, False),
        (DESTINATIONS, FIVE_MINUTES_MS - 1, True),
        (DESTINATIONS[:1], FIVE_MINUTES_MS, True),
        ([*DESTINATIONS[:1], "removed/email"], FIVE_MINUTES_MS, True),
    ],
    ids=["all", "all, for a shorter time", "one", "one and another that is not configured"],
)
async def test_receivers_that_get_nothing(
    switch: SwitchHarness,
    leave_stuck: Callable[[SwitchHarness, str, int], None],
    destinations: list[str],
    age_ms: int,
    is_pinged: bool,
) -> None:
    await switch.work()
    for destination in destinations:
        leave_stuck(switch, destination, age_ms)
    if is_pinged:
        await switch.switch.ping()
    else:
        with pytest.raises(DeadMansSwitchNotPingedError, match="not pinged: no receiver gets its notifications"):
            await switch.switch.ping()
    assert switch.ping_count == int(is_pinged)


async def test_a_ping_that_fails_is_repeated(switch: SwitchHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    await switch.work()
    switch.target.up = False
    with pytest.raises(DeadMansSwitchNotPingedError, match="ping failed: HTTP 503"):
        await switch.switch.ping()
    switch.target.up = True
    await switch.switch.ping()
    await switch.work()
    monkeypatch.setattr(module, "DEAD_MANS_SWITCH_TIMEOUT_S", 0.0)
    with pytest.raises(DeadMansSwitchNotPingedError, match="ping failed: timed out"):
        await switch.switch.ping()


async def test_an_address_that_refuses(switch: SwitchHarness) -> None:
    await switch.work()
    switch.switch.url = "http://127.0.0.1:1/"
    with pytest.raises(DeadMansSwitchNotPingedError, match="ping failed: connection refused"):
        await switch.switch.ping()
