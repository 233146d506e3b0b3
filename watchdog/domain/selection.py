"""What a silence or maintenance selects at present, and which name was probably meant if it selects nothing. Pure.

A selection that fits nothing now is valid: it may be meant for a probe that is still to be added.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.model import ProbeInfo
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import EVERY_PROBE_MATCHER, SilenceMatcher, matches_subject_pattern
from watchdog.domain.text import truncate_to_single_line

MAX_COMPARED_NAMES = 2_000
"""A comparison with each name takes about 20 µs."""
MIN_NAME_SIMILARITY = 0.6
MAX_QUOTED_NAME_CHARS = 60


class SelectedProbeCountAndWarnings(NamedTuple):
    """What is selected at present."""

    probe_count: int
    """Of a silence: how many probes have incidents that it may select. A probe need not have reported its subject."""
    warnings: tuple[str, ...] = ()
    """Why it may select nothing, as clauses such as "no probe has the group 'Coer' now; did you mean 'Core'?"."""


class SilenceSelectionCounts(NamedTuple):
    """What a silence in effect selects now."""

    probe_count: int
    """How many probes have incidents that it may select."""
    open_incident_count: int

    def describe(self) -> str:
        """ "selects 3 probes and 1 open incident"."""
        probes = format_count_with_noun(self.probe_count, "probe")
        return f"selects {probes} and {format_count_with_noun(self.open_incident_count, 'open incident')}"


def count_probes_of_silence_with_warnings(
    matcher: SilenceMatcher, probes: Collection[ProbeInfo], known_subjects: Mapping[int, Collection[str]]
) -> SelectedProbeCountAndWarnings:
    """`known_subjects`: by database id of the probe; they are compared only with a pattern for subjects. An incident
    about the probe itself has the empty subject. A healthy subject may be unknown, such as a tool of an MCP server."""
    selected = [probe for probe in probes if not matcher.describe_mismatch_of_probe(probe)]
    pattern = matcher.subject_pattern
    if not selected:
        return SelectedProbeCountAndWarnings(0, describe_empty_probe_selection(matcher.probe, probes))
    if not pattern:
        return SelectedProbeCountAndWarnings(len(selected))
    subjects = [_list_subjects(probe, known_subjects) for probe in selected]
    count = sum(any(matches_subject_pattern(pattern, subject) for subject in (*each, "")) for each in subjects)
    if count:
        return SelectedProbeCountAndWarnings(count)
    hint = format_similar_name_hint(pattern, (subject for each in subjects for subject in each))
    whose = _describe_selected_probes(matcher.probe, selected)
    clause = f"no job or other subject {_quote_name(pattern)} of {whose} is known now{hint}"
    return SelectedProbeCountAndWarnings(len(selected), (clause,))


def _list_subjects(probe: ProbeInfo, known_subjects: Mapping[int, Collection[str]]) -> list[str]:
    """Also those that its configuration names; "*" stands there for every other one."""
    configured = {*probe.max_task_ages, *probe.job_limits} - {"*"}
    return sorted(configured.union(known_subjects.get(probe.database_id, ())))


def _describe_selected_probes(matcher: ProbeMatcher, selected: Sequence[ProbeInfo]) -> str:
    if len(selected) == 1:
        return truncate_to_single_line(selected[0].name, 40)
    if matcher == EVERY_PROBE_MATCHER:
        return "any probe"
    described = SilenceMatcher(matcher).describe()
    return f"the probes with {truncate_to_single_line(described, MAX_QUOTED_NAME_CHARS)}"


def describe_empty_probe_selection(matcher: ProbeMatcher, probes: Collection[ProbeInfo]) -> tuple[str, ...]:
    """Of a matcher that selects no probe: a clause for each value that no probe has, else one for the combination."""
    if matcher == EVERY_PROBE_MATCHER:
        return ("there is no probe now",)
    unknown = tuple(_iter_descriptions_of_values_without_probe(matcher, probes))
    if unknown:
        return unknown
    described = SilenceMatcher(matcher).describe()
    return (f"no probe matches {truncate_to_single_line(described, MAX_QUOTED_NAME_CHARS)} now",)


def _iter_descriptions_of_values_without_probe(matcher: ProbeMatcher, probes: Collection[ProbeInfo]) -> Iterator[str]:
    names = [name for probe in probes for name in dict.fromkeys((probe.name, probe.id))]
    groups = dict.fromkeys(probe.group for probe in probes if probe.group)
    if matcher.probe and matcher.probe not in names:
        hint = format_similar_name_hint(matcher.probe, names)
        if matcher.probe in groups:
            hint = f"; {_quote_name(matcher.probe)} is a group: select it as a group instead"
        yield f"no probe has the id or name {_quote_name(matcher.probe)} now{hint}"
    if matcher.group and matcher.group not in groups:
        hint = format_similar_name_hint(matcher.group, groups)
        yield f"no probe has the group {_quote_name(matcher.group)} now{hint}"
    tags = dict.fromkeys(tag for probe in probes for tag in probe.tags)
    for tag in sorted(matcher.tags - tags.keys()):
        yield f"no probe has the tag {_quote_name(tag)} now{format_similar_name_hint(tag, tags)}"
    kinds = dict.fromkeys(probe.kind for probe in probes)
    if matcher.kind and matcher.kind not in kinds:
        yield f"no probe is of the kind {_quote_name(matcher.kind)} now{format_similar_name_hint(matcher.kind, kinds)}"
    if matcher.severity is not None and all(probe.severity is not matcher.severity for probe in probes):
        yield f"no probe has the severity {matcher.severity} now"


def _quote_name(name: str) -> str:
    return f"'{truncate_to_single_line(name, MAX_QUOTED_NAME_CHARS)}'"


def format_similar_name_hint(name: str, names: Iterable[str]) -> str:
    """ "; did you mean 'Core'?"; empty: none is similar."""
    name_by_folded: dict[str, str] = {}
    for other in names:
        name_by_folded.setdefault(other.casefold(), other)
    similar = name_by_folded.get(name.casefold()) or _find_similar_name(name, name_by_folded)
    return f"; did you mean {_quote_name(similar)}?" if similar else ""


def _find_similar_name(name: str, name_by_folded: Mapping[str, str]) -> str:
    compared = list(name_by_folded)[:MAX_COMPARED_NAMES]
    close = get_close_matches(name.casefold()[:MAX_QUOTED_NAME_CHARS], compared, 1, MIN_NAME_SIMILARITY)
    return name_by_folded[close[0]] if close else ""
