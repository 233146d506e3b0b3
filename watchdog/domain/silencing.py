"""Which notifications a silence holds back, and which are sent when it ends. Pure.

A silence holds back notifications only: probes run, and incidents open, change and resolve as without it. The decision
is made for each incident and destination, because one destination may have been notified before the silence began.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.acts import Actor
from watchdog.domain.formatting import DAY_MS, format_utc_timestamp
from watchdog.domain.matcher_index import MatchedT, ProbeMatcherIndex
from watchdog.domain.model import IncidentEvent, ProbeInfo
from watchdog.domain.routing import SILENCE_ROUTING_LOG_PREFIX, ProbeMatcher
from watchdog.domain.rules import service
from watchdog.domain.text import truncate_to_single_line

MAX_SILENCE_DURATION_MS = 365 * DAY_MS
MAX_ACTIVE_SILENCES = 1_000
MAX_SILENCE_SUBJECT_PATTERN_CHARS = 500
MAX_SILENCE_TAGS = 50
EVERY_PROBE_MATCHER = ProbeMatcher()


@dataclass(frozen=True, slots=True)
class SilenceMatcher:
    """Selects incidents. An empty field matches every incident."""

    probe: ProbeMatcher = EVERY_PROBE_MATCHER
    subject_pattern: str = ""
    """For the incident's subject, such as a job or a task. `*` stands for any text, `\\*` for a star, `\\\\` for a
    backslash."""

    @classmethod
    def of_incident(cls, probe_id: str, subject: str) -> SilenceMatcher:
        """Selects the incidents of a probe about a subject; of an empty subject, all incidents of the probe."""
        return cls(ProbeMatcher(probe=probe_id), escape_subject_pattern(subject))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is stated, so that it selects every incident."""
        return self.probe == EVERY_PROBE_MATCHER and not self.subject_pattern

    @property
    def matches_every_incident(self) -> bool:
        """Whether it is empty, or has a pattern of stars alone, which any subject matches, also an empty one."""
        return self.probe == EVERY_PROBE_MATCHER and not self.subject_pattern.strip("*")

    def describe_mismatch(self, probe: ProbeInfo, subject: str) -> str:
        """Why an incident is not selected, in words; empty if it is selected."""
        if mismatch := self.describe_mismatch_of_probe(probe):
            return mismatch
        if self.subject_pattern and not matches_subject_pattern(self.subject_pattern, subject):
            return f"subject is {subject or 'empty'}, not {self.subject_pattern}"
        return ""

    def describe_mismatch_of_probe(self, probe: ProbeInfo) -> str:
        """Why no incident of a probe is selected, in words; empty if some may be.

        A fault of Watchdog itself is selected only by the id or the kind of its probe: otherwise a silence of services
        would hide that Watchdog no longer works.
        """
        if mismatch := self.probe.describe_mismatch(probe):
            return mismatch
        if probe.kind == service.WATCHDOG_SELF_PROBE_KIND and not (self.probe.probe or self.probe.kind):
            return f"a fault of Watchdog itself is silenced only by id {probe.id} or kind {probe.kind}"
        return ""

    def describe(self) -> str:
        """What it selects, in words: "group Core, tag prod"."""
        match = self.probe
        parts = (
            ("id", match.probe),
            ("group", match.group),
            ("tags" if len(match.tags) > 1 else "tag", ", ".join(sorted(match.tags))),
            ("kind", match.kind),
            ("severity", match.severity or ""),
            ("subject", self.subject_pattern),
        )
        return ", ".join(f"{name} {value}" for name, value in parts if value) or "everything"


def matches_subject_pattern(pattern: str, subject: str) -> bool:
    """Whether the pattern selects the subject. Each part between two stars is searched once, so that no pattern takes
    long."""
    first, *others = _split_at_wildcards(pattern)
    if not others:
        return subject == first
    *middle, last = others
    if len(subject) < len(first) + len(last) or not subject.startswith(first) or not subject.endswith(last):
        return False
    position, end = len(first), len(subject) - len(last)
    for part in middle:
        index = subject.find(part, position, end)
        if index < 0:
            return False
        position = index + len(part)
    return True


def escape_subject_pattern(subject: str) -> str:
    """The pattern that selects this subject alone."""
    return subject.replace("\\", "\\\\").replace("*", "\\*")


def _split_at_wildcards(pattern: str) -> list[str]:
    """The literal parts between the stars that are wildcards."""
    parts, is_escaped = [""], False
    for character in pattern:
        if is_escaped or character not in "\\*":
            parts[-1] += character
            is_escaped = False
        elif character == "\\":
            is_escaped = True
        else:
            parts.append("")
    if is_escaped:
        parts[-1] += "\\"
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A decision that no one is notified of some incidents for a time."""

    id: str
    matcher: SilenceMatcher
    started_at: int
    """Epoch ms, as all instants here."""
    ends_at: int
    actor: Actor
    comment: str = ""
    ended_at: int | None = None
    """When its end was carried out; None: it is in effect."""
    ended_by: str = ""
    """The person who ended it; empty if it expired."""
    incident: str = ""
    """The only incident that it selects, with which it ends, at `ends_at` at the latest; empty: it selects by
    `matcher`, until `ends_at`."""

    def describe_selection(self) -> str:
        """ "group Core, tag prod", "id api, incident 1c9b04ae77d2f00c3a51e9d8"."""
        return f"{self.matcher.describe()}, incident {self.incident}" if self.incident else self.matcher.describe()

    def describe_end(self, now: int) -> str:
        """Of a silence in effect: "until 03:29 UTC", "until the incident is resolved"."""
        return "until the incident is resolved" if self.incident else f"until {format_utc_timestamp(self.ends_at, now)}"

    def describe_past_end(self) -> str:
        """Of a silence that has ended: "ended by Ana", "expired", "the incident was resolved"."""
        if self.ended_by:
            return f"ended by {self.ended_by}"
        return "the incident was resolved" if self.incident else "expired"

    @property
    def label(self) -> str:
        """For a list: "silenced by s-1f2e (Ana)"."""
        return f"{SILENCE_ROUTING_LOG_PREFIX}{self.id} ({truncate_to_single_line(self.actor.name, 40)})"


def select_silences_by_probe(
    silences: Sequence[Silence], probes: Iterable[ProbeInfo]
) -> dict[int, tuple[Silence, ...]]:
    """Those that may select incidents of each probe, in their order, by database id; probes without any are missing."""
    index = build_silence_index((silence.matcher, silence) for silence in silences)
    selected = ((probe.database_id, tuple(index.list_matching(probe))) for probe in probes)
    return {probe: matching for probe, matching in selected if matching}


def build_silence_index(values: Iterable[tuple[SilenceMatcher, MatchedT]]) -> ProbeMatcherIndex[MatchedT]:
    """Finds the values whose matchers may select incidents of a probe, with any subject."""
    return ProbeMatcherIndex(
        ((matcher.probe, value) for matcher, value in values),
        lambda matcher, probe: not SilenceMatcher(matcher).describe_mismatch_of_probe(probe),
    )


class SilencingDecisionReason(StrEnum):
    """Why a notification is held back, sent now, or not sent."""

    NOT_SILENCED = "not_silenced"
    SILENCED = "silenced"
    DESTINATION_KNOWS_INCIDENT = "destination_knows_incident"
    """It was sent the opening, and people wait for the end."""
    OPENING_NOT_SENT = "opening_not_sent"
    """The destination was never notified that the incident opened."""
    STILL_SILENCED = "still_silenced"
    """By another silence."""
    STILL_MUTED = "still_muted"
    """Because of another probe: it is sent when that ends."""
    INCIDENT_IS_OVER = "incident_is_over"
    SILENCE_ENDED = "silence_ended"
    CAUSE_CHANGED_WHILE_SILENCED = "cause_changed_while_silenced"
    ALREADY_NOTIFIED = "already_notified"
    NO_ROUTE = "no_route"
    """No route leads to the destination any more."""


class SilencingDecision(NamedTuple):
    """Whether a notification is held back, and why."""

    is_held_back: bool
    reason: SilencingDecisionReason


def decide_silencing(event: IncidentEvent, *, is_silenced: bool, is_notified: bool) -> SilencingDecision:
    """`is_silenced`: a silence that is in effect selects the incident. `is_notified`: the destination was sent that it
    opened."""
    if not is_silenced:
        return SilencingDecision(False, SilencingDecisionReason.NOT_SILENCED)
    if event in (IncidentEvent.OPENED, IncidentEvent.CHANGED):
        return SilencingDecision(True, SilencingDecisionReason.SILENCED)
    if is_notified:
        return SilencingDecision(False, SilencingDecisionReason.DESTINATION_KNOWS_INCIDENT)
    return SilencingDecision(True, SilencingDecisionReason.OPENING_NOT_SENT)


class NotificationAfterSilence(NamedTuple):
    """What a destination is sent when a silence ends, and why. No event: nothing."""

    event: IncidentEvent | None
    reason: SilencingDecisionReason


def decide_notification_after_silence(
    *,
    is_open: bool,
    is_still_silenced: bool,
    is_muted: bool,
    is_notified: bool,
    has_held_back_change: bool,
    has_route: bool,
) -> NotificationAfterSilence:
    """For one incident that the silence selected, and one destination. `is_muted`: because of another probe.
    `has_route`: the routes that are in force now lead to it."""
    if not is_open:
        return NotificationAfterSilence(None, SilencingDecisionReason.INCIDENT_IS_OVER)
    if is_still_silenced:
        return NotificationAfterSilence(None, SilencingDecisionReason.STILL_SILENCED)
    if is_muted:
        return NotificationAfterSilence(None, SilencingDecisionReason.STILL_MUTED)
    if is_notified and has_held_back_change:
        return NotificationAfterSilence(IncidentEvent.CHANGED, SilencingDecisionReason.CAUSE_CHANGED_WHILE_SILENCED)
    if is_notified:
        return NotificationAfterSilence(None, SilencingDecisionReason.ALREADY_NOTIFIED)
    if not has_route:
        return NotificationAfterSilence(None, SilencingDecisionReason.NO_ROUTE)
    return NotificationAfterSilence(IncidentEvent.OPENED, SilencingDecisionReason.SILENCE_ENDED)
