"""Results that are not stored yet, in memory and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import structlog

from watchdog.domain.model import Json, Outcome, ResultToRecord

log = structlog.get_logger()

MAX_BUFFERED_RESULT_BYTES = 64 * 1024 * 1024
MIN_BUFFERED_RESULTS_TO_MEASURE_SIZE = 3_000
"""With fewer results than this, their size is not measured: that would cost more than they can take. Results that list
more than MAX_RESULT_SUBJECTS_WITHOUT_MEASURING_SIZE are."""
MAX_RESULT_SUBJECTS_WITHOUT_MEASURING_SIZE = 50
BYTES_PER_RESULT_CHARACTER, BYTES_PER_RESULT, BYTES_PER_LISTED_SUBJECT = 2, 3_000, 500
"""A result takes about this much memory, measured by the length of its text form."""


@dataclass(slots=True)
class DroppedResultsSummary:
    """What was dropped of a probe."""

    first_slot: int
    timeline: str
    count: int = 0
    state_updates: dict[str, Json] = field(default_factory=dict)
    """What these runs changed in the probe's state: its later runs build on it."""


class ResultBuffer:
    """Owns the results that wait to be stored, oldest first, and counts what it drops.

    Beyond `max_bytes` it drops the oldest results that passed, and others only if there are none.
    """

    def __init__(self, max_bytes: int = MAX_BUFFERED_RESULT_BYTES):
        self.max_bytes = max_bytes
        self._results: dict[int, ResultToRecord] = {}
        """By number, ascending."""
        self._passes: deque[int] = deque()
        """The numbers of results that passed, ascending; some may be gone."""
        self._sizes: dict[int, int] = {}
        self._bytes = self._next_number = 0
        self._dropped: dict[int, DroppedResultsSummary] = {}
        self._stored_slots: dict[int, int | None] = {}
        """Probes of which something was dropped -> the newest slot that was stored since."""

    def __len__(self) -> int:
        return len(self._results)

    def add(self, result: ResultToRecord) -> None:
        """Add the newest result."""
        number = self._next_number
        self._next_number += 1
        self._results[number] = result
        if result.result.outcome is Outcome.PASS:
            self._passes.append(number)
        if (
            len(self._results) < MIN_BUFFERED_RESULTS_TO_MEASURE_SIZE
            and _count_listed_subjects_of_result(result) <= MAX_RESULT_SUBJECTS_WITHOUT_MEASURING_SIZE
        ):
            return
        unmeasured = len(self._results) - len(self._sizes)
        for each in list(self._results) if unmeasured > 1 else [number]:
            if each not in self._sizes:
                self._add_result_size(each, self._results[each])
        while self._bytes > self.max_bytes and len(self._results) > 1:
            self._drop_one_result()

    def take(self, count: int) -> list[tuple[int, ResultToRecord]]:
        """Remove the oldest results; `put_back_oldest_results` takes them as they are."""
        numbers = list(islice(self._results, count))
        taken = [(number, self._results.pop(number)) for number in numbers]
        for number in numbers:
            self._bytes -= self._sizes.pop(number, 0)
        return taken

    def put_back_oldest_results(self, taken: Sequence[tuple[int, ResultToRecord]]) -> None:
        """Return results that could not be stored: they are the oldest."""
        self._results = dict(taken) | self._results
        self._passes = deque(n for n, each in self._results.items() if each.result.outcome is Outcome.PASS)

    def relink_results_after_dropped(self, taken: Sequence[tuple[int, ResultToRecord]]) -> list[ResultToRecord]:
        """The results that were taken, without the links to results that were dropped, for which the fold would wait.

        Each follows the result of its probe that is stored before it, and the first one has the state that was dropped.
        """
        previous, batch = dict(self._stored_slots), []
        for _, waiting in taken:
            probe, each = waiting.result.probe, waiting
            if probe in previous:
                is_first = previous[probe] == self._stored_slots[probe]
                carried = self._dropped[probe].state_updates if is_first and probe in self._dropped else {}
                stored = previous[probe]
                is_earlier = stored is not None and stored < waiting.result.slot  # unless the clock was set back since
                result = waiting.result._replace(previous_slot=stored if is_earlier else None)
                each = waiting._replace(result=result, state_updates={**carried, **waiting.state_updates})
                previous[probe] = result.slot
            batch.append(each)
        return batch

    def confirm_stored_batch_and_take_dropped_summaries(
        self, batch: Sequence[ResultToRecord]
    ) -> Mapping[int, DroppedResultsSummary]:
        """The batch is stored. Returns what was dropped since the last call, by probe."""
        for (probe, slot, *_), *_ in batch:
            if probe in self._stored_slots:
                self._stored_slots[probe] = slot
        if not self._results:
            self._stored_slots.clear()
        dropped, self._dropped = self._dropped, {}
        return dropped

    def _add_result_size(self, number: int, result: ResultToRecord) -> None:
        listed = BYTES_PER_LISTED_SUBJECT * _count_listed_subjects_of_result(result)
        self._sizes[number] = BYTES_PER_RESULT + listed + BYTES_PER_RESULT_CHARACTER * len(repr(result))
        self._bytes += self._sizes[number]

    def _drop_one_result(self) -> None:
        while self._passes and self._passes[0] not in self._results:
            self._passes.popleft()
        number = self._passes.popleft() if self._passes else next(iter(self._results))
        recorded = self._results.pop(number)
        result, state_updates = recorded.result, recorded.state_updates
        self._bytes -= self._sizes.pop(number)
        if not self._dropped:
            log.error(
                "results_dropped", detail="the database has been unavailable for too long; the oldest are dropped"
            )
        dropped = self._dropped.setdefault(result.probe, DroppedResultsSummary(result.slot, result.location))
        self._stored_slots.setdefault(result.probe, None)
        dropped.count += 1
        dropped.state_updates.update(state_updates)


def _count_listed_subjects_of_result(recorded: ResultToRecord) -> int:
    return sum(len(listing.subjects) for listing in recorded.result.listings.values())
