"""Probes without side effects run while the store is away, and every slot is accounted for when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests.support.service import (
    FAILING_OBSERVATION,
    PASSING_OBSERVATION,
    ScriptedProbe,
    ServiceHarness,
    scripted_probe,
)
from tests.support.store import INTERVAL_MS, StoreHarness
from watchdog.domain.formatting import SECOND_MS
from watchdog.domain.membership import WATCHDOG_PROCESS_LEASE_MS, choose_process_to_run_probe
from watchdog.domain.model import IncidentEvent, Observation, Outcome, ProbeResult, ResultToRecord, SubjectListing
from watchdog.domain.rules.service import WatchdogProcessFaultName
from watchdog.probes import (
    CanaryProbe,
    DnsProbe,
    GrpcProbe,
    HeartbeatProbe,
    HttpProbe,
    IcmpProbe,
    JobsProbe,
    McpProbe,
    QueueProbe,
    StepsProbe,
    WebSocketProbe,
)
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.service import result_buffer
from watchdog.service.result_buffer import ResultBuffer
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.tables import incidents, outbox, results, staleness_events
from watchdog.store.write import watermark
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.member_faults import DetectedWatchdogProcessFault, replace_watchdog_process_faults
from watchdog.store.write.recorder import ResultRecorder
from watchdog.store.write.watermark import ClaimWatermark

STEP_MS = 15 * SECOND_MS


@pytest.fixture(autouse=True)
def without_log_output() -> Iterator[None]:
    with capture_logs():
        yield


class SafeProbe(ScriptedProbe):
    """A probe that may run without the store."""

    @property
    def may_run_without_store(self) -> bool:
        return True


def safe_probe(probe_id: str, observe_function: Any) -> SafeProbe:
    return SafeProbe.model_validate({"name": probe_id.title(), "id": probe_id, "observe_function": observe_function})


class Target:
    """Counts its runs by slot; fails while it is down."""

    def __init__(self) -> None:
        self.slots: list[int] = []
        self.up = True
        self.seen_states: list[Mapping[str, Any]] = []

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        self.slots.append(context.slot)
        self.seen_states.append(context.probe_state)
        observation = PASSING_OBSERVATION if self.up else FAILING_OBSERVATION
        return Observation(
            observation.outcome, observation.reason, observation.message, state_updates={"runs": len(self.slots)}
        )


class AwayHarness:
    """A service whose store can be away."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch):
        self.safe, self.other = Target(), Target()
        self.harness = ServiceHarness(
            url, [safe_probe("safe", self.safe.observe), scripted_probe("other", self.other.observe)]
        )
        self.away = False
        writes = (
            (SlotClaimer, "claim_due_slots"),
            (ResultRecorder, "record_results"),
            (ClaimWatermark, "record_downtime_gap"),
        )
        self.refused_writes = {name for _, name in writes}
        """What the store refuses while it is away."""
        for owner, name in writes:
            monkeypatch.setattr(owner, name, self._refuse_while_away(getattr(owner, name)))

    def _refuse_while_away(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.away and real.__name__ in self.refused_writes:
                raise StoreUnavailableError("database is locked")
            return real(*args, **kwargs)

        return call

    async def pass_time(self, duration_ms: int) -> None:
        service = self.harness.service
        end = self.harness.now + duration_ms
        while self.harness.now < end:
            self.harness.now = min(self.harness.now + STEP_MS, end)
            for name in ("claim", "watch_store"):
                await service.trigger_task(name)
            await self.finish_runs()
            await service.trigger_task("record")

    async def finish_runs(self) -> None:
        """Wait for the runs that are due; the others wait for their slots."""
        executor = self.harness.run_executor
        while due := [task for task, slot in executor._slot_by_task.items() if slot.slot <= self.harness.now]:
            await asyncio.wait(due, timeout=30)

    def rows(self, probe_id: str) -> list[tuple[int, str, str, int]]:
        """(slot, outcome, reason, slot count), by slot."""
        probe = self.harness.store.database_id(probe_id)
        query = sa.select(results.c.slot, results.c.outcome, results.c.reason, results.c.slot_count)
        with self.harness.store.database.open_read_transaction() as connection:
            rows = connection.execute(query.where(results.c.probe == probe).order_by(results.c.slot))
            return [(row[0], row[1], row[2], row[3]) for row in rows]

    def count_slots(self, probe_id: str) -> int:
        return sum(row[3] for row in self.rows(probe_id))


@pytest.fixture
async def away_harness(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AwayHarness]:
    async with opened(database_url, monkeypatch) as harness:
        yield harness


@asynccontextmanager
async def opened(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AwayHarness]:
    harness = AwayHarness(url, monkeypatch)
    try:
        async with harness.harness:
            yield harness
    finally:
        harness.harness.store.close()


async def test_every_slot_of_an_absence_is_accounted_for(away_harness: AwayHarness) -> None:
    harness = away_harness
    start = harness.harness.now
    await harness.pass_time(3 * INTERVAL_MS)
    harness.away = True
    await harness.pass_time(10 * INTERVAL_MS)
    assert (len(harness.safe.slots), len(harness.other.slots)) == (13, 3)
    assert harness.harness.service.describe_not_ready_reason().endswith(
        ": 1 of 2 probes go on, and their results are kept in memory"
    )
    assert len(harness.rows("safe")) == 3, "nothing can be stored"
    harness.away = False
    await harness.pass_time(3 * INTERVAL_MS)
    assert harness.harness.service.describe_probing_without_store() == ""
    expected = [start + n * INTERVAL_MS for n in range(1, 17)]
    assert harness.safe.slots == expected, "each slot once"
    assert harness.rows("safe") == [(slot, "pass", "", 1) for slot in expected]
    assert harness.count_slots("other") == 16
    missed = [row for row in harness.rows("other") if row[1] == "missed"]
    assert missed == [(expected[3], "missed", "missed.store_away", 9)], "the newest due slot still runs"
    assert not [row for row in harness.harness.store.select_rows(results) if row["late"]]


async def test_a_store_that_refuses_only_results_makes_no_probe_stale(
    away_harness: AwayHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table may be locked while the others are written. Slots that were claimed meanwhile would have no results."""
    monkeypatch.setattr(watermark, "MIN_DOWNTIME_GAP_MS", 2 * STEP_MS)  # the harness claims at each step
    harness = away_harness
    harness.refused_writes = {"record_results"}
    for interval in range(16):
        harness.away = 3 <= interval < 13
        await harness.pass_time(INTERVAL_MS)
        await harness.harness.service.trigger_task("wake")
    store = harness.harness.store
    assert store.select_rows(staleness_events) == store.select_rows(incidents) == []
    assert not [row for row in store.select_rows(results) if row["late"]]
    assert (harness.count_slots("safe"), harness.count_slots("other")) == (16, 16)
    assert [row[1] for row in harness.rows("safe")] == ["pass"] * 16, "it went on, and nothing is lost"


async def test_an_outage_inside_an_absence_becomes_an_incident_afterwards(away_harness: AwayHarness) -> None:
    harness = away_harness
    await harness.pass_time(3 * INTERVAL_MS)
    harness.away = True
    await harness.pass_time(INTERVAL_MS)
    harness.safe.up = False
    began = harness.harness.now
    await harness.pass_time(4 * INTERVAL_MS)
    harness.safe.up = True
    await harness.pass_time(4 * INTERVAL_MS)
    assert harness.harness.store.select_rows(incidents) == []
    harness.away = False
    await harness.pass_time(INTERVAL_MS)
    (incident,) = harness.harness.store.select_rows(incidents)
    assert (incident["rule"], incident["since"]) == ("availability", began + INTERVAL_MS)
    assert incident["resolved_at"] == harness.harness.now - INTERVAL_MS + STEP_MS, "when it was decided"
    events = {row["event"] for row in harness.harness.store.select_rows(outbox)}
    assert events == {IncidentEvent.OPENED, IncidentEvent.RESOLVED}
    assert harness.harness.store.replay_probe(incident["probe"], harness.harness.now)[1], "a replay decides alike"


async def test_an_outage_that_lasts_is_notified_as_soon_as_the_store_is_back(away_harness: AwayHarness) -> None:
    harness = away_harness
    await harness.pass_time(2 * INTERVAL_MS)
    harness.away, harness.safe.up = True, False
    await harness.pass_time(60 * INTERVAL_MS)
    harness.away = False
    await harness.pass_time(SECOND_MS)
    (incident,) = harness.harness.store.select_rows(incidents)
    assert incident["resolved_at"] is None


async def test_a_run_without_the_store_gets_what_the_run_before_it_remembered(away_harness: AwayHarness) -> None:
    harness = away_harness
    await harness.pass_time(2 * INTERVAL_MS)
    harness.away = True
    await harness.pass_time(3 * INTERVAL_MS)
    assert [state.get("runs") for state in harness.safe.seen_states] == [None, 1, 2, 3, 4]
    harness.away = False
    await harness.pass_time(INTERVAL_MS)
    assert harness.safe.seen_states[-1] == {"runs": 5}


async def test_a_store_that_comes_and_goes_runs_no_slot_twice(away_harness: AwayHarness) -> None:
    harness = away_harness
    for n in range(20):
        harness.away = n % 2 == 1
        await harness.pass_time(INTERVAL_MS * 3 // 4)
    harness.away = False
    await harness.pass_time(INTERVAL_MS)
    for target, name in ((harness.safe, "safe"), (harness.other, "other")):
        assert len(target.slots) == len(set(target.slots))
        assert harness.count_slots(name) == 16, name


async def test_a_run_that_ends_after_the_store_is_back_is_recorded(away_harness: AwayHarness) -> None:
    harness, release = away_harness, asyncio.Event()
    await harness.pass_time(2 * INTERVAL_MS)
    harness.away = True
    await harness.pass_time(INTERVAL_MS - SECOND_MS)
    observe = harness.safe.observe

    async def observe_slowly(context: ProbeAttemptContext) -> Observation:
        await release.wait()
        return await observe(context)

    probe = harness.harness.service.probes[harness.harness.store.database_id("safe")]
    object.__setattr__(probe, "observe_function", observe_slowly)
    harness.harness.now += SECOND_MS
    await harness.harness.service.trigger_task("watch_store")
    harness.away = False
    await harness.harness.service.trigger_task("claim")
    release.set()
    await harness.finish_runs()
    await harness.pass_time(INTERVAL_MS)
    assert harness.count_slots("safe") == 4
    assert [row[1] for row in harness.rows("safe")] == ["pass"] * 4


@pytest.mark.parametrize("returns", [True, False])
async def test_slots_are_missed_only_once_every_member_has_stored_its_runs(
    away_harness: AwayHarness, database_url: str, returns: bool
) -> None:
    harness, store = away_harness, away_harness.harness.store
    other = StoreHarness(
        database_url, store.registry.configured.values(), now=harness.harness.now, create_schema=False
    )  # fmt: skip
    store.membership.renew_process_lease_and_update_probes(harness.harness.now)
    await harness.pass_time(2 * INTERVAL_MS)
    harness.away = True
    await harness.pass_time(5 * INTERVAL_MS)
    members = store.membership.member_id, other.membership.member_id
    is_own = choose_process_to_run_probe(members, "safe") == members[0]
    assert len(harness.safe.slots) == (7 if is_own else 2)
    harness.away = False
    await harness.pass_time(2 * STEP_MS)  # if results waited, they are stored before slots are claimed
    assert not [row for row in harness.rows("other") if row[1] == "missed"], "the other member may have run it"
    if returns:
        fault = DetectedWatchdogProcessFault(harness.harness.now, "locked")
        replace_watchdog_process_faults(
            other.database, other.membership.member_id, {WatchdogProcessFaultName.DATABASE: fault}
        )
    await harness.pass_time(STEP_MS if returns else WATCHDOG_PROCESS_LEASE_MS)
    assert [row[2] for row in harness.rows("other") if row[1] == "missed"] == ["missed.store_away"]
    await harness.pass_time(INTERVAL_MS - STEP_MS)
    assert {harness.count_slots(name) for name in ("safe", "other")} == {8}
    other.close()


def test_members_divide_the_probes_alike_and_evenly() -> None:
    members = ["web1-1-a", "web2-1-b", "web3-1-c"]
    chosen = {f"p{n}": choose_process_to_run_probe(members, f"p{n}") for n in range(900)}
    assert all(250 < list(chosen.values()).count(member) < 350 for member in members)
    for probe, member in chosen.items():
        assert choose_process_to_run_probe(list(reversed(members)), probe) == member
        if member != members[0]:
            assert choose_process_to_run_probe(members[1:], probe) == member, (
                "only the probes of a member that ends move"
            )


KINDS: list[tuple[type[Probe], dict[str, Any], bool]] = [
    (HttpProbe, {"http": "http://a.example/"}, True),
    (HttpProbe, {"http": {"url": "http://a.example/", "method": "HEAD"}}, True),
    (HttpProbe, {"http": {"url": "http://a.example/", "method": "POST"}}, False),
    (HttpProbe, {"http": {"url": "http://a.example/", "method": "DELETE"}}, False),
    (StepsProbe, {"steps": [{"name": "1", "http": "http://a.example/"}]}, True),
    (StepsProbe, {"steps": [{"name": "1", "http": {"url": "http://a.example/", "method": "POST"}}]}, False),
    (GrpcProbe, {"grpc": "a.example:443"}, True),
    (WebSocketProbe, {"websocket": "wss://a.example/"}, True),
    (WebSocketProbe, {"websocket": {"url": "wss://a.example/", "send": "hello"}}, False),
    (McpProbe, {"mcp": "http://a.example/mcp"}, True),
    (McpProbe, {"mcp": {"url": "http://a.example/mcp", "call": "off"}}, True),
    (McpProbe, {"mcp": {"url": "http://a.example/mcp", "call": "send_report"}}, False),
    (QueueProbe, {"queue": {"bullmq": {"redis": "redis://a.example", "queue": "mail"}}}, True),
    (JobsProbe, {"jobs": {"bullmq": {"redis": "redis://a.example", "queue": "mail"}}}, True),
    (DnsProbe, {"dns": "a.example"}, True),
    (IcmpProbe, {"icmp": "a.example"}, True),
    (CanaryProbe, {"canary": {"bullmq": {"redis": "redis://a.example", "queue": "mail"}}}, False),
    (HeartbeatProbe, {"heartbeat": {"token": "t0ken-of-the-nightly-backup", "every": "1h"}}, False),
]


@pytest.mark.parametrize(("kind", "settings", "expected"), KINDS)
def test_only_probes_without_side_effects_run_without_the_store(
    kind: type[Probe], settings: dict[str, Any], expected: bool
) -> None:
    assert (
        kind.model_construct(**kind.model_validate({"name": "A", **settings}).__dict__).may_run_without_store
        is expected
    )


def make_waiting_result(probe: int, slot: int, outcome: Outcome = Outcome.PASS, **state: Any) -> ResultToRecord:
    return ResultToRecord(ProbeResult(probe, slot, "local", outcome, previous_slot=slot - 1), state_updates=state)


def test_the_oldest_passes_are_dropped_first_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_buffer, "MIN_BUFFERED_RESULTS_TO_MEASURE_SIZE", 1)
    buffer = ResultBuffer(max_bytes=40_000)
    buffer.add(make_waiting_result(1, 1, Outcome.FAIL, first=1))
    for slot in range(2, 100):
        buffer.add(make_waiting_result(1, slot, newest=slot))
    result_count = len(buffer)
    assert 5 < result_count < 15
    taken = buffer.take(500)
    buffer.put_back_oldest_results(taken)
    batch = buffer.relink_results_after_dropped(buffer.take(500))
    assert batch[0].result.outcome is Outcome.FAIL, "a failure is kept longer than any pass"
    assert [each.result.previous_slot for each in batch] == [None, *(each.result.slot for each in batch[:-1])]
    assert batch[0].state_updates["newest"] == 99 - (result_count - 1)
    (dropped,) = buffer.confirm_stored_batch_and_take_dropped_summaries(batch).values()
    assert (dropped.first_slot, dropped.count) == (2, 99 - result_count)
    buffer.add(make_waiting_result(1, 100))
    assert buffer.relink_results_after_dropped(buffer.take(1))[0].result.previous_slot == 99, "as it is"


def test_without_passes_the_oldest_results_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_buffer, "MIN_BUFFERED_RESULTS_TO_MEASURE_SIZE", 1)
    buffer = ResultBuffer(max_bytes=40_000)
    for slot in range(1, 100):
        buffer.add(make_waiting_result(1, slot, Outcome.FAIL))
    taken = buffer.take(500)
    assert [each.result.slot for _, each in taken] == list(range(100 - len(taken), 100))


def test_few_results_that_list_many_jobs_are_bounded_as_well() -> None:
    """Long before there are enough results for the size of each to be measured."""
    subjects: Any = {f"job-{number}": () for number in range(2_000)}
    buffer = ResultBuffer(max_bytes=5_000_000)
    for slot in range(1, 100):
        each = make_waiting_result(1, slot)
        listings = {"job": SubjectListing(slot, subjects)}
        buffer.add(each._replace(result=each.result._replace(listings=listings)))
    assert 1 < len(buffer) < 10


def test_the_size_of_results_in_memory_is_not_underestimated(tmp_path: Path) -> None:
    """Measured: what a result of a usual size takes."""
    import tracemalloc

    count = 3_000
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    buffer = ResultBuffer()
    for slot in range(count):
        result = ProbeResult(
            1, slot, "local", Outcome.PASS, duration=slot, phases={f"{name}": slot + 0.5 for name in ("dns", "tls")},
            measurements={f"{name}": slot * 1.5 for name in ("status", "bytes")},
        )  # fmt: skip
        buffer.add(ResultToRecord(result))
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken < buffer._bytes < 5 * taken
