"""What a service uses of its machine: how many file descriptors it may open, and how memory is allocated."""

from __future__ import annotations

import ctypes
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


MALLOC_ARENAS = 2
_M_ARENA_MAX = -8
"""The parameter of glibc's mallopt()."""


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


def limit_malloc_arenas() -> None:
    """Let all threads allocate memory in common. By default, glibc gives each thread an arena of its own, up to eight
    for each core, and what a thread once needed stays with it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have no arenas
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, MALLOC_ARENAS)
