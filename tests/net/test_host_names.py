"""Host names and names of records in the configuration."""

from __future__ import annotations

import pytest

from watchdog.net.host_names import parse_dns_name, parse_host


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("acme.example", "acme.example"),
        ("ACME.example.", "acme.example."),
        ("my_host", "my_host"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2852039166", "2852039166"),
    ],
)
def test_a_host(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "http://a", "a:53", "a/b", "user@a", "[a]", "fe80::1%eth0", "-a", "a" * 254, "☃" * 70, "a\n"],
)
def test_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="expected a host name or an IP address, without scheme and port, found"):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (".", "."),
        ("acme.example.", "acme.example"),
        ("ACME.example", "ACME.example"),
        ("_sip._tcp.acme.example", "_sip._tcp.acme.example"),
        ("*.acme.example", "*.acme.example"),
        ("0/25.2.0.192.in-addr.arpa", "0/25.2.0.192.in-addr.arpa"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("a" * 63, "a" * 63),
    ],
)
def test_the_name_of_a_record(text: str, name: str) -> None:
    assert parse_dns_name(text) == name


@pytest.mark.parametrize(
    "text", ["", "..", "a..b", ".a", "a b", "a@b", "a" * 64, ".".join(["a" * 60] * 5), "a\n", "a:1"]
)
def test_no_name_of_a_record(text: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a DNS record, such as"):
        parse_dns_name(text)
