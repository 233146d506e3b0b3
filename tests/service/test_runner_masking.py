"""Texts that need no masking stay as they are, and that changes no result: one by one, they would be the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.store import START_AT
from watchdog.domain.model import ClaimedSlot, Evidence, Observation, Outcome, ResultToRecord
from watchdog.net import NetworkAccess, SecretMask
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.runner import RetryingProbeRunner

SECRET, TWO_LINES = "hush-hush-hush", "first line\nsecond line"
RUNNER = RetryingProbeRunner(NetworkAccess(), SecretMask([SECRET, TWO_LINES]), lambda: START_AT, EventLoopLagMonitor())
PIECES = (
    SECRET,
    SECRET[:6],
    "first line",
    "second line",
    "…",
    "\n",
    "\r",
    "\u200d",
    "\u202e",
    "\0",
    "é",
    "://u:p@h",
    "x" * 999,
)
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=4).map("".join)
values = texts | st.integers() | st.floats() | st.none() | st.booleans()
trees = st.dictionaries(texts, values | st.lists(values, max_size=2), max_size=3)


def build_result(message: str, measurements: Any, facts: Any, excerpt: str) -> ResultToRecord:
    observation = Observation(
        Outcome.FAIL, "http.500", message, measurements=measurements, evidence=Evidence(facts, excerpt)
    )
    return RUNNER.build_masked_result_from_observation(ClaimedSlot(1, START_AT, "here", None), observation)


@given(texts, st.dictionaries(texts, values, max_size=3), trees, texts)
@example("", {}, {}, "x" * 995 + SECRET[:5])
@example("", {}, {"a": "x" * 995 + SECRET[:5]}, "")
@example(f"… {SECRET[:6]}", {}, {}, "")
@example("first line", {}, {}, "second line")
@example("", {}, {str(n): n for n in range(101)}, "")
@example("x" * 301, {}, {}, "")
@example("", {"a": "x" * 121}, {}, "")
@example("", {}, {}, "x" * 4_001)
@example("", {}, {SECRET: 1}, "")
def test_one_look_at_all_texts_equals_one_at_each(message: str, measurements: Any, facts: Any, excerpt: str) -> None:
    at_once = build_result(message, measurements, facts, excerpt)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RetryingProbeRunner, "_needs_no_sanitizing", lambda *_: False)
        one_by_one = build_result(message, measurements, facts, excerpt)
    assert repr(at_once) == repr(one_by_one)  # NaN equals nothing


def test_harmless_texts_are_not_copied() -> None:
    facts = {"status": 200, "address": "192.0.2.1:443", "elapsed_ms": 1.5}
    result = build_result("HTTP 500", {"status": 500}, facts, "HTTP/1.1 500 Oops\nserver: nginx\n\nno")
    assert result.evidence.facts is facts
