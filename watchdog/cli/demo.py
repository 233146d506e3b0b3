"""`watchdog demo`."""

from __future__ import annotations


def demo() -> None:
    """Watch sample targets break and heal.

    An inbox shows what people are told. Needs no configuration, keeps nothing.
    """
    from watchdog.demo.launch import targets

    with targets() as (port, folder):
        import asyncio

        import uvloop

        from watchdog.cli.logs import set_up
        from watchdog.demo.play import play
        from watchdog.wire import Mask

        set_up(Mask([]), quiet=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(play(port, folder))
