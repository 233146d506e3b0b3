"""Routes decide which receivers get a notification, from the configuration to the receivers."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from typing import Any

from tests.support.end_to_end import FAST_PROBE, IMMEDIATE_ALERT, EndToEndHarness
from tests.support.fakes import FakeHttpTarget
from tests.support.polling import wait_until_async


def probe(target: FakeHttpTarget, name: str, severity: str, **fields: Any) -> dict[str, Any]:
    alert = {**IMMEDIATE_ALERT, "severity": severity}
    return {"name": name, "http": target.url, **FAST_PROBE, "alert": alert, **fields}


def set_up(targets: list[FakeHttpTarget], *, up: bool) -> None:
    for target in targets:
        target.up = up


async def test_routes_decide_which_receivers_are_notified(harness: EndToEndHarness) -> None:
    hook = harness.receivers["hook"].fake
    names = ("pager", "core", "opened-only", "rest")
    targets = [FakeHttpTarget() for _ in range(4)]
    harness.probes = [
        probe(targets[0], "Checkout", "critical", group="Core"),
        probe(targets[1], "Search", "warning", group="Core"),
        probe(targets[2], "Blog", "critical"),
        probe(targets[3], "Wiki", "info"),
    ]
    harness.extra_config = {
        "receivers": {
            name: {"webhook": {"url": f"{hook.url}{name}"}, "send_resolved": name != "opened-only"} for name in names
        },
        "routes": [
            {"match": {"severity": "critical"}, "receivers": ["pager"], "continue": True},
            {"match": {"group": "Core"}, "receivers": ["core", "opened-only"]},
            {"match": {"probe": "Wiki"}, "receivers": ["rest"]},
        ],
    }

    def notified(event: str) -> dict[str, list[str]]:
        """Receiver -> the names of the probes whose event it got."""
        names_by_receiver = defaultdict(list)
        for request in hook.received:
            if request.json["event"] == event:
                names_by_receiver[request.path.strip("/")].append(request.json["probe"]["name"])
        return {receiver: sorted(probes) for receiver, probes in names_by_receiver.items()}

    opened = {
        "pager": ["Blog", "Checkout"],
        "core": ["Checkout", "Search"],
        "opened-only": ["Checkout", "Search"],
        "rest": ["Wiki"],
    }
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(target)
        async with harness.running_watchdog() as watchdog:
            set_up(targets, up=False)
            await wait_until_async(lambda: notified("opened") == opened)
            set_up(targets, up=True)
            await wait_until_async(lambda: all(incident.state == "resolved" for incident in watchdog.list_incidents()))
            await wait_until_async(lambda: not watchdog.count_unsent())
            assert notified("resolved") == {name: probes for name, probes in opened.items() if name != "opened-only"}
            assert notified("opened") == opened
