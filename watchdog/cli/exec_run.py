"""Runs a command for `watchdog exec` and reports it.

Cron starts this with every run of a job, so it loads no Typer, no pydantic and no HTTP library.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

from watchdog.cli.environment import CONFIG_FILE_ENV_VAR, DEFAULT_CONFIG_FILE
from watchdog.cli.exec_process import CHECK_IN_URL_ENV_VAR, WrappedCommandProcess


class WatchdogExecArguments(NamedTuple):
    name: str
    command: list[str]
    config: Path = Path(DEFAULT_CONFIG_FILE)
    url: str = ""
    """Where to check in; empty: at the address that the configuration gives the heartbeat `name`."""


def parse_exec_arguments(words: list[str]) -> WatchdogExecArguments | None:
    """Parses what follows `watchdog exec`: options, name, options, `--`, command. None leaves it to Typer, which prints
    the help or explains what is wrong."""
    name, url = None, os.environ.get(CHECK_IN_URL_ENV_VAR, "")
    config = os.environ.get(CONFIG_FILE_ENV_VAR) or DEFAULT_CONFIG_FILE
    n = 0
    while n < len(words) and words[n] != "--":
        word = words[n]
        if not word.startswith("-"):
            if name is not None:
                break
            name, n = word, n + 1
            continue
        option, equals, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], word[2:])
        n += 1
        if not equals and n < len(words):
            value, n = words[n], n + 1
        elif not equals:
            return None
        if option in ("-c", "--config"):
            config = value
        elif option == "--url":
            url = value
        else:
            return None
    command = words[n + 1 :] if words[n : n + 1] == ["--"] else words[n:]
    return WatchdogExecArguments(name, command, Path(config), url) if name is not None and command else None


def run_external_command_and_send_check_ins(arguments: WatchdogExecArguments) -> int:
    """Runs the command, even if the configuration is invalid or the network is down. Returns its exit code."""
    process = WrappedCommandProcess()
    failure = process.start(arguments.command)  # first: the command runs on time

    from watchdog.cli.exec_queue import CheckInReporter

    reporter = CheckInReporter(
        lambda: _find_exec_check_in_url(arguments), process.started_monotonic_s, print_exec_warning
    )
    if failure is not None:
        print_exec_warning(failure.message)
        reporter.report_end(failure.exit_code, time.monotonic(), failure.message.encode())
        return failure.exit_code
    reporter.report_start()
    exit_code, ended_monotonic_s = process.wait_for_exit_code_and_end_time()
    reporter.report_end(exit_code, ended_monotonic_s, process.output_tail)
    process.wait_until_output_closed()
    return exit_code


def print_exec_warning(message: str) -> None:
    print(f"watchdog: {message}", file=sys.stderr)


def _find_exec_check_in_url(arguments: WatchdogExecArguments) -> str:
    """Where to check in. Raises LookupError that explains why it is not known."""
    if arguments.url:
        return arguments.url

    if not arguments.config.exists():
        raise LookupError(
            f"cannot check in: no {arguments.config} in this directory: pass -c FILE, or set {CHECK_IN_URL_ENV_VAR}"
        )

    from watchdog.config.check_in_url import (
        load_check_in_url_from_validated_config,
        load_heartbeat_check_in_url_from_raw_config,
    )

    try:
        return load_heartbeat_check_in_url_from_raw_config(
            arguments.config, arguments.name, os.environ
        ) or load_check_in_url_from_validated_config(arguments.config, arguments.name, os.environ)
    except LookupError as e:
        raise LookupError(f"cannot check in: {e.args[0]}") from None
