"""The text of a CEL expression as tokens, for questions that the compiler does not answer."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import NamedTuple

CEL_STRING_LITERAL_PATTERN = (
    r"(?:[rR][bB]?|[bB][rR])(?:\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|\"[^\"\n]*\"|'[^'\n]*')"
    r"|[bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
)
_CEL_TOKEN_PATTERN = re.compile(
    rf"(?P<comment>//[^\n]*)|{CEL_STRING_LITERAL_PATTERN}|\w+|&&|\|\||[=!<>]=|\s+|.", re.DOTALL
)


_WORDS_BY_CEL_COMPARISON_OPERATOR = {"<": "less than", "<=": "at most", ">": "more than", ">=": "at least"}


class CelToken(NamedTuple):
    """A word, a literal or an operator of an expression, and where it is in the text."""

    text: str
    start: int
    end: int
    depth: int
    """How many parentheses, brackets and braces are open around it."""


def tokenize_cel(text: str) -> list[CelToken]:
    """Without comments and white space."""
    tokens, depth = [], 0
    for match in _CEL_TOKEN_PATTERN.finditer(text):
        if match["comment"] or match[0].isspace():
            continue
        depth -= match[0] in (")", "]", "}")
        tokens.append(CelToken(match[0], match.start(), match.end(), depth))
        depth += match[0] in ("(", "[", "{")
    return tokens


_CEL_BINDING_MACROS = ("all", "exists", "exists_one", "existsOne", "map", "filter")


def find_used_cel_variables(tokens: Sequence[str], names: Container[str]) -> frozenset[str]:
    """The names that a tokenized expression uses as variables: not fields (`body.status`), and not the name that a
    macro binds to each entry (`body.all(status, status > 1)`)."""
    used: set[str] = set()
    scopes: list[tuple[int, str]] = []
    depth = 0
    for i, token in enumerate(tokens):
        if token in ("(", "[", "{"):
            depth += 1
            if token == "(" and i > 1 and tokens[i - 1] in _CEL_BINDING_MACROS and tokens[i - 2] == ".":
                scopes += [(depth, name) for name in _list_macro_bound_names(tokens[i + 1 : i + 5])]
        elif token in (")", "]", "}"):
            scopes = [(scope_depth, name) for scope_depth, name in scopes if scope_depth < depth]
            depth -= 1
        elif token in names and tokens[i - 1 : i] != ["."] and token not in {name for _, name in scopes}:
            used.add(token)
    return frozenset(used)


def has_cel_loops(tokens: Sequence[str]) -> bool:
    """Whether a macro evaluates a part of a tokenized expression for each entry of a list or an object."""
    calls = zip(tokens, tokens[1:], tokens[2:], strict=False)
    return any(dot == "." and name in _CEL_BINDING_MACROS and opening == "(" for dot, name, opening in calls)


def _list_macro_bound_names(tokens: Sequence[str]) -> list[str]:
    """The first argument of a macro; the second as well if it is a name too: `all(index, value, ...)`."""
    names = [tokens[0]] if tokens[1:2] == [","] else []
    return [*names, tokens[2]] if names and tokens[3:4] == [","] and tokens[2].isidentifier() else names


def put_cel_operator_in_words(expectation: str) -> str:
    """ "expected at least 14" of "expected >= 14", for a sentence that does not name the variable."""
    return re.sub(
        r"^expected ([<>]=?) ",
        lambda operator: f"expected {_WORDS_BY_CEL_COMPARISON_OPERATOR[operator[1]]} ",
        expectation,
    )
