"""The card "Time by phase"."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from tests.support.fixture_rows import NOW
from tests.support.store import make_result
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.model import Outcome
from watchdog.store.read.status import ResultRow
from watchdog.web.cards.phases import build_phases_card, pick_last_median_p95_and_failed_run_slots


@pytest.mark.parametrize(
    ("duration", "phases", "total"),
    [
        (1, {"connect": 0.3, "enqueue": 4.4, "pick_up": 1.0}, 5.7),
        (49, {"negotiate": 12.0, "list": 29.0}, 49),
        (None, {"connect": 0.3, "enqueue": 0.5}, 0.8),
    ],
    ids=["a canary, whose duration counts from the sending", "time between the phases", "no duration"],
)
def test_the_total_is_never_less_than_its_parts(duration: int | None, phases: dict[str, float], total: float) -> None:
    card = build_phases_card({"Last run": make_result(1, 0, duration=duration, phases=phases)}, Markup("last 24 h"))
    assert card is not None
    assert card.rows[0].total_duration == pytest.approx(total)


@pytest.mark.parametrize(
    ("ago", "name"),
    [(HOUR_MS, "Failed 01:29"), (DAY_MS, "Failed 02:29"), (DAY_MS + 1, "Failed 21 Nov 02:29"),
     (3 * DAY_MS, "Failed 19 Nov 02:29")],
)  # fmt: skip
def test_an_old_failed_run_has_a_date(ago: int, name: str) -> None:
    failed = ResultRow(NOW - ago, "local", Outcome.FAIL, "", "", 100, 1, NOW)
    (label,) = pick_last_median_p95_and_failed_run_slots([failed], NOW)
    assert Markup(label).striptags() == name
