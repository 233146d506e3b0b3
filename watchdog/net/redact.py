"""Makes values from outside safe to show: secrets masked by value, unsafe characters replaced, lengths limited."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias
from urllib.parse import quote, quote_plus, urlsplit

from watchdog.domain.model import Json
from watchdog.domain.text import (
    map_json_strings,
    replace_invisible_characters,
    truncate_with_ellipsis,
    truncate_with_note,
)

MASK_PLACEHOLDER = "•••"
MAX_TARGET_CHARS = 120
"""Characters of a target that is no URL, such as a command."""
SECRET_NAME_PATTERN = re.compile(
    r"authorization|cookie|token|secret|passw|bearer|webhook|credential|signature"
    r"|(?:api|private|access|signing|account|auth|encryption|master|subscription|functions)[-_]?key|auth[-_]?header|(?:^|[-_])(?:pass|pwd|pw|sig|pat|jwt|psk)(?:$|[-_])",
    re.IGNORECASE,
)
"""Matches the names of fields, headers, parameters, arguments and environment variables that hold secrets."""
CUT_TEXT_MARK = "…"
MIN_CHARS_OF_CUT_SECRET = 4
"""A shorter beginning of a secret would match by accident."""
_MIN_CHARS_OF_TEXT_CUT_WITHOUT_MARK = 1_000
"""A text of this length may end within a secret."""
MAX_JSON_ITEMS = 100
_Trie: TypeAlias = "dict[str, _Trie]"
"""Words as a tree of characters; the key "" ends a word."""


_URL_CREDENTIALS_PATTERN = re.compile(r"(?<=://)(?!user:password@)[^/?#\s$'\"<>]*@")
"""The user and password of a URL inside a text: not those of the examples in messages, and not references (`$`)."""


class SecretMask:
    """Replaces secrets by `•••` wherever they occur, also percent-, base64-, JSON- or HTML-encoded, and the credentials
    of any URL. Where a text was cut, the beginning of a secret is replaced as well. `target_secrets` are replaced in
    targets alone, in paths and commands, as whole words."""

    __slots__ = ("_beginning_pattern", "_spellings_by_beginning", "_substitute", "_target_pattern", "secrets",
                 "target_secrets")  # fmt: skip

    def __init__(self, secrets: Iterable[str], target_secrets: Iterable[str] = ()) -> None:
        self.secrets, self.target_secrets = frozenset(filter(None, secrets)), frozenset(target_secrets)
        spellings = {s for value in self.secrets for s in list_encoded_secret_variants(value)}
        self._substitute: Callable[[str, str], str] | None = _compile_words(spellings).sub if spellings else None
        self._spellings_by_beginning: dict[str, list[str]] = {}
        for spelling in spellings:
            if len(spelling) > MIN_CHARS_OF_CUT_SECRET:
                self._spellings_by_beginning.setdefault(spelling[:MIN_CHARS_OF_CUT_SECRET], []).append(spelling)
        beginnings = _compile_words(self._spellings_by_beginning).pattern
        self._beginning_pattern = re.compile(f"(?=({beginnings}))") if beginnings else None  # they may overlap
        words = "|".join(sorted(map(re.escape, self.target_secrets), key=len, reverse=True))
        self._target_pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])") if words else None

    def __call__(self, text: str) -> str:
        if "://" in text and "@" in text:
            text = _URL_CREDENTIALS_PATTERN.sub(f"{MASK_PLACEHOLDER}@", text)
        text = self._substitute(MASK_PLACEHOLDER, text) if self._substitute else text
        may_be_cut = CUT_TEXT_MARK in text or len(text) >= _MIN_CHARS_OF_TEXT_CUT_WITHOUT_MARK
        return self._mask_cut_secrets(text) if may_be_cut and self._beginning_pattern else text

    def _mask_cut_secrets(self, text: str) -> str:
        """Those of which only the beginning is left, in front of a mark or at the end."""
        parts, position = [], 0
        for match in self._beginning_pattern.finditer(text) if self._beginning_pattern else ():
            start, spellings = match.start(), self._spellings_by_beginning[match[1]]
            max_chars = max(map(len, spellings))
            end = text.find(CUT_TEXT_MARK, start, start + max_chars)
            end = len(text) if end < 0 else end
            if (
                start >= position
                and end - start < max_chars
                and any(spelling.startswith(text[start:end]) for spelling in spellings)
            ):
                parts += [text[position:start], MASK_PLACEHOLDER]
                position = end
        return "".join([*parts, text[position:]])

    def including(self, other: SecretMask) -> SecretMask:
        """A mask for the secrets of both."""
        if other.secrets <= self.secrets and other.target_secrets <= self.target_secrets:
            return self
        return SecretMask(self.secrets | other.secrets, self.target_secrets | other.target_secrets)

    def use_secrets_of(self, other: SecretMask) -> None:
        """Mask the same as `other` from now on, wherever this mask is used."""
        self.secrets, self.target_secrets = other.secrets, other.target_secrets
        self._substitute, self._target_pattern = other._substitute, other._target_pattern
        self._beginning_pattern = other._beginning_pattern
        self._spellings_by_beginning = other._spellings_by_beginning

    def mask_target(self, target: str) -> str:
        """A target that is composed without credentials and query. Its scheme, address, queue and database stay as they
        are, even if they equal a secret; the path of an HTTP URL, and a text that is no URL, are masked by value. The
        latter is shortened."""
        scheme, separator, rest = target.partition("://")
        if not separator or " " in scheme:
            return truncate_with_ellipsis(self._mask_target_secrets(self(target)), MAX_TARGET_CHARS)
        address, slash, path = rest.partition("/")
        path = self._mask_target_secrets(self(path) if scheme in ("http", "https", "ws", "wss") else path)
        return f"{scheme}://{address}{slash}{path}"

    def _mask_target_secrets(self, text: str) -> str:
        return self._target_pattern.sub(MASK_PLACEHOLDER, text) if self._target_pattern is not None else text

    def mask_json(self, value: Json) -> Json:
        """The same for every string inside nested JSON, keys included."""
        return map_json_strings(value, self)


def _compile_words(words: Iterable[str]) -> re.Pattern[str]:
    trie: _Trie = {}
    for word in words:
        branch = trie
        for character in word:
            branch = branch.setdefault(character, {})
        branch[""] = {}
    return re.compile(_build_regex_from_trie(trie))


def _build_regex_from_trie(trie: _Trie) -> str:
    """A regular expression for the words of a trie, longest match first.

    Its matching time hardly depends on the number of words, unlike that of `one|two|three`.
    """
    stem = ""
    while len(trie) == 1 and "" not in trie:
        character, trie = next(iter(trie.items()))
        stem += re.escape(character)
    branches = "|".join(
        re.escape(character) + _build_regex_from_trie(trie[character]) for character in sorted(trie) if character
    )
    return f"{stem}(?:{branches}){'?' if '' in trie else ''}" if branches else stem


def list_encoded_secret_variants(value: str) -> Iterator[str]:
    """How a secret may occur in a text: as it is, and percent-, JSON-, HTML- or base64-encoded."""
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
    yield from _list_base64_secret_fragments(raw)


def _list_base64_secret_fragments(raw: bytes) -> Iterator[str]:
    """What any longer base64 text with the value inside it contains, for each of the three alignments."""
    for before in range(3):
        text = base64.b64encode(b"\0" * before + raw).decode()
        inner = text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        if len(inner) >= 5:  # a shorter one would match by accident
            yield from (inner, inner.replace("+", "-").replace("/", "_"))


def join_texts_of_flat_mapping(values: Mapping[str, Json]) -> str | None:
    """The keys of a mapping and its strings, one after the other. None: it holds more than text and finite numbers, or
    more than MAX_JSON_ITEMS entries."""
    texts = [*values]
    for value in values.values():
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict | list | tuple) or (isinstance(value, float) and not math.isfinite(value)):
            return None
    return "\n".join(texts) if len(values) <= MAX_JSON_ITEMS else None


def needs_no_masking_or_cleaning(short_texts: Iterable[str], last_text: str, mask: Callable[[str], str]) -> bool:
    """Whether no text would change if it were masked and cleaned: one look at all of them takes much less time than one
    at each. Texts that were cut, or could have been, have to be masked one by one."""
    texts = [*short_texts, last_text]
    joined = "\n".join(texts)
    if CUT_TEXT_MARK in joined or any(len(text) >= _MIN_CHARS_OF_TEXT_CUT_WITHOUT_MARK for text in texts[:-1]):
        return False
    return replace_invisible_characters(mask(joined)) == joined


def mask_and_truncate_json_tree(
    value: Json, mask: Callable[[str], str], max_chars: int = 2_000, max_items: int = MAX_JSON_ITEMS, max_depth: int = 8
) -> Json:
    """Nested JSON that is safe to store and to show: strings masked, cleaned and cut, long lists and nesting cut, and
    numbers that JSON does not have, such as NaN, as text."""
    if isinstance(value, str):
        return truncate_with_note(replace_invisible_characters(mask(value)), max_chars)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, dict | list | tuple):
        return value
    if not max_depth:
        return "… cut, nested too deeply"
    is_cut = len(value) > max_items
    if isinstance(value, dict):
        entries = {
            mask_and_truncate_json_tree(str(k), mask, max_chars): mask_and_truncate_json_tree(
                v, mask, max_chars, max_items, max_depth - 1
            )
            for k, v in list(value.items())[:max_items]
        }
        return entries | {"…": f"cut, {len(value)} entries in total"} if is_cut else entries
    items = [mask_and_truncate_json_tree(v, mask, max_chars, max_items, max_depth - 1) for v in value[:max_items]]
    return [*items, f"… cut, {len(value)} entries in total"] if is_cut else items


def strip_url_to_scheme_host_and_path(url: str) -> str:
    """The URL without credentials, query and fragment. Of `postgresql+psycopg://` the driver is left out as well."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "an invalid URL"
    if ":" in host:
        host = f"[{host}]"
    if not host and "://" not in url[: len(parts.scheme) + 3]:
        return replace_invisible_characters(f"{parts.scheme}:{parts.path}" if parts.scheme else parts.path)
    scheme = f"{parts.scheme.partition('+')[0]}:" if parts.scheme else ""
    return replace_invisible_characters(f"{scheme}//{host}{port}{parts.path}")


def describe_queue_target(url: str, queue: str) -> str:
    """A queue and its server, safe to show: "redis://cache:6379/0, queue email"."""
    return f"{strip_url_to_scheme_host_and_path(url)}, queue {queue}"
