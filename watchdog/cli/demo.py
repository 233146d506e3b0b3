"""`watchdog demo`: sample services that fail and recover."""

from __future__ import annotations

from watchdog.cli.common import collect_garbage_from_now_on


def demo_command() -> None:
    """Monitor sample services that fail and recover.

    Needs no configuration and keeps no data. Prints the addresses of the status page and of an inbox that shows every
    notification. Press Ctrl-C to stop.
    """
    from watchdog.demo.processes import start_targets

    with start_targets() as (port, folder):
        import asyncio

        import uvloop

        from watchdog.cli.logs import configure_logging
        from watchdog.demo.run import run_demo
        from watchdog.net import SecretMask

        configure_logging(SecretMask([]), quiet=True)
        collect_garbage_from_now_on()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_demo(port, folder))
