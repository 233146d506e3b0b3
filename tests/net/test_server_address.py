"""How the address of a server is written, and what it may not be."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from watchdog.net.server_address import ServerTarget, parse_host_and_optional_port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db.acme.example:5432", ("db.acme.example", 5432)),
        ("db.acme.example", ("db.acme.example", None)),
        ("DB.Acme.example:1", ("db.acme.example", 1)),
        ("bücher.example:65535", ("xn--bcher-kva.example", 65535)),
        ("192.0.2.1:22", ("192.0.2.1", 22)),
        ("[2001:DB8::1]:5432", ("2001:db8::1", 5432)),
        ("[2001:db8:0:0::1]", ("2001:db8::1", None)),
        ("2001:db8::1", ("2001:db8::1", None)),
        ("2001:db8::5432", ("2001:db8::5432", None)),  # an address as a whole: a port needs brackets
        ("db_1.internal.:80", ("db_1.internal.", 80)),
    ],
)
def test_an_address_is_read(text: str, expected: tuple[str, int | None]) -> None:
    assert parse_host_and_optional_port(text) == expected


WRITTEN = "expected a host and a port, such as db.acme.example:5432"
OR_IN_BRACKETS = f"{WRITTEN} or [2001:db8::1]:5432"
PORT = "expected a port from 1 to 65535 after the colon"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://acme.example/", f"{WRITTEN}, found a URL or a path"),
        ("user:secret@db", f"{WRITTEN}, found a URL or a path"),
        ("", OR_IN_BRACKETS),
        (":5432", OR_IN_BRACKETS),
        ("[]:5432", OR_IN_BRACKETS),
        ("[db]:5432", OR_IN_BRACKETS),
        ("[2001:db8::1", OR_IN_BRACKETS),
        ("[2001:db8::1]5432", OR_IN_BRACKETS),
        ("db:", PORT),
        ("db:0", PORT),
        ("db:65536", PORT),
        ("db:http", PORT),
        ("db:+80", PORT),
        ("db: 80", PORT),
        ("db:80\n", PORT),
        ("a b:80", "invalid host name: a b"),
        ("db\n:80", "invalid host name: db\n"),
        ("1:2:3", "invalid IPv6 address: 1:2:3"),
        ("[fe80::1%eth0]:80", "invalid IPv6 address: fe80::1%eth0"),
    ],
)
def test_anything_else_is_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_host_and_optional_port(text)
    assert "secret" not in message


@pytest.mark.parametrize(
    ("fields", "endpoint"),
    [
        ("db:5432", "db:5432"),
        ({"host": "db:5432"}, "db:5432"),
        ({"host": "db", "port": 5432}, "db:5432"),
        ({"host": "2001:db8::1", "port": 5432}, "[2001:db8::1]:5432"),
    ],
)
def test_the_port_is_a_part_of_the_host_or_a_field(fields: Any, endpoint: str) -> None:
    target = ServerTarget.model_validate(fields)
    assert target.network_endpoint == endpoint
    assert (target.server_host, target.server_port) == (endpoint.rpartition(":")[0].strip("[]"), 5432)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("db", "no port: add it, as in db:5432"),
        ("2001:db8::1", r"no port: add it, as in \[2001:db8::1\]:5432"),
        ({"host": "db:1", "port": 1}, "`host` contains a port as well: remove one of them"),
        ({"host": "db", "port": 0}, "greater than or equal to 1"),
        ({"host": "db", "port": 65536}, "less than or equal to 65535"),
        ({"host": "db", "port": "5432"}, "valid integer"),
        ({"port": 5432}, "Field required"),
    ],
)
def test_a_target_without_one_port_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ServerTarget.model_validate(fields)
