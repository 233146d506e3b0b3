"""Runs a command for `watchdog exec` and reports it.

Cron starts this with every run of a job, so it loads no Typer, no pydantic and no HTTP library.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

from watchdog.cli.exec_process import CHECK_IN_URL_ENV_VAR, ChildProcess


class ExecArguments(NamedTuple):
    name: str
    command: list[str]
    config: Path = Path("watchdog.yaml")
    url: str = ""
    """Where to check in; empty: at the address that the configuration gives the heartbeat `name`."""


def parse_arguments(words: list[str]) -> ExecArguments | None:
    """Parses what follows `watchdog exec`: options, name, options, `--`, command. None leaves it to Typer, which prints
    the help or explains what is wrong."""
    name, config, url = None, "watchdog.yaml", os.environ.get(CHECK_IN_URL_ENV_VAR, "")
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
    return ExecArguments(name, command, Path(config), url) if name is not None and command else None


def run_and_report(arguments: ExecArguments) -> int:
    """Runs the command, whatever is wrong with the configuration or the network. Returns its exit code."""
    process = ChildProcess()
    failure = process.start(arguments.command)  # first: the command runs on time

    from watchdog.cli.exec_queue import CheckInReporter

    reporter = CheckInReporter(
        lambda: arguments.url or _find_url(arguments), process.started_monotonic_s, print_warning
    )
    if failure is not None:
        print_warning(failure.message)
        reporter.report_end(failure.exit_code, time.monotonic(), failure.message.encode())
        return failure.exit_code
    reporter.report_start()
    exit_code, ended_monotonic_s = process.wait()
    reporter.report_end(exit_code, ended_monotonic_s, process.output_tail)
    process.drain_output()
    return exit_code


def print_warning(message: str) -> None:
    print(f"watchdog: {message}", file=sys.stderr)


def _find_url(arguments: ExecArguments) -> str:
    """Where to check in. Raises LookupError that explains why it is not known."""
    if arguments.url:
        return arguments.url

    from watchdog.config.check_in_url import find_check_in_url

    return find_check_in_url(arguments.config, arguments.name, os.environ) or _validate_and_find_url(arguments)


def _validate_and_find_url(arguments: ExecArguments) -> str:
    """The same from the validated configuration. Slow, but explains every problem."""
    from watchdog.config.load import load_config
    from watchdog.config.problems import ConfigError
    from watchdog.config_values import check_in_url
    from watchdog.probes.heartbeat import HeartbeatProbe

    try:
        config = load_config(arguments.config).config
    except ConfigError as e:
        raise LookupError(f"cannot check in: {e.problems[0]}") from None
    heartbeats = [probe for probe in config.probes if isinstance(probe, HeartbeatProbe)]
    for probe in heartbeats:
        if arguments.name in (probe.name, probe.id):
            token = probe.heartbeat.token.get_secret_value()
            return check_in_url(config.server.listen, config.server.public_url, token)
    names = ", ".join(probe.name for probe in heartbeats) or "none"
    raise LookupError(f"cannot check in: no heartbeat is named {arguments.name!r}; heartbeats: {names}")
