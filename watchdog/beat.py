"""What a job's check-ins add up to: which of its runs are under way, how the newest ended, how often it failed. Pure.

Check-ins may come twice and in any order: what counts is when each happened, by our own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from watchdog.model import Json

MEMORY = "beat"
"""Under this word a probe remembers its beat."""
MOST = 50
"""Runs under way, and runs that are over, that are remembered."""
RECENT = 20
"""Failures in a row whose instants are remembered; of older ones the number."""
AGAIN = 10_000
"""A run that ends twice within so many ms ended once: its sender did not get our answer."""
OUTPUT, ERROR = 4_000, 200
"""How many characters are kept of a job's output, and of why it failed; always the end."""


class Kind(StrEnum):
    START = "start"
    OK = "ok"
    FAIL = "fail"
    LOG = "log"


class CheckIn(NamedTuple):
    """One word from a job."""

    id: str
    """Given when it came in: what is stored twice counts once."""
    at: int
    """When it happened: when it came in, less how long its sender says that it was on its way."""
    kind: Kind
    run: str = ""
    """The sender's own word for the run that it is about; empty: it has none."""
    code: int | None = None
    """The exit code, where one was given."""
    body: str = ""
    """The end of the job's output, untrusted."""


class Beat(NamedTuple):
    """All that is known of a job by its check-ins. Instants in ms since the epoch."""

    runs: tuple[tuple[str, int], ...] = ()
    """Under way: the run, empty when nobody named it, and when it began; by the latter."""
    over: tuple[tuple[str, int, bool], ...] = ()
    """Named runs that ended: the run, when, and whether well; newest last."""
    last_start: int | None = None
    last_end: int | None = None
    last_ok: int | None = None
    duration: int | None = None
    """Of the run that ended last; None: nobody said when it began."""
    failed: tuple[int, ...] = ()
    """When the newest failures since the last good run were, in their order."""
    older: int = 0
    """Failures in a row before those."""
    error: str = ""
    """What the newest of them said."""
    output: str = ""
    logged: bool = False
    """The output is of a run that has not ended."""

    @property
    def failures(self) -> int:
        return self.older + len(self.failed)

    def under_way_since(self, patience: int) -> int | None:
        """When the oldest run that is under way began. One that nobody ended is given up for lost once another run
        ended well more than `patience` ms after it began."""
        done = self.last_ok
        return min((begun for _, begun in self.runs if done is None or done - begun <= patience), default=None)


class Step(NamedTuple):
    beat: Beat
    duration: int | None = None
    """How long the run took that this check-in ended."""


def step(beat: Beat, told: CheckIn) -> Step:
    """One more check-in."""
    if told.kind is Kind.START:
        return Step(_begun(beat, told))
    if told.kind is Kind.LOG:
        return Step(beat._replace(output=told.body[-OUTPUT:], logged=True) if told.body else beat)
    return _ended(beat, told)


def beat_of(kept: Mapping[str, Json] | None) -> Beat:
    """From what `kept_of` made, by this version or another."""
    values = {name: value for name, value in (kept or {}).items() if name in Beat._fields}
    for name in ("runs", "over"):
        values[name] = tuple(tuple(one) for one in values.get(name, ()))
    return Beat(**{**values, "failed": tuple(values.get("failed", ()))})


def kept_of(beat: Beat) -> Json:
    return beat._asdict()


def _begun(beat: Beat, told: CheckIn) -> Beat:
    if told.run and any(run == told.run for run, _ in beat.runs):
        return beat
    end = _end_of(beat, told)
    if end is not None:
        if end == beat.last_end and beat.duration is None:
            beat = beat._replace(duration=end - told.at)
        return beat
    runs = sorted((*beat.runs, (told.run, told.at)), key=lambda run: run[1])
    return beat._replace(runs=tuple(runs[-MOST:]), last_start=_later(beat.last_start, told.at))


def _end_of(beat: Beat, start: CheckIn) -> int | None:
    """When the run ended of which only now we hear that it began; None: it is under way."""
    if start.run:
        ends = [end for run, end, _ in beat.over if run == start.run and end >= start.at]
        return ends[0] if ends else None
    return beat.last_end if beat.last_end is not None and beat.last_end > start.at else None


def _ended(beat: Beat, told: CheckIn) -> Step:
    good = told.kind is Kind.OK
    if told.run and any(o[0] == told.run and o[2] is good and abs(o[1] - told.at) <= AGAIN for o in beat.over):
        return Step(beat)
    begun, rest = _closed(beat, told)
    duration = None if begun is None else max(told.at - begun, 0)
    if told.run:
        over = sorted((*beat.over, (told.run, told.at, good)), key=lambda end: end[1])
        beat = beat._replace(over=tuple(over[-MOST:]))
    if beat.last_end is None or told.at >= beat.last_end:
        output = told.body[-OUTPUT:] or (beat.output if beat.logged else "")
        beat = beat._replace(last_end=told.at, duration=duration, output=output, logged=False)
    beat = beat._replace(runs=rest, last_start=_later(beat.last_start, told.at if begun is None else begun))
    return Step(_well(beat, told.at) if good else _badly(beat, told), duration)


def _closed(beat: Beat, told: CheckIn) -> tuple[int | None, tuple[tuple[str, int], ...]]:
    """When the run began that ends here, and the runs that go on.

    Without a name it ends every run that has none: those before the newest were cut off without a word, or each crash
    would leave one behind for ever. Where all have names, it ends the oldest.
    """
    ends = [run for run in beat.runs if run[0] == told.run and (told.run or run[1] <= told.at)]
    if not ends and not told.run:
        ends = [run for run in beat.runs if run[1] <= told.at][:1]
    return (ends[-1][1] if ends else None), tuple(run for run in beat.runs if run not in ends)


def _well(beat: Beat, at: int) -> Beat:
    failed = tuple(one for one in beat.failed if one > at)
    older = beat.older if failed == beat.failed else 0
    error = beat.error if failed else ""
    return beat._replace(last_ok=_later(beat.last_ok, at), failed=failed, older=older, error=error)


def _badly(beat: Beat, told: CheckIn) -> Beat:
    if beat.last_ok is not None and told.at <= beat.last_ok:
        return beat
    failed = sorted((*beat.failed, told.at))
    error = _error(told) if failed[-1] == told.at else beat.error
    older = beat.older + max(len(failed) - RECENT, 0)
    return beat._replace(failed=tuple(failed[-RECENT:]), older=older, error=error)


def _error(told: CheckIn) -> str:
    """ "exit code 3: No space left on device": the last line of what the job said is why, mostly."""
    lines = [line.strip() for line in told.body.splitlines() if line.strip()]
    code = f"exit code {told.code}" if told.code is not None else ""
    return ": ".join(part for part in (code, *(line[:ERROR] for line in lines[-1:])) if part)


def _later(one: int | None, other: int) -> int:
    return other if one is None else max(one, other)
