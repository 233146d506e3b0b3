"""Every command by name: one module each, whose function imports what it needs when it is called."""

from __future__ import annotations

import typer

from watchdog.cli import about, agents, asking, checking, db, demo, probing, running, telling, wrapping

app = typer.Typer(
    name="watchdog",
    help="Is the service, and the background work behind it, really doing its job?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (
    running.run, demo.demo, checking.init, checking.validate, probing.probe, asking.status, asking.incidents,
    asking.jobs, checking.schema,
):  # fmt: skip
    app.command()(command)
strict = {"allow_interspersed_args": False}
app.command("exec", cls=wrapping.NameFirst, context_settings=strict)(wrapping.execute)
app.command("mcp")(agents.speak)
app.command("test-alert")(telling.send_test)
app.add_typer(db.app, name="db")
app.command()(about.version)
