"""The text of a query that a user configures: what it may be, and its parameters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

QUERY_KEYWORDS = ("SELECT", "WITH", "VALUES", "TABLE", "SHOW")
"""The first word of a statement that returns rows."""
_QUOTED_TEXT_OR_COMMENT_PATTERN = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*(?!!).*?\*/|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$", re.DOTALL
)
"""A comment that begins with `/*!` is code for MySQL."""
_WRITTEN_FILE_PATTERN = re.compile(r"(?<![A-Za-z_$])(?:OUT|DUMP)FILE(?![\w$])", re.IGNORECASE)
"""Reserved words of MySQL. Digits may precede one: `/*!50000OUTFILE` is code."""
_PARAMETER_PATTERN = re.compile(r"(?<![:\w\\]):(?P<name>[A-Za-z_]\w*)(?!:(?!:))(?P<cast>(?=::))?")
_BINDABLE_PATTERN = re.compile(r"(?<![:\w\\]):(?P<name>\w+)(?P<cast>(?=::))?")
"""What SQLAlchemy would take for a parameter, also inside quotes."""


def find_query_problem(
    text: str, parameters: Collection[str], *, is_postgres: bool = False, is_mysql: bool = False
) -> str:
    """Why the text is no query that can be configured; empty if it is one. The server has the last word on it."""
    code = _QUOTED_TEXT_OR_COMMENT_PATTERN.sub(" ", text).strip()
    first = re.match(r"[\s(]*([A-Za-z]*)", code)
    keyword = first[1].upper() if first else ""
    if keyword not in QUERY_KEYWORDS:
        return f"expected a query that begins with {', '.join(QUERY_KEYWORDS[:-1])} or {QUERY_KEYWORDS[-1]}"
    if is_postgres and keyword == "SHOW":
        return "with PostgreSQL, write SELECT current_setting('...') instead of SHOW"
    if ";" in code.rstrip("; \n\t\r"):
        return "expected a single statement: remove what follows ';'"
    if re.search(r"\bINTO\b", code, re.IGNORECASE):
        return "INTO writes, and a query may only read: remove it"
    # Even in quotes and comments, because MySQL has other rules for them than the pattern above, and no transaction
    # keeps it from writing a file.
    if is_mysql and (written := _WRITTEN_FILE_PATTERN.search(text)):
        return f"{written[0].upper()} writes a file, and a query may only read: remove it"
    used = {match["name"] for match in _PARAMETER_PATTERN.finditer(code)}
    if unknown := sorted(used - set(parameters)):
        return f"unknown parameter :{unknown[0]}: add it to params, or write a literal colon as \\:"
    return ""


def find_unused_parameters(text: str, parameters: Collection[str]) -> Iterator[str]:
    """The parameters that the query does not use."""
    code = _QUOTED_TEXT_OR_COMMENT_PATTERN.sub(" ", text)
    used = {match["name"] for match in _PARAMETER_PATTERN.finditer(code)}
    return (name for name in parameters if name not in used)


def escape_other_colons(text: str, parameters: Collection[str]) -> str:
    """The query for SQLAlchemy, which would take `:name` for a parameter wherever it occurs."""
    parts, position = [], 0
    for quoted in _QUOTED_TEXT_OR_COMMENT_PATTERN.finditer(text):
        parts += [
            _escape_colons_of_no_parameter(text[position : quoted.start()], parameters),
            _escape_colons_of_no_parameter(quoted[0], ()),
        ]
        position = quoted.end()
    return "".join([*parts, _escape_colons_of_no_parameter(text[position:], parameters)])


def _escape_colons_of_no_parameter(text: str, parameters: Collection[str]) -> str:
    def escape_unless_parameter(match: re.Match[str]) -> str:
        if match["name"] not in parameters:
            return f"\\{match[0]}"
        return f"{match[0]} " if match["cast"] is not None else match[0]  # it takes `:name::text` for no parameter

    return _BINDABLE_PATTERN.sub(escape_unless_parameter, text)
