"""`watchdog exec`: run a command, and check in for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, exit_with_error

FORWARDED_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
CHECK_IN_URL_ENV_VAR = "WATCHDOG_CHECK_IN_URL"
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT)
"""What a terminal sends to everybody on it, the command included."""
OUTPUT_DRAIN_TIMEOUT_S = 0.5
"""Seconds in which what the command said last may arrive, after its end."""


class InterspersedCommand(TyperCommand):
    """Options may stand behind the name, too. What follows them is the command's own, whatever it begins with."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {word for param in self.params for word in param.opts if word.startswith("-")}
        n = 1
        while n < len(args) and (args[n].partition("=")[0] in known or args[n][:2] in known):  # -cFILE, too
            n += 2 if args[n] in known else 1
        return super().parse_args(ctx, [*args[1:n], *args[:1], *args[n:]])


def exec_command(
    name: Annotated[str, typer.Argument(help="The name or id of a heartbeat.")],
    command: Annotated[list[str], typer.Argument(help="The command, after `--`.")],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    check_in_url: Annotated[
        str,
        typer.Option(envvar=CHECK_IN_URL_ENV_VAR, help="The check-in address, in the place of the configuration."),
    ] = "",
) -> None:
    """Run a command, and check in for it.

    Tells when it starts, its exit code, how long it took and the end of its output. Passes on its exit code, and
    signals to it. The command runs even when Watchdog is away; that is told with a later run.
    """
    words = command[1:] if command[0] == "--" else command
    if not words:
        exit_with_error("which command? watchdog exec NAME -- COMMAND ...")
    raise typer.Exit(_run_and_report(words, name, config, check_in_url))


def _run_and_report(command: list[str], name: str, config: Path, check_in_url: str) -> int:
    job = _ChildProcess()
    missing = job.start(command)  # before all else: whatever is wrong with us, the command runs on time

    from watchdog.cli.exec_queue import CheckInReporter

    reporter = CheckInReporter(
        lambda: check_in_url or _heartbeat_url(name, config), job.started_monotonic_s, _print_warning
    )
    if missing:
        _print_warning(missing[1])
        reporter.report_end(missing[0], time.monotonic(), missing[1].encode())
        return missing[0]
    reporter.report_start()
    code, ended = job.wait()
    reporter.report_end(code, ended, job.output_tail)
    job.drain_output()
    return code


def _print_warning(message: str) -> None:
    print(f"watchdog: {message}", file=sys.stderr)


def _heartbeat_url(name: str, config: Path) -> str:
    """Where a heartbeat of the configuration checks in. Raises LookupError that says what is missing."""
    from watchdog.config.load import load_config
    from watchdog.config.problems import ConfigError
    from watchdog.probes import HeartbeatProbe

    try:
        given = load_config(config).config
    except ConfigError as e:
        raise LookupError(f"cannot check in, for the configuration is wrong: {str(e).splitlines()[0]}") from None
    jobs = [probe for probe in given.probes if isinstance(probe, HeartbeatProbe)]
    chosen = next((probe for probe in jobs if name in (probe.name, probe.id)), None)
    if chosen is None:
        known = ", ".join(probe.name for probe in jobs) or "none"
        raise LookupError(f"cannot check in, for no heartbeat is called {name!r}; there are: {known}")
    host, port = given.server.bind_address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where we listen, not what we call
    base = given.server.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    return f"{base}/in/{chosen.heartbeat.token.get_secret_value()}"


class _ChildProcess:
    """The command, with our own input, and its output passed on as it comes."""

    def __init__(self) -> None:
        self.started_monotonic_s = time.monotonic()
        self._ended_monotonic_s = 0.0
        self._output = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._signals_before_start: list[int] = []
        self._copy_threads: list[threading.Thread] = []
        self._wait_thread = threading.Thread(target=self._wait_for_exit)
        self._previous_handlers = {
            number: signal.getsignal(number) for word in FORWARDED_SIGNALS if (number := getattr(signal, word, 0))
        }

    @property
    def output_tail(self) -> bytes:
        return bytes(self._output)

    def start(self, command: list[str]) -> tuple[int, str] | None:
        """The exit code of a command that cannot be run, and why, as a shell has them."""
        for number, handler in self._previous_handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._forward_signal)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - theirs to say
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={
                    name: value for name, value in os.environ.items() if name != CHECK_IN_URL_ENV_VAR
                },  # or it checks in, too
            )
        except OSError as e:
            missing = isinstance(e, FileNotFoundError)
            return (127 if missing else 126), f"cannot run {command[0]}: {(e.strerror or str(e)).lower()}"
        for number in self._signals_before_start:
            self._process.send_signal(number)
        for pipe, ours in ((self._process.stdout, 1), (self._process.stderr, 2)):
            assert pipe is not None  # noqa: S101 - asked for above
            copy = threading.Thread(target=self._copy_output, args=(pipe.fileno(), ours))
            copy.start()
            self._copy_threads.append(copy)
        self._wait_thread.start()
        return None

    def _wait_for_exit(self) -> None:
        """In a thread of its own: whoever else waits for Watchdog must not be taken for the command."""
        assert self._process is not None  # noqa: S101 - it was begun
        self._process.wait()
        self._ended_monotonic_s = time.monotonic()

    def wait(self) -> tuple[int, float]:
        """Its exit code, 128 and the signal's number where one ended it; and when it ended."""
        self._wait_thread.join()
        assert self._process is not None  # noqa: S101 - it was begun
        for copy in self._copy_threads:
            copy.join(OUTPUT_DRAIN_TIMEOUT_S)
        code = self._process.returncode
        return (code if code >= 0 else 128 - code), self._ended_monotonic_s

    def drain_output(self) -> None:
        """Until everybody is gone who holds its output: what it left in the background may go on to speak."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        for copy in self._copy_threads:
            copy.join()

    def _forward_signal(self, signal_number: int, _frame: object) -> None:
        if signal_number in TERMINAL_SIGNALS and os.isatty(0):
            return
        if self._process is None:
            self._signals_before_start.append(signal_number)
        else:
            self._process.send_signal(signal_number)

    def _copy_output(self, source_fd: int, target_fd: int) -> None:
        from watchdog.checkin import MAX_OUTPUT_BYTES

        while data := os.read(source_fd, 65_536):
            self._output += data
            del self._output[:-MAX_OUTPUT_BYTES]
            try:
                while data:
                    data = data[os.write(target_fd, data) :]
            except OSError:  # nobody reads ours any more: the command goes on all the same
                target_fd = os.open(os.devnull, os.O_WRONLY)
