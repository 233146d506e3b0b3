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

from watchdog.cli.common import DEFAULT, ConfigFile, fail

FORWARDED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
VARIABLE = "WATCHDOG_CHECK_IN_URL"
OF_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
"""What a terminal sends to everybody on it, the command included."""
LAST_WORDS = 0.5
"""Seconds in which what the command said last may arrive, after its end."""


class NameFirst(TyperCommand):
    """Options may stand behind the name, too. What follows them is the command's own, whatever it begins with."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {word for param in self.params for word in param.opts if word.startswith("-")}
        n = 1
        while n < len(args) and (args[n].partition("=")[0] in known or args[n][:2] in known):  # -cFILE, too
            n += 2 if args[n] in known else 1
        return super().parse_args(ctx, [*args[1:n], *args[:1], *args[n:]])


def execute(
    name: Annotated[str, typer.Argument(help="The name or key of a heartbeat.")],
    command: Annotated[list[str], typer.Argument(help="The command, after `--`.")],
    config: ConfigFile = DEFAULT,
    url: Annotated[
        str,
        typer.Option(envvar=VARIABLE, help="The check-in address, in the place of the configuration."),
    ] = "",
) -> None:
    """Run a command, and check in for it.

    Tells when it starts, its exit code, how long it took and the end of its output. Passes on its exit code, and
    signals to it. The command runs even when Watchdog is away; that is told with a later run.
    """
    words = command[1:] if command[0] == "--" else command
    if not words:
        fail("which command? watchdog exec NAME -- COMMAND ...")
    raise typer.Exit(_run(words, name, config, url))


def _run(words: list[str], name: str, config: Path, url: str) -> int:
    job = _Job()
    missing = job.begin(words)  # before all else: whatever is wrong with us, the command runs on time

    from watchdog.cli.unsent import Reporter

    reporter = Reporter(lambda: url or _address(name, config), job.began, _warn)
    if missing:
        _warn(missing[1])
        reporter.end(missing[0], time.monotonic(), missing[1].encode())
        return missing[0]
    reporter.begin()
    code, ended = job.wait()
    reporter.end(code, ended, job.tail)
    job.finish()
    return code


def _warn(message: str) -> None:
    print(f"watchdog: {message}", file=sys.stderr)


def _address(name: str, config: Path) -> str:
    """Where a heartbeat of the configuration checks in. Raises LookupError that says what is missing."""
    from watchdog.config import ConfigError, load
    from watchdog.probes import HeartbeatProbe

    try:
        given = load(config).config
    except ConfigError as e:
        raise LookupError(f"cannot check in, for the configuration is wrong: {str(e).splitlines()[0]}") from None
    jobs = [probe for probe in given.probes if isinstance(probe, HeartbeatProbe)]
    chosen = next((probe for probe in jobs if name in (probe.name, probe.key)), None)
    if chosen is None:
        known = ", ".join(probe.name for probe in jobs) or "none"
        raise LookupError(f"cannot check in, for no heartbeat is called {name!r}; there are: {known}")
    host, port = given.server.address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where we listen, not what we call
    base = given.server.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    return f"{base}/in/{chosen.heartbeat.key.get_secret_value()}"


class _Job:
    """The command, with our own input, and its output passed on as it comes."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._ended = 0.0
        self._output = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._copies: list[threading.Thread] = []
        self._waiter = threading.Thread(target=self._await)
        self._handlers = {
            number: signal.getsignal(number) for word in FORWARDED if (number := getattr(signal, word, 0))
        }

    @property
    def tail(self) -> bytes:
        return bytes(self._output)

    def begin(self, words: list[str]) -> tuple[int, str] | None:
        """The exit code of a command that cannot be run, and why, as a shell has them."""
        for number, handler in self._handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._forward)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - theirs to say
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={name: value for name, value in os.environ.items() if name != VARIABLE},  # or it checks in, too
            )  # fmt: skip
        except OSError as e:
            missing = isinstance(e, FileNotFoundError)
            return (127 if missing else 126), f"cannot run {words[0]}: {(e.strerror or str(e)).lower()}"
        for number in self._early:
            self._process.send_signal(number)
        for pipe, ours in ((self._process.stdout, 1), (self._process.stderr, 2)):
            assert pipe is not None  # noqa: S101 - asked for above
            copy = threading.Thread(target=self._copy, args=(pipe.fileno(), ours))
            copy.start()
            self._copies.append(copy)
        self._waiter.start()
        return None

    def _await(self) -> None:
        """In a thread of its own: whoever else waits for Watchdog must not be taken for the command."""
        assert self._process is not None  # noqa: S101 - it was begun
        self._process.wait()
        self._ended = time.monotonic()

    def wait(self) -> tuple[int, float]:
        """Its exit code, 128 and the signal's number where one ended it; and when it ended."""
        self._waiter.join()
        assert self._process is not None  # noqa: S101 - it was begun
        for copy in self._copies:
            copy.join(LAST_WORDS)
        code = self._process.returncode
        return (code if code >= 0 else 128 - code), self._ended

    def finish(self) -> None:
        """Until everybody is gone who holds its output: what it left in the background may go on to speak."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for copy in self._copies:
            copy.join()

    def _forward(self, number: int, _frame: object) -> None:
        if number in OF_THE_TERMINAL and os.isatty(0):
            return
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)

    def _copy(self, theirs: int, ours: int) -> None:
        from watchdog.checkin import MOST

        while data := os.read(theirs, 65_536):
            self._output += data
            del self._output[:-MOST]
            try:
                while data:
                    data = data[os.write(ours, data) :]
            except OSError:  # nobody reads ours any more: the command goes on all the same
                ours = os.open(os.devnull, os.O_WRONLY)
