"""Listings in the database: written as differences, read back whole. `domain/listings.py` has the format.

`results.facts` holds the differences, and `results.facts_base` the slot of the result that holds all facts, from which
the differences of this row's chain start. A row whose base is its own slot holds all facts itself: the first of each
hour, and every row whose previous slot has no listing, was late, or was not stored by this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.listings import decode_subject_listings_from_diff, encode_subject_listings_as_diff
from watchdog.domain.model import ListingsByRule, ProbeResult
from watchdog.domain.rules.engine import SUBJECT_FACTS_CLASS_BY_RULE
from watchdog.store.codec import RESULT_COLUMN_NAMES, build_result_from_row
from watchdog.store.json_text import decode_nullable_json, encode_compact_json, encode_storable_json
from watchdog.store.tables import results

FULL_STORED_LISTING_INTERVAL_MS = HOUR_MS
"""One result in each of these holds all facts."""
MAX_CACHED_LISTINGS_PER_PROBE = 4
"""Of each probe."""
ResultKey = tuple[int, int, str]
"""(probe, slot, location)"""


class CachedListingsOfResult(NamedTuple):
    """The listings of one result, with the base of its chain."""

    base_slot: int
    listings: ListingsByRule


class SubjectListingCache:
    """The listings of the newest results that this process stored: the next ones are written as differences from them
    and judged without being read back.

    An entry counts as committed only once its transaction is: `stage`, then `commit` or `discard_staged_listings`. A
    miss costs a row that holds all facts, or a query.
    """

    def __init__(self) -> None:
        self._committed: dict[tuple[int, str], dict[int, CachedListingsOfResult]] = {}
        self._staged: dict[ResultKey, CachedListingsOfResult] = {}

    def get_committed_listings(self, key: ResultKey) -> CachedListingsOfResult | None:
        probe, slot, location = key
        return self._committed.get((probe, location), {}).get(slot)

    def get_staged_or_committed_listings(self, key: ResultKey) -> CachedListingsOfResult | None:
        """Committed, or staged in the current transaction."""
        return self._staged.get(key) or self.get_committed_listings(key)

    def stage(self, key: ResultKey, stored: CachedListingsOfResult) -> None:
        self._staged[key] = stored

    def discard_staged_listings(self) -> None:
        self._staged.clear()

    def commit_staged_listings(self) -> None:
        for (probe, slot, location), stored in self._staged.items():
            entries = self._committed.setdefault((probe, location), {})
            entries[slot] = stored
            for old in sorted(entries)[:-MAX_CACHED_LISTINGS_PER_PROBE]:
                del entries[old]
        self._staged.clear()


def encode_result_listings_and_cache_entry(
    result: ProbeResult, cache: SubjectListingCache
) -> tuple[CachedListingsOfResult | None, str | None]:
    """The result's listings as the text of `results.facts`, with what to cache once they are committed."""
    if not result.listings:
        return None, None
    previous = None
    if (
        result.previous_slot is not None
        and result.previous_slot // FULL_STORED_LISTING_INTERVAL_MS == result.slot // FULL_STORED_LISTING_INTERVAL_MS
    ):
        previous = cache.get_committed_listings((result.probe, result.previous_slot, result.location))
    base_slot, base = (result.slot, {}) if previous is None else previous
    value = encode_subject_listings_as_diff(result.listings, base)
    text, listings = encode_storable_json(value), result.listings
    if text != encode_compact_json(value):  # characters were replaced: what is judged is what is stored
        listings = decode_subject_listings_from_diff(decode_nullable_json(text), base, SUBJECT_FACTS_CLASS_BY_RULE)
    return CachedListingsOfResult(base_slot, listings), text


def build_results_with_listings_from_rows(
    connection: sa.Connection, rows: Iterable[Sequence[Any]], cache: SubjectListingCache | None = None
) -> Iterator[ProbeResult]:
    """Results with their listings, from rows of RESULT_COLUMNS.

    Rows of one probe in the order of their slots need the fewest queries. A row whose chain has been deleted has no
    listings.
    """
    decoded: dict[ResultKey, ListingsByRule | None] = {}
    for row in rows:
        values = dict(zip(RESULT_COLUMN_NAMES, row, strict=True))
        key = (values["probe"], values["slot"], values["location"])
        listings = None
        if values["facts"] is not None:
            listings = _decode_subject_listings_by_rule(connection, values, decoded, cache)
            decoded[key] = listings
        yield build_result_from_row(row)._replace(listings=listings or {})


def _decode_subject_listings_by_rule(
    connection: sa.Connection,
    values: dict[str, Any],
    decoded: dict[ResultKey, ListingsByRule | None],
    cache: SubjectListingCache | None,
) -> ListingsByRule | None:
    probe, slot, location, base_slot = (values[name] for name in ("probe", "slot", "location", "facts_base"))
    if cache is not None and (cached := cache.get_staged_or_committed_listings((probe, slot, location))) is not None:
        return cached.listings
    base: ListingsByRule | None = {}
    if base_slot != slot:
        previous = (probe, values["previous_slot"], location)
        if previous in decoded:
            base = decoded[previous]
        elif cache is not None and (cached := cache.get_staged_or_committed_listings(previous)) is not None:
            base = cached.listings
        else:
            base = _load_listings_from_diff_chain(connection, previous, base_slot)
    return (
        None
        if base is None
        else decode_subject_listings_from_diff(decode_nullable_json(values["facts"]), base, SUBJECT_FACTS_CLASS_BY_RULE)
    )


def _load_listings_from_diff_chain(connection: sa.Connection, key: ResultKey, base_slot: int) -> ListingsByRule | None:
    """The listings of a result, from the row that holds all facts up to its own. None: the chain is not complete."""
    probe, slot, location = key
    chain = sa.select(results.c.slot, results.c.facts).where(
        results.c.probe == probe,
        results.c.location == location,
        results.c.slot.between(base_slot, slot),
        results.c.facts_base == base_slot,
    )
    listings: ListingsByRule = {}
    last = None
    for last, text in connection.execute(chain.order_by(results.c.slot)):
        if not listings and last != base_slot:
            return None
        listings = decode_subject_listings_from_diff(decode_nullable_json(text), listings, SUBJECT_FACTS_CLASS_BY_RULE)
    return listings if last == slot else None
