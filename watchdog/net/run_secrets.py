"""Masks the secrets that arise within one run, such as a token that a response contains."""

from __future__ import annotations

import re
from collections.abc import Iterable

from watchdog.domain.model import Evidence
from watchdog.domain.text import map_json_strings
from watchdog.net.redact import MASK_PLACEHOLDER, list_encoded_secret_variants
from watchdog.net.secret_fields import find_value_spans_of_secret_named_fields, replace_spans_with_placeholder

MIN_SECRET_CHARS_MASKED_INSIDE_WORDS = 8
"""Shorter secrets are masked as whole words: inside words they would garble every text."""
MIN_CUT_SECRET_CHARS = 8
"""Where a text is cut, the beginning of a secret is masked from this length on."""
MAX_EXAMINED_CUTS = 20


class RunSecretMask:
    """Replaces the secrets of one run by `•••`, also encoded ones, and those whose end is cut off.

    Unlike `SecretMask`, it takes no time to build, and is used on few short texts.
    """

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._spellings: list[str] = []
        """Longest first."""
        self._words: re.Pattern[str] | None = None

    def add(self, secrets: Iterable[str]) -> None:
        added = set(filter(_is_maskable, secrets)) - self._secrets
        if not added:
            return
        self._secrets |= added
        is_long = {secret: len(secret) >= MIN_SECRET_CHARS_MASKED_INSIDE_WORDS for secret in self._secrets}
        spellings = {each for secret in self._secrets if is_long[secret] for each in _list_spellings(secret)}
        self._spellings = sorted(spellings, key=len, reverse=True)
        words = {each for secret in self._secrets if not is_long[secret] for each in _list_spellings(secret)}
        alternatives = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
        self._words = re.compile(rf"(?<![A-Za-z0-9])(?:{alternatives})(?![A-Za-z0-9])") if words else None

    def __call__(self, text: str) -> str:
        for spelling in self._spellings:
            text = text.replace(spelling, MASK_PLACEHOLDER)
        if self._words is not None:
            text = self._words.sub(MASK_PLACEHOLDER, text)
        return "…".join(map(self._mask_secret_cut_off_at_end, text.split("…", MAX_EXAMINED_CUTS)))

    def mask_evidence(self, evidence: Evidence) -> Evidence:
        """With an excerpt of a response, in which the values of fields with the name of a secret are masked as well."""
        facts = {name: map_json_strings(value, self) for name, value in evidence.facts.items()}
        excerpt = evidence.excerpt
        spans = find_value_spans_of_secret_named_fields(excerpt)
        head, separator, body = replace_spans_with_placeholder(excerpt, spans, MASK_PLACEHOLDER).partition("\n\n")
        head = "\n".join(map(self, head.split("\n")))  # the query of a location is cut off
        return Evidence(facts, f"{head}{separator}{self(body)}")

    def _mask_secret_cut_off_at_end(self, text: str) -> str:
        for spelling in self._spellings:
            start = text.find(spelling[:MIN_CUT_SECRET_CHARS], max(len(text) - len(spelling) + 1, 0))
            while start != -1:
                if spelling.startswith(text[start:]):
                    return text[:start] + MASK_PLACEHOLDER
                start = text.find(spelling[:MIN_CUT_SECRET_CHARS], start + 1)
        return text


def _is_maskable(secret: str) -> bool:
    """Whether a text without it is still readable: punctuation alone is in every text."""
    return len(secret) >= MIN_SECRET_CHARS_MASKED_INSIDE_WORDS or any(map(str.isalnum, secret))


def _list_spellings(secret: str) -> set[str]:
    return {*list_encoded_secret_variants(secret), repr(secret)[1:-1]}
