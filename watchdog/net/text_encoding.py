"""Text and JSON in the encodings that servers use, read as browsers read them."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from watchdog.domain.model import Json
from watchdog.domain.output_text import BYTE_ORDER_MARKS

_SAFE_CHARSET_NAME_PATTERN = re.compile(
    r"(iso-?8859|windows-12|cp12|utf-?16|utf-?32|gb|big5|shift_jis|euc-|koi8|latin)", re.IGNORECASE
)
"""Some of Python's codecs take quadratic time; these take linear time."""


_JSON_SURROGATE_ESCAPE_PATTERN = re.compile(
    r"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
"""An escaped backslash or a pair of surrogates in JSON, which are valid, or one surrogate, which is not."""
_MAX_FINITE_JSON_INTEGER_DIGITS = 300
"""A longer number becomes infinite, as in browsers."""


MAX_CHARSET_SEARCH_BYTES = 1024
"""Where browsers look for the charset in HTML."""
_CHARSET_IN_DOCUMENT_PATTERN = re.compile(
    r"<(?:meta|\?xml)\s[^>]*?(?:charset|encoding)\s*=\s*[\"']?([\w-]+)", re.IGNORECASE
)


class JsonParseProblem(NamedTuple):
    """Why a body that should be JSON is not."""

    reason: str
    message: str
    """ "the body is not valid JSON: Expecting value at line 3, column 9"."""


def decode_body_text(data: bytes, content_type: str = "") -> str:
    """As its byte-order mark states, else as UTF-16 or UTF-32 if its zero bytes show that, else as UTF-8, else in the
    declared charset if it is a safe one, else with `�`. HTML and XML may declare it at their beginning."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    if b"\0" in data[:4] and (encoding := json.detect_encoding(data[:4])) != "utf-8":
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        declared = re.search(r"charset=[\"']?([\w-]+)", content_type) or _CHARSET_IN_DOCUMENT_PATTERN.search(
            data[:MAX_CHARSET_SEARCH_BYTES].decode("latin-1")
        )
        charset = declared[1].lower() if declared and _SAFE_CHARSET_NAME_PATTERN.match(declared[1]) else "utf-8"
        try:
            return data.decode(charset, "replace")
        except LookupError:
            return data.decode(errors="replace")


def parse_json_with_lone_surrogates_and_huge_numbers(text: str) -> Json:
    """Reads what browsers read: also half of a pair of surrogates, as of an emoji that was cut, and numbers of any
    length. Raises ValueError and RecursionError."""
    if "\\u" in text:
        text = _JSON_SURROGATE_ESCAPE_PATTERN.sub(lambda match: match[1] or "\\ufffd", text)
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python refuses to read an integer that is very long
        return json.loads(text, parse_int=_parse_json_integer_or_float_if_large)


def _parse_json_integer_or_float_if_large(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_FINITE_JSON_INTEGER_DIGITS else float(digits)


def parse_json_with_problem(text: str) -> tuple[Json, JsonParseProblem | None]:
    """The value, or the text itself and why it is no JSON."""
    try:
        return parse_json_with_lone_surrogates_and_huge_numbers(text), None
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            size = f"{len(text)} characters" if text.strip() else "it is empty"
            return text, JsonParseProblem("json.truncated", f"the body ends before its JSON is complete: {size}")
        place = f"at line {error.lineno}, column {error.colno}"
        return text, JsonParseProblem("json.invalid", f"the body is not valid JSON: {error.msg} {place}")
    except (ValueError, RecursionError):
        return text, JsonParseProblem("json.too_complex", "the body's JSON is nested deeper than Watchdog reads")
