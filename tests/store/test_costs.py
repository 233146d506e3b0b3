"""CPU time of each operation of the store, printed and not asserted: `pytest -s tests/store/test_costs.py`."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

from tests.support.store import START_AT, DatabasePair, StoreHarness, make_registered_probes, make_result
from watchdog.domain.model import ResultToRecord
from watchdog.store.tables import incidents, results

BATCH_SIZE, BATCH_COUNT = 200, 4
INTERVAL_MS = 10_000


def test_print_the_cost_of_each_operation(databases: DatabasePair) -> None:
    harness = StoreHarness(
        databases.first, make_registered_probes(BATCH_SIZE, INTERVAL_MS, failure_threshold=2)
    ).without_downtime()
    figures: list[str] = []
    slot_number = 0

    def record(fail_every: int) -> Callable[[], int]:
        """Every `fail_every`-th result fails; 0: none."""

        def run() -> int:
            nonlocal slot_number
            for _ in range(BATCH_COUNT):
                slot_number += 1
                slot = START_AT + slot_number * INTERVAL_MS
                outcomes = ["fail" if fail_every and i % fail_every == 0 else "pass" for i in range(BATCH_SIZE)]
                batch = [
                    make_result(p, slot, outcome) for p, outcome in zip(harness.database_ids, outcomes, strict=True)
                ]
                harness.recorder.record_results([ResultToRecord(r) for r in batch], slot + 300)
            return BATCH_SIZE * BATCH_COUNT

        return run

    def claim() -> int:
        return sum(
            len(harness.claim_slots(START_AT + slot_number * INTERVAL_MS + i * INTERVAL_MS))
            for i in range(1, BATCH_COUNT + 1)
        )

    def postpone_deadlines() -> int:
        harness.advance_watermark(START_AT + slot_number * INTERVAL_MS)
        return harness.recorder.evaluate_deadlines(START_AT + slot_number * INTERVAL_MS)[0]

    for name, operation in (
        ("record, warming up", record(0)),
        ("record, all pass", record(0)),
        ("record, 1% fail", record(100)),
        ("record, all open", record(1)),
        ("record, all resolve", record(0)),
        ("deadlines", postpone_deadlines),
        ("claim", claim),
    ):
        start = process_time()
        count = operation()
        figures.append(f"{name} {(process_time() - start) / count * 1e6:.0f} us")
    print(f"\n{databases.url.split(':')[0]}, CPU time of this process per item: {', '.join(figures)}")
    assert len(harness.select_rows(results, results.c.outcome != "missed")) == slot_number * BATCH_SIZE
    assert [row["resolution"] for row in harness.select_rows(incidents)] == [""] * BATCH_SIZE
