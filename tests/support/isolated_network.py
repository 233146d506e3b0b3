"""A Watchdog on a machine without network: 45 targets, and receivers that can be reached over loopback.

`python -m tests.support.isolated_network FOLDER` prints what happens, as JSON. It is started by `unshare -rn`, in a
network namespace that has only a loopback interface.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.end_to_end import IMMEDIATE_ALERT, EndToEndHarness, RunningWatchdog
from tests.support.polling import wait_until_async
from watchdog.domain.rules import service
from watchdog.store.read.status import list_probe_statuses

TARGETS = [
    *(f"http://192.0.2.{number}/" for number in range(1, 16)),
    *(f"http://[2001:db8::{number}]/" for number in range(1, 16)),
    *(f"http://host{number}.acme.example/" for number in range(1, 16)),
]
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


def bring_loopback_up() -> None:
    with socket.socket() as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))


async def run_without_network(harness: EndToEndHarness) -> dict[str, Any]:
    """What the receiver `hook` got, and the outcomes and states of the probes after two runs of each."""
    harness.probes = [
        {"name": f"P{number}", "http": url, "every": "2s", "alert": IMMEDIATE_ALERT}
        for number, url in enumerate(TARGETS)
    ]
    received = harness.receivers["hook"].fake.received
    async with harness.running_watchdog() as watchdog:
        await wait_until_async(lambda: watchdog.count_outcomes()["error"] >= 2 * len(TARGETS))
        await wait_until_async(lambda: received and not watchdog.count_unsent())
        return describe_observations(watchdog, [request.json for request in received])


def describe_observations(watchdog: RunningWatchdog, bodies: list[Any]) -> dict[str, Any]:
    states = Counter(str(status.state) for status in watchdog.query_store(list_probe_statuses))
    own = [body for body in bodies if body["probe"]["kind"] == service.WATCHDOG_SELF_PROBE_KIND]
    return {
        "about_targets": len(bodies) - len(own),
        "about_watchdog": [[body["event"], body["incident"]["reason"]] for body in own],
        "outcomes": dict(watchdog.count_outcomes()),
        "states": dict(states),
    }


if __name__ == "__main__":
    bring_loopback_up()
    work_folder = Path(sys.argv[1])
    with EndToEndHarness(work_folder, f"sqlite:///{work_folder / 'watchdog.db'}") as end_to_end:
        print(json.dumps(asyncio.run(run_without_network(end_to_end))))
