"""Who is told what, from the configuration to the receivers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tests.support.end_to_end import FAST_PROBE, IMMEDIATE_ALERT, EndToEndHarness
from tests.support.polling import wait_until_async


def probe(world: EndToEndHarness, name: str, severity: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "http": world.target.url,
        **FAST_PROBE,
        "alert": {**IMMEDIATE_ALERT, "severity": severity},
        **more,
    }


async def test_routes_decide_who_hears_what(world: EndToEndHarness) -> None:
    hook = world.receivers["hook"].fake
    names = ("pager", "core", "quiet", "rest")
    world.probes = [probe(world, "Checkout", "critical", group="Core"), probe(world, "Search", "warning", group="Core")]
    world.probes += [probe(world, "Blog", "critical"), probe(world, "Wiki", "info")]
    world.extra_config = {
        "receivers": {
            name: {"webhook": {"url": f"{hook.url}{name}"}, "send_resolved": name != "quiet"} for name in names
        },
        "routes": [
            {"match": {"severity": "critical"}, "receivers": ["pager"], "continue": True},
            {"match": {"group": "Core"}, "receivers": ["core", "quiet"]},
            {"match": {"probe": "Wiki"}, "receivers": ["rest"]},
        ],
    }

    def heard(event: str) -> dict[str, list[str]]:
        told = defaultdict(list)
        for one in hook.heard:
            if one.json["event"] == event:
                told[one.path.strip("/")].append(one.json["probe"]["name"])
        return {name: sorted(probes) for name, probes in told.items()}

    opened = {
        "pager": ["Blog", "Checkout"],
        "core": ["Checkout", "Search"],
        "quiet": ["Checkout", "Search"],
        "rest": ["Wiki"],
    }
    async with world.running_watchdog() as watchdog:
        world.target.up = False
        await wait_until_async(lambda: heard("opened") == opened)
        world.target.up = True
        await wait_until_async(
            lambda: not [incident for incident in watchdog.list_incidents() if incident.state == "open"]
        )
        await wait_until_async(lambda: not watchdog.count_unsent())
        assert heard("resolved") == {name: probes for name, probes in opened.items() if name != "quiet"}
        assert heard("opened") == opened
