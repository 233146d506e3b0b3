"""Which reasons a remediation may be configured for, and their short forms."""

from __future__ import annotations

from difflib import get_close_matches

from watchdog.domain.reasons import (
    REASON_CATALOGUE,
    generalize_http_status_reason,
    get_reason_entry,
    get_reason_family,
)

REMEDIABLE_REASONS = frozenset(code for code, entry in REASON_CATALOGUE.items() if entry.may_be_remediated)
REASON_FAMILIES_OMITTABLE_IN_CONFIG = ("job", "task", "queue", "canary")
"""Families that may be left out (`stuck` for `job.stuck`), because a probe reports reasons of its own family only."""
_REMEDIABLE_REASON_FAMILIES = frozenset(map(get_reason_family, REMEDIABLE_REASONS))


def can_probe_report_reason(pattern: str, reason_prefixes: tuple[str, ...]) -> bool:
    """Whether a probe can report a reason of a pattern. `reason_prefixes`: the beginnings of those that it reports of
    REASON_FAMILIES_OMITTABLE_IN_CONFIG; any probe can report those of all other families."""
    if pattern in REASON_FAMILIES_OMITTABLE_IN_CONFIG:
        return any(prefix.startswith(f"{pattern}.") for prefix in reason_prefixes)
    return pattern.startswith(reason_prefixes) or get_reason_family(pattern) not in REASON_FAMILIES_OMITTABLE_IN_CONFIG


def expand_reason_shorthand(text: str) -> tuple[str, ...]:
    """The patterns of reasons that a configured word stands for: itself if it is a reason, a family (`tls`) or a class
    of statuses (`http.5xx`), else the reasons of REASON_FAMILIES_OMITTABLE_IN_CONFIG with this cause.

    Raises ValueError for a word that stands for none.
    """
    if text in REMEDIABLE_REASONS or text in _REMEDIABLE_REASON_FAMILIES or _is_remediable_http_status_reason(text):
        return (text,)
    if reasons := tuple(
        code for name in REASON_FAMILIES_OMITTABLE_IN_CONFIG if (code := f"{name}.{text}") in REMEDIABLE_REASONS
    ):
        return reasons
    short_forms = {
        code.partition(".")[2]
        for code in REMEDIABLE_REASONS
        if get_reason_family(code) in REASON_FAMILIES_OMITTABLE_IN_CONFIG
    }
    close = get_close_matches(text, {*REMEDIABLE_REASONS, *_REMEDIABLE_REASON_FAMILIES, *short_forms}, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ": docs/reasons.md lists them"
    raise ValueError(f"unknown reason {text!r}{hint}")


def _is_remediable_http_status_reason(text: str) -> bool:
    return (
        generalize_http_status_reason(text) != text
        and get_reason_family(text) in _REMEDIABLE_REASON_FAMILIES
        and get_reason_entry(text).may_be_remediated
    )
