"""Why an expression is false, as a sentence about the values that it reads: never the expression itself.

The text is taken apart at its operators, and its parts are evaluated one by one: `a && b` is explained by the parts
that are false, `body.items.all(i, i.ok)` by the first element that breaks it: "body.items[3].ok is false".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from watchdog.domain.model import Json
from watchdog.domain.text import truncate_to_single_line
from watchdog.expression_tokens import tokenize_cel
from watchdog.expressions import CelExpression, CelExpressionError, compile_expression

MAX_LIST_ELEMENTS_EVALUATED_TO_EXPLAIN = 1_000
"""Elements of a list that are evaluated one by one to find the first that breaks a condition."""
MAX_FALSE_EXPRESSION_EXPLANATION_DEPTH = 5
"""How deep conditions inside conditions are explained."""
MAX_FALSE_EXPRESSION_EXPLANATION_CHARS = 500
UNEXPLAINED_FALSE_EXPRESSION_TEXT = "an expression is false"
_CEL_METHOD_PHRASES = {
    "contains": ("does not contain", "contains"),
    "startsWith": ("does not start with", "starts with"),
    "endsWith": ("does not end with", "ends with"),
    "matches": ("does not match", "matches"),
}
"""By method: if it is false, and if it is true."""
_CEL_FIELD_PATH_PATTERN = r"[A-Za-z_]\w*(?:\.\w+|\[[^\[\]]*\])*"


@dataclass(frozen=True, slots=True)
class _ExpressionScope:
    """The variables that a part of an expression can use."""

    variable_types: Mapping[str, str]
    values: Mapping[str, Json]
    templates: Mapping[str, str]
    display_names: Mapping[str, str]
    """Of the variables of `all` and `exists`: what they stand for, such as `body.items[3]`."""
    depth: int = 0

    def with_bound_variable(self, name: str, value: Json, display_name: str) -> _ExpressionScope:
        return replace(
            self,
            variable_types={**self.variable_types, name: "dyn"},
            values={**self.values, name: value},
            display_names={**self.display_names, name: display_name},
            depth=self.depth + 1,
        )

    def compile(self, text: str) -> CelExpression:
        return compile_expression(text, self.variable_types, must_be_bool=False)

    def replace_bound_variable_names(self, text: str) -> str:
        """A part of the expression, with what its bound variables stand for."""
        for name, display_name in self.display_names.items():
            text = re.sub(rf"(?<![\w.]){re.escape(name)}(?!\w)", display_name.replace("\\", r"\\"), text)
        return truncate_to_single_line(text)


def describe_false_expression(
    expression: CelExpression, values: Mapping[str, Json], templates: Mapping[str, str] = {}
) -> str:
    """Why it is false: "body.failed is 61, expected <= 50".

    `templates`: by what is compared, how its value is worded, instead of "status is {}": "HTTP {}".
    """
    scope = _ExpressionScope(expression.variable_types, values, templates, {})
    sentence = _describe_false_condition(expression.text, scope)
    return truncate_to_single_line(sentence, MAX_FALSE_EXPRESSION_EXPLANATION_CHARS)


def _describe_false_condition(text: str, scope: _ExpressionScope) -> str:
    if scope.depth > MAX_FALSE_EXPRESSION_EXPLANATION_DEPTH:
        return UNEXPLAINED_FALSE_EXPRESSION_TEXT
    text = _strip_cel_parentheses(text)
    try:
        return _describe_false_by_outer_operator(text, scope)
    except CelExpressionError as error:
        return _replace_element_name_in_cel_error(str(error), scope)


def _describe_false_by_outer_operator(text: str, scope: _ExpressionScope) -> str:
    tokens = tokenize_cel(text)
    if any(token.text == "?" for token in tokens if not token.depth):
        return _describe_false_conditional(text, scope)
    for operator, separator in (("||", ", and "), ("&&", "; ")):
        if len(parts := _split_cel_at_operator(text, operator)) > 1:
            broken = [part for part in parts if not _evaluates_cel_to_true(part, scope)]
            return (
                separator.join(dict.fromkeys(_describe_false_condition(part, scope) for part in broken))
                or UNEXPLAINED_FALSE_EXPRESSION_TEXT
            )
    expression = scope.compile(text)
    if sentence := expression.describe_comparison(scope.values, scope.templates, scope.replace_bound_variable_names):
        return sentence
    if tokens[0].text == "!":
        return _describe_false_negation(_strip_cel_parentheses(text[tokens[0].end :]), scope)
    if sentence := _describe_false_call(text, scope):
        return sentence
    expression.evaluate_value(scope.values)  # raises an error if that is why it is not true
    return (
        f"{scope.replace_bound_variable_names(text)} is false"
        if _is_cel_field_path(text)
        else UNEXPLAINED_FALSE_EXPRESSION_TEXT
    )


def _describe_false_conditional(text: str, scope: _ExpressionScope) -> str:
    condition, _, rest = (part.strip() for part in _partition_cel_at_operator(text, "?"))
    then, _, otherwise = (part.strip() for part in _partition_cel_at_operator(rest, ":"))
    return _describe_false_condition(then if _evaluates_cel_to_true(condition, scope) else otherwise, scope)


def _describe_false_negation(text: str, scope: _ExpressionScope) -> str:
    """Why the negation of a part is false."""
    if call := _parse_cel_call_if_whole_text(text):
        if call.name in _CEL_METHOD_PHRASES and call.receiver:
            receiver, argument = map(scope.replace_bound_variable_names, (call.receiver, call.arguments[0]))
            return f"{receiver} {_CEL_METHOD_PHRASES[call.name][1]} {argument}"
        if call.name == "has":
            return f"{scope.replace_bound_variable_names(call.arguments[0])} is present"
    if len(sides := _partition_cel_at_operator(text, "in")) == 3 and sides[1]:
        return f"{scope.replace_bound_variable_names(sides[2])} contains {scope.replace_bound_variable_names(sides[0])}"
    return (
        f"{scope.replace_bound_variable_names(text)} is true"
        if _is_cel_field_path(text)
        else UNEXPLAINED_FALSE_EXPRESSION_TEXT
    )


class _CelCall(NamedTuple):
    """A call at the end of a text: `receiver.name(arguments)`."""

    receiver: str
    name: str
    arguments: Sequence[str]


def _describe_false_call(text: str, scope: _ExpressionScope) -> str:
    """Empty if the text is no call that can be explained."""
    call = _parse_cel_call_if_whole_text(text)
    if call is None:
        return ""
    if call.name == "has" and not call.receiver:
        path, _, field = call.arguments[0].rpartition(".")
        return f"{scope.replace_bound_variable_names(path)} has no field '{field}'"
    if call.name in _CEL_METHOD_PHRASES and call.receiver:
        receiver, argument = map(scope.replace_bound_variable_names, (call.receiver, call.arguments[0]))
        return f"{receiver} {_CEL_METHOD_PHRASES[call.name][0]} {argument}"
    if call.name in ("all", "exists", "exists_one") and len(call.arguments) == 2:
        return _describe_false_macro(call, scope)
    return ""


def _describe_false_macro(call: _CelCall, scope: _ExpressionScope) -> str:
    elements = scope.compile(call.receiver).evaluate_value(scope.values)
    if not isinstance(elements, list | dict):
        return UNEXPLAINED_FALSE_EXPRESSION_TEXT
    name = scope.replace_bound_variable_names(call.receiver) if _is_cel_field_path(call.receiver) else "the list"
    if call.name == "exists":
        return f"no element of {name} meets the condition (length {len(elements)})" if elements else f"{name} is empty"
    variable, condition = call.arguments[0].strip(), call.arguments[1]
    keys = list(elements) if isinstance(elements, dict) else range(len(elements))
    fitting = 0
    for key in list(keys)[:MAX_LIST_ELEMENTS_EVALUATED_TO_EXPLAIN]:
        value, label = (key, repr(key)) if isinstance(elements, dict) else (elements[key], f"{name}[{key}]")
        inner = scope.with_bound_variable(variable, value, label)
        if _evaluates_cel_to_true(condition, inner):
            fitting += 1
        elif call.name == "all":
            return _describe_false_condition(condition, inner)
    return (
        f"{fitting} elements of {name} meet the condition, expected exactly 1"
        if call.name == "exists_one"
        else UNEXPLAINED_FALSE_EXPRESSION_TEXT
    )


def describe_expression_evaluation_error(expression: CelExpression, error: str, values: Mapping[str, Json]) -> str:
    """Why it cannot be evaluated. If an element of a list is the reason, it is named: "body.items[3] has no field
    'ok'"."""
    call = _parse_cel_call_if_whole_text(_strip_cel_parentheses(expression.text))
    if call is None or call.name != "all" or len(call.arguments) != 2:
        return error
    scope = _ExpressionScope(expression.variable_types, values, {}, {})
    try:
        sentence = _describe_false_macro(call, scope)
    except CelExpressionError:
        return error
    return (
        error
        if sentence == UNEXPLAINED_FALSE_EXPRESSION_TEXT
        else truncate_to_single_line(sentence, MAX_FALSE_EXPRESSION_EXPLANATION_CHARS)
    )


def _replace_element_name_in_cel_error(error: str, scope: _ExpressionScope) -> str:
    """An error in a condition about an element, related to that element."""
    related = scope.replace_bound_variable_names(error)
    if related != error or not scope.display_names:
        return related
    return f"{list(scope.display_names.values())[-1]}: {error}"


def _evaluates_cel_to_true(text: str, scope: _ExpressionScope) -> bool:
    """Whether a part is true; a part that cannot be evaluated is not."""
    try:
        return scope.compile(text).evaluate_value(scope.values) is True
    except CelExpressionError:
        return False


# --- taking a text apart


def _is_cel_field_path(text: str) -> bool:
    return text not in ("true", "false") and re.fullmatch(_CEL_FIELD_PATH_PATTERN, text.strip()) is not None


def _strip_cel_parentheses(text: str) -> str:
    """Without parentheses around the whole text."""
    while True:
        text = text.strip()
        tokens = tokenize_cel(text)
        encloses = len(tokens) > 2 and tokens[0].text == "(" and tokens[-1].text == ")"
        if not encloses or any(token.depth == 0 for token in tokens[1:-1]):
            return text
        text = text[tokens[0].end : tokens[-1].start]


def _split_cel_at_operator(text: str, operator: str) -> list[str]:
    """The parts between the operators of this kind at the top level."""
    parts, start = [], 0
    for token in tokenize_cel(text):
        if token.depth == 0 and token.text == operator:
            parts.append(text[start : token.start])
            start = token.end
    return [*parts, text[start:]]


def _partition_cel_at_operator(text: str, operator: str) -> tuple[str, str, str]:
    """The text before and after the first operator of this kind at the top level, as `str.partition`."""
    token = next((token for token in tokenize_cel(text) if token.depth == 0 and token.text == operator), None)
    return (text, "", "") if token is None else (text[: token.start], operator, text[token.end :])


def _parse_cel_call_if_whole_text(text: str) -> _CelCall | None:
    """The call that the whole text is; None: it is something else."""
    tokens = tokenize_cel(text)
    top = [token for token in tokens if token.depth == 0]
    if not tokens or tokens[-1].text != ")" or not top:
        return None
    opening = next(token for token in reversed(top) if token.text == "(")
    before = [token for token in top if token.end <= opening.start]
    if not before or not re.fullmatch(r"[A-Za-z_]\w*", before[-1].text):
        return None
    receiver = ""
    if len(before) > 1:
        if before[-2].text != ".":
            return None
        receiver = text[: before[-2].start].strip()
    arguments = _split_cel_at_operator(text[opening.end : tokens[-1].start], ",")
    return _CelCall(receiver, before[-1].text, [argument.strip() for argument in arguments])
