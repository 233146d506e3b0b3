"""A problem of a configuration without anything that its files contain, for alerts and logs.

A configuration that cannot be loaded may hold a secret anywhere, as a value or as the name of a field, and it is not
known where. So a description keeps the position, the names of fields that Watchdog has, mistyped names of such fields,
names of variables that are not set, and those words of the message that Watchdog's own sources contain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from watchdog.config.problems import ConfigProblem
from watchdog.config.schema import build_config_json_schema
from watchdog.config.secrets import concatenate_watchdog_sources_and_templates
from watchdog.domain.formatting import format_count_with_noun

OMITTED_TEXT_PLACEHOLDER = "…"
MAX_LIST_INDEX_DIGITS_IN_CONFIG_PATH = 4
"""A longer number is no index of a list, but a key, and may be a secret."""
_SUGGESTION_START = "; did you mean "
_UNKNOWN_FIELD_PATTERN = re.compile(rf"unknown (?:field|section) '([A-Za-z_-]+)'{_SUGGESTION_START}'(\w+)'\?")
_UNSET_VARIABLE_PATTERN = re.compile(r"variable ([A-Z][A-Z0-9_]*) is not set\b")
_QUOTED_TEXT_PATTERN = re.compile(r"(?P<punctuation>'[:,-]')|'[^']*'?|\"[^\"]*\"?|`[^`]*`?|\$\{[^}]*\}?")
"""A quoted character of YAML's own syntax, as in "unexpected ':'", is kept."""
_CONFIG_VALUE_IN_PROBLEM_MESSAGE_PATTERN = re.compile(r"(?<=\bfound\b).*?(?=; |$)|(?<=\bcannot start with\b) \S+")
"""The part of a message that repeats the value itself."""
_WORD_PATTERN = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_TOKEN_WITH_DIGIT_OR_SYMBOL_PATTERN = re.compile(r"[^\s.,;:()]*[\d@/\\#%&=+*<>{}\[\]|~^$_][^\s.,;:()]*")
"""A part of a message that is no plain word."""


def describe_config_problems_without_values(problems: Iterable[ConfigProblem], mask: Callable[[str], str]) -> str:
    """The first problem and the number of others: position, field, what is wrong, and how to find out the rest.

    `mask`: masks the secrets of the configuration that runs.
    """
    first, *others = problems
    mistyped = _find_mistyped_field_name(first.message)
    location = f"{Path(first.file).name}:{first.line}:{first.column}" if first.line else Path(first.file).name
    parts = [
        location,
        _mask_unknown_parts_of_field_path(first.path, mistyped),
        (first.message if mistyped else _describe_unset_variable(first.message))
        or _keep_words_of_watchdog_sources(first.message),
    ]
    more = f" (and {format_count_with_noun(len(others), 'other problem')})" if others else ""
    return mask(f"{': '.join(filter(None, parts))}{more}")


def _find_mistyped_field_name(message: str) -> str:
    """The unknown name in the message, if it is the name of a field but for a letter or two. Otherwise empty."""
    name, suggestion = (match[1], match[2]) if (match := _UNKNOWN_FIELD_PATTERN.fullmatch(message)) else ("", "")
    is_similar = abs(len(name) - len(suggestion)) <= 1 and get_close_matches(name, [suggestion], cutoff=0.75)
    return name if suggestion in _list_all_config_field_names() and is_similar else ""


def _describe_unset_variable(message: str) -> str:
    """Empty: the message is about something else. By convention, a name in capitals names a variable."""
    if not (match := _UNSET_VARIABLE_PATTERN.match(message)):
        return ""
    return f"variable {match[1]} is not set in the environment of the running service; restart it with the variable"


def _mask_unknown_parts_of_field_path(path: str, mistyped: str) -> str:
    names = _list_all_config_field_names() | {mistyped}

    def is_path_part_safe_to_show(part: str) -> bool:
        return part in names or (part.isdecimal() and len(part) <= MAX_LIST_INDEX_DIGITS_IN_CONFIG_PATH)

    return ".".join(
        part if is_path_part_safe_to_show(part) else OMITTED_TEXT_PLACEHOLDER for part in path.split(".") if part
    )


def _keep_words_of_watchdog_sources(message: str) -> str:
    message, separator, suggestion = message.partition(_SUGGESTION_START)
    text = _QUOTED_TEXT_PATTERN.sub(lambda quoted: quoted["punctuation"] or OMITTED_TEXT_PLACEHOLDER, message)
    text = _CONFIG_VALUE_IN_PROBLEM_MESSAGE_PATTERN.sub(f" {OMITTED_TEXT_PLACEHOLDER}", text)
    text = _TOKEN_WITH_DIGIT_OR_SYMBOL_PATTERN.sub(OMITTED_TEXT_PLACEHOLDER, text)
    words = _list_words_of_watchdog_source_code()
    text = _WORD_PATTERN.sub(lambda word: word[0] if word[0].lower() in words else OMITTED_TEXT_PLACEHOLDER, text)
    text = re.sub(
        rf"{OMITTED_TEXT_PLACEHOLDER}(?:[\s:.,]*{OMITTED_TEXT_PLACEHOLDER})+", OMITTED_TEXT_PLACEHOLDER, text
    ).strip()
    is_field = suggestion.strip("'?") in _list_all_config_field_names()
    return f"{text}{separator}{suggestion}" if is_field else text


@cache
def _list_words_of_watchdog_source_code() -> frozenset[str]:
    return frozenset(word.lower() for word in _WORD_PATTERN.findall(concatenate_watchdog_sources_and_templates()))


@cache
def _list_all_config_field_names() -> frozenset[str]:
    """Of every section, at every depth."""
    names: set[str] = set()
    pending: list[Any] = [build_config_json_schema()]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            names |= value.get("properties", {}).keys()
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return frozenset(names)
