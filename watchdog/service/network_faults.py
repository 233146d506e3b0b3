"""Decides whether the network of this machine is at fault for failures that the target may be at fault for as well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import structlog

from watchdog.domain.model import IncidentTransition, Outcome, ProbeResult, ResultToRecord
from watchdog.domain.own_network import (
    MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS,
    OWN_NETWORK_FAULT_AFTERMATH_MS,
    WATCHDOG_NETWORK_FAULT_REASON,
    MassFailureDetector,
    NetworkFaultDecision,
    OwnNetworkFault,
    OwnNetworkFaultSymptomKind,
    apply_network_fault_decision_to_result,
    find_own_network_fault_symptom_of_reason,
    get_endpoint_host,
)
from watchdog.domain.reasons import TRANSPORT_AND_RESPONSE_REASON_FAMILIES, get_reason_family
from watchdog.probes.base import Probe
from watchdog.service.clock import Clock
from watchdog.service.connectivity import ConnectivityCheck
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.listings import ResultKey
from watchdog.store.write.held_results import store_decided_held_results, withdraw_recorded_failures
from watchdog.store.write.recorder import ResultRecorder

log = structlog.get_logger()

HELD_RESULT_DECISION_RETRY_DELAY_S = 0.2
"""Between attempts to store a decision about a result that is not stored yet."""


class NetworkFaultDecider:
    """Owns the results of this process that are held, and the checks that decide about them: one for each symptom.

    `note_result`: called with each result as it counts, at once or when it is decided. `on_transitions`: called with
    what a decision led to.
    """

    def __init__(
        self,
        check: ConnectivityCheck,
        probes: Mapping[int, Probe],
        recorder: ResultRecorder,
        store_executor: StoreExecutor,
        *,
        clock: Clock,
        note_result: Callable[[ProbeResult], None],
        on_transitions: Callable[[list[IncidentTransition]], Awaitable[None]],
    ):
        self.check, self.recorder, self.store_executor, self.clock = check, recorder, store_executor, clock
        self.endpoint_hosts = _map_probes_to_hosts(probes)
        """Probe -> the host of its target, if it connects to one."""
        self._note_result, self._on_transitions = note_result, on_transitions
        self._failures: dict[int, ProbeResult] = {}
        """Probe that connects to a host -> its newest result, if that is a failure."""
        self._mass_failures = MassFailureDetector()
        self._own_faults: dict[bool, OwnNetworkFault] = {}
        """By whether names were asked for."""
        self._held: dict[OwnNetworkFaultSymptomKind, list[ProbeResult]] = {}
        self._checks: dict[OwnNetworkFaultSymptomKind, asyncio.Task[None]] = {}
        """Those in progress; each decides about all results that are held for its symptom."""
        self._tasks: set[asyncio.Task[None]] = set()
        """The checks, and those that have ended and store their decision."""

    def change_probes(self, check: ConnectivityCheck, probes: Mapping[int, Probe]) -> None:
        """Decide about the results of these probes from now on."""
        self.check, self.endpoint_hosts = check, _map_probes_to_hosts(probes)
        self._failures = {id: result for id, result in self._failures.items() if id in self.endpoint_hosts}

    def mark_result_as_held_if_network_doubtful(self, recorded: ResultToRecord) -> ResultToRecord:
        """The result of a run, held if it has to be decided whose fault it is; then a check is started or joined."""
        result = recorded.result
        symptom = self._find_network_fault_symptom(recorded)
        if symptom is None or not (symptom in self._checks or self._list_names_or_urls_to_check(symptom, [result])):
            self._note_result_that_counts(result)
            return recorded
        result = result._replace(held_until=self.clock() + MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS)
        self._held.setdefault(symptom, []).append(result)
        if symptom not in self._checks:
            task = asyncio.create_task(
                self._check_network_and_store_decided_results(symptom), name=f"network check: {symptom}"
            )
            self._checks[symptom] = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return recorded._replace(result=result)

    def _find_network_fault_symptom(self, recorded: ResultToRecord) -> OwnNetworkFaultSymptomKind | None:
        """Why the network of this machine may be at fault; None: it is not, or the run leads to no verdict."""
        result, host, now = recorded.result, self.endpoint_hosts.get(recorded.result.probe), self.clock()
        if result.outcome not in (Outcome.PASS, Outcome.FAIL):
            return None
        family = get_reason_family(recorded.transport_reason)
        if host:
            self._mass_failures.add_run_to_mass_failure_window(result.probe, host, family, now)
        if symptom := find_own_network_fault_symptom_of_reason(recorded.transport_reason):
            return symptom
        if not host or not family:
            return None
        is_related = family in TRANSPORT_AND_RESPONSE_REASON_FAMILIES and self._may_be_own_network_fault(
            OwnNetworkFaultSymptomKind.MASS_FAILURE, result
        )
        return (
            OwnNetworkFaultSymptomKind.MASS_FAILURE
            if is_related or self._mass_failures.is_mass_failure(family, now)
            else None
        )

    def _may_be_own_network_fault(self, symptom: OwnNetworkFaultSymptomKind, result: ProbeResult) -> bool:
        """Whether the newest fault of the own network that was found may explain a failure."""
        fault = self._own_faults.get(symptom.is_checked_by_name_lookup)
        return fault is not None and fault.may_explain_failed_result(result, self.clock())

    def _list_names_or_urls_to_check(
        self, symptom: OwnNetworkFaultSymptomKind, held: Sequence[ProbeResult]
    ) -> Sequence[str]:
        hosts = [self.endpoint_hosts.get(result.probe, "") for result in held]
        return self.check.list_names_or_urls_to_check(
            symptom, hosts, [self.endpoint_hosts[probe] for probe in self._failures]
        )

    def _note_result_that_counts(self, result: ProbeResult) -> None:
        if result.outcome is Outcome.FAIL and result.probe in self.endpoint_hosts:
            self._failures[result.probe] = result
        elif result.outcome is Outcome.PASS:
            self._failures.pop(result.probe, None)
        elif result.reason == WATCHDOG_NETWORK_FAULT_REASON:
            self._failures.pop(result.probe, None)
            self._mass_failures.count_run_failed_by_own_fault_as_passed(result.probe)
        self._note_result(result)

    async def _check_network_and_store_decided_results(self, symptom: OwnNetworkFaultSymptomKind) -> None:
        """Check, and decide about what is held by then.

        A failure of a run that started before the recovery of the own network was found counts as a part of that fault,
        and the next run shows whether the target has failed.
        """
        works = None
        try:
            if questions := self._list_names_or_urls_to_check(symptom, self._held[symptom]):
                works = await self.check.run(symptom, questions)
        except asyncio.CancelledError:
            pass  # the process stops, and a hold does not outlive it
        except Exception:
            log.exception("network_check_failed")
        del self._checks[symptom]
        held = self._held.pop(symptom)
        if works is not None:
            self._note_connectivity_check_result(symptom, works=works)
        decisions = [self._choose_network_fault_decision(symptom, result, works) for result in held]
        log.info(
            "network_checked",
            symptom=symptom,
            works=works,
            own_count=decisions.count(NetworkFaultDecision.OWN),
            result_count=len(held),
        )
        decided = [
            apply_network_fault_decision_to_result(result, decision)
            for result, decision in zip(held, decisions, strict=True)
        ]
        if symptom is OwnNetworkFaultSymptomKind.MASS_FAILURE and NetworkFaultDecision.OWN in decisions:
            await self._withdraw_earlier_failures([result.probe for result in held])
        for result in decided:
            self._note_result_that_counts(result)
        await self._store_decided_results(decided, max(result.held_until or 0 for result in held))

    def _note_connectivity_check_result(self, symptom: OwnNetworkFaultSymptomKind, *, works: bool) -> None:
        now, fault = self.clock(), self._own_faults.get(symptom.is_checked_by_name_lookup)
        if not works:
            timeline, ends_at = self.recorder.watermark.clock_timeline_id, now + OWN_NETWORK_FAULT_AFTERMATH_MS
            self._own_faults[symptom.is_checked_by_name_lookup] = OwnNetworkFault(timeline, ends_at)
        elif fault is not None and fault.affects_runs_until is None:
            until = now + symptom.max_symptom_duration_after_recovery_ms
            self._own_faults[symptom.is_checked_by_name_lookup] = fault._replace(affects_runs_until=until)

    def _choose_network_fault_decision(
        self, symptom: OwnNetworkFaultSymptomKind, result: ProbeResult, works: bool | None
    ) -> NetworkFaultDecision:
        """`works`: what the check found; None: nothing."""
        if works is None:
            return NetworkFaultDecision.UNDECIDED
        return (
            NetworkFaultDecision.OWN if self._may_be_own_network_fault(symptom, result) else NetworkFaultDecision.TARGET
        )

    async def _withdraw_earlier_failures(self, probes: Iterable[int]) -> None:
        """Those that belong to the mass failure of these probes, but were counted before it was one."""
        alike = [
            self._failures[p]
            for p in self._mass_failures.list_probes_failing_for_same_reasons(probes)
            if p in self._failures
        ]
        earlier = [
            apply_network_fault_decision_to_result(result, NetworkFaultDecision.OWN)
            for result in alike
            if self._may_be_own_network_fault(OwnNetworkFaultSymptomKind.MASS_FAILURE, result)
        ]
        with suppress(StoreUnavailableError):
            withdrawn = await self.store_executor.run_write(withdraw_recorded_failures, self.recorder, earlier)
            for result in earlier:
                if result[:3] in withdrawn:
                    self._note_result_that_counts(result)

    async def _store_decided_results(self, decided: Sequence[ProbeResult], until: int) -> None:
        """Waits for those that are not recorded yet, until their hold ends."""
        while decided:
            unrecorded: Collection[ResultKey] = [result[:3] for result in decided]
            with suppress(StoreUnavailableError):
                unrecorded, transitions = await self.store_executor.run_write_with_now(
                    partial(store_decided_held_results, self.recorder, decided)
                )
                await self._on_transitions(transitions)
            is_held = 0 < until - self.clock() <= MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS  # more: the clock was set back
            decided = [result for result in decided if result[:3] in unrecorded and is_held]
            if decided:
                await asyncio.sleep(HELD_RESULT_DECISION_RETRY_DELAY_S)

    async def stop(self, grace_s: float) -> None:
        """End the checks: what they have not decided counts as observed. All results must be recorded by now."""
        for task in self._checks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)


def _map_probes_to_hosts(probes: Mapping[int, Probe]) -> dict[int, str]:
    return {id: get_endpoint_host(probe.network_endpoint) for id, probe in probes.items() if probe.network_endpoint}
