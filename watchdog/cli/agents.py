"""`watchdog mcp`."""

from __future__ import annotations

from watchdog.cli.common import DEFAULT, ConfigFile, loaded, need_database


def speak(config: ConfigFile = DEFAULT) -> None:
    """Answer an agent over standard input and output (MCP).

    It reads the database, and asks a running `watchdog run` how its own tasks are.
    """
    given = loaded(config)
    need_database(given)

    import asyncio

    from watchdog.app import converse
    from watchdog.cli.logs import set_up

    set_up(given.mask)
    asyncio.run(converse(given))
