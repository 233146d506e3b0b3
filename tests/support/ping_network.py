"""Pings in a network namespace of their own, whose hosts and routers a script plays. Prints what was observed, as JSON.

`python -m tests.support.ping_network` is started by `unshare -rn`: the namespace has only a loopback interface, and the
process may open raw sockets and permit ping sockets there. The kernel's own replies are turned off where a script
replies.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from tests.support.isolated_network import bring_loopback_up
from tests.support.polling import wait_until_async
from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import count_open_descriptors
from watchdog.domain.model import ResultToRecord
from watchdog.net import NetworkAccess
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.icmp import IcmpProbe

PING_GROUP_RANGE = Path("/proc/sys/net/ipv4/ping_group_range")
IGNORE_ECHO = (Path("/proc/sys/net/ipv4/icmp_echo_ignore_all"), Path("/proc/sys/net/ipv6/icmp/echo_ignore_all"))
ROUTER, OTHER_HOST = "127.0.0.200", "127.0.0.201"
_ECHO_HEADER = struct.Struct("!BBHHH")


class EchoRequest(NamedTuple):
    """A request that a script answers."""

    packet: bytes
    """With the header of IP, if it is IPv4."""
    icmp: bytes
    source: str
    target: str

    @property
    def number(self) -> int:
        return int(_ECHO_HEADER.unpack_from(self.icmp)[4])


class IcmpMessage(NamedTuple):
    sender: str
    data: bytes


EchoScript = Callable[[EchoRequest], Sequence[IcmpMessage]]


def compute_checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def build_icmp(type: int, code: int, rest: bytes) -> bytes:
    """`rest`: after the checksum. The kernel computes that of ICMPv6."""
    unsigned = bytes([type, code, 0, 0]) + rest
    return unsigned[:2] + compute_checksum(unsigned).to_bytes(2) + unsigned[4:]


def reply(request: EchoRequest, sender: str = "") -> IcmpMessage:
    is_ipv6 = ":" in request.target
    return IcmpMessage(sender or request.target, build_icmp(129 if is_ipv6 else 0, 0, request.icmp[4:]))


def report(request: EchoRequest, type: int, code: int, *, mtu: int = 0, sender: str = ROUTER) -> IcmpMessage:
    """An ICMP error, which quotes the request."""
    return IcmpMessage(sender, build_icmp(type, code, mtu.to_bytes(4) + request.packet[:60]))


def report_ipv6(request: EchoRequest, type: int, code: int, *, mtu: int = 0) -> IcmpMessage:
    source, target = (socket.inet_pton(socket.AF_INET6, host) for host in (request.source, request.target))
    header = struct.pack("!IHBB", 6 << 28, len(request.icmp), socket.IPPROTO_ICMPV6, 64) + source + target
    return IcmpMessage("::1", build_icmp(type, code, mtu.to_bytes(4) + header + request.icmp))


class ScriptedHosts:
    """Answers echo requests to any address by the script of that address."""

    def __init__(self) -> None:
        self.scripts: dict[str, EchoScript] = {}
        self.requests: list[EchoRequest] = []
        self._sockets = [
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
            socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
        ]

    def start(self) -> None:
        for sock in self._sockets:
            sock.setblocking(False)
            asyncio.get_running_loop().add_reader(sock, self._answer, sock)

    def stop(self) -> None:
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    def _answer(self, sock: socket.socket) -> None:
        packet, sender = sock.recvfrom(65_536)
        is_ipv6 = sock.family == socket.AF_INET6
        icmp = packet if is_ipv6 else packet[(packet[0] & 0xF) * 4 :]
        if icmp[0] != (128 if is_ipv6 else 8):
            return
        target = "::1" if is_ipv6 else socket.inet_ntoa(packet[16:20])
        request = EchoRequest(packet, icmp, sender[0], target)
        self.requests.append(request)
        for message in self.scripts[target](request) if target in self.scripts else ():
            protocol = socket.IPPROTO_ICMPV6 if is_ipv6 else socket.IPPROTO_ICMP
            with socket.socket(sock.family, socket.SOCK_RAW, protocol) as answering:
                answering.bind((message.sender, 0))
                answering.sendto(message.data, (request.source, 0))


def describe(recorded: ResultToRecord) -> dict[str, Any]:
    result = recorded.result
    return {
        "outcome": result.outcome, "reason": result.reason, "message": result.message,
        "measurements": dict(result.measurements), "phases": [*result.phases], "duration": result.duration,
        "facts": dict(recorded.evidence.facts), "excerpt": recorded.evidence.excerpt.splitlines(),
        "listings": {rule: len(listing.subjects) for rule, listing in result.listings.items()},
    }  # fmt: skip


async def ping(icmp: Any, **fields: Any) -> dict[str, Any]:
    probe = IcmpProbe.model_validate({"name": "Ping", "icmp": icmp, "timeout": "10s", **fields})
    return describe(await run_probe(probe))


def fast(host: str, count: int = 4, **fields: Any) -> dict[str, Any]:
    return {"host": host, "count": count, "interval": "20ms", **fields}


# --- scenarios


async def ping_kernel() -> dict[str, Any]:
    """The kernel itself replies: its IPv4 and its IPv6."""
    return {
        "IPv4": await ping("127.0.0.1"),
        "IPv6": await ping("::1"),
        "a name": await ping(fast("localhost")),
        "no data": await ping(fast("127.0.0.1", size=0)),
        "several fragments": await ping(fast("127.0.0.1", size=8_972)),
        "expectations hold": await ping(
            fast("127.0.0.1"), expect=["loss == 0.0", "avg_ms >= min_ms && avg_ms <= max_ms", "jitter_ms >= 0.0"]
        ),
        "an expectation fails": await ping(fast("127.0.0.1"), expect=["max_ms < 0.0"]),
        "a preference": await ping(fast("127.0.0.1"), prefer=["max_ms < 0.0", "loss <= 10.0"]),
        "no route": await ping(fast("192.0.2.1")),
        "no route for IPv6": await ping(fast("2001:db8::1")),
        "blocked": await ping(fast("169.254.169.254")),
        "private": await ping(fast("127.0.0.1"), allow_private_addresses=False),
    }


async def ping_scripted_hosts() -> dict[str, Any]:
    hosts = ScriptedHosts()
    hosts.start()
    scripts: dict[str, EchoScript] = {
        "127.0.0.10": lambda request: [reply(request)],
        "127.0.0.11": lambda _: [],
        "127.0.0.12": lambda request: [reply(request)] if request.number % 2 else [],
        "127.0.0.13": lambda request: [report(request, 3, 1)],
        "127.0.0.14": lambda request: [report(request, 11, 0)],
        "127.0.0.15": lambda request: [report(request, 3, 13)],
        "127.0.0.16": lambda request: [report(request, 3, 4, mtu=1_400)],
        "127.0.0.17": lambda request: [report(request, 3, 1)] if request.number else [reply(request)],
        "127.0.0.18": lambda request: [reply(request, OTHER_HOST)],
        "127.0.0.19": lambda request: [reply(request)] * 3,
        "127.0.0.20": lambda request: [report(request, 3, 0)],
        "::1": lambda request: [report_ipv6(request, *ipv6_reports[0], mtu=1_280)],
    }
    hosts.scripts = scripts
    ipv6_reports = [(1, 3), (3, 0), (1, 1), (2, 0)]
    observed = {
        "replies": await ping(fast("127.0.0.10")),
        "silence": await ping(fast("127.0.0.11"), timeout="400ms"),
        "half lost": await ping(fast("127.0.0.12"), timeout="400ms"),
        "half lost, as permitted": await ping(fast("127.0.0.12", max_loss="50 %"), timeout="400ms"),
        "half lost, an expectation fails": await ping(
            fast("127.0.0.12", max_loss="50%"), expect=["loss < 25.0"], timeout="400ms"
        ),
        "host unreachable": await ping(fast("127.0.0.13")),
        "network unreachable": await ping(fast("127.0.0.20")),
        "time to live exceeded": await ping(fast("127.0.0.14")),
        "prohibited": await ping(fast("127.0.0.15")),
        "too big": await ping(fast("127.0.0.16", size=2_000)),
        "unreachable after the first": await ping(fast("127.0.0.17")),
        "replies of another host": await ping(fast("127.0.0.18"), timeout="400ms"),
        "duplicates": await ping(fast("127.0.0.19")),
    }
    for name in ("unreachable", "hop limit exceeded", "prohibited", "too big"):
        observed[f"IPv6 {name}"] = await ping(fast("::1"))
        del ipv6_reports[0]
    hosts.stop()
    return observed


async def cancel_while_waiting() -> dict[str, Any]:
    """What is left of a run that is cancelled while no reply comes."""
    hosts = ScriptedHosts()
    hosts.start()
    async with NetworkAccess() as network:
        probe = IcmpProbe.model_validate({"name": "Ping", "icmp": fast("127.0.0.11")})
        context = ProbeAttemptContext(0, 0, 10.0, "key", {}, network)
        tasks, descriptors, threads = asyncio.all_tasks(), count_open_descriptors(), threading.active_count()
        running = asyncio.create_task(probe.observe(context))
        await wait_until_async(lambda: len(hosts.requests) >= 2)
        running.cancel()
        await asyncio.wait([running])
        left = count_open_descriptors() - descriptors, len(asyncio.all_tasks() - tasks)
        phase = context.phase_timer.current_phase
    hosts.stop()
    threads_left = threading.active_count() - threads
    return {"cancelled": running.cancelled(), "left": [*left, threads_left], "phase": phase}


async def ping_while_loop_is_late() -> dict[str, Any]:
    """The event loop is blocked for a second right after the request was sent."""
    async with NetworkAccess() as network:
        probe = IcmpProbe.model_validate({"name": "Ping", "icmp": fast("127.0.0.1", 1)})
        running = asyncio.create_task(probe.observe(ProbeAttemptContext(0, 0, 10.0, "key", {}, network)))
        await asyncio.sleep(0)
        time.sleep(1)  # noqa: ASYNC251 - this blocks the event loop
        observation = await running
    return {"outcome": observation.outcome, "max_ms": observation.measurements["max_ms"]}


async def run_many(runs: int) -> list[int]:
    """The number of open descriptors before and after many runs at the same time."""
    await ping(fast("127.0.0.1"))
    before = count_open_descriptors()
    await asyncio.gather(*(ping(fast("127.0.0.1")) for _ in range(runs)))
    return [before, count_open_descriptors()]


def run_on_both_event_loops(scenario: Callable[[], Coroutine[Any, Any, Any]]) -> dict[str, Any]:
    results = {"asyncio": asyncio.run(scenario())}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results["uvloop"] = runner.run(scenario())
    return results


def main() -> None:
    bring_loopback_up()
    observed: dict[str, Any] = {"not permitted": asyncio.run(ping("127.0.0.1"))}
    PING_GROUP_RANGE.write_text("0 0")
    observed["kernel"] = run_on_both_event_loops(ping_kernel)
    observed["late"] = run_on_both_event_loops(ping_while_loop_is_late)
    observed["many"] = asyncio.run(run_many(20))
    for file in IGNORE_ECHO:
        file.write_text("1")
    observed["scripted"] = run_on_both_event_loops(ping_scripted_hosts)
    observed["cancelled"] = run_on_both_event_loops(cancel_while_waiting)
    print(json.dumps(observed))


if __name__ == "__main__":
    main()
