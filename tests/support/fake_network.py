"""Spellings of an address that must not be connected to, and a network that records what is connected to."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from watchdog.net import connector, name_lookup
from watchdog.net.name_lookup import SocketAddress

METADATA_ADDRESS_SPELLINGS = (
    "http://169.254.169.254/latest/meta-data/",
    "http://user@169.254.169.254/",
    "http://acme.example@169.254.169.254/",
    "http://169.254.169.254:80/",
    "http://169.254.169.254./",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0xA9FEA9FE:80/",
    "http://025177524776/",
    "http://0251.0376.0251.0376/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://169.254.43518/",
    "http://169.16689662/",
    "http://0251.254.0xa9.254/",
    "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/",
    "http://169。254。169。254/",
    "http://[::ffff:169.254.169.254]/",
    "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
    "http://[::169.254.169.254]/",
    "http://[::ffff:0:a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::169.254.169.254]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:a9fe:a9fe::1]/",
    "http://[fe80::a9fe:a9fe]/",
    "http://[fd00:ec2::254]/",
    "http://metadata.acme.example/",
)


class FakeNetwork:
    """A fake name server, and a list of the addresses that were connected to."""

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {}
        """Name -> its addresses, one list per lookup; the last list is repeated."""
        self.lookups: list[str] = []
        self.connected: list[str] = []

    def look_up(self, host: str, port: int) -> list[SocketAddress]:
        self.lookups.append(host)
        if host not in self.names:
            return dial_look_up(host, port)
        address_lists = self.names[host]
        addresses = address_lists.pop(0) if len(address_lists) > 1 else address_lists[0]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, (a, port)) for a in addresses]

    async def connect(self, address: SocketAddress) -> socket.socket:
        self.connected.append(address[1][0])
        return await dial_connect(address)

    async def connect_protocol(self, create_protocol: Callable[[], Any], address: SocketAddress) -> Any:
        self.connected.append(address[1][0])
        return await dial_connect_protocol(create_protocol, address)


dial_look_up, dial_connect = name_lookup.resolve_host_blocking, connector.connect_socket_to_resolved_address
dial_connect_protocol = connector.connect_protocol_to_resolved_address


def install_fake_network(monkeypatch: pytest.MonkeyPatch) -> FakeNetwork:
    network = FakeNetwork()
    monkeypatch.setattr(name_lookup, "resolve_host_blocking", network.look_up)
    monkeypatch.setattr(connector, "connect_socket_to_resolved_address", network.connect)
    monkeypatch.setattr(connector, "connect_protocol_to_resolved_address", network.connect_protocol)
    return network
