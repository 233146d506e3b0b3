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

from watchdog.checkin import deliver

MOST = 1024 * 1024
"""Bytes kept of what could not be told; beyond it the oldest is given up."""
OLDEST = 30 * 86_400.0
"""Seconds after which nobody wants to know."""
PATIENCE = 10.0
"""Seconds that telling of earlier runs may take."""
TRIES = 2

Word = dict[str, Any]
"""url, what, run, body; and when it was: boot, clock, wall."""


class Reporter:
    """Tells of one run. `address`: where; raises LookupError. Instants are of the monotonic clock. Nothing here
    raises: what goes wrong is warned of."""

    def __init__(self, address: Callable[[], str], began: float, warn: Callable[[str], None]):
        self._warn = warn
        self._run = uuid.uuid4().hex
        self._began = began
        self._untold: list[Word] = []
        self._url = ""
        try:
            self._url = address()
        except Exception as e:
            warn(str(e))

    def begin(self) -> None:
        self._tell([self._word("start", self._began)], tries=1)

    def end(self, code: int, ended: float, output: bytes) -> None:
        if not self._url:
            return
        words = [*self._untold, self._word(str(code), ended, output.decode("utf-8", "replace"))]
        self._tell(words, tries=1 if self._untold else TRIES)
        try:
            if self._untold:
                with _kept() as file:
                    _put(file, [*_words(file), *self._untold])
                self._warn("it is told with a later run")
            else:
                _tell_earlier()
        except Exception as e:
            self._warn(f"what could not be told cannot be kept: {e}")

    def _word(self, what: str, when: float, body: str = "") -> Word:
        return {"url": self._url, "what": what, "run": self._run, "body": body, **_instant(time.monotonic() - when)}

    def _tell(self, words: list[Word], tries: int) -> None:
        """What does not arrive, and may later, is left in `_untold`."""
        while words and self._url:
            for n in range(tries):
                time.sleep(n)
                why = _deliver(words[0])
                if not why or why.startswith("!"):
                    break
            if why:
                self._warn(f"the check-in did not arrive: {why.removeprefix('!')}")
            if why and not why.startswith("!"):
                break
            del words[0]
        self._untold = words


def _tell_earlier() -> None:
    """Until it takes too long. An address that does not answer keeps its own words waiting, and in their order, but
    not those for others."""
    if not _file().exists():
        return
    with _kept() as file:
        left: list[Word] = []
        silent: set[str] = set()
        end = time.monotonic() + PATIENCE
        for word in list(_words(file)):
            url = word["url"]
            if url not in silent and time.monotonic() < end:
                why = _deliver(word)
                if not why or why.startswith("!"):
                    continue
                silent.add(url)
            left.append(word)
        _put(file, left)


def _deliver(word: Word) -> str:
    return deliver(word["url"], word["what"], word["run"], _ago(word), word["body"].encode())


# --- when it was: the clock on the wall may be put right in the meantime


def _instant(ago: float) -> Word:
    return {"boot": _boot(), "clock": _clock() - ago, "wall": time.time() - ago}


def _ago(word: Word) -> float:
    """In seconds: by the clock that only ever goes forward, unless the machine was started anew since."""
    now = _clock()
    if word["boot"] == _boot() and now >= word["clock"]:
        return float(now - word["clock"])
    return float(max(time.time() - word["wall"], 0))


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


# --- what is kept: the addresses in it are secret


def _file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "watchdog" / "check-ins.jsonl"


@contextmanager
def _kept() -> Iterator[IO[bytes]]:
    """The file, for us alone."""
    path = _file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _words(file: IO[bytes]) -> Iterator[Word]:
    file.seek(0)
    for line in file:
        try:
            word = json.loads(line)
            if _ago(word) < OLDEST:
                yield word
        except (ValueError, KeyError, TypeError):
            continue  # cut off by a crash


def _put(file: IO[bytes], words: list[Word]) -> None:
    lines = [json.dumps(word).encode() + b"\n" for word in words]
    while lines and sum(map(len, lines)) > MOST:
        del lines[0]
    file.seek(0)
    file.truncate()
    file.write(b"".join(lines))
    file.flush()
