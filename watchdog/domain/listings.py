"""What one run observed of the subjects that a rule evaluates: facts, from which the rule derives its findings.

A result carries one mapping, rule -> `SubjectListing`. Each rule with subjects defines the type of its facts, a
`NamedTuple` of JSON scalars; storing, masking and reading them is generic, so that a new rule is one file.

A listing is stored as the difference from the listing of the slot before it: a changed subject is written, one that is
no longer listed is written as removed, and one that is not written is unchanged. So a source of 500 jobs costs nothing
while nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

from watchdog.domain.model import Json, ListingsByRule, SubjectFacts, SubjectListing


def encode_subject_facts(facts: SubjectFacts) -> list[Json]:
    """The values in order, without those at the end that equal their defaults."""
    length, names, defaults = len(facts), facts._fields, facts._field_defaults
    while length and (name := names[length - 1]) in defaults and facts[length - 1] == defaults[name]:
        length -= 1
    return list(facts[:length])


def transform_subject_fact_texts(facts: SubjectFacts, transform: Callable[[str], str]) -> SubjectFacts:
    """The facts with every text transformed, such as masked and truncated."""
    changed = {
        name: transformed
        for name, value in zip(facts._fields, facts, strict=True)
        if isinstance(value, str) and value and (transformed := transform(value)) != value
    }
    return facts._replace(**changed) if changed else facts


def encode_subject_listings_as_diff(listings: ListingsByRule, base: ListingsByRule) -> Json:
    """The differences of `listings` from `base`; with an empty base, everything."""
    return {rule: _encode_subject_listing_diff(listing, base.get(rule)) for rule, listing in listings.items()}


def _encode_subject_listing_diff(listing: SubjectListing, base: SubjectListing | None) -> list[Json]:
    before = {} if base is None else base.subjects
    changes: dict[str, Json] = {
        subject: encode_subject_facts(facts)
        for subject, facts in listing.subjects.items()
        if before.get(subject) != facts
    }
    changes |= {subject: None for subject in before if subject not in listing.subjects}
    return [listing.observed_at, changes, *([listing.gaps] if listing.gaps else [])]


def decode_subject_listings_from_diff(
    value: Json, base: ListingsByRule, facts_types: Mapping[str, type[SubjectFacts]]
) -> ListingsByRule:
    """The inverse of `encode_subject_listings_as_diff`. A rule without a type in `facts_types` is left out."""
    return {
        rule: _apply_subject_listing_diff(entry, base.get(rule), facts_types[rule])
        for rule, entry in value.items()
        if rule in facts_types
    }


def _apply_subject_listing_diff(
    entry: list[Json], base: SubjectListing | None, facts_type: type[SubjectFacts]
) -> SubjectListing:
    observed_at, changes, *gaps = entry
    subjects = {} if base is None else dict(base.subjects)
    for subject, values in changes.items():
        if values is None:
            subjects.pop(subject, None)
        else:
            subjects[subject] = facts_type(*values)
    return SubjectListing(
        observed_at, dict(sorted(subjects.items())), tuple((start, stop) for start, stop in chain(*gaps))
    )
