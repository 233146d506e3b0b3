"""Who is told what, from the configuration to the receivers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tests.e2e.world import ALERT, QUICK, World
from tests.patience import until


def probe(world: World, name: str, severity: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "http": world.target.url, **QUICK, "alert": {**ALERT, "severity": severity}, **more}


async def test_routes_decide_who_hears_what(world: World) -> None:
    hook = world.ears["hook"].standin
    names = ("pager", "core", "quiet", "rest")
    world.probes = [probe(world, "Checkout", "critical", group="Core"), probe(world, "Search", "warning", group="Core")]
    world.probes += [probe(world, "Blog", "critical"), probe(world, "Wiki", "info")]
    world.more = {
        "receivers": {name: {"webhook": {"url": f"{hook.url}{name}"}, "resolve": name != "quiet"} for name in names},
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
    async with world.watched() as watchdog:
        world.target.up = False
        await until(lambda: heard("opened") == opened)
        world.target.up = True
        await until(lambda: not [incident for incident in watchdog.incidents() if incident.state == "open"])
        await until(lambda: not watchdog.unsent())
        assert heard("resolved") == {name: probes for name, probes in opened.items() if name != "quiet"}
        assert heard("opened") == opened
