"""Permitted and refused addresses, in every notation."""

from __future__ import annotations

import pytest

from watchdog.net.address_filter import find_blocked_address_category

ALWAYS = {
    "metadata": (
        "169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254",
        "fd20:ce::254", "::ffff:169.254.169.254", "::169.254.169.254", "::ffff:0:a9fe:a9fe", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:db8:1:1:0:5efe:a9fe:a9fe", "2001:0:a9fe:a9fe::1",
        "2001:0:1:1:0:0:5601:5601", "::ffff:100.100.100.200",
    ),
    "link_local": ("169.254.0.1", "169.254.255.255", "fe80::1", "fe80::1%eth0", "febf::1", "::ffff:169.254.1.1"),
    "multicast": ("224.0.0.1", "239.255.255.250", "255.255.255.255", "ff02::1", "::ffff:224.0.0.1"),
}  # fmt: skip
NOT_PUBLIC = {
    "loopback": ("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1"),
    "private": (
        "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255", "fd12:3456::1",
        "fec0::1", "::ffff:10.0.0.1", "2002:c0a8:101::1", "64:ff9b:1::808:808",
    ),
    "reserved": ("192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "240.0.0.1", "2001:db8::1", "100::1"),
}  # fmt: skip
PUBLIC = (
    "1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "169.253.255.255",
    "2606:4700::1111", "2a00:1450:4001:81b::200e", "::ffff:1.1.1.1", "64:ff9b::808:808", "2002:808:808::1",
)  # fmt: skip


@pytest.mark.parametrize(("why", "address"), [(why, a) for why, group in ALWAYS.items() for a in group])
def test_always_refused_addresses(why: str, address: str) -> None:
    assert find_blocked_address_category(address, allow_private_addresses=True) == why
    assert find_blocked_address_category(address, allow_private_addresses=False) == why


@pytest.mark.parametrize(("why", "address"), [(why, a) for why, group in NOT_PUBLIC.items() for a in group])
def test_private_addresses(why: str, address: str) -> None:
    assert find_blocked_address_category(address, allow_private_addresses=True) is None
    assert find_blocked_address_category(address, allow_private_addresses=False) == why


@pytest.mark.parametrize("address", PUBLIC)
def test_always_permitted_addresses(address: str) -> None:
    assert find_blocked_address_category(address, allow_private_addresses=False) is None
    assert find_blocked_address_category(address, allow_private_addresses=True) is None
