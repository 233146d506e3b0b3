"""One run of an MCP probe as the service makes it: bounded from outside, timed, its memory kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from watchdog.model import Json, Observation, Outcome
from watchdog.probes.base import Attempt
from watchdog.probes.mcp import McpProbe
from watchdog.wire import Trace, Wire
from watchdog.wire.trace import DOING


@dataclass
class Visitor:
    """Runs probes on one wire. `memory` is what they asked to remember."""

    wire: Wire
    memory: dict[str, Json] = field(default_factory=dict)
    took: float = 0.0
    """Seconds of the last run, clearing up included."""

    async def run(
        self, mcp: Mapping[str, Any], now: int | None = None, seconds: float = 10, **fields: Any
    ) -> Observation:
        probe = McpProbe(name="Sample", mcp=mcp, **fields)
        trace = Trace()
        at = round(time.time() * 1000) if now is None else now
        attempt = Attempt(at, at, seconds, "key", self.memory, self.wire, trace)
        begun = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                seen = await probe.observe(attempt)
        except TimeoutError:
            message = f"timed out while {DOING[trace.under_way or '']}"
            seen = Observation(Outcome.FAIL, "timeout.exceeded", message, phases=trace.phases)
        self.took = time.monotonic() - begun
        self.memory |= seen.remember
        return seen


async def visit(mcp: Mapping[str, Any], **options: Any) -> Observation:
    """One run on a wire of its own."""
    async with Wire() as wire:
        return await Visitor(wire).run(mcp, **options)
