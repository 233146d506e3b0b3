"""Which reasons a remediation may be configured for, and their short forms."""

from __future__ import annotations

from difflib import get_close_matches

from watchdog.domain.reasons import CATALOGUE, family

REMEDIABLE_REASONS = frozenset(code for code, entry in CATALOGUE.items() if entry.may_be_remediated)
SHORTHAND_FAMILIES = ("job", "task", "queue", "canary")
"""Families that may be left out (`stuck` for `job.stuck`), because a probe reports reasons of its own family only."""


def can_report(reason: str, reason_prefixes: tuple[str, ...]) -> bool:
    """Whether a probe can report a reason. `reason_prefixes`: the beginnings of those that it reports of
    SHORTHAND_FAMILIES; any probe can report those of all other families."""
    return reason.startswith(reason_prefixes) or family(reason) not in SHORTHAND_FAMILIES


def expand_reason(text: str) -> tuple[str, ...]:
    """The reasons that a configured word stands for. Raises ValueError for a word that stands for none."""
    if text in REMEDIABLE_REASONS:
        return (text,)
    if reasons := tuple(code for name in SHORTHAND_FAMILIES if (code := f"{name}.{text}") in REMEDIABLE_REASONS):
        return reasons
    short_forms = {code.partition(".")[2] for code in REMEDIABLE_REASONS if family(code) in SHORTHAND_FAMILIES}
    close = get_close_matches(text, {*REMEDIABLE_REASONS, *short_forms}, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ": docs/reasons.md lists them"
    raise ValueError(f"unknown reason {text!r}{hint}")
