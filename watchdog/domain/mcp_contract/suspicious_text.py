"""Recognizes new texts of tools that may be instructions to a model: a known attack on its users.

A strong suspicion comes from wording or hidden characters that an honest description does not need. A weak one, such as
a new address, is common in honest changes as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from watchdog.domain.text import REPLACEMENT_CHARACTER, replace_invisible_characters

SUSPICIOUS_TEXT_CONTEXT_CHARS = 80
_INFORM = r"(?:te[l]l|inform|notify|mention|reveal|show|alert|warn)"
"""Verbs of informing a person."""
_APOSTROPHE = "['\N{RIGHT SINGLE QUOTATION MARK}]"
_STRONG_PATTERNS = {
    "it asks to ignore instructions": (
        r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}?\b(?:previous|prior|earlier|above|preceding|other|system"
        r"|safety|your|all)\b.{0,30}?\b(?:instructions?|prompts?|rules?|guidelines?|directives?|restrictions?|policies)\b"
    ),
    "it asks to conceal something from the user": (
        rf"\b(?:do not|don{_APOSTROPHE}?t|never|must not|should not|without)\b.{{0,20}}?"
        rf"\b{_INFORM}(?:ing|ting)?\b.{{0,40}}?\b(?:user|human|person|operator|anyone)\b"
        rf"|\b(?:secretly|covertly|behind the user{_APOSTROPHE}s back"
        rf"|without the user{_APOSTROPHE}?s? (?:knowledge|consent|noticing))\b"
    ),
    "it contains a marker for instructions": (
        r"<\s{0,20}/?\s{0,20}(?:important|system|instructions?|secret|hidden|admin)\s{0,20}>|\[/?INST\]|<\|im_(?:start|end)\|>"
    ),
    "it is about credentials or hidden prompts": (
        r"~/\.ssh\b|\bid_(?:rsa|ed25519)\b|\.aws/credentials\b|/etc/(?:passwd|shadow)\b|\bsystem prompt\b"
    ),
}
"""What a text does -> the pattern of such a text. Every repetition is bounded: a server chooses the text."""
_COMPILED_STRONG_PATTERNS = {
    description: re.compile(pattern, re.IGNORECASE | re.DOTALL) for description, pattern in _STRONG_PATTERNS.items()
}
_HIDDEN_CHARACTERS_SUSPICION = "it contains hidden characters"
_ENCODED_TEXT_PATTERN = re.compile(r"[A-Za-z0-9+/_-]{100,}={0,2}")
_URL_HOST_PATTERN = re.compile(r"\bhttps?://([^\s/\"'<>()\[\]{}?#]{1,253})", re.IGNORECASE)


class TextSuspicion(NamedTuple):
    description: str
    """A clause: "it asks to ignore instructions"."""
    excerpt: str
    """The suspicious part, without hidden characters."""
    is_strong: bool


def find_suspicions_in_new_texts(new_texts: Iterable[str], old_texts: Collection[str]) -> Iterator[TextSuspicion]:
    """`new_texts`: those that were not there before. `old_texts`: all that were there; empty if the tool is new, and
    then its addresses are not suspicious."""
    old_hosts = {host.lower() for text in old_texts for host in _URL_HOST_PATTERN.findall(text)}
    for text in new_texts:
        yield from _find_strong_suspicions(text)
        if old_texts:
            yield from _find_weak_suspicions(text, old_hosts)


def _find_strong_suspicions(text: str) -> Iterator[TextSuspicion]:
    visible = replace_invisible_characters(text)
    if visible.count(REPLACEMENT_CHARACTER) > text.count(REPLACEMENT_CHARACTER):
        at = visible.index(REPLACEMENT_CHARACTER)
        yield TextSuspicion(_HIDDEN_CHARACTERS_SUSPICION, _excerpt_around(visible, at, at + 1), True)
    for description, pattern in _COMPILED_STRONG_PATTERNS.items():
        if match := pattern.search(text):
            yield TextSuspicion(description, _excerpt_around(text, *match.span()), True)


def _find_weak_suspicions(text: str, old_hosts: Collection[str]) -> Iterator[TextSuspicion]:
    for match in _URL_HOST_PATTERN.finditer(text):
        if match[1].lower() not in old_hosts:
            yield TextSuspicion("it contains a new address", _excerpt_around(text, *match.span()), False)
            break
    if encoded := _ENCODED_TEXT_PATTERN.search(text):
        yield TextSuspicion("it contains an encoded text", _excerpt_around(text, *encoded.span()), False)


def _excerpt_around(text: str, start: int, end: int) -> str:
    first = max(start - SUSPICIOUS_TEXT_CONTEXT_CHARS // 2, 0)
    return replace_invisible_characters(text[first : max(end, first) + SUSPICIOUS_TEXT_CONTEXT_CHARS // 2][:240])
