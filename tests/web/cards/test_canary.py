"""The card of a canary: which stage failed, and which stages are not observable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures import canary_rows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import MINUTE_MS, NBSP
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.web.cards.canary import MAX_CANARY_RUNS_ON_CARD, build_canary_card

FULL: dict[str, Any] = {"connect": 1.0, "enqueue": 8.0, "pick_up": 200.0, "finish": 1_700.0}


def run(slot: int = 0, outcome: Outcome = Outcome.PASS, reason: str = "", **phases: float) -> ProbeResult:
    return ProbeResult(1, slot * MINUTE_MS, "local", outcome, reason, phases=phases)


@pytest.mark.parametrize(
    ("sentence", "newest", "expected"),
    [
        ("it passes", run(1, **FULL), ["up 8 ms", "up 200 ms", "up 1.7 s"]),
        ("it is not picked up", run(1, Outcome.FAIL, "canary.not_picked_up", connect=1, enqueue=8),
         ["up 8 ms", "down Not picked up", "unknown Not reached"]),
        ("it is not finished", run(1, Outcome.FAIL, "canary.not_finished", enqueue=8, pick_up=200),
         ["up 8 ms", "up 200 ms", "down Not finished in time"]),
        ("it fails", run(1, Outcome.FAIL, "job.failed", **FULL), ["up 8 ms", "up 200 ms", "down 1.7 s"]),
        ("an earlier sentinel is not picked up", run(1, Outcome.FAIL, "canary.not_picked_up", connect=1),
         ["up By an earlier run", "down Not picked up", "unknown Not reached"]),
        ("an earlier sentinel is not finished", run(1, Outcome.FAIL, "canary.not_finished", connect=1, pick_up=200),
         ["up By an earlier run", "up 200 ms", "down Not finished in time"]),
        ("an earlier sentinel cannot be polled", run(1, Outcome.FAIL, "canary.poll_failed"),
         ["up By an earlier run", "down Canary job not observable", "unknown Not reached"]),
        ("the broker is unreachable", run(1, Outcome.FAIL, "broker.unreachable", connect=3),
         ["down Broker unreachable", "unknown Not reached", "unknown Not reached"]),
        ("it fails in a system that does not show pick-ups", run(1, Outcome.FAIL, "job.failed", enqueue=8),
         ["up 8 ms", "unknown Not observable", "down Failed"]),
        ("a system that does not show pick-ups", run(1, enqueue=8, finish=1_900),
         ["up 8 ms", "unknown Not observable", "up 1.9 s"]),
    ],
)  # fmt: skip
def test_the_newest_run_stage_by_stage(sentence: str, newest: ProbeResult, expected: list[str]) -> None:
    card = build_canary_card([run(0, **FULL), newest])
    assert card is not None
    assert [f"{stage.state} {stage.text.replace(NBSP, ' ')}" for stage in card.stages] == expected, sentence


def test_the_median_excludes_the_newest_run() -> None:
    card = build_canary_card([run(0, **FULL), run(1, enqueue=900, pick_up=900, finish=900)])
    assert card is not None
    assert card.stages[1].detail == f"median 200{NBSP}ms"


def test_the_chart_excludes_missed_slots_and_is_limited() -> None:
    assert build_canary_card([run(0, Outcome.MISSED, "missed.skipped")]) is None
    card = build_canary_card([run(i, **FULL) for i in range(MAX_CANARY_RUNS_ON_CARD + 5)])
    assert card is not None
    assert len(card.runs) == MAX_CANARY_RUNS_ON_CARD
    assert card.runs[0].slot > card.runs[1].slot


def test_the_page_shows_the_stages(tmp_path: Path) -> None:
    with filled_database(f"sqlite:///{tmp_path}/p.db", canary_rows()) as database:
        response: Any = request_page(create_test_app(database), "/probes/email-pipeline")
    assert find_html_problems(response.text) == []
    text = visible_text(response.text)
    assert "Latest run, 02:25:00" in text
    assert "Picked up Not picked up median" in text
    assert "Finished Not reached" in text
    assert "Stages, last 3 h 55 min" in text
    assert "Latency" not in text
    assert response.text.count('class="x-mark" d="M-3.5') == 3
    assert "47 canary runs. Median time to pick-up" in response.text.replace(NBSP, " ")
