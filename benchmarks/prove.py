"""The long, measured checks: each prints its figures against their bounds, and one that falls short fails the whole.

usage: ./dev prove [NAME...]        names: see PROOFS; none means all
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TypeAlias

from benchmarks.table import Measurement, print_measurements

BENCHMARKS = {
    "latency": "from the deciding result to the message received, for each notifier",
    "kills": "kill -9 at every named point, on both databases",
    "canaries": "1,000 sentinels through each queue, and kill -9 while one is sent: what stays behind",
    "faults": "how soon a killed worker, and a broker that hangs or is down, is named with each queue system",
    "jobs": "one look at a table of 300,000 runs of jobs, on every database there is",
    "overdue": "a year of 500 jobs: who is called late, and when",
    "check_ins": "CPU of check-ins on both databases, beside a bare route",
    "load": "500 probes at 10 s on SQLite: lag, CPU, memory",
    "mutation": "how many faults put into the rules no test notices",
    "http_exchange": "CPU of a fresh HTTP exchange",
}
BenchmarkFunction: TypeAlias = Callable[[], Iterable[Measurement]]


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no proof is called {unknown[0]!r}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    figures: list[Measurement] = []
    for name in names or BENCHMARKS:
        print(f"\n{name}: {BENCHMARKS[name]}", flush=True)
        prove: BenchmarkFunction = import_module(f"benchmarks.{name}").prove
        found = list(prove())
        print_measurements(found)
        figures += found
    short = [figure for figure in figures if not figure.within_bound]
    print(
        f"\n{len(figures) - len(short)} of {len(figures)} figures hold."
        + "".join(f"\n  short: {f.name}" for f in short)
    )
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
