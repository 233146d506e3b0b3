"""`watchdog run`: the service."""

from __future__ import annotations

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    collect_garbage_from_now_on,
    exit_database_unavailable,
    exit_with_error,
    load_config_or_exit,
)


def run_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Run the service: probes, alerts and web pages.

    Runs every probe on its schedule, stores and judges the results, sends notifications and serves the pages. Logs to
    standard error. Stops within 10 s of SIGTERM or SIGINT.

    \b
    Example: watchdog run -c /etc/watchdog/watchdog.yaml
    """
    loaded_config = load_config_or_exit(config)

    import asyncio

    import uvloop

    from watchdog.app import serve
    from watchdog.cli.logs import configure_logging
    from watchdog.server import open_listen_socket
    from watchdog.store.errors import SchemaError, StoreUnavailableError

    configure_logging(loaded_config.mask)
    server = loaded_config.config.server
    try:
        listen_socket = open_listen_socket(*server.bind_address)
    except OSError as e:
        exit_with_error(f"cannot listen on {server.listen}: {e.strerror or e}", ExitCode.UNKNOWN)
    collect_garbage_from_now_on()
    try:
        with listen_socket, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(loaded_config, listen_socket))
    except SchemaError as e:
        exit_with_error(str(e))
    except StoreUnavailableError as e:
        exit_database_unavailable(loaded_config, e)
