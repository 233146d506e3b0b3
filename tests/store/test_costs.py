"""What the store's verbs cost, printed and not asserted: `pytest -s tests/store/test_figures.py`."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

from tests.support.store import START_AT, DatabasePair, StoreHarness, make_registered_probes, make_result
from watchdog.domain.model import RecordedResult
from watchdog.store.tables import incidents, results

BATCH, BATCHES = 200, 4
TEN = 10_000


def test_what_the_verbs_cost(databases: DatabasePair) -> None:
    lab = StoreHarness(databases.first, make_registered_probes(BATCH, TEN, failure_threshold=2)).without_downtime()
    figures: list[str] = []
    begun = 0

    def batches(failing: int) -> Callable[[], int]:
        """`failing`: every so manyth result; 0: none."""

        def run() -> int:
            nonlocal begun
            for _ in range(BATCHES):
                begun += 1
                slot = START_AT + begun * TEN
                outcomes = ["fail" if failing and i % failing == 0 else "pass" for i in range(BATCH)]
                made = [make_result(p, slot, outcome) for p, outcome in zip(lab.database_ids, outcomes, strict=True)]
                lab.recorder.record_results([RecordedResult(r) for r in made], slot + 300)
            return BATCH * BATCHES

        return run

    def claims() -> int:
        return sum(len(lab.claim_slots(START_AT + begun * TEN + i * TEN)) for i in range(1, BATCHES + 1))

    def rearms() -> int:
        lab.advance_watermark(START_AT + begun * TEN)
        return lab.recorder.evaluate_deadlines(START_AT + begun * TEN)[0]

    for name, work in (
        ("record, warming up", batches(0)), ("record, all pass", batches(0)), ("record, 1% fail", batches(100)),
        ("record, all open", batches(1)), ("record, all resolve", batches(0)), ("wake", rearms), ("claim", claims),
    ):  # fmt: skip
        start = process_time()
        n = work()
        figures.append(f"{name} {(process_time() - start) / n * 1e6:.0f} us")
    print(f"\n{databases.url.split(':')[0]}, CPU of our own for each of {BATCH}: {', '.join(figures)}")
    assert len(lab.select_rows(results, results.c.outcome != "missed")) == begun * BATCH
    assert [row["resolution"] for row in lab.select_rows(incidents)] == [""] * BATCH
