"""Check-ins of `watchdog exec`, and a queue on disk for those that Watchdog did not receive."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from watchdog.cli.exec_post import CheckInPostError, post_check_in_or_raise

MAX_UNSENT_CHECK_INS_FILE_BYTES = 1024 * 1024
"""Beyond this size the oldest check-ins are dropped."""
MAX_QUEUED_CHECK_IN_AGE_S = 30 * 86_400.0
MAX_QUEUED_CHECK_INS_RESEND_DURATION_S = 10.0
"""For all queued check-ins together."""
MAX_CHECK_IN_SEND_ATTEMPTS = 2

QueuedCheckIn = dict[str, Any]
"""url, event, run, body; and when it happened: boot_id, boot_clock_s, wall_time_s."""


class CheckInReporter:
    """Reports one run. Never raises: problems are printed as warnings.

    A check-in that Watchdog does not receive is queued on disk and sent after a later run, with the time at which it
    happened. `resolve_url` may raise anything; the run is then not reported. Times are those of the monotonic clock.
    """

    def __init__(self, resolve_url: Callable[[], str], started_monotonic_s: float, warn: Callable[[str], None]):
        self._warn = warn
        self._run_id = os.urandom(16).hex()
        self._started_monotonic_s = started_monotonic_s
        self._undelivered: list[QueuedCheckIn] = []
        self._url = ""
        try:
            self._url = resolve_url()
        except Exception as e:
            warn(str(e))

    def report_start(self) -> None:
        self._send_check_ins([self._build_check_in("start", self._started_monotonic_s)], attempts=1)

    def report_end(self, exit_code: int, ended_monotonic_s: float, output: bytes) -> None:
        if not self._url:
            return
        end = self._build_check_in(str(exit_code), ended_monotonic_s, output.decode("utf-8", "replace"))
        attempts = 1 if self._undelivered else MAX_CHECK_IN_SEND_ATTEMPTS
        self._send_check_ins([*self._undelivered, end], attempts)
        try:
            if self._undelivered:
                with _open_locked_check_in_queue() as file:
                    _overwrite_check_in_queue_file(file, [*_read_unsent_check_ins_from_queue(file), *self._undelivered])
                self._warn("the check-in will be sent with the next run")
            else:
                _resend_queued_check_ins()
        except Exception as e:
            self._warn(f"cannot save unsent check-ins: {e}")

    def _build_check_in(self, event: str, monotonic_s: float, body: str = "") -> QueuedCheckIn:
        occurred = _build_queued_check_in_timestamps(time.monotonic() - monotonic_s)
        return {"url": self._url, "event": event, "run": self._run_id, "body": body, **occurred}

    def _send_check_ins(self, check_ins: list[QueuedCheckIn], attempts: int) -> None:
        """In order, up to the first that may succeed later; from there on they stay in `_undelivered`."""
        while check_ins and self._url:
            error = _send_check_in_with_retries_or_return_exception(check_ins[0], attempts)
            if error is not None:
                self._warn(f"check-in not delivered: {error}")
                if error.retryable:
                    break
            del check_ins[0]
        self._undelivered = check_ins


def _send_check_in_with_retries_or_return_exception(
    check_in: QueuedCheckIn, attempts: int = 1
) -> CheckInPostError | None:
    error = None
    for n in range(attempts):
        time.sleep(n)
        try:
            body = check_in["body"].encode()
            post_check_in_or_raise(
                check_in["url"], check_in["event"], check_in["run"], _compute_queued_check_in_age_s(check_in), body
            )
            return None
        except CheckInPostError as e:
            error = e
        if not error.retryable:
            break
    return error


def _resend_queued_check_ins() -> None:
    """Sends what is queued, for a limited time. A URL that does not answer keeps its own check-ins queued, in order,
    but not those for other URLs."""
    if not _build_check_in_queue_file_path().exists():
        return
    with _open_locked_check_in_queue() as file:
        unsent: list[QueuedCheckIn] = []
        unreachable: set[str] = set()
        end = time.monotonic() + MAX_QUEUED_CHECK_INS_RESEND_DURATION_S
        for check_in in list(_read_unsent_check_ins_from_queue(file)):
            url = check_in["url"]
            if url not in unreachable and time.monotonic() < end:
                error = _send_check_in_with_retries_or_return_exception(check_in)
                if error is None or not error.retryable:
                    continue
                unreachable.add(url)
            unsent.append(check_in)
        _overwrite_check_in_queue_file(file, unsent)


# --- when it happened: the wall clock may be corrected in the meantime


def _build_queued_check_in_timestamps(age_s: float) -> QueuedCheckIn:
    return {
        "boot_id": _read_boot_id(),
        "boot_clock_s": _read_seconds_since_boot() - age_s,
        "wall_time_s": time.time() - age_s,
    }


def _compute_queued_check_in_age_s(check_in: QueuedCheckIn) -> float:
    """By the clock that counts from boot; by the wall clock if the machine was restarted since."""
    now = _read_seconds_since_boot()
    if check_in["boot_id"] == _read_boot_id() and now >= check_in["boot_clock_s"]:
        return float(now - check_in["boot_clock_s"])
    return float(max(time.time() - check_in["wall_time_s"], 0))


def _read_seconds_since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _read_boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


# --- the queue file: readable by its owner only, for the URLs in it hold tokens


def _build_check_in_queue_file_path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "watchdog" / "check-ins.jsonl"


@contextmanager
def _open_locked_check_in_queue() -> Iterator[IO[bytes]]:
    path = _build_check_in_queue_file_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _read_unsent_check_ins_from_queue(file: IO[bytes]) -> Iterator[QueuedCheckIn]:
    file.seek(0)
    for line in file:
        try:
            check_in = json.loads(line)
            if _compute_queued_check_in_age_s(check_in) < MAX_QUEUED_CHECK_IN_AGE_S:
                yield check_in
        except (ValueError, KeyError, TypeError):
            continue  # a crash cut the line off


def _overwrite_check_in_queue_file(file: IO[bytes], check_ins: list[QueuedCheckIn]) -> None:
    lines = [json.dumps(check_in).encode() + b"\n" for check_in in check_ins]
    while lines and sum(map(len, lines)) > MAX_UNSENT_CHECK_INS_FILE_BYTES:
        del lines[0]
    file.seek(0)
    file.truncate()
    file.write(b"".join(lines))
    file.flush()
