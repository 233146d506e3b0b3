"""Runs `watchdog` on a machine whose wall clock is wrong by as many seconds as a file holds; empty or missing: 0."""

from __future__ import annotations

import os
import time
from pathlib import Path

CLOCK_ERROR_FILE_ENV_VAR = "WATCHDOG_TEST_CLOCK_ERROR_FILE"


def shift_wall_clock(error_file: Path) -> None:
    read_right_time_ns = time.time_ns

    def read_wrong_time_ns() -> int:
        text = error_file.read_text() if error_file.exists() else ""
        return read_right_time_ns() + round(float(text or 0) * 1e9)

    time.time_ns = read_wrong_time_ns
    time.time = lambda: read_wrong_time_ns() / 1e9


if __name__ == "__main__":
    shift_wall_clock(Path(os.environ[CLOCK_ERROR_FILE_ENV_VAR]))
    from watchdog.cli import main

    main()
