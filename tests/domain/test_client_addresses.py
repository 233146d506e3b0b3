from __future__ import annotations

import pytest

from watchdog.domain.client_addresses import TrustedProxies, get_address_or_ipv6_subscriber_network


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_addresses_of_one_subscriber_have_one_network(address: str, network: str) -> None:
    assert get_address_or_ipv6_subscriber_network(address) == network


@pytest.mark.parametrize(
    ("case", "peer", "forwarded_for", "client"),
    [
        ("a peer that is no proxy is not believed", "203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("a proxy", "127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("a proxy of a network, mapped into IPv6", "::ffff:10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("what the client added itself", "127.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("a chain of proxies", "127.0.0.1", "198.51.100.1, 10.9.9.9, 10.1.1.1", "198.51.100.1"),
        ("proxies alone", "127.0.0.1", "10.9.9.9, 10.1.1.1", "10.9.9.9"),
        ("nothing", "127.0.0.1", "", "127.0.0.1"),
        ("no address", "127.0.0.1", "198.51.100.1, unknown", "127.0.0.1"),
        ("with a port", "127.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("IPv6", "2001:db8:ffff::1", "2001:db8::9", "2001:db8::9"),
        ("IPv6 with a port", "127.0.0.1", "[2001:db8::9]:4711", "2001:db8::9"),
        ("not an address at all", "testclient", "198.51.100.1", "testclient"),
    ],
)
def test_only_trusted_proxies_name_their_clients(case: str, peer: str, forwarded_for: str, client: str) -> None:
    proxies = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "2001:db8:ffff::/48"])
    assert proxies.find_client_address(peer, forwarded_for.split(",")) == client, case
    assert TrustedProxies().find_client_address(peer, forwarded_for.split(",")) == peer, "none is trusted"
