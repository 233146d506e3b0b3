"""`watchdog demo`."""

from __future__ import annotations


def demo_command() -> None:
    """Watch sample targets break and heal.

    An inbox shows what people are told. Needs no configuration, keeps nothing.
    """
    from watchdog.demo.processes import start_targets

    with start_targets() as (port, folder):
        import asyncio

        import uvloop

        from watchdog.cli.logs import configure_logging
        from watchdog.demo.run import run_demo
        from watchdog.net import SecretMask

        configure_logging(SecretMask([]), quiet=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_demo(port, folder))
