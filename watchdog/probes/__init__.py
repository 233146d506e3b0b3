"""Probes by kind. A new kind is one file and one name in `PROBE_KINDS`; schema, errors and documentation follow."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from watchdog.probes.base import AlertSettings, Probe, ProbeAttemptContext, ProbeDefaults
from watchdog.probes.canary import CanaryProbe
from watchdog.probes.command import CommandProbe
from watchdog.probes.dns import DnsProbe
from watchdog.probes.grpc import GrpcProbe
from watchdog.probes.heartbeat import HeartbeatProbe
from watchdog.probes.http import HttpProbe
from watchdog.probes.icmp import IcmpProbe
from watchdog.probes.jobs import JobsProbe
from watchdog.probes.mcp import McpProbe
from watchdog.probes.queue import QueueProbe
from watchdog.probes.sql import SqlProbe
from watchdog.probes.steps import StepsProbe
from watchdog.probes.tcp import TcpProbe
from watchdog.probes.tls import TlsProbe
from watchdog.probes.websocket import WebSocketProbe
from watchdog.registry import KindRegistry

PROBE_KINDS: KindRegistry[Probe] = KindRegistry(
    HttpProbe,
    StepsProbe,
    McpProbe,
    CanaryProbe,
    HeartbeatProbe,
    JobsProbe,
    QueueProbe,
    DnsProbe,
    IcmpProbe,
    TcpProbe,
    TlsProbe,
    GrpcProbe,
    WebSocketProbe,
    SqlProbe,
    CommandProbe,
)

AnyProbe: TypeAlias = Annotated[Probe, PROBE_KINDS]
"""A probe of any of these kinds."""

__all__ = [
    "PROBE_KINDS",
    "AlertSettings",
    "AnyProbe",
    "CanaryProbe",
    "CommandProbe",
    "DnsProbe",
    "GrpcProbe",
    "HeartbeatProbe",
    "HttpProbe",
    "IcmpProbe",
    "JobsProbe",
    "McpProbe",
    "Probe",
    "ProbeAttemptContext",
    "ProbeDefaults",
    "QueueProbe",
    "SqlProbe",
    "StepsProbe",
    "TcpProbe",
    "TlsProbe",
    "WebSocketProbe",
]
