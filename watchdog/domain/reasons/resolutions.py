"""Reasons for which incidents end although their finding did not recover."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_resolution_reason_entry = partial(ReasonEntry, ReasonCategory.RESOLUTION)

RESOLUTION_REASON_ENTRIES = (
    _resolution_reason_entry(
        "subject.no_longer_listed",
        "No longer listed",
        "The task or job is no longer listed, or the expression was changed.",
    ),
    _resolution_reason_entry(
        "job.removal_accepted",
        "Counts as removed",
        "The source has not listed the job for at least 24 hours, so the job counts as removed.",
    ),
    _resolution_reason_entry(
        "job.forgotten",
        "Forgotten",
        "An operator has decided that the job is no longer expected: `watchdog jobs forget`.",
    ),
    _resolution_reason_entry(
        "probe.removed",
        "Probe removed",
        "The probe is no longer configured, or its kind was changed.",
    ),
    _resolution_reason_entry(
        "incident.closed",
        "Closed by hand",
        "A person has closed the incident: `watchdog close`. Only later failures open another one.",
    ),
)
