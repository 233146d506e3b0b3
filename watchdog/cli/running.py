"""`watchdog run`."""

from __future__ import annotations

from watchdog.cli.common import DEFAULT, ConfigFile, Exit, fail, loaded, unusable


def run(config: ConfigFile = DEFAULT) -> None:
    """Watch, tell people, and serve the pages.

    Probes run on schedule, their results are kept and judged. Ends within 10 s of SIGTERM.
    """
    given = loaded(config)

    import asyncio

    import uvloop

    from watchdog.app import listen, serve
    from watchdog.cli.logs import set_up
    from watchdog.store.database import Unusable
    from watchdog.store.migrate import SchemaError

    set_up(given.mask)
    try:
        listening = listen(*given.config.server.address)
    except OSError as e:
        fail(f"cannot listen on {given.config.server.listen}: {e.strerror or e}", Exit.UNJUDGED)
    try:
        with listening, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(given, listening))
    except SchemaError as e:
        fail(str(e))
    except Unusable as e:
        unusable(given, e)
