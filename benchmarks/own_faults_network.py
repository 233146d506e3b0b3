"""A machine without network, and one whose name server is dead, in a network namespace: targets, receiver and all.

`python -m benchmarks.own_faults_network CASE` prints the figures as JSON. It is started by `unshare -rnm`. The network
is 192.0.2.0/24: 40 targets by address, 40 by name, and the name server. Over loopback, 20 targets and the receiver.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import Self

from benchmarks.measurements import Measurement
from benchmarks.own_faults_harness import FAULT_S, MAX_BLIND_S, SETTLE_S, Surroundings
from tests.support.command_line import PROJECT_ROOT
from tests.support.isolated_network import bring_loopback_up
from tests.support.watchdog_process import run_watchdog

NETWORK, NAME_SERVER_ADDRESS, NAMED_ADDRESS = "192.0.2.0/24", "192.0.2.53", "192.0.2.100"
REMOTE_COUNT = 40
"""Targets by address, and as many by name."""


def measure_in_namespace(name: str) -> list[Measurement]:
    command = ["unshare", "-rnm", sys.executable, "-m", "benchmarks.own_faults_network", name]
    ran = subprocess.run(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [Measurement(*fields) for fields in json.loads(ran.stdout.splitlines()[-1])]


class NameServer:
    """Answers each query for an IPv4 address with NAMED_ADDRESS, and each other one with no record."""

    def __init__(self) -> None:
        self.is_dead = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((NAME_SERVER_ADDRESS, 53))

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, sender = self._socket.recvfrom(512)
            except OSError:  # closed
                return
            if not self.is_dead:
                with suppress(OSError):  # the network is gone
                    self._socket.sendto(build_dns_response(query), sender)


def build_dns_response(query: bytes) -> bytes:
    """RFC 1035: the question is repeated, and an answer for a query of type A refers to its name."""
    question = query[12 : query.index(b"\0", 12) + 5]
    is_for_ipv4 = question[-4:-2] == b"\0\1"
    header = query[:2] + b"\x81\x80" + b"\0\1" + (b"\0\1" if is_for_ipv4 else b"\0\0") + bytes(4)
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(NAMED_ADDRESS)
    return header + question + (answer if is_for_ipv4 else b"")


# --- faults


@contextmanager
def no_network(_: NameServer) -> Iterator[None]:
    change_network("del")
    try:
        yield
    finally:
        change_network("add")


@contextmanager
def dead_name_server(server: NameServer) -> Iterator[None]:
    server.is_dead = True
    try:
        yield
    finally:
        server.is_dead = False


def change_network(verb: str) -> None:
    """An address of loopback with a short prefix makes the machine answer for the whole network."""
    commands = f"addr {verb} {NETWORK} dev lo\nroute {verb} default dev lo\n"
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=verb == "add")


NETWORK_FAULTS = {"no network for 60 s": no_network, "name server dead for 60 s": dead_name_server}


def measure_fault(name: str) -> list[Measurement]:
    with tempfile.TemporaryDirectory() as folder, NameServer() as server, Surroundings(Path(folder)) as around:
        urls = {f"address-{n}": f"http://192.0.2.{n + 1}" for n in range(REMOTE_COUNT)}
        urls |= {f"name-{n}": f"http://host{n}.acme.example" for n in range(REMOTE_COUNT)}
        remote = [around.build_probe(id, http=f"{url}:{around.targets.port}/{id}") for id, url in urls.items()]
        around.blameless_ids += list(urls)
        with run_watchdog(around.write_config(remote)) as watchdog:
            around.wait_until_healthy()
            with NETWORK_FAULTS[name](server):
                around.pass_time(watchdog, FAULT_S)
            back_at = time.monotonic()
            around.pass_time(watchdog, SETTLE_S)
            return [
                *around.measure(name, max_messages=2),
                Measurement(f"{name}: blind afterwards", around.blind_s(urls, back_at), "s", MAX_BLIND_S),
            ]


if __name__ == "__main__":
    bring_loopback_up()
    change_network("add")
    with tempfile.NamedTemporaryFile("w") as resolver_configuration:
        resolver_configuration.write(f"nameserver {NAME_SERVER_ADDRESS}\n")
        resolver_configuration.flush()
        subprocess.run(["mount", "--bind", resolver_configuration.name, "/etc/resolv.conf"], check=True)
        print(json.dumps([astuple(measurement) for measurement in measure_fault(sys.argv[1])]))
