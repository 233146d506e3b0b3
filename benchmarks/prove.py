"""The long, measured checks: each prints its figures and their limits. A figure over its limit fails the run.

usage: ./dev prove [NAME...]        names: see BENCHMARKS; default: all
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TypeAlias

from benchmarks.measurements import Measurement, print_measurements

BENCHMARKS = {
    "latency": "from the result that opens an incident to the message received, for each notifier",
    "kills": "kill -9 at nine points, on both databases",
    "reload": "reloads of every kind: time until in force, losses, messages, and whether `watchdog diff` showed them",
    "members": "processes with different configurations on one PostgreSQL: deploys, rollbacks, crashes, a crash loop",
    "canaries": "1,000 sentinel jobs through each queue; kill -9 while one is sent, and what it leaves behind",
    "faults": "how soon each queue system's canary reports a killed worker, and a broker that hangs or is down",
    "aftermath": "what a fault leaves behind: every canary, queue and source of jobs, broken and repaired",
    "own_faults": "faults of Watchdog and its machine: who is notified and when, blind time, false outages, losses",
    "jobs": "one poll of a table with 300,000 job runs, on every database",
    "overdue": "a year of 500 jobs: which runs are reported as overdue, and when",
    "check_ins": "CPU of check-ins on both databases, compared with a bare route",
    "load": "500 probes at 10 s on SQLite: lag, CPU, memory",
    "standstill": "the largest responses of each kind beside a target that goes down: longest step, time to its alert",
    "faces": "every page in every state: accessibility, phones, no script, keyboard; what two responders see, and when",
    "pages": "pages with 1,000 probes and 90 days of roll-ups: time; with 5,000 probes: size",
    "slack": "1,000 incidents handled in an unreliable Slack: messages lost or repeated, forged requests accepted",
    "soak": "an hour with 34 probes of all kinds, whose targets fail and recover: memory, descriptors, processes",
    "simulate": "seeded simulations of the whole service with faults of all kinds: broken promises, mutants found",
    "week": "a simulated week with all faults every day: broken promises, growth of memory, tasks and descriptors",
    "mutation": "faults injected into the pure code that no test notices",
    "deadlines": "how punctually time limits end what hangs, and the CPU of reading configurations",
    "http_exchange": "CPU of an HTTP exchange on a fresh connection",
    "peer": "CPU of a check, stored and judged, beside blackbox_exporter's, which stores nothing",
    "capacity": "the highest rate on one core beside blackbox_exporter's; 2,000 probes at 10 s, 100,000 at 60 s",
    "mcp_cycle": "CPU of a cycle with an MCP server beside the bare SDK's",
    "storage": "bytes of a result on both databases, a year of 1,000 probes, and write pauses of retention",
    "startup": "CPU of starting each kind of command, as multiples of an empty Python process",
}
BenchmarkFunction: TypeAlias = Callable[[], Iterable[Measurement]]


def main(words: list[str]) -> int:
    names = [word.replace("-", "_") for word in words]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; benchmarks: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    measurements: list[Measurement] = []
    for name in names or BENCHMARKS:
        print(f"\n{name}: {BENCHMARKS[name]}", flush=True)
        prove: BenchmarkFunction = import_module(f"benchmarks.{name}").prove
        results = list(prove())
        print_measurements(results)
        measurements += results
    failed = [measurement for measurement in measurements if not measurement.within_limit]
    print(f"\n{len(measurements) - len(failed)} of {len(measurements)} figures are within their limits.")
    print(*(f"  over the limit: {measurement.name}" for measurement in failed), sep="\n", end="\n" if failed else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
