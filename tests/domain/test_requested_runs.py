"""Which probes can be run on request, and the slot of such a run: a sentence for each row."""

from __future__ import annotations

import pytest

from watchdog.domain.requested_runs import can_run_on_request, derive_requested_slot, may_be_requested_run_slot

NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("sentence", "kind", "can_run"),
    [
        ("a probe that contacts its target", "http", True),
        ("a canary sends a job", "canary", True),
        ("a kind of a later version", "new_kind", True),
        ("a heartbeat waits for its job", "heartbeat", False),
        ("the built-in probe only reports", "service", False),
    ],
)
def test_which_probes_can_be_run_on_request(sentence: str, kind: str, can_run: bool) -> None:
    assert can_run_on_request(kind) is can_run, sentence


@pytest.mark.parametrize(
    ("sentence", "requested_at", "last_slot", "slot"),
    [
        ("the first run of a probe", NOW, None, NOW + 1),
        ("an odd instant is its own slot", NOW + 1, None, NOW + 1),
        ("an earlier slot changes nothing", NOW, NOW - 60_000, NOW + 1),
        ("a slot that was claimed ahead comes first", NOW, NOW + 900, NOW + 901),
        ("so does another requested run", NOW + 1, NOW + 1, NOW + 3),
    ],
)
def test_the_slot_of_a_requested_run(sentence: str, requested_at: int, last_slot: int | None, slot: int) -> None:
    derived = derive_requested_slot(requested_at, last_slot)
    assert (derived, may_be_requested_run_slot(derived)) == (slot, True), sentence
