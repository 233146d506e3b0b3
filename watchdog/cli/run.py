"""`watchdog run`: the service."""

from __future__ import annotations

import errno
import sys

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    exit_with_database_error,
    exit_with_error,
    exit_without_waiting_for_threads,
    freeze_heap_and_enable_gc,
    load_config_or_exit,
)


def run_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Run the service: probes, alerts and web pages.

    Runs every probe on its schedule, stores and evaluates the results, sends notifications and serves the pages. Logs
    to standard error. Applies a changed configuration when its files change or on SIGHUP, and goes on with the former
    one if the new one is invalid. Stops within 10 s of SIGTERM or SIGINT.

    \b
    Example: watchdog run -c /etc/watchdog/watchdog.yaml
    """
    from watchdog.cli.logs import configure_logging, do_without_rich_and_pygments
    from watchdog.signals import hold_back_sighup

    do_without_rich_and_pygments()
    hold_back_sighup()
    loaded_config = load_config_or_exit(config)

    from watchdog.config.config_files import read_config_file_signatures

    signatures = read_config_file_signatures(loaded_config.files)

    import asyncio

    import uvloop

    from watchdog.app import serve_until_shutdown
    from watchdog.server import open_listen_socket
    from watchdog.service.process_resources import limit_heap_fragmentation, raise_file_descriptor_limit
    from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError

    configure_logging(loaded_config.mask)
    raise_file_descriptor_limit()
    limit_heap_fragmentation()
    server = loaded_config.config.server
    try:
        listen_socket = open_listen_socket(*server.bind_address)
    except OSError as e:
        exit_with_error(f"cannot listen on {server.listen}: {_describe_listen_problem(e)}", ExitCode.UNKNOWN)
    print_page_address_on_terminal(server.public_url, *listen_socket.getsockname()[:2])
    freeze_heap_and_enable_gc()
    try:
        with listen_socket, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_until_shutdown(loaded_config, listen_socket, config, signatures))
            exit_without_waiting_for_threads()
    except WatchdogDatabaseSchemaError as e:
        exit_with_error(str(e))
    except StoreUnavailableError as e:
        exit_with_database_error(loaded_config.database, e)


def print_page_address_on_terminal(public_url: str, host: str, port: int) -> None:
    """For a person who has started the service by hand: elsewhere, standard output stays empty."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        from watchdog.config_values import build_local_base_url

        local_url = build_local_base_url(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        print(f"Watchdog is starting. Pages: {public_url or local_url} · Ctrl-C stops it.", flush=True)


def _describe_listen_problem(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program, perhaps another `watchdog run`, uses this address: stop it, or change `server.listen`"
    return error.strerror or str(error)
