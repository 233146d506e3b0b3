"""The index of matchers finds what a comparison of each matcher with each probe finds, with far fewer comparisons."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from watchdog.domain.maintenance_windows import build_maintenance_index, describe_maintenance_mismatch
from watchdog.domain.model import ProbeInfo, Severity
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.rules import service
from watchdog.domain.silencing import SilenceMatcher, build_silence_index

NAMES, GROUPS, TAGS = ("a", "b", ""), ("", "A", "B", "a"), ((), ("x",), ("x", "y"), ("a", "y", "y"))
KINDS = ("http", "a", service.WATCHDOG_SELF_PROBE_KIND)


def make_probes() -> list[ProbeInfo]:
    """With names that are the groups, tags and kinds of others, and with equal ones."""
    fields = product(("a", "b", "c"), ("a", "B"), KINDS, GROUPS, TAGS, Severity)
    return [
        ProbeInfo(number, id, name, kind, group, tags, severity)
        for number, (id, name, kind, group, tags, severity) in enumerate(fields)
    ]


def make_matchers(random: Random) -> list[ProbeMatcher]:
    """In any order, each of them twice."""
    fields = product((None, Severity.CRITICAL), TAGS, GROUPS, ("", *KINDS), NAMES)
    matchers = [
        ProbeMatcher(severity, frozenset(tags), group, kind, probe) for severity, tags, group, kind, probe in fields
    ]
    return random.sample(2 * matchers, 2 * len(matchers))


@pytest.mark.parametrize("seed", range(3))
def test_the_index_finds_what_each_comparison_finds_in_the_same_order(seed: int) -> None:
    random = Random(seed)
    matchers = make_matchers(random)
    silences = build_silence_index((SilenceMatcher(matcher), number) for number, matcher in enumerate(matchers))
    windows = build_maintenance_index((matcher, number) for number, matcher in enumerate(matchers))
    for probe in random.sample(make_probes(), 25):
        selecting = [
            number
            for number, matcher in enumerate(matchers)
            if not SilenceMatcher(matcher).describe_mismatch_of_probe(probe)
        ]
        assert silences.list_matching(probe) == selecting
        assert windows.list_matching(probe) == [
            number for number, matcher in enumerate(matchers) if not describe_maintenance_mismatch(matcher, probe)
        ]
        assert len(selecting) < len(matchers)


def test_an_index_of_nothing_finds_nothing() -> None:
    assert build_maintenance_index([]).list_matching(make_probes()[0]) == []
