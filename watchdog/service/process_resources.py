"""What a service uses of its machine: how many file descriptors it may open, and how memory is allocated."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
from typing import NamedTuple

MAX_FILE_DESCRIPTORS = 8_192
"""The limit is raised to this, as far as the system allows it. Programs that probes start inherit it, and some close
every descriptor up to their limit when they start, so it is no higher."""
FILE_DESCRIPTORS_PER_RUN = 2
FILE_DESCRIPTORS_FOR_OTHER_USES = 48
"""Of databases, logs, receivers and the event loop."""
MIN_RUN_PLACES, MAX_RUN_PLACES = 4, 2_000
MAX_WEB_SERVER_CONNECTIONS = 256
MAX_EVENT_STREAMS = 100


MAX_MALLOC_ARENAS = 2
MALLOC_MMAP_THRESHOLD_BYTES = 256 << 10
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Parameters of glibc's mallopt()."""


class RunAndConnectionLimits(NamedTuple):
    """How many may be open at once."""

    run_places: int
    http_connections: int


def raise_file_descriptor_limit() -> None:
    """Raise this process's limit on open files as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILE_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MAX_FILE_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def derive_run_and_connection_limits_from_rlimit() -> RunAndConnectionLimits:
    """The shares of this process's limit on open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return compute_run_and_connection_limits(MAX_FILE_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft)


def compute_run_and_connection_limits(limit: int) -> RunAndConnectionLimits:
    """Visitors get at most a quarter, and probes what is left."""
    http_connections = min(MAX_WEB_SERVER_CONNECTIONS, limit // 4)
    places = (limit - http_connections - FILE_DESCRIPTORS_FOR_OTHER_USES) // FILE_DESCRIPTORS_PER_RUN
    return RunAndConnectionLimits(min(max(places, MIN_RUN_PLACES), MAX_RUN_PLACES), http_connections)


def derive_event_stream_limit_from_rlimit() -> int:
    """How many streams of events may be open at once: at most two fifths of the connections."""
    return min(MAX_EVENT_STREAMS, derive_run_and_connection_limits_from_rlimit().http_connections * 2 // 5)


HEAP_FREEZE_DELAY_AFTER_START_S = 60.0
"""By then the first run of each probe has imported what it needs."""
MALLOC_TRIM_INTERVAL_S = 60.0


async def keep_heap_small() -> None:
    """Exclude what the start has created from garbage collection, and once more when everything is loaded, so that a
    collection takes little time and happens after little garbage. Then return free memory to the system at an interval.
    Never returns."""
    gc.freeze()
    await asyncio.sleep(HEAP_FREEZE_DELAY_AFTER_START_S)
    gc.collect(0)  # only the youngest objects: all of them would hold the event loop for 100 ms
    gc.freeze()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    while malloc_trim is not None:
        malloc_trim(0)
        await asyncio.sleep(MALLOC_TRIM_INTERVAL_S)


def limit_heap_fragmentation() -> None:
    """Keep what was needed for a moment from staying with the process: threads allocate memory in common, and large
    blocks are mapped, so that they are returned to the system when they are freed.

    By default, glibc gives each thread an arena of its own, up to eight for each core, and takes every block up to the
    largest freed one (32 MB at most) from the heap.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have no such parameters
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, MAX_MALLOC_ARENAS)
        mallopt(_M_MMAP_THRESHOLD, MALLOC_MMAP_THRESHOLD_BYTES)
