"""Functions that tests run in the worker process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NoReturn

from watchdog.net import ProbeError
from watchdog.net.http import HttpResponse


def get_pid() -> int:
    return os.getpid()


def get_pid_of_judgement(response: HttpResponse) -> int:
    return os.getpid()


def compute_forever(started: str) -> NoReturn:
    """Creates the file `started` first."""
    Path(started).touch()
    while True:
        time.perf_counter()


def kill_itself() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def exit_itself() -> NoReturn:
    os._exit(7)


def raise_probe_error() -> NoReturn:
    error = ProbeError("json.invalid", "no JSON", "body", retryable=True, is_internal=True, excerpt="{")
    error.facts["line"] = 3
    raise error


class UnpicklableError(Exception):
    def __init__(self, detail: str, *, line: int) -> None:
        super().__init__(detail, line)


def raise_unpicklable_error() -> NoReturn:
    raise UnpicklableError("bad", line=1)
