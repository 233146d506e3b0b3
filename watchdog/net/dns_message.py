"""DNS messages: builds queries and parses responses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from watchdog.net.errors import ProbeError

if TYPE_CHECKING:
    from dns.message import Message, QueryMessage
    from dns.rdata import Rdata

DNS_HEADER_BYTES = 12
EDNS_UDP_PAYLOAD_BYTES = 1_232
"""The largest response over UDP that passes almost every network unfragmented (DNS flag day 2020)."""
MAX_DNS_EXCERPT_CHARS = 4_000
MAX_MALFORMED_REPLY_BYTES_IN_EVIDENCE = 64
_TRUNCATED_FLAG = 0x02
"""In the third byte of a message."""
ADDRESS_RECORD_TYPES = ("A", "AAAA")
_RECORD_TYPES_WITH_NAMES = frozenset({"CNAME", "MX", "NS", "PTR", "SOA", "SRV"})
"""Their names are compared without regard to case."""


class DnsReply(NamedTuple):
    """The content of a response."""

    rcode: str
    """The response code, such as "NOERROR"."""
    answers: tuple[str, ...] = ()
    """The data of the records of the queried type, normalised and sorted."""
    ttl_s: int = 0
    """The lowest TTL of these records and of the CNAME records that lead to them; 0: there are none."""
    canonical_name: str = ""
    """The name that CNAME records lead to; empty: there are none."""
    is_truncated: bool = False
    referred_to: tuple[str, ...] = ()
    """The name servers that a referral lists."""
    extended_error: str = ""
    """The cause of an error, if the response contains it (RFC 8914). It is the server's own text: untrusted."""
    excerpt: str = ""
    """The records, as in a zone file. They are the server's own text: untrusted."""


def build_dns_query(name: str, record_type: str, *, with_edns: bool) -> bytes:
    """A query with a random id. `with_edns`: permits larger responses over UDP; some old servers reject this."""
    import dns.message

    edns_version = 0 if with_edns else -1
    return dns.message.make_query(name, record_type, use_edns=edns_version, payload=EDNS_UDP_PAYLOAD_BYTES).to_wire()


def preload_dns_library(record_type: str) -> None:
    """Loads dnspython and its module for this record type."""
    import dns.message
    import dns.rdata
    import dns.rdatatype
    from dns.rdataclass import IN

    dns.rdata.get_rdata_class(IN, dns.rdatatype.from_text(record_type))  # type: ignore[no-untyped-call] # of dnspython


def has_same_dns_query_id(query: bytes, reply: bytes) -> bool:
    return reply[:2] == query[:2]


def parse_dns_reply(query: bytes, reply: bytes) -> DnsReply | None:
    """None: it is a response to another query. Raises ProbeError if it is malformed."""
    import dns.exception
    import dns.message
    import dns.rcode

    if not has_same_dns_query_id(query, reply):
        return None
    is_truncated = len(reply) >= DNS_HEADER_BYTES and bool(reply[2] & _TRUNCATED_FLAG)
    try:
        message = dns.message.from_wire(reply, keyring=False, question_only=is_truncated)
    except Exception as error:  # of dnspython, or a Python error on an unexpected value
        raise _build_malformed_reply_error(reply, error) from None
    if not dns.message.from_wire(query).is_response(message):
        return None
    rcode = dns.rcode.to_text(message.rcode())
    if is_truncated or not isinstance(message, dns.message.QueryMessage):
        return DnsReply(rcode, is_truncated=is_truncated)
    return _build_dns_reply(message, rcode)


def _build_dns_reply(message: QueryMessage, rcode: str) -> DnsReply:
    import dns.exception
    import dns.message

    extended_error, excerpt = _read_extended_dns_error(message), _render_dns_records(message)
    if rcode not in ("NOERROR", "NXDOMAIN"):
        return DnsReply(rcode, extended_error=extended_error, excerpt=excerpt)
    try:
        chaining = message.resolve_chaining()
    except dns.message.ChainTooLong:
        raise ProbeError.from_reason("dns.cname_loop", "dns_query", excerpt=excerpt) from None
    except dns.exception.DNSException:  # an answer although the name does not exist
        problem = "it contains an answer, but states that the name does not exist"
        raise ProbeError.from_reason("dns.malformed_response", "dns_query", excerpt=excerpt, problem=problem) from None
    records = chaining.answer or ()
    return DnsReply(
        rcode,
        answers=tuple(sorted({format_dns_record(record) for record in records})),
        ttl_s=chaining.minimum_ttl if records else 0,
        canonical_name=_format_dns_name(str(chaining.canonical_name)) if chaining.cnames else "",
        referred_to=() if records or chaining.cnames else _list_referred_name_servers(message),
        extended_error=extended_error,
        excerpt=excerpt,
    )


def _list_referred_name_servers(message: Message) -> tuple[str, ...]:
    """Of a response that is neither authoritative nor a negative answer."""
    import dns.flags
    from dns.rdatatype import NS, SOA

    types = {rrset.rdtype for rrset in message.authority}
    if message.flags & dns.flags.AA or SOA in types or NS not in types:
        return ()
    return tuple(
        sorted(format_dns_record(record) for rrset in message.authority if rrset.rdtype == NS for record in rrset)
    )


def format_dns_record(record: Rdata) -> str:
    """The data of a record, as `normalize_dns_answer` writes it."""
    import dns.rdatatype
    from dns.rdtypes.txtbase import TXTBase

    if isinstance(record, TXTBase):
        return b"".join(record.strings).decode(errors="replace")
    return normalize_dns_answer(dns.rdatatype.to_text(record.rdtype), record.to_text())


def normalize_dns_answer(record_type: str, text: str) -> str:
    """The data of a record as in a zone file, but without quotes and final dots, names in lower case, and the text of a
    TXT record unchanged. Different notations of an address give the same text. Never raises."""
    if record_type == "TXT":
        return text
    if record_type in ADDRESS_RECORD_TYPES:
        with suppress(ValueError):
            return str(ip_address(text))
    text = " ".join(_format_dns_name(word) for word in text.replace('"', "").split())
    return text.lower() if record_type in _RECORD_TYPES_WITH_NAMES else text


def _format_dns_name(word: str) -> str:
    return word.removesuffix(".") or word


def _read_extended_dns_error(message: Message) -> str:
    """ "DNSSEC Bogus: signature expired"; empty: there is none."""
    from dns.edns import EDEOption

    options = (option for option in message.options if isinstance(option, EDEOption))
    text = next((option.to_text() for option in options), "")
    return re.sub(r"^EDE \d+ \((.*?)\)", r"\1", text)


def _render_dns_records(message: Message) -> str:
    lines, length = [], 0
    for line in _iter_dns_record_lines(message):
        lines.append(line)
        length += len(line) + 1
        if length > MAX_DNS_EXCERPT_CHARS:
            break
    return "\n".join(lines)


def _iter_dns_record_lines(message: Message) -> Iterator[str]:
    import dns.rdatatype

    for rrset in chain(message.answer, message.authority):
        for record in rrset:
            yield f"{rrset.name} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {record.to_text()}"


def _build_malformed_reply_error(reply: bytes, error: Exception) -> ProbeError:
    import dns.message

    if isinstance(error, dns.message.ShortHeader):
        problem = f"it has only {len(reply)} bytes, less than a header"
    elif isinstance(error, dns.message.TrailingJunk):
        problem = "it contains bytes after its last record"
    else:
        problem = "it contains a malformed name or record"
    malformed = ProbeError.from_reason("dns.malformed_response", "dns_query", problem=problem)
    beginning = reply[:MAX_MALFORMED_REPLY_BYTES_IN_EVIDENCE].hex(" ")
    malformed.facts |= {"detail": type(error).__name__, "reply_bytes": len(reply), "reply": beginning}
    return malformed
