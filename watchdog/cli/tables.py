"""Tables for people on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

STATE_COLOURS: Mapping[str, str] = {"up": "green", "degraded": "yellow", "unknown": "bright_black", "down": "red"}


def escape_markup(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Cells are Rich markup: escape names and messages. In a pipe, lines are neither coloured nor wrapped."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*headings, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)
