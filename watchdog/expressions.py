"""Assertions in CEL, behind this one wall: compiled and type-checked when a configuration loads, evaluated per run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING

from watchdog.domain.model import Json

if TYPE_CHECKING:
    from cel_expr_python import cel  # type: ignore[import-untyped] # it ships no types


class ExpressionError(ValueError):
    """An expression that cannot be compiled, or not be computed with these values. The text says why, in words."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. Safe to share between threads."""

    text: str
    used_variables: frozenset[str]
    """The variables that it uses."""
    variable_types: Mapping[str, str]
    _program: cel.Expression
    _observed_program: cel.Expression | None
    """What a top-level comparison looks at: `status` of `status == 200`."""

    def evaluate_bool(self, values: Mapping[str, Json]) -> bool:
        """Whether it holds. Raises ExpressionError when that cannot be computed. A value of None is CEL's null."""
        value = self._evaluate_cel(values)
        if (kind := value.type().name()) != "BOOL":
            raise ExpressionError(f"it is {_describe_cel_type(kind)}, neither true nor false")
        return bool(value.value())

    def evaluate_value(self, values: Mapping[str, Json]) -> Json:
        """What it gives. Raises ExpressionError when that cannot be computed."""
        return self._evaluate_cel(values).plain_value()

    def _evaluate_cel(self, values: Mapping[str, Json]) -> cel.Value:
        value = _run_program(self._program, values)
        if value.type().name() == "ERROR":
            absent = (
                name
                for name in sorted(self.used_variables)
                if values.get(name) is None and self.variable_types[name] != "dyn"
            )
            if name := next(absent, None):
                raise ExpressionError(f"{name} has no value in this run")
            raise ExpressionError(_describe_runtime_error(str(value.value()), self.text, values))
        return value

    def observed_value_text(self, values: Mapping[str, Json]) -> str | None:
        """What a top-level comparison looked at, as text: "503" for `status == 200`. None when that cannot be told."""
        if self._observed_program is None:
            return None
        try:
            value = _run_program(self._observed_program, values)
        except ExpressionError:
            return None
        return None if value.type().name() == "ERROR" else _format_observed_value(value.plain_value())


@lru_cache(maxsize=4096)
def _compile_cached(text: str, variables: tuple[tuple[str, str], ...], must_be_bool: bool) -> Expression:
    types = dict(variables)
    program = _compile_cel(text, variables)
    kind = program.return_type().name()
    if must_be_bool and kind not in ("BOOL", "DYN"):
        raise ExpressionError(
            f"{_quote_truncated(text)} gives {_describe_cel_type(kind)}, not true or false: compare it with something"
        )
    tokens = _tokenize(text)
    _validate_constant_calls(tokens, variables)
    used = {word for word, before in zip(tokens, ["", *tokens], strict=False) if before != "." and word in types}
    subject = _observed_operand(tokens, set(types))
    return Expression(text, frozenset(used), types, program, subject and _compile_cel(subject, variables))


def compile_expression(text: str, variables: Mapping[str, str], *, must_be_bool: bool = True) -> Expression:
    """Compile and type-check. `variables`: name -> CEL type: int, double, string, bool, dyn, list, map(string, string).
    `judges`: it must be true or false; else any value will do.

    Raises ExpressionError that quotes the text, names the character and says what to write instead where it can.
    """
    return _compile_cached(text, tuple(variables.items()), must_be_bool)


_PARENS_TO_ANGLE_BRACKETS = str.maketrans("()", "<>")


@lru_cache(maxsize=64)
def _cel_environment(variables: tuple[tuple[str, str], ...]) -> cel.Env:
    from cel_expr_python import cel

    return cel.NewEnv(variables={name: cel.Type(kind.translate(_PARENS_TO_ANGLE_BRACKETS)) for name, kind in variables})


def _compile_cel(text: str, variables: tuple[tuple[str, str], ...]) -> cel.Expression:
    try:
        return _cel_environment(variables).compile(text)
    except (RuntimeError, ValueError, UnicodeError) as e:
        raise ExpressionError(_describe_compile_error(text, str(e), dict(variables))) from None


def _run_program(program: cel.Expression, values: Mapping[str, Json]) -> cel.Value:
    try:
        return program.eval(data=values)
    except Exception as e:
        if "budget" in str(e):
            raise ExpressionError("it goes through too many entries") from None
        raise ExpressionError("the values cannot be read") from None


# --- what is wrong, in words

_CEL_TYPE_DESCRIPTIONS = {
    "INT": "a whole number", "INT64": "a whole number", "UINT": "a whole number", "DOUBLE": "a decimal number",
    "STRING": "text", "BOOL": "a true/false value", "NULL": "null", "NULL_TYPE": "null", "LIST": "a list",
    "MAP": "an object", "DYN": "any value", "BYTES": "bytes", "DURATION": "a duration", "TYPE": "a type",
    "TIMESTAMP": "a point in time",
}  # fmt: skip
_TOKEN_CORRECTIONS = {
    "=": "==", "===": "==", "=>": ">=", "=<": "<=", "<>": "!=", "and": "&&", "or": "||", "not": "!", "&": "&&",
    "|": "||", "None": "null", "True": "true", "False": "false", "len": "size",
    "\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'",
}  # fmt: skip
_CEL_FUNCTION_NAMES = (
    "size", "contains", "startsWith", "endsWith", "matches", "has", "all", "exists", "exists_one", "filter", "map",
    "int", "uint", "double", "string", "bool", "duration", "timestamp", "type", "dyn",
)  # fmt: skip
_REWORDED_COMPILER_MESSAGES = {
    "has() argument must be a field selection": "has needs a field, as in has(body.items)",
    "invalid int literal": "the number is too large",
}


def _describe_cel_type(type_name: str) -> str:
    return _CEL_TYPE_DESCRIPTIONS.get(type_name.partition("<")[0].partition("(")[0].upper(), type_name.lower())


def _quote_truncated(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}…")


def _describe_compile_error(text: str, error: str, variables: Mapping[str, str]) -> str:
    """What the compiler says, told to people."""
    found = re.search(r"ERROR: <input>:(\d+):(\d+): (.*?)(?:\n| \[|$)", error, re.DOTALL)
    if not text.strip():
        return "an expression is empty"
    if not found:
        return f"{_quote_truncated(text)} {'is nested too deeply' if 'limit' in error else 'is not an expression'}"
    line, column, message = int(found[1]), int(found[2]), found[3]
    start = sum(map(len, text.splitlines(keepends=True)[: line - 1])) + column - 1
    if dotted := re.match(r"undeclared reference to '(\w+(?:\.\w+)+)'", message):  # the mark is at its last dot
        start = max(text.rfind(dotted[1], 0, start + len(dotted[1])), 0)
    problem = _reword_compiler_message(message, text[max(start, 0) :], text, variables)
    return f"{_quote_truncated(text)} at character {start + 1}: {problem}"


def _reword_compiler_message(message: str, rest: str, text: str, variables: Mapping[str, str]) -> str:
    if name := re.match(r"undeclared reference to '(.+?)'", message):
        return _describe_unknown_name(name[1], text, variables)
    if operator := re.match(r"found no matching overload for '(.+?)' applied to '\((.*)\)'", message):
        return _describe_type_mismatch(operator[1], operator[2])
    if select := re.match(r"expression of type '(.+?)' cannot be the operand of a select", message):
        return f"{_describe_cel_type(select[1])} has no fields"
    if not message.startswith("Syntax error"):
        return _REWORDED_COMPILER_MESSAGES.get(message, message)
    word = (re.match(r"[=<>&|]+|\w+|.", rest.strip(), re.DOTALL) or [""])[0]
    if first := next(
        (w for w in re.findall(r"===|<>|=>|=<|\bnot\b|(?<![=!<>])=(?!=)", text) if w in _TOKEN_CORRECTIONS), None
    ):
        return f"write {_TOKEN_CORRECTIONS[first]} instead of {first}"
    if word in _TOKEN_CORRECTIONS:
        return f"write {_TOKEN_CORRECTIONS[word]} instead of {word}"
    if "<EOF>'" in message.partition(" expecting ")[0]:
        missing = re.search(r"missing '(.)'", message)
        return f"a {missing[1]} is missing at the end" if missing else "it ends too early"
    return "a quote is not closed" if word in "'\"" and word else f"unexpected {word!r}"


def _describe_unknown_name(name: str, text: str, variables: Mapping[str, str]) -> str:
    called = re.search(rf"\b{re.escape(name)}\s*\(", text)
    if name in _TOKEN_CORRECTIONS:
        return f"write {_TOKEN_CORRECTIONS[name]} instead of {name}"
    known = _CEL_FUNCTION_NAMES if called else tuple(variables)
    near = {k.lower(): k for k in known}
    wanted = name.lower()
    close = [near[k] for k in (*get_close_matches(wanted, near, 1), wanted.rpartition(".")[2]) if k in near]
    hint = f"; did you mean '{close[0]}'?" if close else "" if called else f"; known here: {', '.join(sorted(known))}"
    return f"unknown {'function' if called else 'name'} {name[:60]!r}{hint}"


def _describe_type_mismatch(function: str, arguments: str) -> str:
    kinds = re.findall(r"\w+(?:\([^()]*\))?", arguments)
    operator = function.strip("_@").replace("?_:", "? :")
    hint = ""
    if operator == "in":
        return f"in needs a list on its right, not {_describe_cel_type(kinds[-1])}"
    if "?" in operator:
        return f"the condition before ? is {_describe_cel_type(kinds[0])}, not true or false"
    if set(kinds) == {"int", "double"}:
        hint = "; give the number a decimal point, as in 800.0" if kinds[0] == "double" else "; use a whole number"
    elif operator in ("<", "<=", ">", ">=") and kinds[0] == "bool":
        hint = "; join two comparisons with &&"
    return f"{operator} does not work with {' and '.join(map(_describe_cel_type, kinds))}{hint}"


def _describe_runtime_error(error: str, text: str, values: Mapping[str, Json]) -> str:
    """Why it could not be computed: the engine's words, told with the path on which the values ended."""
    if re.search("Key not found|SELECT", error) and (ended := _describe_missing_field(text, values)):
        return ended
    message = re.sub(r"^[A-Z_]+: ", "", error)
    if missing := re.match(r"Key not found in map : (.+)", message):
        return f"no field {missing[1]}"
    if "SELECT" in message:
        return "a field is read from a value that has none"
    if index := re.match(r"Index error: index=(-?\d+) size=(\d+)", message):
        return f"no element {index[1]}: the list holds {index[2]}"
    if overload := re.match(r"No matching overloads found : (.+)", message):
        operator, _, kinds = overload[1].strip("()").partition("(")
        if not kinds or ")" in kinds:
            return "a value is of the wrong type"
        nouns = " and ".join(_describe_cel_type(kind.strip()) for kind in kinds.split(","))
        return f"{operator.strip('_@')} does not work with {nouns}"
    return "a number is too large" if "out of range" in message else message[:200]


def _describe_missing_field(text: str, values: Mapping[str, Json]) -> str:
    """The first dotted path of the text that leads nowhere in the values: "body.queue has no field 'failed'"."""
    for path in re.findall(r"(?<![\w.'\"])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*(?!\w*\s*\())+", text):
        root, *fields = path.split(".")
        if root not in values:
            continue
        value, trail = values[root], root
        for name in fields:
            if not isinstance(value, Mapping):
                return f"{trail} is {_describe_json_type(value)}, so it has no field '{name}'"
            if name not in value:
                close = get_close_matches(name, [k for k in value if isinstance(k, str)][:200], 1)
                return f"{trail} has no field '{name}'" + (f"; it has '{close[0]}'" if close else "")
            value, trail = value[name], f"{trail}.{name}"
    return ""


def _describe_json_type(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a number"


# --- reading an expression's text

_STRING_LITERAL_PATTERN = (
    r"(?:[rR][bB]?|[bB][rR])(?:\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|\"[^\"\n]*\"|'[^'\n]*')"
    r"|[bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
)
_TOKEN_RE = re.compile(rf"(?P<comment>//[^\n]*)|{_STRING_LITERAL_PATTERN}|\w+|&&|\|\||[=!<>]=|\s+|.", re.DOTALL)
_COMPARISON_OPERATORS = {"==", "!=", "<", "<=", ">", ">=", "in"}


def _tokenize(text: str) -> list[str]:
    return [m[0] for m in _TOKEN_RE.finditer(text) if not m["comment"] and not m[0].isspace()]


def _observed_operand(tokens: list[str], variables: set[str]) -> str:
    """The side of a single top-level comparison that says what was observed; empty when there is no such thing."""
    depth, relations = 0, []
    for i, token in enumerate(tokens):
        depth += (token in "([{") - (token in ")]}")
        if depth == 0 and token in ("&&", "||", "?"):
            return ""
        if depth == 0 and token in _COMPARISON_OPERATORS:
            relations.append(i)
    if len(relations) != 1:
        return ""
    for side in (tokens[: relations[0]], tokens[relations[0] + 1 :]):
        if variables.intersection(side):
            return " ".join(side)
    return ""


def _validate_constant_calls(tokens: list[str], variables: tuple[tuple[str, str], ...]) -> None:
    """Constants that compile and fail in every run are refused at once: duration('14d'), matches('(')."""
    for call in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False):
        name, opened, literal, closed = call
        if (opened, closed) != ("(", ")") or literal[-1] not in "'\"":
            continue
        if name in ("duration", "timestamp"):
            hint = "use h, m, s and ms, as in duration('36h')" if name == "duration" else "write 2026-01-31T12:00:00Z"
            expression = f"{name}({literal}) == {name}({literal})"
        elif name == "matches":
            expression, hint = f"''.matches({literal})", "it is not a regular expression (RE2)"
        else:
            continue
        if _run_program(_compile_cel(expression, variables), {}).type().name() == "ERROR":
            raise ExpressionError(f"{name}({literal}) can never be computed: {hint}")


def _format_observed_value(value: Json) -> str:
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else f"{value[:80]}…")
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
