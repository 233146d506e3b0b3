"""CEL expressions: compiled and type-checked when the configuration loads, evaluated in every run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from watchdog.domain.model import Json
from watchdog.domain.text import replace_unstorable_characters, truncate_to_single_line
from watchdog.expression_tokens import find_used_cel_variables, has_cel_loops, put_cel_operator_in_words, tokenize_cel

if TYPE_CHECKING:
    from cel_expr_python import cel  # type: ignore[import-untyped] # it ships no types


class CelExpressionError(ValueError):
    """An expression that cannot be compiled, or cannot be evaluated with the given values. Its text explains why."""


class CelBudgetExceededError(CelExpressionError):
    """Watchdog stopped evaluating an expression: with these values it takes more steps than are allowed."""


@dataclass(frozen=True, slots=True)
class CelExpression:
    """A compiled expression. Safe to share between threads."""

    text: str
    used_variables: frozenset[str]
    """The variables that the expression uses."""
    variable_types: Mapping[str, str]
    loops: bool
    """Whether it has a part that is evaluated for each element of a list or an object."""
    _program: cel.Expression
    _comparison: _CelComparison | None
    """The only comparison at the top level, if there is just one."""

    def __reduce__(self) -> tuple[Callable[..., CelExpression], tuple[Any, ...]]:
        """Pickled as its text: a process compiles each expression once."""
        return _compile_expression_cached, (self.text, tuple(self.variable_types.items()), False)

    def evaluate_bool(self, values: Mapping[str, Json]) -> bool:
        """Whether it is true. None is CEL's null. Raises CelExpressionError if it cannot be evaluated."""
        value = self._evaluate_cel(values)
        if (type_name := value.type().name()) != "BOOL":
            raise CelExpressionError(f"the result is {_describe_cel_type(type_name)}, not true or false")
        return bool(value.value())

    def evaluate_value(self, values: Mapping[str, Json]) -> Json:
        """Its result. Raises CelExpressionError if it cannot be evaluated."""
        return self._evaluate_cel(values).plain_value()

    def _evaluate_cel(self, values: Mapping[str, Json]) -> cel.Value:
        value = _run_cel_program(self._program, values)
        if value.type().name() == "ERROR":
            missing = (
                name
                for name in sorted(self.used_variables)
                if values.get(name) is None and self.variable_types[name] != "dyn"
            )
            if name := next(missing, None):
                raise CelExpressionError(f"{name} has no value in this run")
            raise CelExpressionError(_describe_cel_runtime_error(str(value.value()), self.text, values))
        return value

    def format_observed_value(self, values: Mapping[str, Json]) -> str | None:
        """The value that its only top-level comparison is about: "503" for `status == 200`. None if there is none."""
        if self._comparison is None:
            return None
        try:
            value = _run_cel_program(self._comparison.program, values)
        except CelExpressionError:
            return None
        return None if value.type().name() == "ERROR" else _format_observed_value(value.plain_value())

    def describe_comparison(
        self, values: Mapping[str, Json], templates: Mapping[str, str], show: Callable[[str], str]
    ) -> str:
        """Its only top-level comparison in words: "body.failed is 61, expected <= 50"; empty if there is none.

        `templates`: as of `describe_false_expression`. `show`: what is shown of the text of what is compared.
        """
        observed = self.format_observed_value(values)
        if self._comparison is None or observed is None:
            return ""
        template, expectation = templates.get(self._comparison.subject), self._comparison.expectation
        if not template:
            return f"{show(self._comparison.subject)} is {observed}, {expectation}"
        return f"{template.format(observed)}, {put_cel_operator_in_words(expectation)}"


class _CelComparison(NamedTuple):
    """A comparison of something that was observed with what is expected."""

    subject: str
    """`body.failed` of `body.failed <= 50`."""
    expectation: str
    """ "expected <= 50"."""
    program: cel.Expression
    """Computes the subject."""


@lru_cache(maxsize=4096)
def _compile_expression_cached(text: str, variables: tuple[tuple[str, str], ...], must_be_bool: bool) -> CelExpression:
    types = dict(variables)
    program = _compile_cel(text, variables)
    result_type = program.return_type().name()
    if must_be_bool and result_type not in ("BOOL", "DYN"):
        raise CelExpressionError(
            f"{_quote_cel_expression(text)} returns {_describe_cel_type(result_type)}, not true or false:"
            " compare it with a value"
        )
    tokens = _list_cel_token_texts(text)
    _validate_constant_cel_calls(tokens, variables)
    return CelExpression(
        text,
        find_used_cel_variables(tokens, types),
        types,
        loops=has_cel_loops(tokens),
        _program=program,
        _comparison=_find_cel_comparison(text, variables),
    )


def compile_expression(text: str, variables: Mapping[str, str], *, must_be_bool: bool = True) -> CelExpression:
    """Compile and type-check. `variables`: name -> CEL type: int, double, string, bool, dyn, list, map(string, string).
    `must_be_bool`: the result must be true or false; otherwise it can have any type.

    Raises CelExpressionError with the text, the position of the error and, where possible, a correction.
    """
    return _compile_expression_cached(text, tuple(variables.items()), must_be_bool)


_CEL_TYPE_PARENS_TO_ANGLE_BRACKETS = str.maketrans("()", "<>")


@lru_cache(maxsize=64)
def _create_cel_environment(variables: tuple[tuple[str, str], ...]) -> cel.Env:
    from cel_expr_python import cel

    return cel.NewEnv(
        variables={name: cel.Type(kind.translate(_CEL_TYPE_PARENS_TO_ANGLE_BRACKETS)) for name, kind in variables}
    )


def _compile_cel(text: str, variables: tuple[tuple[str, str], ...]) -> cel.Expression:
    try:
        return _create_cel_environment(variables).compile(text)
    except (RuntimeError, ValueError, UnicodeError) as e:
        raise CelExpressionError(_describe_cel_compile_error(text, str(e), dict(variables))) from None


def _run_cel_program(program: cel.Expression, values: Mapping[str, Json]) -> cel.Value:
    """Values that CEL does not have are replaced if that is why it fails, because most expressions do not read them."""
    try:
        value = program.eval(data=values)
        if value.type().name() != "ERROR" or "out of range" not in str(value.value()):
            return value
    except Exception as e:
        if "budget" in str(e):
            raise CelBudgetExceededError("it iterates over more entries than Watchdog allows") from None
    try:
        return program.eval(data=_replace_values_unknown_to_cel(values))
    except Exception:
        raise CelExpressionError("the values cannot be converted") from None


def _replace_values_unknown_to_cel(value: Any) -> Any:
    """Integers over 64 bits become decimal numbers, as in browsers, and surrogates without a partner become `�`."""
    if isinstance(value, str):
        return replace_unstorable_characters(value)
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return float(value)
    if isinstance(value, Mapping):
        return {_replace_values_unknown_to_cel(k): _replace_values_unknown_to_cel(v) for k, v in value.items()}
    return [_replace_values_unknown_to_cel(inner) for inner in value] if isinstance(value, list | tuple) else value


# --- error messages

_CEL_TYPE_DESCRIPTIONS = {
    "INT": "a whole number", "INT64": "a whole number", "UINT": "a whole number", "DOUBLE": "a decimal number",
    "STRING": "text", "BOOL": "a true/false value", "NULL": "null", "NULL_TYPE": "null", "LIST": "a list",
    "MAP": "an object", "DYN": "any value", "BYTES": "bytes", "DURATION": "a duration", "TYPE": "a type",
    "TIMESTAMP": "a point in time",
}  # fmt: skip
_CEL_TOKEN_CORRECTIONS = {
    "=": "==", "===": "==", "=>": ">=", "=<": "<=", "<>": "!=", "and": "&&", "or": "||", "not": "!", "&": "&&",
    "|": "||", "None": "null", "True": "true", "False": "false", "len": "size",
    "\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'",
}  # fmt: skip
_CEL_FUNCTION_NAMES = (
    "size", "contains", "startsWith", "endsWith", "matches", "has", "all", "exists", "exists_one", "filter", "map",
    "int", "uint", "double", "string", "bool", "duration", "timestamp", "type", "dyn",
)  # fmt: skip
_REWORDED_CEL_COMPILER_MESSAGES = {
    "has() argument must be a field selection": "has() needs a field, as in has(body.items)",
    "invalid int literal": "the number is too large",
}


def _describe_cel_type(type_name: str) -> str:
    return _CEL_TYPE_DESCRIPTIONS.get(type_name.partition("<")[0].partition("(")[0].upper(), type_name.lower())


def _quote_cel_expression(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}…")


def _describe_cel_compile_error(text: str, error: str, variables: Mapping[str, str]) -> str:
    """The compiler's error, reworded, with the position counted from the start of the text."""
    match = re.search(r"ERROR: <input>:(\d+):(\d+): (.*?)(?:\n| \[|$)", error, re.DOTALL)
    if not text.strip():
        return "an expression is empty"
    if not match:
        problem = "is nested too deeply" if "limit" in error else "is not a valid expression"
        return f"{_quote_cel_expression(text)} {problem}"
    line, column, message = int(match[1]), int(match[2]), match[3]
    start = sum(map(len, text.splitlines(keepends=True)[: line - 1])) + column - 1
    if dotted := re.match(r"undeclared reference to '(\w+(?:\.\w+)+)'", message):  # the column is that of its last dot
        start = max(text.rfind(dotted[1], 0, start + len(dotted[1])), 0)
    problem = _reword_cel_compiler_message(message, text[max(start, 0) :], text, variables)
    return f"{_quote_cel_expression(text)} at character {start + 1}: {problem}"


def _reword_cel_compiler_message(message: str, rest: str, text: str, variables: Mapping[str, str]) -> str:
    if name := re.match(r"undeclared reference to '(.+?)'", message):
        return _describe_unknown_cel_name(name[1], text, variables)
    if operator := re.match(r"found no matching overload for '(.+?)' applied to '\((.*)\)'", message):
        return _describe_cel_type_mismatch(operator[1], operator[2])
    if select := re.match(r"expression of type '(.+?)' cannot be the operand of a select", message):
        return f"{_describe_cel_type(select[1])} has no fields"
    if not message.startswith("Syntax error"):
        return _REWORDED_CEL_COMPILER_MESSAGES.get(message, message)
    word = (re.match(r"[=<>&|]+|\w+|.", rest.strip(), re.DOTALL) or [""])[0]
    foreign_operators = re.findall(r"===|<>|=>|=<|\bnot\b|(?<![=!<>])=(?!=)", text)
    if operator := next((token for token in foreign_operators if token in _CEL_TOKEN_CORRECTIONS), None):
        return f"write {_CEL_TOKEN_CORRECTIONS[operator]} instead of {operator}"
    if word in _CEL_TOKEN_CORRECTIONS:
        return f"write {_CEL_TOKEN_CORRECTIONS[word]} instead of {word}"
    if "<EOF>'" in message.partition(" expecting ")[0]:
        missing = re.search(r"missing '(.)'", message)
        return f"'{missing[1]}' is missing at the end" if missing else "the expression is incomplete"
    return "the quote is not closed" if word in "'\"" and word else f"unexpected {word!r}"


def _describe_unknown_cel_name(name: str, text: str, variables: Mapping[str, str]) -> str:
    called = re.search(rf"\b{re.escape(name)}\s*\(", text)
    if name in _CEL_TOKEN_CORRECTIONS:
        return f"write {_CEL_TOKEN_CORRECTIONS[name]} instead of {name}"
    valid_names = {valid.lower(): valid for valid in (_CEL_FUNCTION_NAMES if called else variables)}
    candidates = (*get_close_matches(name.lower(), valid_names, 1), name.lower().rpartition(".")[2])
    suggestion = next((valid_names[candidate] for candidate in candidates if candidate in valid_names), "")
    if suggestion:
        hint = f"; did you mean '{suggestion}'?"
    else:
        hint = "" if called else f"; variables: {', '.join(sorted(variables))}"
    return f"unknown {'function' if called else 'name'} {name[:60]!r}{hint}"


def _describe_cel_type_mismatch(function: str, arguments: str) -> str:
    types = re.findall(r"\w+(?:\([^()]*\))?", arguments)
    operator = function.strip("_@").replace("?_:", "? :")
    hint = ""
    if operator == "in":
        return f"in requires a list on its right, not {_describe_cel_type(types[-1])}"
    if "?" in operator:
        return f"the condition before ? is {_describe_cel_type(types[0])}, not true or false"
    if set(types) == {"int", "double"}:
        hint = ": write a decimal point, as in 800.0" if types[0] == "double" else ": use a whole number"
    elif operator in ("<", "<=", ">", ">=") and types[0] == "bool":
        hint = ": join two comparisons with &&"
    return f"{operator} cannot be applied to {' and '.join(map(_describe_cel_type, types))}{hint}"


def _describe_cel_runtime_error(error: str, text: str, values: Mapping[str, Json]) -> str:
    """The engine's error, reworded. For a missing field it names the path up to which the values exist."""
    if re.search("Key not found|SELECT|Invalid container", error) and (
        missing_field := _describe_unresolved_cel_path(text, values)
    ):
        return missing_field
    message = re.sub(r"^[A-Z_]+: ", "", error)
    if missing := re.match(r"Key not found in map : (.+)", message):
        return f"no field {missing[1]}"
    if "SELECT" in message:
        return "a value without fields is used like an object"
    if index := re.match(r"Index error: index=(-?\d+) size=(\d+)", message):
        return f"there is no element {index[1]} in a list of length {index[2]}"
    if overload := re.match(r"No matching overloads found : (.+)", message):
        operator, _, types = overload[1].strip("()").partition("(")
        if not types or ")" in types:
            return "a value has the wrong type"
        nouns = " and ".join(_describe_cel_type(type_name.strip()) for type_name in types.split(","))
        return f"{operator.strip('_@')} cannot be applied to {nouns}"
    return "a number is too large" if "out of range" in message else message[:200]


def _describe_unresolved_cel_path(text: str, values: Mapping[str, Json]) -> str:
    """The first path of the text that does not exist in the values: "body.queue has no field 'failed'"."""
    for path in re.findall(rf"(?<![\w.'\"])[A-Za-z_]\w*(?:{_CEL_FIELD_STEP_PATTERN})+", text):
        root, steps = re.split(r"\W", path, maxsplit=1)[0], re.findall(_CEL_FIELD_STEP_PATTERN, path)
        if root not in values:
            continue
        value, trail = values[root], root
        for step in steps:
            name = step.strip(".[]\"'")
            if not isinstance(value, Mapping):
                return f"{trail} is {_describe_json_type(value)}, so it has no field '{name}'"
            if name not in value:
                similar = get_close_matches(name, [key for key in value if isinstance(key, str)][:200], 1)
                return f"{trail} has no field '{name}'" + (f"; it has '{similar[0]}'" if similar else "")
            value, trail = value[name], trail + step
    return ""


_CEL_FIELD_STEP_PATTERN = r"\.[A-Za-z_]\w*(?!\w*\s*\()|\['[^'\\]+'\]|\[\"[^\"\\]+\"\]"
"""`.failed`, but no method, and `['failed']`."""


def _describe_json_type(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text" if value.strip() else "empty"
    return "a list" if isinstance(value, list) else "a number"


# --- the text of an expression

_CEL_COMPARISON_OPERATORS = {"==", "!=", "<", "<=", ">", ">=", "in"}


def _list_cel_token_texts(text: str) -> list[str]:
    return [token.text for token in tokenize_cel(text)]


def _find_cel_comparison(text: str, variables: tuple[tuple[str, str], ...]) -> _CelComparison | None:
    """The only comparison at the top level. None if there is not exactly one, or if it compares constants."""
    tokens = tokenize_cel(text)
    top_level = [token for token in tokens if token.depth == 0]
    operators = [token for token in top_level if token.text in _CEL_COMPARISON_OPERATORS]
    if len(operators) != 1 or any(token.text in ("&&", "||", "?") for token in top_level):
        return None
    operator, names = operators[0], {name for name, _ in variables}
    sides = (
        [token.text for token in tokens if token.end <= operator.start],
        [token.text for token in tokens if token.start >= operator.end],
    )
    left, right = text[: operator.start], text[operator.end :]
    for side, subject, other, wordings in (
        (sides[0], left, right, _EXPECTATION_TEXT_BY_OPERATOR),
        (sides[1], right, left, _RIGHT_OPERAND_EXPECTATION_TEXT_BY_OPERATOR),
    ):
        if names.intersection(side):
            expectation = wordings[operator.text].replace("{}", truncate_to_single_line(other))
            return _CelComparison(
                truncate_to_single_line(subject), expectation, _compile_cel(" ".join(side), variables)
            )
    return None


_EXPECTATION_TEXT_BY_OPERATOR = {
    "==": "expected {}", "!=": "expected another value", "<": "expected < {}", "<=": "expected <= {}",
    ">": "expected > {}", ">=": "expected >= {}", "in": "expected one of {}",
}  # fmt: skip
_RIGHT_OPERAND_EXPECTATION_TEXT_BY_OPERATOR = _EXPECTATION_TEXT_BY_OPERATOR | {
    "<": "expected > {}", "<=": "expected >= {}", ">": "expected < {}", ">=": "expected <= {}",
    "in": "expected to contain {}",
}  # fmt: skip
"""For a comparison whose right side is observed: `200 == status`."""


def _validate_constant_cel_calls(tokens: list[str], variables: tuple[tuple[str, str], ...]) -> None:
    """Raises CelExpressionError for constant calls that compile but always fail: duration('14d'), matches('(')."""
    for name, opening, literal, closing in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False):
        if (opening, closing) != ("(", ")") or literal[-1] not in "'\"":
            continue
        if name in ("duration", "timestamp"):
            hint = "use h, m, s and ms, as in '36h'" if name == "duration" else "write it as '2026-01-31T12:00:00Z'"
            expression = f"{name}({literal}) == {name}({literal})"
        elif name == "matches":
            expression, hint = f"''.matches({literal})", "it is not a regular expression (RE2)"
        else:
            continue
        if _run_cel_program(_compile_cel(expression, variables), {}).type().name() == "ERROR":
            raise CelExpressionError(f"{name}({literal}) is invalid: {hint}")


def _format_observed_value(value: Json) -> str:
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else f"{value[:80]}…")
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
