"""Whether the network of the machine that Watchdog runs on is at fault, and not the targets. Pure."""

from __future__ import annotations

OWN_NETWORK_REASON = "watchdog.network"
"""The network of this machine is at fault. That is a finding about Watchdog, and decides nothing about the probe."""
