"""Masks the secrets that appear during one run, such as a token in a response."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote

from watchdog.domain.model import Evidence
from watchdog.domain.text import map_json_strings
from watchdog.net.redact import MASK_PLACEHOLDER, list_encoded_secret_variants
from watchdog.net.secret_fields import find_value_spans_of_secret_named_fields, replace_spans_with_placeholder

MIN_SECRET_CHARS_MASKED_INSIDE_WORDS = 8
"""Shorter secrets are masked only as whole words, because masking them inside words would make texts unreadable. A
truncated secret is masked if at least this many characters are left."""
MAX_SECRET_CHARS_IN_ALL_ENCODINGS = 512
"""Longer secrets are masked only unencoded and as encoded in JSON and in URLs, because encoding takes time."""


class _SpellingGroup(NamedTuple):
    """Spellings of secrets that begin with the same characters."""

    ordered: Sequence[str]
    """In alphabetical order."""
    lengths_of_beginnings: Sequence[tuple[int, ...]]
    """For each, the lengths of those that it begins with, up to its own."""

    def measure_longest_that_begins(self, text: str) -> int:
        """The length of the longest one that the text begins with; 0: there is none."""
        index = bisect_right(self.ordered, text) - 1  # it begins with each one that the text begins with
        if index < 0:
            return 0
        lengths = self.lengths_of_beginnings[index]
        count = bisect_right(lengths, _count_common_characters(self.ordered[index], text))
        return lengths[count - 1] if count else 0

    def has_any_that_begins_with(self, beginning: str) -> bool:
        index = bisect_left(self.ordered, beginning)
        return index < len(self.ordered) and self.ordered[index].startswith(beginning)


def _build_spelling_group(spellings: Iterable[str]) -> _SpellingGroup:
    ordered, all_lengths, beginnings = sorted(spellings), list[tuple[int, ...]](), list[str]()
    for spelling in ordered:
        while beginnings and not spelling.startswith(beginnings[-1]):
            beginnings.pop()
        beginnings.append(spelling)
        all_lengths.append(tuple(map(len, beginnings)))
    return _SpellingGroup(ordered, all_lengths)


def _count_common_characters(text: str, other: str) -> int:
    """How many characters both begin with. Compares whole parts: a loop over characters would hold the event loop."""
    low, high = 0, min(len(text), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text[low:middle] == other[low:middle] else (low, middle - 1)
    return low


class RunSecretMask:
    """Replaces the secrets of one run by `•••`, also encoded and truncated ones.

    Unlike `SecretMask`, it is fast to build, and meant for a few short texts.
    """

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._groups: dict[str, _SpellingGroup] = {}
        """The spellings of long secrets, by their first MIN_SECRET_CHARS_MASKED_INSIDE_WORDS characters."""
        self._words: set[str] = set()
        """The spellings of short secrets."""
        self._words_pattern: re.Pattern[str] | None = None

    def add(self, secrets: Iterable[str]) -> None:
        added = set(filter(_is_maskable, secrets)) - self._secrets
        self._secrets |= added
        changed_groups: dict[str, set[str]] = {}
        for secret in added:
            for spelling in _list_spellings(secret):
                if len(secret) < MIN_SECRET_CHARS_MASKED_INSIDE_WORDS:
                    self._words.add(spelling)
                elif len(spelling) >= MIN_SECRET_CHARS_MASKED_INSIDE_WORDS:
                    changed_groups.setdefault(spelling[:MIN_SECRET_CHARS_MASKED_INSIDE_WORDS], set()).add(spelling)
        for beginning, spellings in changed_groups.items():
            if former_group := self._groups.get(beginning):
                spellings.update(former_group.ordered)
            self._groups[beginning] = _build_spelling_group(spellings)
        if self._words:
            alternatives = "|".join(sorted(map(re.escape, self._words), key=len, reverse=True))
            self._words_pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{alternatives})(?![A-Za-z0-9])")

    def __call__(self, text: str) -> str:
        parts, start, position = [], 0, 0
        while position <= len(text) - MIN_SECRET_CHARS_MASKED_INSIDE_WORDS:
            beginning = text[position : position + MIN_SECRET_CHARS_MASKED_INSIDE_WORDS]
            end = self._find_secret_end(text, position) if beginning in self._groups else position
            if end > position:
                parts += [text[start:position], MASK_PLACEHOLDER]
                start = position = end
            else:
                position += 1
        masked = "".join([*parts, text[start:]])
        return masked if self._words_pattern is None else self._words_pattern.sub(MASK_PLACEHOLDER, masked)

    def _find_secret_end(self, text: str, start: int) -> int:
        """The end of the secret that starts here, or where it is truncated; `start` if there is none."""
        group = self._groups[text[start : start + MIN_SECRET_CHARS_MASKED_INSIDE_WORDS]]
        if length := group.measure_longest_that_begins(text[start:]):
            return start + length
        cut = text.find("…", start)
        end = len(text) if cut == -1 else cut
        return end if group.has_any_that_begins_with(text[start:end]) else start

    def mask_evidence(self, evidence: Evidence) -> Evidence:
        """In the excerpt of a response, values of fields with the name of a secret are masked as well."""
        facts = {name: map_json_strings(value, self) for name, value in evidence.facts.items()}
        excerpt = evidence.excerpt
        spans = find_value_spans_of_secret_named_fields(excerpt)
        head, separator, body = replace_spans_with_placeholder(excerpt, spans, MASK_PLACEHOLDER).partition("\n\n")
        head = "\n".join(map(self, head.split("\n")))  # the query of a location is removed
        return Evidence(facts, f"{head}{separator}{self(body)}")


def _is_maskable(secret: str) -> bool:
    """Whether texts stay readable without it; short punctuation occurs in every text."""
    return len(secret) >= MIN_SECRET_CHARS_MASKED_INSIDE_WORDS or any(map(str.isalnum, secret))


def _list_spellings(secret: str) -> set[str]:
    own = {secret, repr(secret)[1:-1]}
    if len(secret) <= MAX_SECRET_CHARS_IN_ALL_ENCODINGS:
        return {*own, *list_encoded_secret_variants(secret)}
    return {*own, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret, safe="")}
