"""What a person states for an act: checked, and without characters that are invisible or cannot be stored.

All functions raise OperatorActRefusedError.
"""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from watchdog.config_types import parse_config_duration_ms
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
from watchdog.domain.timestamps import to_epoch_ms

ACT_END_FIELD = "end"
"""The name of the field in which a person states when an act ends."""
ACT_START_FIELD = "start"
INVALID_INSTANT_TEXT = "expected a date and a time, such as 2026-12-01T22:00+01:00"
MISSING_TIMEZONE_TEXT = "add the time zone, such as +01:00, or Z for UTC"
MS_PER_SECOND = 1_000
MAX_TIMEZONE_CHARS = 100
"""More than any name has. ZoneInfo searches a longer one package by package, to any depth."""
MAX_INSTANT_MS = 8_000 * 365 * DAY_MS
"""In the year 9964: later instants could not be shown in every time zone."""
_TIME_OF_DAY_PATTERN = re.compile(r"(\d?\d)(:\d\d(?:Z|[+-]\d\d:\d\d)?)", re.ASCII)


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
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message, field="tags")
    return ProbeMatcher(
        matcher.severity,
        frozenset(map(replace_invisible_characters, matcher.tags)),
        replace_invisible_characters(matcher.group),
        replace_invisible_characters(matcher.kind),
        replace_invisible_characters(matcher.probe),
    )


def parse_act_end(text: str, timezone: str, now: int) -> int:
    """When an act ends, in epoch ms: "4h" from now on, or as `parse_act_instant`."""
    text = text.strip().removeprefix("for ")
    try:
        return now + parse_config_duration_ms(text)
    except ValueError:
        pass
    try:
        return parse_act_instant(text, timezone, now)
    except OperatorActRefusedError as e:
        typed = f", not '{truncate_to_single_line(replace_invisible_characters(text), 40)}'" if text else ""
        message = f"enter a duration, such as 30m, 4h or 2d, or a time, such as 22:00 or 2026-12-01 22:00{typed}"
        raise OperatorActRefusedError(e.refusal, message, field=ACT_END_FIELD) from None


def parse_act_start(text: str, timezone: str, now: int) -> int | None:
    """When an act starts, in epoch ms, as `parse_act_instant`. None: nothing is stated, so now."""
    if not text.strip():
        return None
    try:
        return parse_act_instant(text, timezone, now)
    except OperatorActRefusedError as e:
        typed = truncate_to_single_line(replace_invisible_characters(text), 40)
        message = f"enter a start time, such as 22:00 or 2026-12-01 22:00, not '{typed}'"
        raise OperatorActRefusedError(e.refusal, message, field=ACT_START_FIELD) from None


def parse_act_instant(text: str, timezone: str, now: int) -> int:
    """An instant that a person states, in epoch ms: the next "22:00", or "2026-12-01 22:00"; both also with an offset
    such as +01:00 or Z. `timezone`: the IANA name of the zone of a time without an offset; empty: it needs one."""
    text = text.strip().removeprefix("until ")
    text = f"{text.removesuffix('UTC').rstrip()}Z" if text.endswith("UTC") else text
    try:
        if len(timezone) > MAX_TIMEZONE_CHARS:
            raise ValueError("no time zone has such a long name")
        zone = ZoneInfo(timezone) if timezone else None
        time_of_day = _TIME_OF_DAY_PATTERN.fullmatch(text)
        if time_of_day is None and len(text) <= len("2026-12-01"):
            raise ValueError("a day is not an instant")
        stated = datetime.fromisoformat(f"2000-01-01T{time_of_day[1]:0>2}{time_of_day[2]}" if time_of_day else text)
        zone_of_text = stated.tzinfo or zone
        if zone_of_text is None:
            raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, MISSING_TIMEZONE_TEXT, field=ACT_END_FIELD)
        if time_of_day:
            return _find_next_time_of_day(stated.time(), zone_of_text, now)
        at = to_epoch_ms(stated, zone_of_text)
        if not 0 <= at <= MAX_INSTANT_MS:
            raise ValueError("only the years 1970 to 9964 can be shown")
        return at
    except (ValueError, OverflowError, OSError, ZoneInfoNotFoundError):
        raise OperatorActRefusedError(
            OperatorActRefusalReason.INVALID, INVALID_INSTANT_TEXT, field=ACT_END_FIELD
        ) from None


def _find_next_time_of_day(time_of_day: time, zone: tzinfo, now: int) -> int:
    """Later than `now`."""
    today = datetime.fromtimestamp(now / MS_PER_SECOND, zone).date()
    candidates = (
        to_epoch_ms(datetime.combine(today + timedelta(days=days), time_of_day, zone)) for days in range(3)
    )  # fmt: skip
    return next(at for at in candidates if at > now)


def require_start_within_limit(starts_at: int, now: int, max_lead_ms: int, name: str) -> None:
    if starts_at < now:
        message = f"the {name} would start in the past: leave out the start to begin it now"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message, field=ACT_START_FIELD)
    if starts_at - now > max_lead_ms:
        message = f"a {name} may start in {max_lead_ms // DAY_MS} days at most: choose an earlier start"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message, field=ACT_START_FIELD)


def require_end_within_limit(
    ends_at: int, now: int, max_duration_ms: int, name: str, *, starts_at: int | None = None
) -> None:
    """`starts_at`: None: now."""
    starts_at = now if starts_at is None else starts_at
    if ends_at <= starts_at:
        when = "in the past" if ends_at <= now else "before it starts"
        message = f"the {name} would end {when}: choose a later end"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message, field=ACT_END_FIELD)
    if ends_at - starts_at > max_duration_ms:
        message = f"a {name} may last for {max_duration_ms // DAY_MS} days at most: choose an earlier end"
        raise OperatorActRefusedError(OperatorActRefusalReason.INVALID, message, field=ACT_END_FIELD)


def validate_and_clean_act_comment(comment: str) -> str:
    """Without characters that are invisible or cannot be stored."""
    require_act_text_within_limit("comment", comment, MAX_ACT_COMMENT_CHARS)
    return replace_invisible_characters(comment).strip()


def require_act_text_within_limit(name: str, text: str, max_chars: int) -> None:
    if len(text) > max_chars:
        raise OperatorActRefusedError(
            OperatorActRefusalReason.INVALID,
            f"the {name} has {format_number(len(text))} characters; at most {format_number(max_chars)} are possible",
            field="tags" if name == "tag" else name,
        )


def copy_actor_with_clean_name(actor: Actor) -> Actor:
    name = truncate_to_single_line(replace_invisible_characters(actor.name), MAX_ACTOR_NAME_CHARS)
    return actor._replace(name=name or "unknown")
