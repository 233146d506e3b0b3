"""`watchdog demo`: sample services that fail and recover."""

from __future__ import annotations

from watchdog.cli.common import freeze_heap_and_enable_gc


def demo_command() -> None:
    """Monitor sample services that fail and recover.

    Needs no configuration and keeps no data. Prints the addresses of the pages and of an inbox that shows every
    notification, and a line each time something is broken or repaired. Press Ctrl-C to stop.
    """
    from watchdog.demo.processes import start_demo_targets

    with start_demo_targets() as targets:
        import asyncio

        import uvloop

        from watchdog.cli.logs import configure_logging
        from watchdog.demo.run import run_demo
        from watchdog.net import SecretMask

        configure_logging(SecretMask([]), quiet=True)
        freeze_heap_and_enable_gc()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_demo(targets))
    print("Stopped. Every process of the demo has ended, and its data is deleted.")
