"""Variables in scalars: ${VAR}, ${VAR:-default}, ${VAR:?message}, and $$ for a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

_CONFIG_VARIABLE_PATTERN = re.compile(
    r"\$\$|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:[-?])(?P<operand>[^{}]*))?\})?"
)
CONFIG_VARIABLE_SYNTAX_HINT = "write ${NAME}, ${NAME:-default} or ${NAME:?message}, and $$ for a dollar sign"


class InterpolatedConfigScalar(NamedTuple):
    """A scalar after its variables have been replaced."""

    text: str
    variables: dict[str, str]
    """Name -> value of every variable that is set. These values must never be shown."""


def interpolate_config_variables(text: str, env: Mapping[str, str]) -> InterpolatedConfigScalar:
    """Replace the variables. Raises ValueError for one that is not set (with `:?` also if it is empty) and for invalid
    syntax."""
    variables: dict[str, str] = {}

    def expand_variable_reference(reference: re.Match[str]) -> str:
        if reference[0] == "$$":
            return "$"
        name, operator, operand = reference["name"], reference["operator"], reference["operand"]
        if name is None:
            raise ValueError(f"invalid ${{...}}: {CONFIG_VARIABLE_SYNTAX_HINT}")
        value = env.get(name)
        if value is None or (not value and operator):
            if operator == ":-":
                return str(operand)
            state = "is not set" if value is None else "is empty"
            raise ValueError(f"variable {name} {state}" + (f": {operand}" if operand else ""))
        variables[name] = value
        return value

    return InterpolatedConfigScalar(_CONFIG_VARIABLE_PATTERN.sub(expand_variable_reference, text), variables)


def replace_config_variables_with_defaults(text: str) -> str:
    """The text as it is if no variable is set; without a default, a variable is empty."""
    return _CONFIG_VARIABLE_PATTERN.sub(lambda match: "$" if match[0] == "$$" else match["operand"] or "", text)


def replace_config_variables_with_callback(text: str, replacement: Callable[[str], str]) -> str:
    """The text with every reference to a variable replaced: by `replacement(name)`."""
    return _CONFIG_VARIABLE_PATTERN.sub(lambda match: replacement(match["name"]) if match["name"] else match[0], text)


def list_config_variable_names(text: str) -> list[str]:
    """The variables that a text refers to, in order, with repetitions."""
    names: list[str] = []

    def record_name(name: str) -> str:
        names.append(name)
        return ""

    replace_config_variables_with_callback(text, record_name)
    return names
