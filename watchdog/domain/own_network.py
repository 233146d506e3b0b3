"""Whether the network of the machine that Watchdog runs on is at fault, and not the targets. Pure."""

from __future__ import annotations

from enum import StrEnum

from watchdog.domain.model import Outcome, ProbeResult

OWN_NETWORK_REASON = "watchdog.network"
"""The network of this machine is at fault. That is a finding about Watchdog, and decides nothing about the probe."""
MIN_HOSTS_OF_MASS_FAILURE = 5
MAX_NETWORK_FAULT_HOLD_MS = 10_000
"""How long a result that the network of this machine may explain waits for a decision. Then it counts as observed."""


class NetworkSymptom(StrEnum):
    """A failure that either the target or the network of this machine may be at fault for."""

    NO_ROUTE = "no_route"
    NO_NAME_SERVER = "no_name_server"


_SYMPTOM_BY_REASON = {
    "connection.unreachable": NetworkSymptom.NO_ROUTE,
    "dns.no_response": NetworkSymptom.NO_NAME_SERVER,
}


class NetworkFaultDecision(StrEnum):
    """Whose fault the failures were that were held."""

    OWN = "own"
    TARGET = "target"
    UNDECIDED = "undecided"
    """It counts as the target's, so that no outage is silent."""


def find_network_symptom(reason: str) -> NetworkSymptom | None:
    """`reason`: of a failed request."""
    return _SYMPTOM_BY_REASON.get(reason)


def apply_network_fault_decision(result: ProbeResult, decision: NetworkFaultDecision) -> ProbeResult:
    """A result that was held, as it counts: an error that quotes what was observed, or as it was observed."""
    if decision is not NetworkFaultDecision.OWN:
        return result._replace(held_until=None)
    message = f"no verdict: the network of Watchdog's own machine has failed: {result.message}"
    return result._replace(held_until=None, outcome=Outcome.ERROR, reason=OWN_NETWORK_REASON, message=message)


def get_endpoint_host(endpoint: str) -> str:
    """The host of "host:port", "[address]:port", or of a host alone."""
    if endpoint.startswith("["):
        return endpoint[1:].partition("]")[0]
    return endpoint if endpoint.count(":") > 1 else endpoint.partition(":")[0]
