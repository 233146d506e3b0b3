"""What a person states for an act: checked, and without characters that are invisible or cannot be stored.

All functions raise OperatorActRefusedError.
"""

from __future__ import annotations

from watchdog.domain.acts import (
    MAX_ACT_COMMENT_CHARS,
    MAX_ACTOR_NAME_CHARS,
    Actor,
    OperatorActRefusalReason,
    OperatorActRefusedError,
    OperatorInterfaceKind,
)
from watchdog.domain.formatting import DAY_MS, format_number
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import (
    EVERY_PROBE_MATCHER,
    MAX_SILENCE_SUBJECT_PATTERN_CHARS,
    MAX_SILENCE_TAGS,
    SilenceMatcher,
)
from watchdog.domain.text import replace_invisible_characters, truncate_to_single_line


def validate_silence_matcher(
    matcher: SilenceMatcher, interface: OperatorInterfaceKind, *, selects_everything: bool
) -> SilenceMatcher:
    _require_deliberate_selection(
        interface,
        is_empty=matcher.is_empty,
        selects_everything=selects_everything,
        fields="an id, group, tag, kind, severity or subject",
        verb="silence",
    )
    require_act_text_within_limit("subject", matcher.subject_pattern, MAX_SILENCE_SUBJECT_PATTERN_CHARS)
    return SilenceMatcher(_validate_and_clean_probe_matcher(matcher.probe, "silence"), matcher.subject_pattern)


def validate_maintenance_matcher(
    matcher: ProbeMatcher, interface: OperatorInterfaceKind, *, selects_everything: bool
) -> ProbeMatcher:
    _require_deliberate_selection(
        interface,
        is_empty=matcher == EVERY_PROBE_MATCHER,
        selects_everything=selects_everything,
        fields="an id, group, tag, kind or severity",
        verb="select",
    )
    return _validate_and_clean_probe_matcher(matcher, "maintenance window")


def _require_deliberate_selection(
    interface: OperatorInterfaceKind, *, is_empty: bool, selects_everything: bool, fields: str, verb: str
) -> None:
    everything = "`--all`" if interface is OperatorInterfaceKind.CLI else "`all`"
    if is_empty and not selects_everything:
        message = f"nothing is selected: state {fields}, or {everything} to {verb} everything"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message)
    if not is_empty and selects_everything:
        message = f"{everything} {verb}s everything: leave out the other conditions"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message)


def _validate_and_clean_probe_matcher(matcher: ProbeMatcher, owner: str) -> ProbeMatcher:
    """Without characters that are invisible or cannot be stored. `owner`: what has too many tags, in a message."""
    for name, text in (
        ("id", matcher.probe),
        ("group", matcher.group),
        ("kind", matcher.kind),
        *(("tag", tag) for tag in matcher.tags),
    ):
        require_act_text_within_limit(name, text, MAX_SILENCE_SUBJECT_PATTERN_CHARS)
    if len(matcher.tags) > MAX_SILENCE_TAGS:
        message = f"the {owner} has {format_number(len(matcher.tags))} tags; at most {MAX_SILENCE_TAGS} are possible"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message)
    return ProbeMatcher(
        matcher.severity,
        frozenset(map(replace_invisible_characters, matcher.tags)),
        replace_invisible_characters(matcher.group),
        replace_invisible_characters(matcher.kind),
        replace_invisible_characters(matcher.probe),
    )


def require_end_within_limit(ends_at: int, now: int, max_duration_ms: int, name: str) -> None:
    if ends_at <= now:
        raise OperatorActRefusedError(
            OperatorActRefusalReason.INVALID, f"the {name} would end in the past: choose a later end"
        )
    if ends_at - now > max_duration_ms:
        days = max_duration_ms // DAY_MS
        raise OperatorActRefusedError(
            OperatorActRefusalReason.INVALID, f"a {name} may last for {days} days at most: choose an earlier end"
        )


def validate_and_clean_act_comment(comment: str) -> str:
    """Without characters that are invisible or cannot be stored."""
    require_act_text_within_limit("comment", comment, MAX_ACT_COMMENT_CHARS)
    return replace_invisible_characters(comment).strip()


def require_act_text_within_limit(name: str, text: str, max_chars: int) -> None:
    if len(text) > max_chars:
        raise OperatorActRefusedError(
            OperatorActRefusalReason.INVALID,
            f"the {name} has {format_number(len(text))} characters; at most {format_number(max_chars)} are possible",
        )


def clean_actor_name(actor: Actor) -> Actor:
    name = truncate_to_single_line(replace_invisible_characters(actor.name), MAX_ACTOR_NAME_CHARS)
    return actor._replace(name=name or "unknown")
