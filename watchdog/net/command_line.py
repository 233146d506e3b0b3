"""Commands as people may see them: without the secrets in their arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from watchdog.net.redact import MASK_PLACEHOLDER, SECRET_NAME_PATTERN, strip_url_to_scheme_host_and_path
from watchdog.net.secret_fields import (
    Span,
    drop_overlapping_text_spans,
    find_value_spans_of_secret_named_fields,
    replace_spans_with_placeholder,
)

_NAMED_COMMAND_ARGUMENT_PATTERN = re.compile(
    r"-{0,2}(?P<name>[A-Za-z][\w-]*)(?:(?:=|:[ ]*(?=\S))(?P<value>.*))?", re.DOTALL
)
"""An option, `--token` or `--token=value`, an assignment, `API_KEY=value`, or a header, `Authorization: value`."""
_SHELL_COMMAND_OPTION_PATTERN = re.compile(r"-[a-z]*c|--command")
"""The option of a shell whose value is a script."""
_WORD_IN_SHELL_SCRIPT_PATTERN = re.compile(r"(?:[^\s'\";&|]|'[^']*'|\"[^\"]*\")+")
"""A word of a script."""
_URL_IN_ARGUMENT_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]+")
_SHELL_SPECIAL_CHARACTER_PATTERN = re.compile(r"[\s'\"\\$`|&;<>()*?!#]")


def find_secret_spans_by_argument_index(arguments: Sequence[str]) -> dict[int, list[Span]]:
    """Index -> where that argument holds secrets: the value of an option, assignment, header or field with the name of
    a secret, also inside the script of a shell."""
    secrets: dict[int, list[Span]] = {}
    is_value = False
    for index, argument in enumerate(arguments):
        if is_value and not argument.startswith("-"):
            secrets[index] = [(0, len(argument))]
        match, is_value = _NAMED_COMMAND_ARGUMENT_PATTERN.fullmatch(argument), False
        if index in secrets:
            continue
        if index and _SHELL_COMMAND_OPTION_PATTERN.fullmatch(arguments[index - 1]) and len(argument.split()) > 1:
            spans = _find_secret_spans_in_shell_script(argument)
        elif match and SECRET_NAME_PATTERN.search(match["name"]):
            is_value = argument.startswith("-") and match["value"] is None
            spans = [match.span("value")] if match["value"] else []
        else:
            spans = find_value_spans_of_secret_named_fields(argument)
            if match and match["value"]:  # --header=Authorization: ...
                start = match.start("value")
                inner = find_secret_spans_by_argument_index([match["value"]]).get(0, [])
                spans = drop_overlapping_text_spans({*spans, *((start + first, start + last) for first, last in inner)})
        if spans:
            secrets[index] = spans
    return secrets


def _find_secret_spans_in_shell_script(script: str) -> list[Span]:
    words = list(_WORD_IN_SHELL_SCRIPT_PATTERN.finditer(script))
    secrets = find_secret_spans_by_argument_index([word[0].rstrip("'\"") for word in words])
    spans = {
        (words[index].start() + start, words[index].start() + end)
        for index, inner_spans in secrets.items()
        for start, end in inner_spans
    }
    return drop_overlapping_text_spans(spans)


def redact_command(arguments: Sequence[str]) -> str:
    """The command as a line for a shell, without credentials and queries of URLs and without secret arguments."""
    secrets = find_secret_spans_by_argument_index(arguments)
    words = (
        replace_spans_with_placeholder(argument, secrets.get(index, []), MASK_PLACEHOLDER)
        for index, argument in enumerate(arguments)
    )
    redacted = (
        _URL_IN_ARGUMENT_PATTERN.sub(lambda url: strip_url_to_scheme_host_and_path(url[0]), word) for word in words
    )
    return " ".join(" ".join(map(_quote_for_shell, redacted)).split())


def _quote_for_shell(word: str) -> str:
    """As `shlex.quote`, which would also quote words with letters outside ASCII."""
    return shlex.quote(word) if not word or _SHELL_SPECIAL_CHARACTER_PATTERN.search(word) else word
