"""The command that `watchdog exec` runs."""

from __future__ import annotations

import codecs
import os
import signal
import subprocess
import threading
import time
from typing import NamedTuple

from watchdog.domain.output_text import find_utf16_or_utf32_encoding

CHECK_IN_URL_ENV_VAR = "WATCHDOG_CHECK_IN_URL"
EXEC_FORWARDED_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
TERMINAL_GENERATED_SIGNALS = (signal.SIGINT, signal.SIGQUIT)
"""A terminal sends these to every process in its foreground, so the command has them already."""
MAX_WRAPPED_COMMAND_OUTPUT_TAIL_BYTES = 10_240
"""As much of the output as Watchdog keeps of a run."""
EXEC_OUTPUT_DRAIN_TIMEOUT_S = 0.5
"""How long output that was written last may take to arrive after the command has ended."""

EXEC_SIGNAL_WAKEUP_READ_BYTES = 64
EXEC_OUTPUT_READ_CHUNK_BYTES = 65_536
EXEC_OUTPUT_ENCODING_SAMPLE_BYTES = 4_096
"""The beginning of the output, which shows its encoding."""
BYTE_ORDER_MARK = "\ufeff"


class ExecCommandStartFailure(NamedTuple):
    exit_code: int
    """As a shell has it: 127 for a command that does not exist, 126 for one that cannot be run."""
    message: str


class WrappedCommandProcess:
    """The command, with our standard input. Its output is passed on as it comes, and its tail is kept.

    While `wait` waits, a pipe wakes it: the interpreter writes a byte there for every signal, and the thread that waits
    for the command writes one at its end. A lock would not do. Python runs a signal's handler when the main thread
    executes its next instruction, and a signal that arrives just before the thread blocks, or in another thread, does
    not interrupt a lock: it would be passed on only after the command had ended.
    """

    def __init__(self) -> None:
        self.started_monotonic_s = time.monotonic()
        self._ended = threading.Event()
        self._exit_code, self._ended_monotonic_s = 0, 0.0
        """Set once it has ended."""
        self._output_tail = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._signals_before_start: list[int] = []
        self._wakeup_fd, self._wakeup_write_fd = os.pipe()
        os.set_blocking(self._wakeup_write_fd, False)
        self._copy_threads: list[threading.Thread] = []
        self._previous_handlers = {
            number: signal.getsignal(number) for name in EXEC_FORWARDED_SIGNALS if (number := getattr(signal, name, 0))
        }

    @property
    def output_tail(self) -> bytes:
        return bytes(self._output_tail)

    def start(self, command: list[str]) -> ExecCommandStartFailure | None:
        """Starts the command. None: it runs."""
        signal.set_wakeup_fd(self._wakeup_write_fd)
        for number, handler in self._previous_handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._forward_signal)
        # A command that can check in by itself must not report the same run a second time.
        env = {name: value for name, value in os.environ.items() if name != CHECK_IN_URL_ENV_VAR}
        try:
            self._process = process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)  # noqa: S603 - the user's command
        except OSError as e:
            code = 127 if isinstance(e, FileNotFoundError) else 126
            return ExecCommandStartFailure(code, f"cannot run {command[0]}: {(e.strerror or str(e)).lower()}")
        for number in self._signals_before_start:
            process.send_signal(number)
        for pipe, target_fd in ((process.stdout, 1), (process.stderr, 2)):
            if pipe is not None:
                thread = threading.Thread(target=self._forward_output_and_keep_tail, args=(pipe.fileno(), target_fd))
                thread.start()
                self._copy_threads.append(thread)
        threading.Thread(target=self._wait_and_record_exit, args=(process,)).start()
        return None

    def wait_for_exit_code_and_end_time(self) -> tuple[int, float]:
        """Waits for the command to end. Returns its exit code, or 128 + the number of the signal that ended it, and the
        monotonic time of its end."""
        while not self._ended.is_set():
            os.read(self._wakeup_fd, EXEC_SIGNAL_WAKEUP_READ_BYTES)
        for thread in self._copy_threads:
            thread.join(EXEC_OUTPUT_DRAIN_TIMEOUT_S)
        return self._exit_code, self._ended_monotonic_s

    def wait_until_output_closed(self) -> None:
        """Waits until every process that holds the output has closed it: background children may still write."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        for thread in self._copy_threads:
            thread.join()

    def _wait_and_record_exit(self, process: subprocess.Popen[bytes]) -> None:
        """In a thread of its own, so that the end is timed even while a check-in is being sent."""
        code = process.wait()
        self._ended_monotonic_s = time.monotonic()
        self._exit_code = code if code >= 0 else 128 - code
        self._ended.set()
        os.write(self._wakeup_write_fd, b"\0")

    def _forward_signal(self, signal_number: int, _frame: object) -> None:
        if signal_number in TERMINAL_GENERATED_SIGNALS and os.isatty(0):
            return
        if self._process is None:
            self._signals_before_start.append(signal_number)
        else:
            self._process.send_signal(signal_number)

    def _forward_output_and_keep_tail(self, source_fd: int, target_fd: int) -> None:
        """Passes the output on as it is, and keeps its tail in UTF-8."""
        data = os.read(source_fd, EXEC_OUTPUT_READ_CHUNK_BYTES)
        encoding = find_utf16_or_utf32_encoding(data[:EXEC_OUTPUT_ENCODING_SAMPLE_BYTES])
        decoder = codecs.getincrementaldecoder(encoding)("replace") if encoding else None
        while data:
            self._output_tail += decoder.decode(data).removeprefix(BYTE_ORDER_MARK).encode() if decoder else data
            del self._output_tail[:-MAX_WRAPPED_COMMAND_OUTPUT_TAIL_BYTES]
            try:
                while data:
                    data = data[os.write(target_fd, data) :]
            except OSError:  # our own output was closed: the command must not notice
                target_fd = os.open(os.devnull, os.O_WRONLY)
            data = os.read(source_fd, EXEC_OUTPUT_READ_CHUNK_BYTES)
