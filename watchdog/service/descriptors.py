"""How many file descriptors a process may open, and how probes, visitors and everything else share them."""

from __future__ import annotations

import resource
from typing import NamedTuple

MAX_DESCRIPTORS = 8_192
"""The limit is raised to this, as far as the system allows it. Programs that probes start inherit it, and some close
every descriptor up to their limit when they start, so it is no higher."""
DESCRIPTORS_PER_RUN = 2
OTHER_DESCRIPTORS = 48
"""Of databases, logs, receivers and the event loop."""
MIN_RUN_PLACES, MAX_RUN_PLACES = 4, 2_000
MAX_HTTP_CONNECTIONS = 256


class DescriptorShares(NamedTuple):
    """How many may be open at once."""

    run_places: int
    http_connections: int


def raise_descriptor_limit() -> None:
    """Raise this process's limit on open files as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MAX_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def current_descriptor_shares() -> DescriptorShares:
    """The shares of this process's limit on open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return share_descriptors(MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft)


def share_descriptors(limit: int) -> DescriptorShares:
    """Visitors get at most a quarter, and probes what is left."""
    http_connections = min(MAX_HTTP_CONNECTIONS, limit // 4)
    places = (limit - http_connections - OTHER_DESCRIPTORS) // DESCRIPTORS_PER_RUN
    return DescriptorShares(min(max(places, MIN_RUN_PLACES), MAX_RUN_PLACES), http_connections)
