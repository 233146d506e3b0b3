"""`watchdog mcp`."""

from __future__ import annotations

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, load_config_or_exit, require_database_file


def mcp_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Answer an agent over standard input and output (MCP).

    It reads the database, and asks a running `watchdog run` how its own tasks are.
    """
    given = load_config_or_exit(config)
    require_database_file(given)

    import asyncio

    from watchdog.app import run_mcp_stdio
    from watchdog.cli.logs import configure_logging

    configure_logging(given.mask)
    asyncio.run(run_mcp_stdio(given))
