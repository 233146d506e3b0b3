"""`watchdog run`."""

from __future__ import annotations

from watchdog.cli.common import DEFAULT, ConfigFile, Exit, fail, loaded


def run(config: ConfigFile = DEFAULT) -> None:
    """Probe on schedule, keep the results, judge them, tell people, serve the pages. Ends within 10 s of SIGTERM."""
    given = loaded(config)

    import asyncio

    import uvloop

    from watchdog.app import serve
    from watchdog.cli.logs import set_up
    from watchdog.store.database import Away, why
    from watchdog.store.migrate import SchemaError

    set_up(given.mask)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(given))
    except SchemaError as e:
        fail(str(e))
    except Away as e:
        fail(f"the database cannot be reached: {given.mask(why(e))}", Exit.UNJUDGED)
    except OSError as e:
        fail(f"cannot listen on {given.config.server.listen}: {e.strerror or e}", Exit.UNJUDGED)
