"""Listings as JSON: differences, applied in order, restore the observed listing."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from watchdog.domain.listings import (
    decode_subject_listings_from_diff,
    encode_subject_facts,
    encode_subject_listings_as_diff,
    transform_subject_fact_texts,
)
from watchdog.domain.model import ListingsByRule, SubjectListing
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.rules.engine import SUBJECT_FACTS_CLASS_BY_RULE


class Counted(NamedTuple):
    name: str
    number: int = 0
    note: str = ""
    ratio: float | None = None


class Optional(NamedTuple):
    number: int = 0


EMPTY: ListingsByRule = {}
TYPES: dict[str, Any] = {"counted": Counted}


def round_trip(listings: ListingsByRule, base: ListingsByRule = EMPTY) -> ListingsByRule:
    return decode_subject_listings_from_diff(
        json.loads(json.dumps(encode_subject_listings_as_diff(listings, base))), base, TYPES
    )


def listing(at: int, *facts: Counted, gaps: tuple[tuple[int, int], ...] = ()) -> ListingsByRule:
    return {"counted": SubjectListing(at, {f.name: f for f in sorted(facts)}, gaps)}


def test_trailing_defaults_are_not_written() -> None:
    assert encode_subject_facts(Counted("a")) == ["a"]
    assert encode_subject_facts(Counted("a", 3)) == ["a", 3]
    assert encode_subject_facts(Counted("a", 0, "x")) == ["a", 0, "x"]
    assert encode_subject_facts(Counted("")) == [""]
    assert encode_subject_facts(Optional()) == []
    assert encode_subject_facts(Optional(1)) == [1]


def test_only_changes_are_written() -> None:
    before = listing(1, Counted("a"), Counted("b"), Counted("c"))
    after = listing(2, Counted("a"), Counted("b", 1), Counted("d"))
    assert encode_subject_listings_as_diff(after, before) == {"counted": [2, {"b": ["b", 1], "c": None, "d": ["d"]}]}
    assert round_trip(after, before) == after


def test_an_unchanged_listing_takes_a_few_bytes_for_any_number_of_subjects() -> None:
    many = [Counted(f"job {i}", i) for i in range(500)]
    written = json.dumps(encode_subject_listings_as_diff(listing(2, *many), listing(1, *many)))
    assert written == '{"counted": [2, {}]}'


def test_the_next_listing_of_a_rule_that_was_not_observed_is_complete() -> None:
    assert round_trip({}, listing(1, Counted("a"))) == {}
    assert encode_subject_listings_as_diff(listing(3, Counted("a")), {}) == {"counted": [3, {"a": ["a"]}]}


def test_an_empty_listing_is_an_observation() -> None:
    assert round_trip(listing(2), listing(1, Counted("a"))) == {"counted": SubjectListing(2, {})}


def test_periods_without_reports_are_included() -> None:
    original = listing(9, Counted("a"), gaps=((1, 2), (4, 7)))
    assert round_trip(original) == original


def test_a_rule_that_no_longer_exists_is_omitted() -> None:
    assert decode_subject_listings_from_diff({"former": [1, {"a": [1]}]}, {}, TYPES) == {}


def test_every_listing_rule_has_facts_that_survive() -> None:
    facts = ScheduledJobFacts("a", cron="0 3 * * *", last_start=5, stalled=True, expected_from=2, listed=False)
    stored = {"job": SubjectListing(7, {"a": facts})}
    again = decode_subject_listings_from_diff(
        json.loads(json.dumps(encode_subject_listings_as_diff(stored, {}))), {}, SUBJECT_FACTS_CLASS_BY_RULE
    )
    assert again == stored
    assert set(SUBJECT_FACTS_CLASS_BY_RULE) == {"task", "preference", "tool", "job", "service", "contract"}


def test_only_texts_are_transformed() -> None:
    assert transform_subject_fact_texts(Counted("a", 3, "secret", 0.5), str.upper) == Counted("A", 3, "SECRET", 0.5)


FACTS = st.builds(
    Counted,
    st.text(max_size=3),
    st.integers(0, 3),
    st.sampled_from(["", "x"]),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
HISTORY = st.lists(st.none() | st.lists(FACTS, max_size=4), max_size=8)


@given(HISTORY)
def test_a_chain_of_differences_restores_every_listing(history: list[list[Counted] | None]) -> None:
    written: ListingsByRule = {}
    read: ListingsByRule = {}
    for at, facts in enumerate(history):
        observed = {} if facts is None else listing(at, *{f.name: f for f in facts}.values())
        text = json.dumps(encode_subject_listings_as_diff(observed, written))
        read = decode_subject_listings_from_diff(json.loads(text), read, TYPES)
        assert read == observed
        written = observed
