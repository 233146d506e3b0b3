"""Variables in scalars: ${VAR}, ${VAR:-default}, ${VAR:?message}, and $$ for a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_VARIABLE_PATTERN = re.compile(r"\$\$|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<how>:[-?])(?P<rest>[^{}]*))?\})?")
VARIABLE_SYNTAX_HINT = "write ${NAME}, ${NAME:-default} or ${NAME:?message}, and $$ for a dollar sign"


class InterpolatedScalar(NamedTuple):
    """A scalar after its variables were filled in."""

    text: str
    variables: dict[str, str]
    """Name -> value of every variable that was set: none of these values is ever shown."""


def interpolate(text: str, env: Mapping[str, str]) -> InterpolatedScalar:
    """Raises ValueError for a variable that is not set (`:?`: or is empty) and for a form that is none of the three."""
    variables: dict[str, str] = {}

    def fill(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name, how, rest = found["name"], found["how"], found["rest"]
        if name is None:
            raise ValueError(f"unreadable ${{...}}: {VARIABLE_SYNTAX_HINT}")
        value = env.get(name)
        if value is None or (not value and how):
            if how == ":-":
                return str(rest)
            state = "is not set" if value is None else "is empty"
            raise ValueError(f"variable {name} {state}" + (f": {rest}" if rest else ""))
        variables[name] = value
        return value

    return InterpolatedScalar(_VARIABLE_PATTERN.sub(fill, text), variables)
