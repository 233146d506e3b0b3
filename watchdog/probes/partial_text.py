"""Evaluates an expression on a text of which only the beginning is known, where the rest cannot change the result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product

from watchdog.domain.model import Json
from watchdog.expression_tokens import CEL_STRING_LITERAL_PATTERN
from watchdog.expressions import CelExpression, CelExpressionError, compile_expression

MAX_UNDECIDED_TEXT_CONDITIONS = 6
"""Tests of the text that are false for its beginning: each may become true by the rest, so the number of combinations
doubles with each."""
_REGEX_END_ANCHOR_PATTERN = re.compile(r"\$|\\[bBzZ]")
"""Parts of a regular expression that match the end of a text: they may match its beginning, and not the whole."""


def evaluate_expression_decided_by_text_beginning(
    expression: CelExpression, variable: str, beginning: str, values: Mapping[str, Json], types: Mapping[str, str]
) -> bool | None:
    """The result of the expression for every text with this `beginning` as the variable; None if the rest decides.

    It must use the variable only as in `body.contains('...')`, `body.startsWith('...')` and `body.matches('...')`.
    These stay true once they are true. Raises CelExpressionError.
    """
    tests = list(dict.fromkeys(_build_cel_string_method_call_pattern(variable).findall(expression.text)))
    if not tests:
        return None
    names = [f"partial_{i}" for i in range(len(tests))]
    rewritten = expression.text
    for name, test in zip(names, tests, strict=True):
        rewritten = rewritten.replace(test, name)
    try:
        program = compile_expression(
            rewritten, {n: t for n, t in types.items() if n != variable} | dict.fromkeys(names, "bool")
        )
    except CelExpressionError:
        return None  # it uses the variable in another way as well
    possible = [_list_possible_results_on_partial_text(test, variable, beginning) for test in tests]
    if sum(len(results) > 1 for results in possible) > MAX_UNDECIDED_TEXT_CONDITIONS:
        return None
    others = {name: value for name, value in values.items() if name != variable}
    results = {
        program.evaluate_bool(others | dict(zip(names, combination, strict=True))) for combination in product(*possible)
    }
    return results.pop() if len(results) == 1 else None


def _build_cel_string_method_call_pattern(variable: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?<![\w.]){re.escape(variable)}\s*\.\s*(?:contains|startsWith|matches)\s*\(\s*(?:{CEL_STRING_LITERAL_PATTERN})\s*\)"
    )


def _list_possible_results_on_partial_text(test: str, variable: str, beginning: str) -> tuple[bool, ...]:
    is_regex = re.search(r"\.\s*matches", test) is not None
    if is_regex and _REGEX_END_ANCHOR_PATTERN.search(test):
        return (True, False)
    holds = compile_expression(test, {variable: "string"}).evaluate_bool({variable: beginning})
    is_decided = holds or (re.search(r"\.\s*startsWith", test) is not None and len(test) <= len(beginning))
    return (holds,) if is_decided else (True, False)
