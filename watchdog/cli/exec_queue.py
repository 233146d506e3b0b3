"""Check-ins of a wrapped command, and what becomes of those that do not arrive: a later run tells them."""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from watchdog.checkin import send_check_in

MAX_QUEUE_BYTES = 1024 * 1024
"""Bytes kept of what could not be told; beyond it the oldest is given up."""
MAX_CHECK_IN_AGE_S = 30 * 86_400.0
"""Seconds after which nobody wants to know."""
RESEND_TIMEOUT_S = 10.0
"""Seconds that telling of earlier runs may take."""
MAX_DELIVERY_ATTEMPTS = 2

QueuedCheckIn = dict[str, Any]
"""url, what, run, body; and when it was: boot, clock, wall."""


class CheckInReporter:
    """Tells of one run. `address`: where; raises LookupError. Instants are of the monotonic clock. Nothing here
    raises: what goes wrong is warned of."""

    def __init__(self, resolve_url: Callable[[], str], started_monotonic_s: float, warn: Callable[[str], None]):
        self._print_warning = warn
        self._run_id = uuid.uuid4().hex
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
        words = [
            *self._undelivered,
            self._build_check_in(str(exit_code), ended_monotonic_s, output.decode("utf-8", "replace")),
        ]
        self._send_check_ins(words, attempts=1 if self._undelivered else MAX_DELIVERY_ATTEMPTS)
        try:
            if self._undelivered:
                with _open_locked_queue() as file:
                    _write_queue(file, [*_read_queue(file), *self._undelivered])
                self._print_warning("it is told with a later run")
            else:
                _resend_queued()
        except Exception as e:
            self._print_warning(f"what could not be told cannot be kept: {e}")

    def _build_check_in(self, event: str, monotonic_s: float, body: str = "") -> QueuedCheckIn:
        return {
            "url": self._url,
            "what": event,
            "run": self._run_id,
            "body": body,
            **_clock_readings(time.monotonic() - monotonic_s),
        }

    def _send_check_ins(self, check_ins: list[QueuedCheckIn], attempts: int) -> None:
        """What does not arrive, and may later, is left in `_untold`."""
        while check_ins and self._url:
            for n in range(attempts):
                time.sleep(n)
                why = _deliver_check_in(check_ins[0])
                if not why or why.startswith("!"):
                    break
            if why:
                self._print_warning(f"the check-in did not arrive: {why.removeprefix('!')}")
            if why and not why.startswith("!"):
                break
            del check_ins[0]
        self._undelivered = check_ins


def _resend_queued() -> None:
    """Until it takes too long. An address that does not answer keeps its own words waiting, and in their order, but
    not those for others."""
    if not _queue_path().exists():
        return
    with _open_locked_queue() as file:
        left: list[QueuedCheckIn] = []
        silent: set[str] = set()
        end = time.monotonic() + RESEND_TIMEOUT_S
        for word in list(_read_queue(file)):
            url = word["url"]
            if url not in silent and time.monotonic() < end:
                why = _deliver_check_in(word)
                if not why or why.startswith("!"):
                    continue
                silent.add(url)
            left.append(word)
        _write_queue(file, left)


def _deliver_check_in(check_in: QueuedCheckIn) -> str:
    return send_check_in(
        check_in["url"], check_in["what"], check_in["run"], _age_s(check_in), check_in["body"].encode()
    )


# --- when it was: the clock on the wall may be put right in the meantime


def _clock_readings(age_s: float) -> QueuedCheckIn:
    return {"boot": _boot_id(), "clock": _boot_clock_s() - age_s, "wall": time.time() - age_s}


def _age_s(check_in: QueuedCheckIn) -> float:
    """In seconds: by the clock that only ever goes forward, unless the machine was started anew since."""
    now = _boot_clock_s()
    if check_in["boot"] == _boot_id() and now >= check_in["clock"]:
        return float(now - check_in["clock"])
    return float(max(time.time() - check_in["wall"], 0))


def _boot_clock_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


# --- what is kept: the addresses in it are secret


def _queue_path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "watchdog" / "check-ins.jsonl"


@contextmanager
def _open_locked_queue() -> Iterator[IO[bytes]]:
    """The file, for us alone."""
    path = _queue_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _read_queue(file: IO[bytes]) -> Iterator[QueuedCheckIn]:
    file.seek(0)
    for line in file:
        try:
            word = json.loads(line)
            if _age_s(word) < MAX_CHECK_IN_AGE_S:
                yield word
        except (ValueError, KeyError, TypeError):
            continue  # cut off by a crash


def _write_queue(file: IO[bytes], check_ins: list[QueuedCheckIn]) -> None:
    lines = [json.dumps(word).encode() + b"\n" for word in check_ins]
    while lines and sum(map(len, lines)) > MAX_QUEUE_BYTES:
        del lines[0]
    file.seek(0)
    file.truncate()
    file.write(b"".join(lines))
    file.flush()
