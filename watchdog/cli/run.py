"""`watchdog run`."""

from __future__ import annotations

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    exit_database_unavailable,
    exit_with_error,
    load_config_or_exit,
)


def run_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Watch, tell people, and serve the pages.

    Probes run on schedule, their results are kept and judged. Ends within 10 s of SIGTERM.
    """
    given = load_config_or_exit(config)

    import asyncio

    import uvloop

    from watchdog.app import serve
    from watchdog.cli.logs import configure_logging
    from watchdog.server import open_listen_socket
    from watchdog.store.errors import SchemaError, StoreUnavailableError

    configure_logging(given.mask)
    try:
        listening = open_listen_socket(*given.config.server.bind_address)
    except OSError as e:
        exit_with_error(f"cannot listen on {given.config.server.listen}: {e.strerror or e}", ExitCode.UNKNOWN)
    try:
        with listening, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(given, listening))
    except SchemaError as e:
        exit_with_error(str(e))
    except StoreUnavailableError as e:
        exit_database_unavailable(given, e)
