"""Probes by kind. A new kind is one file and one name in the union: schema, errors and documentation follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, get_args

from watchdog.probes.base import AlertSettings, Probe, ProbeDefaults, RunContext
from watchdog.probes.canary import CanaryProbe
from watchdog.probes.heartbeat import HeartbeatProbe
from watchdog.probes.http import HttpProbe
from watchdog.probes.jobs import JobsProbe
from watchdog.probes.mcp import McpProbe
from watchdog.probes.queue import QueueProbe

AnyProbe: TypeAlias = HttpProbe | McpProbe | CanaryProbe | HeartbeatProbe | JobsProbe | QueueProbe

PROBE_KINDS: Mapping[str, type[Probe]] = {probe.kind: probe for probe in get_args(AnyProbe)}

__all__ = [
    "PROBE_KINDS",
    "AlertSettings",
    "AnyProbe",
    "CanaryProbe",
    "HeartbeatProbe",
    "HttpProbe",
    "JobsProbe",
    "McpProbe",
    "Probe",
    "ProbeDefaults",
    "QueueProbe",
    "RunContext",
]
