"""`watchdog mcp`: an MCP server on standard input and output."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from watchdog.cli.acts import build_cli_actor_from_os_user
from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    exit_if_database_file_missing,
    freeze_heap_and_enable_gc,
    load_config_or_exit,
    read_database_clock,
)

if TYPE_CHECKING:
    from watchdog.config.load import LoadedConfig


def mcp_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Serve MCP to an agent over standard input and output.

    Reads the database, runs probes, and acknowledges and silences in your name. Contacts `watchdog run` only to
    show and trigger Watchdog's internal tasks.

    \b
    Example: claude mcp add watchdog -- watchdog mcp -c /etc/watchdog/watchdog.yaml
    """
    loaded_config = load_config_or_exit(config)
    exit_if_database_file_missing(loaded_config.database)

    import asyncio

    from watchdog.cli.logs import configure_logging

    configure_logging(loaded_config.mask)
    freeze_heap_and_enable_gc()
    asyncio.run(_serve_mcp_until_shutdown(loaded_config))


async def _serve_mcp_until_shutdown(loaded_config: LoadedConfig) -> None:
    from watchdog.mcp_server.stdio import serve_mcp_stdio
    from watchdog.signals import install_shutdown_event

    user = build_cli_actor_from_os_user().name
    if not await serve_mcp_stdio(loaded_config, install_shutdown_event(), user, read_database_clock):
        os._exit(0)  # a thread still waits for input that may never come; everything else is closed
