"""Which jobs of a listing are missing, and about which of them the listing is no evidence."""

from __future__ import annotations

from collections.abc import Mapping

from watchdog.domain.model import SubjectListing
from watchdog.domain.observations import ScheduledJobFacts

MIN_GONE_JOBS_OF_SOURCE_INCIDENT = 2
"""From this many jobs on, what stops them all is one incident about their source."""


def find_gone_job_majority(subjects: Mapping[str, ScheduledJobFacts]) -> list[str]:
    """The missing jobs, if they are most of all jobs: then their source is the problem. Otherwise empty."""
    gone = [name for name, facts in subjects.items() if is_job_gone(facts) and not facts.undecided]
    job_count = sum(facts.listed or is_job_gone(facts) for facts in subjects.values())
    is_most = len(gone) >= MIN_GONE_JOBS_OF_SOURCE_INCIDENT and 2 * len(gone) > job_count
    return gone if is_most else []


def is_job_gone(facts: ScheduledJobFacts) -> bool:
    """Whether its source listed it before, and it is missed."""
    return facts.gone_since is not None and not facts.listed and not facts.removal


def find_gone_job_names(listing: SubjectListing) -> frozenset[str]:
    return frozenset(name for name, facts in listing.subjects.items() if is_job_gone(facts))


def find_unjudgeable_job_names(listing: SubjectListing) -> frozenset[str]:
    """The jobs about which a listing is no evidence: nothing opens or resolves by it."""
    undecided = (name for name, facts in listing.subjects.items() if facts.undecided)
    return frozenset((*find_gone_job_majority(listing.subjects), *undecided))
