"""A name server with one fault for each name, and a run of probes that use it as their only one.

`python -m tests.faults.name_server PORT` prints the result of a probe for each name in NAMES, as JSON. It is started in
a mount namespace of its own, in which /etc/resolv.conf names this server.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import struct
import sys
import threading

from tests.support.probe_runs import run_probe
from watchdog.probes.http import HttpProbe

NAMES = ("healthy", "missing", "no-address", "servfail", "refused", "silent", "metadata")
_A_RECORDS = {"healthy": "127.0.0.1", "metadata": "169.254.169.254"}
_RESPONSE_CODES = {"missing": 3, "servfail": 2, "refused": 5}


def answer(query: bytes) -> bytes | None:
    """The response to a query for `NAME.acme.test`; None: there is none."""
    length = query[12]
    name = query[13 : 13 + length].decode()
    end = query.index(b"\0", 12) + 5
    (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
    if name == "silent":
        return None
    records = [_A_RECORDS[name]] if name in _A_RECORDS and kind == 1 else []
    flags = 0x8180 | _RESPONSE_CODES.get(name, 0)
    head = query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
    body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(record) for record in records)
    return head + query[12:end] + body


def serve() -> socket.socket:
    """A server in a thread, until its socket is closed, at the first free address of the loopback network. Raises
    PermissionError without the right to port 53."""
    server = _bind_free_address()
    server.settimeout(0.1)  # a socket that is closed during a wait would stay bound

    def loop() -> None:
        while True:
            try:
                query, sender = server.recvfrom(512)
            except TimeoutError:
                continue
            except OSError:  # closed
                return
            if response := answer(query):
                server.sendto(response, sender)

    threading.Thread(target=loop, daemon=True).start()
    return server


def _bind_free_address() -> socket.socket:
    for host in range(42, 250):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            server.bind((f"127.0.0.{host}", 53))
        except OSError as error:
            server.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return server
    raise OSError(errno.EADDRINUSE, "port 53 is in use at every address tried")


async def observe_all(port: int) -> dict[str, tuple[str, str, str]]:
    """The outcome, reason and message for each name, all probed at the same time."""
    probes = [
        HttpProbe.model_validate({"name": name, "http": f"http://{name}.acme.test:{port}/", "timeout": "20s"})
        for name in NAMES
    ]
    results = [recorded.result for recorded in await asyncio.gather(*map(run_probe, probes))]
    return {
        probe.name: (result.outcome, result.reason, result.message)
        for probe, result in zip(probes, results, strict=True)
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(observe_all(int(sys.argv[1])))))
