"""DNS messages: what arrives becomes a reply, is ignored, or is a fault of the name server."""

from __future__ import annotations

import pickle
import random

import dns.message
import dns.rrset
import pytest

from watchdog.net.dns_message import (
    MAX_DNS_EXCERPT_CHARS,
    DnsReply,
    build_dns_query,
    normalize_dns_answer,
    parse_dns_reply,
)
from watchdog.net.errors import ProbeError

QUERY = build_dns_query("web.acme.test", "MX", with_edns=True)


def build_reply(*exchanges: str) -> bytes:
    message = dns.message.make_response(dns.message.from_wire(QUERY))
    message.answer.append(dns.rrset.from_text("web.acme.test.", 300, "IN", "MX", *exchanges))
    message.authority.append(dns.rrset.from_text("acme.test.", 60, "IN", "NS", "ns1.acme.test."))
    return message.to_wire(max_size=65_535)


REPLY = build_reply("10 mail.acme.test.", "20 backup.acme.test.")


def parse_or_describe_fault(data: bytes) -> DnsReply | str | None:
    try:
        return parse_dns_reply(QUERY, data)
    except ProbeError as error:
        return error.reason


def test_a_reply() -> None:
    reply = parse_dns_reply(QUERY, REPLY)
    assert reply is not None
    assert reply[:3] == ("NOERROR", ("10 mail.acme.test", "20 backup.acme.test"), 300)
    assert pickle.loads(pickle.dumps(reply)) == reply, "it may come from another process"


@pytest.mark.parametrize("seed", range(5))
def test_no_damage_to_a_reply_is_a_bug(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(400):
        data = bytearray(REPLY)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(2, len(data))] = generator.randrange(256)
        outcome = parse_or_describe_fault(bytes(data[: generator.choice([len(data), generator.randrange(len(data))])]))
        assert (
            outcome is None or isinstance(outcome, DnsReply) or outcome in ("dns.malformed_response", "dns.cname_loop")
        )


@pytest.mark.parametrize("length", range(12))
def test_less_than_a_header(length: int) -> None:
    outcome = parse_or_describe_fault(REPLY[:length])
    assert outcome == (None if length < 2 else "dns.malformed_response")


def test_the_excerpt_is_bounded() -> None:
    reply = parse_dns_reply(QUERY, build_reply(*(f"{number} mail{number}.acme.test." for number in range(1_000))))
    assert reply is not None
    assert len(reply.answers) == 1_000
    assert len(reply.excerpt) < MAX_DNS_EXCERPT_CHARS + 100


@pytest.mark.parametrize(
    ("type", "text", "normalized"),
    [
        ("A", "not an address", "not an address"),
        ("AAAA", "::ffff:192.0.2.1", "::ffff:c000:201"),
        ("TXT", ' "As it IS." ', ' "As it IS." '),
        ("MX", " 10  Mail.Acme.test. ", "10 mail.acme.test"),
        ("MX", "0 .", "0 ."),
        ("CAA", '0 issue "Acme.test"', "0 issue Acme.test"),
    ],
)
def test_an_answer_is_normalized(type: str, text: str, normalized: str) -> None:
    assert normalize_dns_answer(type, text) == normalized
