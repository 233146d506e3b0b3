"""What may be shown: secrets masked by value, control characters made harmless, lengths capped."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias
from urllib.parse import quote, quote_plus, urlsplit

from watchdog.domain.model import Json
from watchdog.domain.text import map_json_strings, replace_unsafe_characters, truncate

MASK_PLACEHOLDER = "•••"
_Trie: TypeAlias = "dict[str, _Trie]"
"""Words by their characters; the key "" ends one."""


class SecretMask:
    """Replaces secrets by `•••` wherever they occur, also percent-, base64-, JSON- and HTML-escaped."""

    __slots__ = ("_substitute",)

    def __init__(self, secrets: Iterable[str]) -> None:
        tree: _Trie = {}
        for spelling in {s for value in secrets if value for s in _encoded_variants(value)}:
            branch = tree
            for character in spelling:
                branch = branch.setdefault(character, {})
            branch[""] = {}
        self._substitute: Callable[[str, str], str] | None = re.compile(_trie_pattern(tree)).sub if tree else None

    def __call__(self, text: str) -> str:
        return self._substitute(MASK_PLACEHOLDER, text) if self._substitute else text

    def mask_json(self, value: Json) -> Json:
        """The same for every string inside nested JSON, keys included."""
        return map_json_strings(value, self)


def _trie_pattern(trie: _Trie) -> str:
    """A regular expression for the words of a tree, longest first. However many they are, a text takes about as long,
    which does not hold for `one|two|three`."""
    stem = ""
    while len(trie) == 1 and "" not in trie:
        character, trie = next(iter(trie.items()))
        stem += re.escape(character)
    branches = "|".join(
        re.escape(character) + _trie_pattern(trie[character]) for character in sorted(trie) if character
    )
    return f"{stem}(?:{branches}){'?' if '' in trie else ''}" if branches else stem


def _encoded_variants(value: str) -> Iterator[str]:
    raw = value.encode("utf-8", "surrogatepass")
    yield value
    for safe in ("", "/", "/:@!$&'()*+,;="):
        yield quote(raw, safe=safe)
        yield re.sub(r"%..", lambda m: m[0].lower(), quote(raw, safe=safe))
    yield quote_plus(raw)
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield from (escaped, escaped.replace("/", "\\/"))
    yield from (html.escape(value), html.escape(value, quote=False))
    yield from _base64_fragments(raw)


def _base64_fragments(raw: bytes) -> Iterator[str]:
    """The value inside any longer base64 text: what stays the same at each of the three alignments."""
    for before in range(3):
        text = base64.b64encode(b"\0" * before + raw).decode()
        inner = text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        if len(inner) >= 5:  # anything shorter would match by accident
            yield from (inner, inner.replace("+", "-").replace("/", "_"))


def sanitize_json(
    value: Json, mask: SecretMask, max_chars: int = 2_000, max_items: int = 100, max_depth: int = 8
) -> Json:
    """Nested JSON that may be kept and shown: every string masked, harmless and capped, long lists and depth cut."""
    if isinstance(value, str):
        return truncate(replace_unsafe_characters(mask(value)), max_chars)
    if not isinstance(value, dict | list | tuple):
        return value
    if not max_depth:
        return "… cut, nested too deeply"
    within = len(value) > max_items
    if isinstance(value, dict):
        cut = {
            sanitize_json(str(k), mask, max_chars): sanitize_json(v, mask, max_chars, max_items, max_depth - 1)
            for k, v in list(value.items())[:max_items]
        }
        return cut | {"…": f"cut, {len(value)} entries in all"} if within else cut
    shown = [sanitize_json(v, mask, max_chars, max_items, max_depth - 1) for v in value[:max_items]]
    return [*shown, f"… cut, {len(value)} entries in all"] if within else shown


def redact_url(url: str) -> str:
    """The URL without credentials, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "an unreadable URL"
    if ":" in host:
        host = f"[{host}]"
    return replace_unsafe_characters(f"{parts.scheme}://{host}{port}{parts.path}" if host else parts.path)
