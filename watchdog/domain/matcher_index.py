"""Which of many matchers select a probe, without a comparison with each of them: there may be many of both. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Generic, TypeAlias, TypeVar

from watchdog.domain.model import ProbeInfo
from watchdog.domain.routing import ProbeMatcher

MatchedT = TypeVar("MatchedT")
_Label: TypeAlias = tuple[str, str]
_LABEL_OF_EVERY_PROBE: _Label = ("", "")


class ProbeMatcherIndex(Generic[MatchedT]):
    """Values by the probes that their matchers select. A matcher is compared only with the probes that
    have the name, the group, a tag or the kind that it states, and equal matchers are compared once."""

    def __init__(
        self, values: Iterable[tuple[ProbeMatcher, MatchedT]], does_match: Callable[[ProbeMatcher, ProbeInfo], bool]
    ):
        self._does_match = does_match
        by_matcher: dict[ProbeMatcher, list[tuple[int, MatchedT]]] = {}
        for number, (matcher, value) in enumerate(values):
            by_matcher.setdefault(matcher, []).append((number, value))
        self._by_label: dict[_Label, list[tuple[ProbeMatcher, list[tuple[int, MatchedT]]]]] = {}
        for matcher, numbered in by_matcher.items():
            self._by_label.setdefault(_choose_label_of_matcher(matcher), []).append((matcher, numbered))

    def list_matching(self, probe: ProbeInfo) -> list[MatchedT]:
        """The values whose matchers select the probe, in the order in which they were given."""
        matching: list[tuple[int, MatchedT]] = []
        for label in _list_labels_of_probe(probe):
            for matcher, numbered in self._by_label.get(label, ()):
                if self._does_match(matcher, probe):
                    matching += numbered
        matching.sort(key=itemgetter(0))
        return [value for _, value in matching]


def _choose_label_of_matcher(matcher: ProbeMatcher) -> _Label:
    """One that every probe has which the matcher selects: the one that the fewest probes are likely to have."""
    for field, value in (("probe", matcher.probe), ("group", matcher.group), ("tag", min(matcher.tags, default=""))):
        if value:
            return field, value
    return ("kind", matcher.kind) if matcher.kind else _LABEL_OF_EVERY_PROBE


def _list_labels_of_probe(probe: ProbeInfo) -> set[_Label]:
    named = ("probe", probe.id), ("probe", probe.name), ("group", probe.group), ("kind", probe.kind)
    return {_LABEL_OF_EVERY_PROBE, *named, *(("tag", tag) for tag in probe.tags)}
