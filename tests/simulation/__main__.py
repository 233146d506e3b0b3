"""Runs one seed, and prints what happened: `.venv/bin/python -m tests.simulation SEED [MUTANT]`."""

from __future__ import annotations

import logging
import sys

from tests.simulation.mutants import MUTANTS
from tests.simulation.simulation import simulate


def main(seed: str, *mutant: str) -> int:
    logging.disable(logging.CRITICAL)
    report = simulate(int(seed), *(MUTANTS[name] for name in mutant))
    print(*report.trace, "", *report.violations, sep="\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
