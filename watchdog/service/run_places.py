"""Limits on concurrent runs: in total and for each endpoint, with half of the places kept for probes that respond."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import defaultdict
from functools import lru_cache
from typing import NamedTuple, TypeAlias

MAX_CONCURRENT_RUNS_PER_ENDPOINT = 100
"""Concurrent runs against one host and port."""


class ConcurrentRunLimitTimeoutError(Exception):
    """A run waited for a free place until its time limit. The text states which limit it waited for."""


class _ConcurrentRunCounterKey(NamedTuple):
    """What a limit counts."""

    endpoint: str
    """Runs against it; empty: all runs."""
    only_slow: bool
    """Only runs of probes whose last run timed out."""


_LimitKeys: TypeAlias = tuple[_ConcurrentRunCounterKey, ...]
_TOTAL_CONCURRENT_RUNS_COUNTER_KEY = _ConcurrentRunCounterKey("", False)


class ProbeRunLimiter:
    """Owns the places in which runs take place.

    Probes whose last run timed out share at most half of all places, and half of those of an endpoint, so that
    targets that hang leave places to those that do not. `total`: places for all runs together.
    """

    def __init__(self, total: int, per_endpoint: int = MAX_CONCURRENT_RUNS_PER_ENDPOINT):
        self.total, self.per_endpoint = total, per_endpoint
        self._taken: defaultdict[_ConcurrentRunCounterKey, int] = defaultdict(int)
        self._waiting_by_limits: dict[_LimitKeys, list[_RunWithPlace]] = {}
        """The runs that wait for the same limits, in order."""
        self._last_started: dict[int, int] = {}
        self._number = 0

    def occupy_run_place(self, probe: int, endpoint: str, *, is_slow: bool, wait_s: float) -> _RunWithPlace:
        """`async with` holds a place. `endpoint`: empty for a probe without one. Raises ConcurrentRunLimitTimeoutError
        after `wait_s` seconds."""
        self._number += 1
        counter_keys = _list_limit_counter_keys(endpoint, is_slow)
        order = self._last_started.get(probe, 0), self._number
        return _RunWithPlace(self, probe, order, counter_keys, wait_s)

    def start_or_queue(self, run: _RunWithPlace) -> None:
        """Give a place to a run, if there is one."""
        if self.describe_full_limit(run.counter_keys):
            insort(self._waiting_by_limits.setdefault(run.counter_keys, []), run)
        else:
            self._take_place(run)

    def free_place(self, run: _RunWithPlace) -> None:
        """Free a place, and start the runs that wait for it."""
        for key in run.counter_keys:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
        while next_run := self._find_next_run():
            self.stop_waiting(next_run)
            self._take_place(next_run)

    def stop_waiting(self, run: _RunWithPlace) -> None:
        waiting = self._waiting_by_limits[run.counter_keys]
        waiting.remove(run)
        if not waiting:
            del self._waiting_by_limits[run.counter_keys]

    def _find_next_run(self) -> _RunWithPlace | None:
        """The first run that no limit blocks. Only one run for each set of limits is examined, however many wait: an
        overloaded process must not spend more CPU on each start."""
        if not self._waiting_by_limits or self._taken[_TOTAL_CONCURRENT_RUNS_COUNTER_KEY] >= self.total:
            return None
        may_start = (
            waiting[0] for keys, waiting in self._waiting_by_limits.items() if not self.describe_full_limit(keys)
        )
        return min(may_start, default=None)

    def _take_place(self, run: _RunWithPlace) -> None:
        for key in run.counter_keys:
            self._taken[key] += 1
        _, self._last_started[run.probe] = run.order
        run.start()

    def describe_full_limit(self, counter_keys: _LimitKeys) -> str:
        """The limit that a run waits for: "100 runs against api.example:443"; empty if it may start."""
        for limit in counter_keys:
            maximum = self.per_endpoint if limit.endpoint else self.total
            maximum = max(maximum // 2, 1) if limit.only_slow else maximum
            if self._taken.get(limit, 0) >= maximum:
                against = f" against {limit.endpoint}" if limit.endpoint else ""
                slow = " of probes whose last run timed out" if limit.only_slow else ""
                return f"{maximum:,} runs{against}{slow}"
        return ""


class _RunWithPlace:
    """A run that waits for a place or has one. Sorted by the last start of the probe, so that a probe that got no place
    is first the next time."""

    __slots__ = (
        "_has_started",
        "_limiter",
        "_wait_end",
        "_wait_s",
        "counter_keys",
        "order",
        "probe",
    )

    def __init__(
        self, limiter: ProbeRunLimiter, probe: int, order: tuple[int, int], counter_keys: _LimitKeys, wait_s: float
    ) -> None:
        """`order`: the number of the probe's run that started last, and that of this one."""
        self.probe, self.order, self.counter_keys = probe, order, counter_keys
        self._limiter, self._wait_s = limiter, wait_s
        self._has_started = False
        self._wait_end: asyncio.Future[None] | None = None

    def __lt__(self, other: _RunWithPlace) -> bool:
        return self.order < other.order

    def start(self) -> None:
        self._has_started = True
        self._end_wait()

    def _end_wait(self) -> None:
        if self._wait_end is not None and not self._wait_end.done():
            self._wait_end.set_result(None)

    async def __aenter__(self) -> None:
        self._limiter.start_or_queue(self)
        if self._has_started:
            return
        loop = asyncio.get_running_loop()
        self._wait_end = loop.create_future()
        timer = loop.call_later(self._wait_s, self._end_wait)  # takes less CPU than an Event with a timeout
        try:
            await self._wait_end
        except BaseException:
            (self._limiter.free_place if self._has_started else self._limiter.stop_waiting)(self)
            raise
        finally:
            timer.cancel()
        if not self._has_started:
            full_limit = self._limiter.describe_full_limit(self.counter_keys)
            self._limiter.stop_waiting(self)
            raise ConcurrentRunLimitTimeoutError(full_limit)

    async def __aexit__(self, *_: object) -> None:
        self._limiter.free_place(self)


@lru_cache(4096)
def _list_limit_counter_keys(endpoint: str, is_slow: bool) -> _LimitKeys:
    return tuple(
        _ConcurrentRunCounterKey(each, only_slow)
        for each in dict.fromkeys(("", endpoint))
        for only_slow in ((False, True) if is_slow else (False,))
    )
