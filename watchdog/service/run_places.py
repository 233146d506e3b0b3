"""Limits on concurrent runs: in total and for each endpoint, with half of the places kept for probes that respond."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_CONCURRENT_RUNS_PER_ENDPOINT = 100
"""Concurrent runs against one host and port."""


class ConcurrentRunLimitTimeoutError(Exception):
    """A run waited for a free place until its time limit. The text states which limit it waited for."""


@dataclass(slots=True, order=True)
class _WaitingRun:
    """Sorted by when the probe last started, so that one that found no place comes first the next time."""

    last_started: int
    number: int
    endpoint: str = field(compare=False)
    is_slow: bool = field(compare=False)
    started: asyncio.Event = field(compare=False)


class _ConcurrentRunCounterKey(NamedTuple):
    """What a limit counts."""

    endpoint: str
    """Runs against it; empty: all runs."""
    only_slow: bool
    """Only runs of probes whose last run timed out."""


_TOTAL_CONCURRENT_RUNS_COUNTER_KEY = _ConcurrentRunCounterKey("", False)


class ProbeRunLimiter:
    """Owns the places in which runs take place.

    Probes whose last run timed out share at most half of all places, and half of those of an endpoint, so that
    targets that hang leave places to those that do not. `total`: places for all runs together.
    """

    def __init__(self, total: int, per_endpoint: int = MAX_CONCURRENT_RUNS_PER_ENDPOINT):
        self.total, self.per_endpoint = total, per_endpoint
        self._taken: Counter[_ConcurrentRunCounterKey] = Counter()
        self._waiting: list[_WaitingRun] = []
        self._last_started: dict[int, int] = {}
        self._number = 0

    @asynccontextmanager
    async def occupy_run_place(self, probe: int, endpoint: str, *, is_slow: bool, wait_s: float) -> AsyncIterator[None]:
        """Hold a place. `endpoint`: empty for a probe without one. Raises ConcurrentRunLimitTimeoutError after `wait_s`
        seconds."""
        self._number += 1
        run = _WaitingRun(self._last_started.get(probe, 0), self._number, endpoint, is_slow, asyncio.Event())
        insort(self._waiting, run)
        self._start_waiting_runs()
        try:
            await self._wait_for_run_place(run, wait_s)
            self._last_started[probe] = run.number
            yield
        finally:
            if run.started.is_set():
                self._taken.subtract(_list_limit_counter_keys_of_run(run))
                self._start_waiting_runs()
            else:
                self._waiting.remove(run)

    async def _wait_for_run_place(self, run: _WaitingRun, wait_s: float) -> None:
        if run.started.is_set():
            return
        try:
            async with asyncio.timeout(wait_s):
                await run.started.wait()
        except TimeoutError:
            if not run.started.is_set():
                raise ConcurrentRunLimitTimeoutError(self._describe_full_limit(run)) from None

    def _start_waiting_runs(self) -> None:
        for run in list(self._waiting):
            if self._taken[_TOTAL_CONCURRENT_RUNS_COUNTER_KEY] >= self.total:
                return
            if not self._describe_full_limit(run):
                self._waiting.remove(run)
                self._taken.update(_list_limit_counter_keys_of_run(run))
                run.started.set()

    def _describe_full_limit(self, run: _WaitingRun) -> str:
        """The limit that a run waits for: "100 runs against api.example:443"; empty if it may start."""
        for limit in _list_limit_counter_keys_of_run(run):
            maximum = self.per_endpoint if limit.endpoint else self.total
            maximum = max(maximum // 2, 1) if limit.only_slow else maximum
            if self._taken[limit] >= maximum:
                against = f" against {limit.endpoint}" if limit.endpoint else ""
                slow = " of probes whose last run timed out" if limit.only_slow else ""
                return f"{maximum:,} runs{against}{slow}"
        return ""


def _list_limit_counter_keys_of_run(run: _WaitingRun) -> list[_ConcurrentRunCounterKey]:
    return [
        _ConcurrentRunCounterKey(endpoint, only_slow)
        for endpoint in dict.fromkeys(("", run.endpoint))
        for only_slow in ((False, True) if run.is_slow else (False,))
    ]
