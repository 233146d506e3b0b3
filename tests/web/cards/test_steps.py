"""The card of a `steps` probe: what became of each step of the newest run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.store import make_result
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import MINUTE_MS
from watchdog.domain.measurements import HttpStepRecord, build_step_measurements, read_step_records
from watchdog.domain.model import Outcome
from watchdog.web.cards.steps import build_steps_card

LOGIN, CART, BUY = (
    HttpStepRecord("Log in", 200, 85),
    HttpStepRecord("Cart", 503, 12, failed=True),
    HttpStepRecord("Buy"),
)


def rows_of(steps: list[HttpStepRecord], outcome: Outcome = Outcome.PASS, **fields: Any) -> list[str] | None:
    card = build_steps_card(make_result(1, 0, outcome, measurements=build_step_measurements(steps), **fields))
    return (
        None
        if card is None
        else [f"{row.state} {row.label} {row.step.name} {row.message}".strip() for row in card.rows]
    )


@pytest.mark.parametrize(
    ("sentence", "steps", "outcome", "expected"),
    [
        ("all pass", [LOGIN, HttpStepRecord("Cart", 200, 12)], Outcome.PASS, ["up Passed Log in", "up Passed Cart"]),
        ("one fails", [LOGIN, CART, BUY], Outcome.FAIL,
         ["up Passed Log in", "down Failed Cart HTTP 503", "unknown Not run Buy"]),
        ("one has no verdict", [LOGIN, CART], Outcome.ERROR, ["up Passed Log in", "unknown No verdict Cart HTTP 503"]),
        ("no request is sent", [LOGIN, HttpStepRecord("Cart", failed=True), BUY], Outcome.FAIL,
         ["up Passed Log in", "down Failed Cart HTTP 503", "unknown Not run Buy"]),
        ("a run that could not begin", [], Outcome.ERROR, None),
    ],
)  # fmt: skip
def test_the_newest_run_step_by_step(
    sentence: str, steps: list[HttpStepRecord], outcome: Outcome, expected: list[str] | None
) -> None:
    assert rows_of(steps, outcome, message="HTTP 503") == expected, sentence


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (HttpStepRecord("a", 503, 12), "HTTP 503 in 12 ms"),
        (HttpStepRecord("a", None, 3_000, failed=True), "no response in 3 s"),
        (HttpStepRecord("a", failed=True), "not sent"),
        (HttpStepRecord("a"), "not run"),
    ],
)
def test_a_step_in_words(step: HttpStepRecord, text: str) -> None:
    assert step.describe().replace("\N{NO-BREAK SPACE}", " ") == text


def test_steps_are_read_as_they_were_stored() -> None:
    steps = [LOGIN, CART, BUY]
    assert read_step_records(build_step_measurements(steps)) == steps
    assert read_step_records({"status": 200}) == []
    assert read_step_records({"step_1": "a", "step_1_status": "x", "step_1_ms": None, "step_3": "c"}) == [
        HttpStepRecord("a")
    ]


def steps_rows() -> FixtureRows:
    """Two runs: the first passes, the second fails at its second step."""
    rows = FixtureRows()
    rows.add_watermark(NOW)
    probe = rows.add_probe(
        "Checkout",
        "steps",
        "Shop",
        config_yaml="name: Checkout\nsteps: []\n",
        target="https://shop.acme.example/login",
        schedule_text="every 5 min",
    )
    passed = [LOGIN, HttpStepRecord("Cart", 200, 30), HttpStepRecord("Buy", 201, 40)]
    for ago, steps in ((10, passed), (5, [LOGIN, CART, BUY])):
        failure = (Outcome.FAIL, "step 2 (Cart): HTTP 503, expected 2xx", "http.503", 97) if CART in steps else ()
        rows.add_result(
            probe,
            NOW - ago * MINUTE_MS,
            *failure,
            phases={"connect": 9.0, "first_byte": 80.0, "body": 8.0},
            measurements=build_step_measurements(steps),
        )
    return rows


def test_the_page_shows_the_steps(tmp_path: Path) -> None:
    with filled_database(f"sqlite:///{tmp_path}/p.db", steps_rows()) as database:
        response: Any = request_page(create_test_app(database), "/probes/checkout")
    assert find_html_problems(response.text) == []
    text = visible_text(response.text).replace("\N{NO-BREAK SPACE}", " ").replace("\N{EN DASH}", "-")
    assert "Steps of the last run 2 of 3 steps run" in text
    assert "1. Log in Passed 200 85 ms" in text
    assert "2. Cart Failed step 2 (Cart): HTTP 503, expected 2xx 503 12 ms" in text
    assert "3. Buy Not run - -" in text
    assert text.index("Steps of the last run") < text.index("Time by phase")
