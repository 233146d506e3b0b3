"""What may be shown: secrets masked by value, control characters made harmless, lengths capped."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias
from urllib.parse import quote, quote_plus, urlsplit

from watchdog.model import Json

MASKED = "•••"
_Tree: TypeAlias = "dict[str, _Tree]"
"""Words by their characters; the key "" ends one."""


class Mask:
    """Replaces secrets by `•••` wherever they occur, also percent-, base64-, JSON- and HTML-escaped."""

    __slots__ = ("_sub",)

    def __init__(self, values: Iterable[str]) -> None:
        tree: _Tree = {}
        for spelling in {s for value in values if value for s in _spellings(value)}:
            branch = tree
            for character in spelling:
                branch = branch.setdefault(character, {})
            branch[""] = {}
        self._sub: Callable[[str, str], str] | None = re.compile(_pattern(tree)).sub if tree else None

    def __call__(self, text: str) -> str:
        return self._sub(MASKED, text) if self._sub else text

    def deep(self, value: Json) -> Json:
        """The same for every string inside nested JSON, keys included."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self.deep(k): self.deep(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.deep(v) for v in value]
        return value


def _pattern(tree: _Tree) -> str:
    """A regular expression for the words of a tree, longest first. However many they are, a text takes about as long,
    which does not hold for `one|two|three`."""
    stem = ""
    while len(tree) == 1 and "" not in tree:
        character, tree = next(iter(tree.items()))
        stem += re.escape(character)
    branches = "|".join(re.escape(character) + _pattern(tree[character]) for character in sorted(tree) if character)
    return f"{stem}(?:{branches}){'?' if '' in tree else ''}" if branches else stem


def _spellings(value: str) -> Iterator[str]:
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
    yield from _base64(raw)


def _base64(raw: bytes) -> Iterator[str]:
    """The value inside any longer base64 text: what stays the same at each of the three alignments."""
    for before in range(3):
        text = base64.b64encode(b"\0" * before + raw).decode()
        inner = text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        if len(inner) >= 5:  # anything shorter would match by accident
            yield from (inner, inner.replace("+", "-").replace("/", "_"))


_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\uf8ff\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\U000f0000-\U0010ffff]"
    # joiners belong into emoji and some scripts; alone, in a row or in plain ASCII they only hide
    "|(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])"
)
"""Unicode's categories Cc, Cf, Co, Cs, Zl and Zp, and what is ignorable by default; not the two styles of emoji."""


def harmless(text: str) -> str:
    """What cannot be seen, or changes how the rest is seen, becomes `�`; tabs and line ends stay."""
    return _HARMFUL.sub("�", text.replace("\r\n", "\n"))


def cap(text: str, limit: int) -> str:
    """At most `limit` characters of the text, then a note that it was cut."""
    return text if len(text) <= limit else f"{text[:limit]}… cut after {limit:,} characters"


def presentable(value: Json, mask: Mask, limit: int = 2_000, items: int = 100, depth: int = 8) -> Json:
    """Nested JSON that may be kept and shown: every string masked, harmless and capped, long lists and depth cut."""
    if isinstance(value, str):
        return cap(harmless(mask(value)), limit)
    if not isinstance(value, dict | list | tuple):
        return value
    if not depth:
        return "… cut, nested too deeply"
    within = len(value) > items
    if isinstance(value, dict):
        cut = {
            presentable(str(k), mask, limit): presentable(v, mask, limit, items, depth - 1)
            for k, v in list(value.items())[:items]
        }
        return cut | {"…": f"cut, {len(value)} entries in all"} if within else cut
    shown = [presentable(v, mask, limit, items, depth - 1) for v in value[:items]]
    return [*shown, f"… cut, {len(value)} entries in all"] if within else shown


def shown_url(url: str) -> str:
    """The URL without credentials, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "an unreadable URL"
    if ":" in host:
        host = f"[{host}]"
    return harmless(f"{parts.scheme}://{host}{port}{parts.path}" if host else parts.path)
