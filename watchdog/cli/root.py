"""Every command by name: one module each, whose function imports what it needs when it is called."""

from __future__ import annotations

import typer

from watchdog.cli.about import version

app = typer.Typer(
    name="watchdog",
    help="Is the service, and the background work behind it, really doing its job?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """A lone command would otherwise become the program itself."""


app.command()(version)
