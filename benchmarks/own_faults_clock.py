"""Runs `watchdog` on a machine whose wall clock is wrong by as many seconds as a file holds; empty or missing: 0."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.own_faults_harness import CLOCK_ERROR_FILE_ENV_VAR
from watchdog.cli import main

_FILE = Path(os.environ[CLOCK_ERROR_FILE_ENV_VAR])
_read_right_time_ns = time.time_ns


def read_wrong_time_ns() -> int:
    text = _FILE.read_text() if _FILE.exists() else ""
    return _read_right_time_ns() + round(float(text or 0) * 1e9)


if __name__ == "__main__":
    time.time_ns = read_wrong_time_ns
    time.time = lambda: read_wrong_time_ns() / 1e9
    main()
