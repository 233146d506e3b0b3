"""How long a canary's run may take."""

from __future__ import annotations

from watchdog.probes.canary import BROKER_CALL_TIMEOUT_S, CLEANUP_TIMEOUT_S
from watchdog.queues import CANARY_DRIVERS, http, mcp


def test_the_timeout_of_a_run_allows_every_step() -> None:
    """The steps: remove an earlier sentinel, connect and send, poll for the last time, and withdraw the sentinel."""
    slowest = {"http": http.ENQUEUE_TIMEOUT_S, "mcp": mcp.CONNECT_TIMEOUT_S + mcp.JOB_ID_TIMEOUT_S}
    assert slowest.keys() == {name for name, system in CANARY_DRIVERS.items() if not system.deterministic_id}
    for name, seconds in slowest.items():
        assert (
            CANARY_DRIVERS[name].deadline_margin_ms
            >= (BROKER_CALL_TIMEOUT_S + seconds + BROKER_CALL_TIMEOUT_S + CLEANUP_TIMEOUT_S) * 1_000
        ), name
