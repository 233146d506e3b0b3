"""How changes are labelled, sorted, summarized and stored."""

from __future__ import annotations

import pytest

from watchdog.domain.mcp_contract.changes import (
    ContractChange,
    ContractChangeClass,
    ContractPart,
    excerpt_changed_text,
    sort_contract_changes,
    summarize_texts,
)

BREAKING = ContractChange(ContractChangeClass.BREAKING, ContractPart.TOOLS, "tool a was removed", is_certain=False)
ADDITIVE = ContractChange(ContractChangeClass.ADDITIVE, ContractPart.TOOLS, "tool b was added")
NOTICE = ContractChange(ContractChangeClass.NOTICE, ContractPart.SERVER, "the server is now named B", "A", "B")
WEAK = NOTICE._replace(text="weak", suspicion="it contains a new address")
STRONG = WEAK._replace(text="strong", is_suspicion_strong=True)


def test_labels() -> None:
    assert [change.label for change in (BREAKING, ADDITIVE, NOTICE, STRONG)] == [
        "breaking, not certain", "additive", "notice", "notice, suspicious",
    ]  # fmt: skip


def test_what_needs_attention_comes_first() -> None:
    changes = [BREAKING, STRONG, WEAK, ADDITIVE, NOTICE]
    assert sort_contract_changes(reversed(changes)) == changes


@pytest.mark.parametrize(
    ("texts", "summary"),
    [(["a"], "a"), (["a", "b"], "a; b"), (["a", "b", "c", "d"], "a; b; and 2 more")],
)
def test_a_summary(texts: list[str], summary: str) -> None:
    assert summarize_texts(texts) == summary


def test_changes_are_stored_without_their_defaults() -> None:
    assert ADDITIVE.to_json() == {"change_class": "additive", "part": "tools", "text": "tool b was added"}
    for change in (BREAKING, ADDITIVE, STRONG):
        assert ContractChange.from_json({**change.to_json(), "of_a_newer_version": 1}) == change


LONG = "x" * 1_000


@pytest.mark.parametrize(
    ("before", "after", "excerpts"),
    [
        ("", "new", ("", "new")),
        ("red", "green", ("red", "green")),
        (f"{LONG}red{LONG}", f"{LONG}green{LONG}", (f"…{'x' * 40}red{'x' * 40}…", f"…{'x' * 40}green{'x' * 40}…")),
        ("same", "same and more", ("same", "same and more")),
        ("", LONG, ("", f"{'x' * 240}…")),
    ],
)
def test_the_part_in_which_texts_differ(before: str, after: str, excerpts: tuple[str, str]) -> None:
    assert excerpt_changed_text(before, after) == excerpts
