"""One run of an MCP probe as the service makes it: bounded from outside, timed, its memory kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from watchdog.domain.model import Json, Observation, Outcome
from watchdog.net import Network, PhaseTimer
from watchdog.net.phases import PHASE_DESCRIPTIONS
from watchdog.probes.base import RunContext
from watchdog.probes.mcp import McpProbe


@dataclass
class McpProbeRunner:
    """Runs probes on one wire. `memory` is what they asked to remember."""

    network: Network
    probe_state: dict[str, Json] = field(default_factory=dict)
    duration_s: float = 0.0
    """Seconds of the last run, clearing up included."""

    async def run_probe(
        self, mcp: Mapping[str, Any], now: int | None = None, timeout_s: float = 10, **fields: Any
    ) -> Observation:
        probe = McpProbe(name="Sample", mcp=mcp, **fields)
        trace = PhaseTimer()
        at = round(time.time() * 1000) if now is None else now
        attempt = RunContext(at, at, timeout_s, "key", self.probe_state, self.network, trace)
        begun = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                seen = await probe.observe(attempt)
        except TimeoutError:
            message = f"timed out while {PHASE_DESCRIPTIONS[trace.current_phase or '']}"
            seen = Observation(Outcome.FAIL, "timeout.exceeded", message, phases=trace.phase_durations_ms)
        self.duration_s = time.monotonic() - begun
        self.probe_state |= seen.state_updates
        return seen


async def run_mcp_probe(mcp: Mapping[str, Any], **options: Any) -> Observation:
    """One run on a wire of its own."""
    async with Network() as wire:
        return await McpProbeRunner(wire).run_probe(mcp, **options)
