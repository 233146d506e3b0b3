"""Whether the network of the machine that Watchdog runs on is at fault, and not the targets. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.model import Outcome, ProbeResult

WATCHDOG_NETWORK_FAULT_REASON = "watchdog.network"
"""The network of this machine is at fault. That is a finding about Watchdog, and decides nothing about the probe."""
OWN_NETWORK_FAILED_MESSAGE_PREFIX = "the network of Watchdog's own machine has failed:"
MASS_FAILURE_WINDOW_MS = 60_000
OWN_NETWORK_FAULT_AFTERMATH_MS = 120_000
"""For this long after the network of this machine was found at fault, a failure may still be a part of that."""
MAX_ASSUMED_DNS_LOOKUP_DURATION_MS = 10_000
"""By default, the system gives up a lookup after two attempts of 5 s. Runs that need the same name share it."""
MIN_HOSTS_OF_MASS_FAILURE = 5
MAX_RESULT_HOLD_FOR_NETWORK_CHECK_MS = 10_000
"""How long a result that the network of this machine may explain waits for a decision. Then it counts as observed."""


class OwnNetworkFaultSymptomKind(StrEnum):
    """A failure that either the target or the network of this machine may be at fault for."""

    NO_ROUTE = "no_route"
    NO_NAME_SERVER = "no_name_server"
    MASS_FAILURE = "mass_failure"
    """Most probes fail that passed before, and for one family of reasons."""

    @property
    def is_checked_by_name_lookup(self) -> bool:
        """Whether names are resolved in order to decide; otherwise URLs are requested."""
        return self is OwnNetworkFaultSymptomKind.NO_NAME_SERVER

    @property
    def max_symptom_duration_after_recovery_ms(self) -> int:
        """How long a run that starts after the recovery may show it: it may wait for a lookup that began before."""
        return MAX_ASSUMED_DNS_LOOKUP_DURATION_MS if self.is_checked_by_name_lookup else 0


_OWN_NETWORK_FAULT_SYMPTOM_KIND_BY_FAILURE_REASON = {
    "connection.unreachable": OwnNetworkFaultSymptomKind.NO_ROUTE,
    "dns.no_response": OwnNetworkFaultSymptomKind.NO_NAME_SERVER,
    "timeout.dns": OwnNetworkFaultSymptomKind.NO_NAME_SERVER,  # a name server that is silent may take longer than a run
}


class NetworkFaultDecision(StrEnum):
    """Whose fault the failures were that were held."""

    OWN = "own"
    TARGET = "target"
    UNDECIDED = "undecided"
    """It counts as the target's, so that no outage is silent."""


class OwnNetworkFault(NamedTuple):
    """The newest fault of the network of this machine that was found."""

    timeline: str
    """On which it was found: the other instants are of this one."""
    aftermath_ends_at: int
    affects_runs_until: int | None = None
    """Runs that start later use the network as it is since its recovery; None: no recovery was found yet."""

    def may_explain_failed_result(self, result: ProbeResult, now: int) -> bool:
        """Whether a failure may be a part of it: the fault was found not long ago, and affects the run."""
        is_affected = self.affects_runs_until is None or result.slot <= self.affects_runs_until
        return result.location == self.timeline and now < self.aftermath_ends_at and is_affected


def find_own_network_fault_symptom_of_reason(reason: str) -> OwnNetworkFaultSymptomKind | None:
    """`reason`: of a failed request."""
    return _OWN_NETWORK_FAULT_SYMPTOM_KIND_BY_FAILURE_REASON.get(reason)


def apply_network_fault_decision_to_result(result: ProbeResult, decision: NetworkFaultDecision) -> ProbeResult:
    """A result that was held, as it counts: an error that quotes what was observed, or as it was observed."""
    if decision is not NetworkFaultDecision.OWN:
        return result._replace(held_until=None)
    message = f"no verdict: {OWN_NETWORK_FAILED_MESSAGE_PREFIX} {result.message}"
    return result._replace(
        held_until=None, outcome=Outcome.ERROR, reason=WATCHDOG_NETWORK_FAULT_REASON, message=message
    )


def get_endpoint_host(endpoint: str) -> str:
    """The host of "host:port", "[address]:port", or of a host alone."""
    if endpoint.startswith("["):
        return endpoint[1:].partition("]")[0]
    return endpoint if endpoint.count(":") > 1 else endpoint.partition(":")[0]


class _MassFailureWindowRun(NamedTuple):
    """A run whose probe had passed before."""

    at: int
    host: str
    family: str
    """Of the reason of a failure; empty: it passed."""


class MassFailureDetector:
    """Knows the newest run of each probe whose previous run passed, over a sliding MASS_FAILURE_WINDOW_MS."""

    def __init__(self) -> None:
        self._passed: set[int] = set()
        """The probes whose newest run passed."""
        self._runs: dict[int, _MassFailureWindowRun] = {}
        """By probe, oldest first."""
        self._failing_hosts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Family -> host -> how many of these runs failed."""

    def add_run_to_mass_failure_window(self, probe: int, host: str, family: str, now: int) -> None:
        """`family`: of the reason of a failure; empty: the run passed."""
        self._forget_old_runs(now)
        if probe in self._passed:
            self._forget_run(probe)
            self._runs[probe] = _MassFailureWindowRun(now, host, family)
            if family:
                self._failing_hosts[family][host] += 1
        (self._passed.discard if family else self._passed.add)(probe)

    def count_run_failed_by_own_fault_as_passed(self, probe: int) -> None:
        """The newest run failed by a fault of Watchdog's own: the next failure counts as one after a pass."""
        self._passed.add(probe)

    def is_mass_failure(self, family: str, now: int) -> bool:
        """Whether more than half of the runs failed for this family of reasons, on enough hosts."""
        self._forget_old_runs(now)
        hosts = self._failing_hosts[family]
        return len(hosts) >= MIN_HOSTS_OF_MASS_FAILURE and 2 * hosts.total() > len(self._runs)

    def list_probes_failing_for_same_reasons(self, probes: Iterable[int]) -> list[int]:
        """The probes whose run failed for the same family of reasons as that of one of these."""
        families = {run.family for probe in probes if (run := self._runs.get(probe)) is not None and run.family}
        return [probe for probe, run in self._runs.items() if run.family in families]

    def _forget_old_runs(self, now: int) -> None:
        while self._runs:
            oldest = next(iter(self._runs))
            if 0 <= now - self._runs[oldest].at < MASS_FAILURE_WINDOW_MS:  # less: the clock was set back
                return
            self._forget_run(oldest)

    def _forget_run(self, probe: int) -> None:
        run = self._runs.pop(probe, None)
        if run is not None and run.family:
            hosts = self._failing_hosts[run.family]
            hosts[run.host] -= 1
            if not hosts[run.host]:
                del hosts[run.host]
