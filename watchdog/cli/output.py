"""What commands print: JSON for programs, tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

ItemT = TypeVar("ItemT")


class CliOutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


OutputFormatOption = Annotated[CliOutputFormat, typer.Option("--output", "-o", help="Output format.")]

CLI_HEALTH_STATE_COLOURS: Mapping[str, str] = {
    "up": "green",
    "degraded": "yellow",
    "unknown": "bright_black",
    "down": "red",
    "paused": "bright_black",
}


def print_json(value: Any, *, on_one_line: bool = False) -> None:
    import json

    print(json.dumps(value, indent=None if on_one_line else 2, ensure_ascii=False))


def print_lines(lines: Iterable[str]) -> None:
    """Each on one line. Names and comments may hold line breaks: what follows one would look like a line of its own."""
    print("\n".join(map(_put_on_one_line, lines)))


def _put_on_one_line(text: str) -> str:
    return " ".join(text.splitlines())


def print_json_or_table(
    output: CliOutputFormat,
    items: Sequence[ItemT],
    *,
    to_json: Callable[[ItemT], Any],
    headings: Sequence[str],
    to_row: Callable[[ItemT], Sequence[str]],
    empty_text: str,
    more_json: Sequence[Any] = (),
    json_on_one_line: bool = False,
) -> None:
    """Prints the items as JSON or as a table, or `empty_text` in place of an empty table. Cells are Rich markup.
    `more_json`: further elements of the JSON."""
    if output is CliOutputFormat.JSON:
        print_json([*map(to_json, items), *more_json], on_one_line=json_on_one_line)
    elif items:
        _print_table(headings, map(to_row, items))
    else:
        print(empty_text)


def escape_rich_markup(text: str) -> str:
    """Shows names and messages literally in a cell."""
    from rich.markup import escape

    return escape(text)


def _print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """In a pipe, lines are neither coloured nor wrapped."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*headings, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        table.add_row(*map(_put_on_one_line, row))
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)
