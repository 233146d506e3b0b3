"""Commands as people may see them: without the secrets in their arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from watchdog.net.redact import MASK_PLACEHOLDER, SECRET_NAME_PATTERN, redact_url

_ARGUMENT_PATTERN = re.compile(r"-{0,2}(?P<name>[A-Za-z][\w-]*)(?:(?:=|:[ ]*(?=\S))(?P<value>.*))?", re.DOTALL)
"""An option, `--token` or `--token=value`, an assignment, `API_KEY=value`, or a header, `Authorization: value`."""
_URL_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]+")
_QUOTED_CHARACTERS = re.compile(r"[\s'\"\\$`|&;<>()*?!#]")


def find_secret_arguments(arguments: Sequence[str]) -> dict[int, str]:
    """Index -> the secret in that argument: the value of an option, assignment or header with the name of a secret."""
    secrets: dict[int, str] = {}
    is_value = False
    for index, argument in enumerate(arguments):
        if is_value and not argument.startswith("-"):
            secrets[index] = argument
        match, is_value = _ARGUMENT_PATTERN.fullmatch(argument), False
        if match is None or index in secrets:
            continue
        if SECRET_NAME_PATTERN.search(match["name"]):
            is_value = argument.startswith("-") and match["value"] is None
            secrets |= {index: match["value"]} if match["value"] else {}
        elif match["value"] and (inner := find_secret_arguments([match["value"]])):  # --header=Authorization: ...
            secrets[index] = inner[0]
    return secrets


def redact_command(arguments: Sequence[str]) -> str:
    """The command as a line for a shell, without credentials and queries of URLs and without secret arguments."""
    secrets = find_secret_arguments(arguments)
    words = (
        argument.removesuffix(secrets[index]) + MASK_PLACEHOLDER if index in secrets else argument
        for index, argument in enumerate(arguments)
    )
    redacted = (_URL_PATTERN.sub(lambda url: redact_url(url[0]), word) for word in words)
    return " ".join(" ".join(map(_quote, redacted)).split())


def _quote(word: str) -> str:
    """As `shlex.quote`, which would also quote words with letters outside ASCII."""
    return shlex.quote(word) if not word or _QUOTED_CHARACTERS.search(word) else word
