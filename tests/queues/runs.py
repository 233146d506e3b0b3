"""Probes as the service runs them, one at a time."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

from tests.mcp_peers import Peers
from watchdog.model import Json, Report, Slot
from watchdog.probes import CanaryProbe, Probe, QueueProbe
from watchdog.schedule import Away
from watchdog.service.clock import wall
from watchdog.service.lag import LagSentinel
from watchdog.service.runner import Runner
from watchdog.wire import Mask, Wire

UNMASKED = Mask(())


def canary(job: Mapping[str, Any], **fields: Any) -> CanaryProbe:
    return CanaryProbe.model_validate({"name": "Pipeline", "every": "5m", "canary": job, **fields})


def brief(job: Mapping[str, Any], ms: int) -> CanaryProbe:
    """One that must be finished sooner than may be configured: a test's patience is short."""
    probe = canary({**job, "finish_within": "1s"})
    return probe.model_copy(update={"canary": probe.job.model_copy(update={"finish_within": ms})})


def queue(system: Mapping[str, Any], rules: Mapping[str, Any] | None = None) -> QueueProbe:
    fields = {} if rules is None else {"rules": rules}
    return QueueProbe.model_validate({"name": "Backlog", "queue": system, **fields})


def look(
    system: Mapping[str, Any],
    rules: Mapping[str, Any] | None = None,
    after: int = 0,
    first: Report | None = None,
    away: Away = (),
) -> Report:
    """One look into a queue, `after` so many ms since the `first`."""
    slot, memory = (None, {}) if first is None else (first.result.slot + after, first.remember)
    return asyncio.run(once(queue(system, rules), slot, memory=memory, away=away))


async def once(
    probe: Probe,
    slot: int | None = None,
    prev: int | None = None,
    memory: Mapping[str, Json] | None = None,
    mask: Mask = UNMASKED,
    away: Away = (),
) -> Report:
    probe.prepare()
    async with Wire() as wire, LagSentinel() as lag:
        at = wall() if slot is None else slot
        return await Runner(wire, mask, wall, lag, lambda: away).run(probe, Slot(1, at, "local", prev), memory or {})


def node(peers: Peers, script: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """Words and environment of a worker of ours on Node.js."""
    path = f"{os.path.dirname(__file__)}/workers/{script}"  # noqa: PTH120 - what a command line takes
    return [peers.node, path], {"PATH": os.environ["PATH"], "NODE_PATH": str(peers.modules), **env}


def python(script: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """The same in Python. What stands beside the script can be imported by its jobs."""
    path = f"{os.path.dirname(__file__)}/workers/{script}"  # noqa: PTH120 - what a command line takes
    return [sys.executable, "-u", path], {"PATH": os.environ["PATH"], **env}
