"""Runs of MCP probes as in the service: with a deadline, measured phases, and stored state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.polling import HANG_S, wait_until_async
from watchdog.domain.model import Json, Observation, Outcome
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.net import NetworkAccess, PhaseTimer
from watchdog.net.phases import PHASE_DESCRIPTIONS
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.mcp import McpProbe


@dataclass
class McpProbeRunner:
    """Runs probes on one network and keeps their state."""

    network: NetworkAccess
    probe_state: dict[str, Json] = field(default_factory=dict)
    duration_s: float = 0.0
    """Seconds of the last run, cleanup included."""

    async def run_probe(
        self,
        mcp: Mapping[str, Any],
        now: int | None = None,
        timeout_s: float = 10,
        timeout_in_phase: str = "",
        **fields: Any,
    ) -> Observation:
        """`timeout_in_phase`: the deadline is `timeout_s` after the start of this phase, however late that is."""
        probe = McpProbe(name="Sample", mcp=mcp, **fields)
        phase_timer = PhaseTimer()
        at = round(time.time() * 1000) if now is None else now
        context = ProbeAttemptContext(
            slot=at,
            started_at=at,
            remaining_s=4 * HANG_S if timeout_in_phase else timeout_s,
            idempotency_key="key",
            probe_state=self.probe_state,
            network=self.network,
            phase_timer=phase_timer,
        )
        started = time.monotonic()
        try:
            async with asyncio.timeout(None if timeout_in_phase else timeout_s) as deadline:
                starting = asyncio.ensure_future(_set_deadline(deadline, phase_timer, timeout_in_phase, timeout_s))
                try:
                    observation = await probe.observe(context)
                finally:
                    starting.cancel()
        except TimeoutError:
            message = f"timed out while {PHASE_DESCRIPTIONS[phase_timer.current_phase or '']}"
            observation = Observation(Outcome.FAIL, "timeout.exceeded", message, phases=phase_timer.phase_durations_ms)
        self.duration_s = time.monotonic() - started
        self.probe_state |= observation.state_updates
        return observation


async def _set_deadline(deadline: asyncio.Timeout, phase_timer: PhaseTimer, phase: str, timeout_s: float) -> None:
    if phase:
        await wait_until_async(lambda: phase_timer.current_phase == phase)
        deadline.reschedule(asyncio.get_running_loop().time() + timeout_s)


async def run_mcp_probe(mcp: Mapping[str, Any], **options: Any) -> Observation:
    """One run with a network of its own."""
    async with NetworkAccess() as network:
        return await McpProbeRunner(network).run_probe(mcp, **options)


def reported_tasks(observation: Observation) -> dict[str, McpScheduledTaskFacts] | None:
    """None: no task list was read."""
    listing = observation.listings.get("task")
    return None if listing is None else dict(listing.subjects)


def task_age_ms(observation: Observation, name: str) -> int | None:
    """The time since its last run; None: it never ran."""
    listing = observation.listings["task"]
    last_run_at = listing.subjects[name].last_run_at
    return None if last_run_at is None else listing.observed_at - last_run_at


def listed_for_ms(observation: Observation, name: str) -> int | None:
    """The time since a task that never ran was first listed; None: it has run."""
    listing = observation.listings["task"]
    first_listed_at = listing.subjects[name].first_listed_at
    return None if first_listed_at is None else listing.observed_at - first_listed_at
