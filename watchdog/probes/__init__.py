"""Probes by kind. A new kind is one file and one name in the union: schema, errors and documentation follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, get_args

from watchdog.probes.base import Alert, Attempt, Common, Probe
from watchdog.probes.canary import CanaryProbe
from watchdog.probes.heartbeat import HeartbeatProbe
from watchdog.probes.http import HttpProbe
from watchdog.probes.jobs import JobsProbe
from watchdog.probes.mcp import McpProbe
from watchdog.probes.queue import QueueProbe

AnyProbe: TypeAlias = HttpProbe | McpProbe | CanaryProbe | HeartbeatProbe | JobsProbe | QueueProbe

KINDS: Mapping[str, type[Probe]] = {probe.kind: probe for probe in get_args(AnyProbe)}

__all__ = [
    "KINDS",
    "Alert",
    "AnyProbe",
    "Attempt",
    "CanaryProbe",
    "Common",
    "HeartbeatProbe",
    "HttpProbe",
    "JobsProbe",
    "McpProbe",
    "Probe",
    "QueueProbe",
]
