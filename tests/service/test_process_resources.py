"""Descriptors are shared between probes and visitors, threads share memory, and large blocks are returned."""

from __future__ import annotations

import subprocess
import sys

import pytest

from watchdog.service.process_resources import compute_run_and_connection_limits


@pytest.mark.parametrize(
    ("limit", "run_places", "http_connections"),
    [(128, 24, 32), (256, 72, 64), (1_024, 360, 256), (4_096, 1_896, 256), (8_192, 2_000, 256), (40, 4, 10)],
)
def test_descriptors_are_shared(limit: int, run_places: int, http_connections: int) -> None:
    assert compute_run_and_connection_limits(limit) == (run_places, http_connections)


RAISE_PROGRAM = """
import resource, sys
from watchdog.service.process_resources import raise_file_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
raise_file_descriptor_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "raised"), [(64, 512, 512), (64, 64, 64), (256, 1_000, 1_000)])
def test_the_limit_of_descriptors_is_raised_as_far_as_allowed(soft: int, hard: int, raised: int) -> None:
    command = [sys.executable, "-c", RAISE_PROGRAM, str(soft), str(hard)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout == f"{raised} {hard}\n"


ARENA_PROGRAM = """
import ctypes, re, sys, tempfile, threading
from watchdog.service.process_resources import limit_heap_fragmentation
if sys.argv[1] == "limited":
    limit_heap_fragmentation()
barrier = threading.Barrier(6)
def allocate():
    blocks = [bytes(1_000 + n) for n in range(1_000)]
    barrier.wait(60)
threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile("r") as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(len(re.findall("<heap nr", file.read())))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="arenas are those of glibc")
def test_threads_share_arenas() -> None:
    def count_arenas(argument: str) -> int:
        command = [sys.executable, "-c", ARENA_PROGRAM, argument]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)

    assert count_arenas("limited") <= 2 < count_arenas("default")


FRAGMENTATION_PROGRAM = """
import pathlib, resource, sys
from watchdog.service.process_resources import limit_heap_fragmentation
def resident_mb():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
if sys.argv[1] == "limited":
    limit_heap_fragmentation()
bytearray(16 << 20)
before_mb, large, small = resident_mb(), [], []
for _ in range(20):
    large.append(bytearray(b"x") * (1 << 20))
    small.append(bytes(1_000))
large.clear()
print(resident_mb() - before_mb)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is that of glibc")
def test_large_blocks_are_returned_to_the_system() -> None:
    def measure_growth_mb(argument: str) -> float:
        command = [sys.executable, "-c", FRAGMENTATION_PROGRAM, argument]
        return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)

    assert measure_growth_mb("limited") < 10 < measure_growth_mb("default")


HEAP_PROGRAM = """
import asyncio, gc, pathlib, resource, sys
from watchdog.service import process_resources
process_resources.HEAP_FREEZE_DELAY_AFTER_START_S = process_resources.MALLOC_TRIM_INTERVAL_S = 0.01
def resident_mb():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
async def run():
    blocks = [bytes(1_000) for _ in range(40_000)]
    del blocks[:-1]  # the last one keeps the heap from shrinking at its end
    before_mb, frozen = resident_mb(), gc.get_freeze_count()
    task = asyncio.create_task(process_resources.keep_heap_small())
    await asyncio.sleep(0.2)
    print(before_mb - resident_mb() > 20, frozen, gc.get_freeze_count() > 1_000, task.done())
asyncio.run(run())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_free_memory_is_returned_and_what_is_loaded_is_not_visited_again() -> None:
    ran = subprocess.run([sys.executable, "-c", HEAP_PROGRAM], check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "True 0 True False\n"
