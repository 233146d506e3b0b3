"""Text from outside (targets, queues, jobs, check-ins), made safe to store and to show. Pure.

A cut at the end of a line is marked by "…". A cut inside evidence also states the limit, because a reader may need the
rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from watchdog.domain.formatting import NBSP
from watchdog.domain.model import Json

TextT = TypeVar("TextT", bound=str)
"""Text, or text that is markup."""
REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
TRUNCATION_NOTE_PREFIX = "… cut after "
MAX_QUOTED_ERROR_CHARS = 200
"""Length of an error that is quoted within a message."""
MAX_DROPPED_WORD_CHARS = 30
MAX_DISPLAY_NAME_CHARS = 80

_INVISIBLE_CHARACTERS_PATTERN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\uf8ff\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\U000f0000-\U0010ffff]"
    # Joiners belong to emoji and some scripts; alone, in a row or in plain ASCII they only hide other text.
    "|(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])"
)
"""Unicode categories Cc, Cf, Co, Cs, Zl and Zp and all that is ignorable by default, except emoji style selectors."""
_UNSTORABLE_CHARACTERS_PATTERN = re.compile("[\0\ud800-\udfff]")
_PYTHON_TRACEBACK_HEADING = "Traceback (most recent call last)"
_STACK_FRAME_LINE_PATTERN = re.compile(r"\s+(at |\.\.\. \d+ more)")
"""A line of a stack in JavaScript or Java."""
_WHITESPACE_PATTERN = re.compile("[\\s\0\x85\u2028\u2029]+")


def replace_invisible_characters(text: str) -> str:
    """Replaces every character that is invisible, or changes how its neighbours look, by `�`. Keeps tabs and line ends;
    CRLF becomes LF."""
    if text.isascii() and text.replace("\n", "").isprintable():  # most texts: much faster than the pattern
        return text
    return _INVISIBLE_CHARACTERS_PATTERN.sub(REPLACEMENT_CHARACTER, text.replace("\r\n", "\n"))


def replace_unstorable_characters(text: str) -> str:
    """Replaces NUL, which PostgreSQL cannot hold, and lone surrogates, which UTF-8 cannot encode, by `�`. Otherwise a
    single one of them would keep its whole batch from being stored, on every attempt."""
    return _UNSTORABLE_CHARACTERS_PATTERN.sub(REPLACEMENT_CHARACTER, text)


def truncate_to_single_line(text: str, max_chars: int = MAX_QUOTED_ERROR_CHARS) -> str:
    """The text on one line of at most `max_chars` characters: runs of white space, NUL included, become one blank.

    A single no-break space stays. Does not replace unsafe characters: text that may hold secrets is masked first.
    """
    return truncate_with_ellipsis(
        _WHITESPACE_PATTERN.sub(lambda blank: NBSP if blank[0] == NBSP else " ", text).strip(), max_chars
    )


def summarize_error_text(text: str) -> str:
    """An error on one line: of a traceback of Python the line that names the exception, of other stacks no calls."""
    lines = [line for line in text.splitlines() if line.strip() and not _STACK_FRAME_LINE_PATTERN.match(line)]
    return (
        truncate_to_single_line(lines[-1] if _PYTHON_TRACEBACK_HEADING in text else "\n".join(lines)) if lines else ""
    )


def capitalize_first(text: TextT) -> TextT:
    """Only the first character changes."""
    return cast(TextT, text[:1].upper() + text[1:])


def truncate_with_ellipsis(text: str, max_chars: int) -> str:
    """At most `max_chars` characters, the last of them "…" if the text was cut."""
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def truncate_at_word(text: str, max_chars: int) -> str:
    """The same, for people to read: cut before a word, unless that is longer than MAX_DROPPED_WORD_CHARS."""
    cut = truncate_with_ellipsis(text, max_chars)
    head, _, word = cut.rpartition(" ")
    if cut == text or not head or len(word) > MAX_DROPPED_WORD_CHARS:
        return cut
    return f"{head.rstrip(' ,;:')}…"


def format_display_name(name: str) -> str:
    """A name that may contain anything, on one line of at most MAX_DISPLAY_NAME_CHARS characters."""
    text = replace_invisible_characters(truncate_to_single_line(name, len(name)))
    return truncate_at_word(text, MAX_DISPLAY_NAME_CHARS)


def truncate_with_note(text: str, max_chars: int) -> str:
    """The first `max_chars` characters, followed by a note if the text was cut."""
    return text if len(text) <= max_chars else f"{text[:max_chars]}{TRUNCATION_NOTE_PREFIX}{max_chars:,} characters"


def quote_json_value(value: Json, max_chars: int) -> str:
    """A value within a message, in the words of JSON: null, true, 'text', ["list"]."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return truncate_to_single_line(text, max_chars)


def map_json_strings(value: Json, function: Callable[[str], str]) -> Json:
    """Applies a function to every string inside nested JSON, keys included."""
    if isinstance(value, str):
        return function(value)
    if isinstance(value, Mapping):
        return {map_json_strings(key, function): map_json_strings(inner, function) for key, inner in value.items()}
    return [map_json_strings(inner, function) for inner in value] if isinstance(value, list | tuple) else value


def append_list_hint(clause: str, where: str) -> str:
    """ "no incident has the id x: `watchdog incidents` lists them"; a clause may end with a question."""
    return f"{clause}{'' if clause.endswith('?') else ':'} {where} lists them"


def format_as_sentence(clause: str) -> str:
    """ "no probe matches" -> "No probe matches."; a clause may end with a question."""
    return f"{capitalize_first(clause)}{'' if clause.endswith('?') else '.'}"
