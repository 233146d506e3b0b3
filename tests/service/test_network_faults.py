"""Failures that the network of this machine may explain are held while it is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.polling import wait_until_async
from tests.support.service import PASSING_OBSERVATION, ServiceHarness, scripted_probe, without_ticks
from tests.support.store import INTERVAL_MS, LOCATION
from watchdog.domain import own_network
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import Observation, Outcome
from watchdog.domain.own_network import (
    MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS,
    WATCHDOG_NETWORK_FAULT_REASON,
    OwnNetworkFaultSymptomKind,
)
from watchdog.net import NetworkAccess
from watchdog.probes.base import ProbeAttemptContext
from watchdog.service import network_faults
from watchdog.service.connectivity import ConnectivityCheck
from watchdog.store.tables import incidents, results
from watchdog.store.write.clock_steps import adopt_clock_step

__all__ = ["without_ticks"]

UNREACHABLE = Observation(Outcome.FAIL, "connection.unreachable", "no route to the host")
NO_NAME_SERVER = Observation(Outcome.FAIL, "dns.no_response", "no response from the name server")
SILENT_NAME_SERVER = Observation(Outcome.FAIL, "timeout.dns", "timed out after 3 s while resolving the host name")
BROKER = Observation(
    Outcome.FAIL, "broker.unreachable", "broker unreachable", transport_reason="connection.unreachable"
)
REFUSED = Observation(Outcome.FAIL, "connection.refused", "connection refused")


class ScriptedCheck(ConnectivityCheck):
    """Answers when the test sets `answer`."""

    def __init__(self) -> None:
        super().__init__(NetworkAccess(), ["http://connectivity.example/"], ["b.example"], lambda: 0)
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.asked_questions: list[tuple[OwnNetworkFaultSymptomKind, list[str]]] = []

    async def run(self, symptom: OwnNetworkFaultSymptomKind, questions: Iterable[str]) -> bool:
        self.asked_questions.append((symptom, list(questions)))
        return await asyncio.shield(self.answer)


@pytest.fixture
def open_harness(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[Sequence[Observation | asyncio.Future[Observation]]], tuple[ServiceHarness, ScriptedCheck]]:
    """A probe for each observation, whose runs observe it, or pass once it is replaced."""

    def build(
        observations: Sequence[Observation | asyncio.Future[Observation]],
    ) -> tuple[ServiceHarness, ScriptedCheck]:
        def observe(index: int) -> Any:
            async def observe_once(_: ProbeAttemptContext) -> Observation:
                observation = observations[index]
                return await observation if isinstance(observation, asyncio.Future) else observation

            return observe_once

        probes = [
            scripted_probe(f"p{index}", observe(index), endpoint_name=f"{'abcdefgh'[index]}.example:80")
            for index in range(len(observations))
        ]
        harness = ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", probes)
        check = ScriptedCheck()
        harness.service.network_fault_decider.check = check
        request.addfinalizer(harness.store.close)
        return harness, check

    return build


def stored_results(harness: ServiceHarness) -> list[tuple[str, str, bool]]:
    """Outcome, reason, and whether it is held."""
    return [
        (row["outcome"], row["reason"], row["held_until"] is not None) for row in harness.store.select_rows(results)
    ]


OWN, PASS = ("error", WATCHDOG_NETWORK_FAULT_REASON, False), ("pass", "", False)


@pytest.mark.parametrize(
    ("observation", "symptom", "questions"),
    [
        (UNREACHABLE, OwnNetworkFaultSymptomKind.NO_ROUTE, ["http://connectivity.example/"]),
        (BROKER, OwnNetworkFaultSymptomKind.NO_ROUTE, ["http://connectivity.example/"]),
        (NO_NAME_SERVER, OwnNetworkFaultSymptomKind.NO_NAME_SERVER, ["connectivity.example", "b.example"]),
        (SILENT_NAME_SERVER, OwnNetworkFaultSymptomKind.NO_NAME_SERVER, ["connectivity.example", "b.example"]),
    ],
)
@pytest.mark.parametrize("works", [True, False])
async def test_the_first_failure_starts_a_check_that_decides(
    open_harness: Any, observation: Observation, symptom: OwnNetworkFaultSymptomKind, questions: list[str], works: bool
) -> None:
    harness, check = open_harness([observation])
    async with harness:
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        observed = ("fail", observation.reason)
        assert stored_results(harness) == [(*observed, True)]
        check.answer.set_result(works)
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
        assert stored_results(harness) == [(*observed, False) if works else OWN]
    assert check.asked_questions == [(symptom, questions)]


async def test_the_decision_may_come_before_the_result_is_recorded(open_harness: Any) -> None:
    harness, check = open_harness([UNREACHABLE])
    check.answer.set_result(False)
    async with harness:
        await harness.run_next_minute()
        await wait_until_async(lambda: check.asked_questions)
        await harness.service.record_buffered_results_and_notify()
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
        assert stored_results(harness) == [OWN]


async def test_later_failures_join_the_check_and_others_do_not_wait_for_it(open_harness: Any) -> None:
    harness, check = open_harness([UNREACHABLE, REFUSED, PASSING_OBSERVATION, UNREACHABLE])
    async with harness:
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        held, refused = ("fail", "connection.unreachable", True), ("fail", "connection.refused", False)
        assert stored_results(harness) == [held, refused, PASS, held]
        check.answer.set_result(False)
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
        assert stored_results(harness) == [OWN, refused, PASS, OWN]
    assert len(check.asked_questions) == 1


async def test_a_failure_joins_a_check_without_looking_for_questions(open_harness: Any) -> None:
    """Thousands of targets may fail at once, each of whose names would be looked at."""
    harness, check = open_harness([UNREACHABLE] * 8)
    async with harness:
        await harness.run_next_minute()
        check._host_by_target = {}
        await harness.service.record_buffered_results_and_notify()
        assert stored_results(harness) == [("fail", "connection.unreachable", True)] * 8
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        assert {held for _, _, held in stored_results(harness)[1::2]} == {True}
        check.answer.set_result(True)
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)


async def test_a_fault_of_the_own_network_is_reported_once_it_is_decided(open_harness: Any) -> None:
    harness, check = open_harness([UNREACHABLE])
    async with harness:
        reporter = harness.service.network_fault_decider._note_result.__self__
        await harness.run_next_minute()
        await reporter.write_changed_faults()
        assert reporter._stored == {}
        check.answer.set_result(False)
        await wait_until_async(lambda: reporter._network_fault)
        await reporter.write_changed_faults()
        assert list(reporter._stored) == ["network"]


async def test_with_nothing_to_ask_a_failure_is_the_targets(open_harness: Any) -> None:
    harness, check = open_harness([UNREACHABLE])
    check._host_by_target = {"http://a.example/": "a.example"}
    async with harness:
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        assert stored_results(harness) == [("fail", "connection.unreachable", False)]
    assert check.asked_questions == []


async def test_a_shutdown_ends_the_hold(open_harness: Any, without_ticks: None) -> None:
    harness, _ = open_harness([UNREACHABLE])
    async with harness:
        await harness.service.start()
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        assert stored_results(harness) == [("fail", "connection.unreachable", True)]
        await harness.service.stop()
        assert stored_results(harness) == [("fail", "connection.unreachable", False)]


async def test_a_check_that_fails_by_a_bug_leaves_the_failure_to_the_target(open_harness: Any) -> None:
    harness, check = open_harness([UNREACHABLE])
    check.answer.set_exception(KeyError("a bug"))
    async with harness:
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
        assert stored_results(harness) == [("fail", "connection.unreachable", False)]


async def test_a_decision_waits_for_the_database_no_longer_than_the_hold(open_harness: Any) -> None:
    harness, check = open_harness([UNREACHABLE])
    check.answer.set_result(False)
    async with harness:
        await harness.run_next_minute()
        await wait_until_async(lambda: check.asked_questions)
        harness.now += MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
        await harness.service.record_buffered_results_and_notify()
        assert stored_results(harness) == [("fail", "connection.unreachable", False)]


async def test_a_check_that_has_nothing_left_to_ask_decides_nothing(open_harness: Any) -> None:
    """The probes of both targets fail at once."""
    harness, check = open_harness([UNREACHABLE, UNREACHABLE])
    check._host_by_target = {"http://a.example/": "a.example", "http://b.example/": "b.example"}
    async with harness:
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
        assert {held for _, _, held in stored_results(harness)} == {False}
        assert {outcome for outcome, _, _ in stored_results(harness)} == {"fail"}
    assert check.asked_questions == []


# --- mass failure


@pytest.mark.parametrize("works", [True, False])
async def test_when_most_probes_fail_at_once_the_network_is_checked(open_harness: Any, works: bool) -> None:
    observations = [PASSING_OBSERVATION] * 8
    harness, check = open_harness(observations)
    async with harness:
        await harness.run_next_minute()
        observations[:6] = [REFUSED] * 6
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        check.answer.set_result(works)
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
        newest = stored_results(harness)[1::2]
    failed = ("fail", "connection.refused", False)
    assert newest == [failed if works else OWN] * 6 + [PASS] * 2, "also the first four, which were no mass failure yet"
    assert check.asked_questions == [(OwnNetworkFaultSymptomKind.MASS_FAILURE, ["http://connectivity.example/"])]


async def test_a_mass_failure_of_the_own_network_goes_on_until_it_is_over(open_harness: Any) -> None:
    """The second failure of a probe in a row belongs to it as well, so that no incident opens."""
    observations = [PASSING_OBSERVATION] * 8
    harness, check = open_harness(observations)
    check.answer.set_result(False)
    async with harness:
        await harness.run_next_minute()
        observations[:] = [REFUSED] * 8
        for _ in range(4):
            await harness.run_next_minute()
            await harness.service.record_buffered_results_and_notify()
            await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
        assert harness.store.select_rows(incidents) == []
        assert stored_results(harness)[4::5] == [OWN] * 8


async def test_a_failure_before_the_recovery_that_its_check_finds_is_part_of_the_fault(open_harness: Any) -> None:
    """The run after it shows whether the target has failed."""
    observations = [UNREACHABLE]
    harness, check = open_harness(observations)
    check.answer.set_result(False)
    async with harness:
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
        check.answer = asyncio.get_running_loop().create_future()
        check.answer.set_result(True)
        for _ in range(2):
            await harness.run_next_minute()
            await harness.service.record_buffered_results_and_notify()
            await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
    assert stored_results(harness) == [OWN, OWN, ("fail", "connection.unreachable", False)]


async def test_a_run_after_the_recovery_may_share_a_lookup_that_began_before(
    open_harness: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_network, "MAX_ASSUMED_DNS_LOOKUP_DURATION_MS", INTERVAL_MS)
    monkeypatch.setattr(network_faults, "OWN_NETWORK_FAULT_AFTERMATH_MS", HOUR_MS)
    harness, check = open_harness([SILENT_NAME_SERVER])
    async with harness:
        for works in (False, True, True, True):
            check.answer = asyncio.get_running_loop().create_future()
            check.answer.set_result(works)
            await harness.run_next_minute()
            await harness.service.record_buffered_results_and_notify()
            await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
    assert stored_results(harness) == [OWN, OWN, OWN, ("fail", "timeout.dns", False)]


async def test_a_fault_explains_no_failure_after_the_clock_was_set_back(open_harness: Any) -> None:
    harness, check = open_harness([UNREACHABLE])
    check.answer.set_result(False)
    async with harness:
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
        harness.now -= 2 * HOUR_MS
        adopt_clock_step(harness.store.database, LOCATION, generation=0, to=harness.now)
        harness.service.claims.watermark.follow_database_clock_generation()
        check.answer = asyncio.get_running_loop().create_future()
        check.answer.set_result(True)
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)
    assert sorted(stored_results(harness)) == [OWN, ("fail", "connection.unreachable", False)]


@pytest.mark.parametrize("late", [UNREACHABLE, REFUSED], ids=["unreachable", "refused"])
async def test_a_run_that_started_before_the_recovery_and_ends_later_is_part_of_the_fault(
    open_harness: Any, late: Observation
) -> None:
    """As a run that times out. By then the check of another run has found the recovery."""
    observations: list[Any] = [UNREACHABLE, PASSING_OBSERVATION]
    harness, check = open_harness(observations)

    async def record_and_decide() -> None:
        await harness.service.record_buffered_results_and_notify()
        await wait_until_async(lambda: not harness.service.network_fault_decider._tasks)

    check.answer.set_result(False)
    async with harness:
        await harness.run_next_minute()
        await record_and_decide()
        check.answer = asyncio.get_running_loop().create_future()
        check.answer.set_result(True)
        observations[1] = asyncio.get_running_loop().create_future()
        harness.now += INTERVAL_MS
        await harness.service.claim_due_slots_and_start_runs()
        await wait_until_async(lambda: len(check.asked_questions) == 2)
        await record_and_decide()
        harness.now += 3_000
        observations[1].set_result(late)
        await harness.wait_for_runs()
        await record_and_decide()
        assert stored_results(harness) == [OWN, OWN, PASS, OWN]
        observations[1] = late
        await harness.run_next_minute()
        await record_and_decide()
    assert stored_results(harness)[-1] == ("fail", late.reason, False)


# --- what is asked


@pytest.mark.parametrize(
    ("symptom", "doubtful", "failing", "questions"),
    [
        (OwnNetworkFaultSymptomKind.NO_ROUTE, ["a.example"], [], ["http://192.0.2.1/", "https://c.example/"]),
        (OwnNetworkFaultSymptomKind.NO_ROUTE, ["c.example"], [], ["http://192.0.2.1/"]),
        (OwnNetworkFaultSymptomKind.NO_ROUTE, ["a.example"], ["c.example"], ["http://192.0.2.1/"]),
        (OwnNetworkFaultSymptomKind.NO_ROUTE, ["192.0.2.1"], ["c.example"], []),
        (OwnNetworkFaultSymptomKind.NO_NAME_SERVER, ["a.example"], [], ["c.example", "b.example"]),
        (OwnNetworkFaultSymptomKind.NO_NAME_SERVER, ["a.example"], ["c.example"], ["b.example", "c.example"]),
        (
            OwnNetworkFaultSymptomKind.NO_NAME_SERVER,
            ["a.example", "b.example"],
            [],
            ["c.example", "a.example", "b.example"],
        ),
    ],
)
def test_what_is_asked(
    symptom: OwnNetworkFaultSymptomKind, doubtful: Collection[str], failing: Collection[str], questions: list[str]
) -> None:
    """URLs of other hosts; names that a name server resolves, first those of healthy probes, and none of its own."""
    hosts = ["a.example", "b.example", "192.0.2.7", "2001:db8::1", "localhost"]
    check = ConnectivityCheck(NetworkAccess(), ["http://192.0.2.1/", "https://c.example/"], hosts, lambda: 0)
    assert list(check.list_names_or_urls_to_check(symptom, doubtful, failing)) == questions
