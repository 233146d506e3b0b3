"""What a silence or maintenance selects now, and what was probably meant if nothing is: a sentence for each row."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.domain.formatting import NBSP
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import ProbeInfo, Severity
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.selection import (
    MAX_COMPARED_NAMES,
    SilenceSelectionCounts,
    count_probes_of_silence_with_warnings,
    describe_empty_probe_selection,
)
from watchdog.domain.silencing import SilenceMatcher

PROBES = (
    ProbeInfo(1, "search-api", "Search API", "http", "Core", ("prod", "eu"), Severity.CRITICAL),
    ProbeInfo(
        2, "schedules", "Schedules", "jobs", "Batch", ("prod",), max_task_ages={"sweep": 1},
        job_limits={"import": ScheduledJobLimits(), "*": ScheduledJobLimits()},
    ),
    ProbeInfo(3, "watchdog", "Watchdog", "service"),
)  # fmt: skip
SUBJECTS = {2: {"nightly-report", "5 * *"}}
UNKNOWN_SUBJECT = "no job or other subject"


def match(**values: Any) -> ProbeMatcher:
    return ProbeMatcher(**values)


@pytest.mark.parametrize(
    ("matcher", "subject", "count", "warnings"),
    [
        (match(), "", 2, ()),
        (match(group="Core"), "", 1, ()),
        (match(tags=frozenset({"prod"})), "", 2, ()),
        (match(probe="Search API"), "", 1, ()),
        (match(probe="watchdog"), "", 1, ()),
        (match(kind="service"), "", 1, ()),
        (match(group="Coer"), "", 0, ("no probe has the group 'Coer' now; did you mean 'Core'?",)),
        (match(group="core"), "", 0, ("no probe has the group 'core' now; did you mean 'Core'?",)),
        (
            match(probe="Core"),
            "",
            0,
            ("no probe has the id or name 'Core' now; 'Core' is a group: select it as a group instead",),
        ),
        (match(group="Payments"), "", 0, ("no probe has the group 'Payments' now",)),
        (match(probe="serach"), "", 0, ("no probe has the id or name 'serach' now; did you mean 'search-api'?",)),
        (match(kind="job"), "", 0, ("no probe is of the kind 'job' now; did you mean 'jobs'?",)),
        (match(severity=Severity.INFO), "", 0, ("no probe has the severity info now",)),
        (
            match(tags=frozenset({"prd", "eu", "x" * 90}), kind="hhtp"), "", 0,
            (
                "no probe has the tag 'prd' now; did you mean 'prod'?",
                f"no probe has the tag '{'x' * 59}…' now",
                "no probe is of the kind 'hhtp' now; did you mean 'http'?",
            ),
        ),
        (match(group="Core", kind="jobs"), "", 0, ("no probe matches group Core, kind jobs now",)),
        (match(), "nightly-*", 1, ()),
        (match(), r"5 \* \*", 1, ()),
        (match(group="Core"), "*", 1, ()),
        (match(), "sweep", 1, ()),
        (match(kind="jobs"), "imp*", 1, ()),
        (
            match(), "nighly-report", 2,
            (f"{UNKNOWN_SUBJECT} 'nighly-report' of any probe is known now; did you mean 'nightly-report'?",),
        ),
        (
            match(tags=frozenset({"prod"})), "sweeep", 2,
            (f"{UNKNOWN_SUBJECT} 'sweeep' of the probes with tag prod is known now; did you mean 'sweep'?",),
        ),
        (
            match(group="Core"), "nightly-report", 1,
            (f"{UNKNOWN_SUBJECT} 'nightly-report' of Search API is known now",),
        ),
        (match(group="Coer"), "nighly", 0, ("no probe has the group 'Coer' now; did you mean 'Core'?",)),
    ],
)  # fmt: skip
def test_what_a_silence_selects(matcher: ProbeMatcher, subject: str, count: int, warnings: tuple[str, ...]) -> None:
    assert count_probes_of_silence_with_warnings(SilenceMatcher(matcher, subject), PROBES, SUBJECTS) == (
        count,
        warnings,
    )


def test_without_probes_nothing_can_be_meant() -> None:
    assert count_probes_of_silence_with_warnings(SilenceMatcher(), (), {}) == (0, ("there is no probe now",))
    assert describe_empty_probe_selection(match(group="Core"), ()) == ("no probe has the group 'Core' now",)


def test_a_limited_number_of_names_is_compared() -> None:
    names = [f"zone-{number}" for number in range(MAX_COMPARED_NAMES)]
    probes = [ProbeInfo(number, name, name, "http") for number, name in enumerate([*names, "search"])]
    assert describe_empty_probe_selection(match(probe="serach"), probes) == (
        "no probe has the id or name 'serach' now",
    )
    assert describe_empty_probe_selection(match(probe="SEARCH"), probes)[0].endswith("; did you mean 'search'?")


def test_the_counts_of_a_selection_in_words() -> None:
    assert SilenceSelectionCounts(3, 1).describe() == f"selects 3{NBSP}probes and 1{NBSP}open incident"
    assert SilenceSelectionCounts(1, 0).describe() == f"selects 1{NBSP}probe and 0{NBSP}open incidents"
