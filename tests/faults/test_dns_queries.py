"""Faults of name servers that a `dns` probe queries, over real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.polling import HANG_S, wait_until_async
from tests.support.ports import find_free_port
from tests.support.probe_runs import run_probe
from tests.support.scripted_name_server import (
    DnsScript,
    ReceivedDnsQuery,
    ScriptedNameServer,
    dns_response,
    running_name_server,
)
from tests.support.scripted_servers import count_open_descriptors
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.net import dns_client
from watchdog.probes.dns import DnsProbe

NAME = "web.acme.test"
WEB_A = f"{NAME}. 300 IN A 203.0.113.7"
SOA = "acme.test. 300 IN SOA ns1.acme.test. hostmaster.acme.test. 1 7200 3600 1209600 60"


def respond(*records: str, **options: Any) -> DnsScript:
    return lambda query: [dns_response(query, *records, **options)]


def respond_by_transport(**scripts: DnsScript) -> DnsScript:
    return lambda query: scripts[query.transport](query)


def stay_silent(_: ReceivedDnsQuery) -> Sequence[bytes]:
    return []


def change_bytes(change: Callable[[bytes], bytes]) -> DnsScript:
    return lambda query: [change(dns_response(query, WEB_A))]


def respond_to_other_question(query: ReceivedDnsQuery) -> Sequence[bytes]:
    return [dns_response(query, WEB_A).replace(b"\x03web", b"\x03wob")]


def with_extended_error(query: ReceivedDnsQuery) -> Sequence[bytes]:
    import dns.edns
    import dns.message

    message = dns.message.from_wire(dns_response(query, rcode="SERVFAIL"))
    message.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "signature expired")])
    return [message.to_wire()]


@dataclass(frozen=True)
class DnsFault:
    """One row: what a name server does, and what has to be reported."""

    name: str
    script: DnsScript
    reason: str
    message: str
    """A part of the message; {server} stands for host and port."""
    dns: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    tcp_script: DnsScript | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    shares_remedy_with: str = ""


ADDRESS_OF_OTHER_SERVER = "203.0.113.9"
FAULTS = [
    DnsFault(
        "the name does not exist",
        respond(rcode="NXDOMAIN", authority=[SOA]),
        "dns.nxdomain",
        f"{NAME} does not exist (NXDOMAIN)",
        facts={"rcode": "NXDOMAIN"},
    ),
    DnsFault(
        "an alias leads to a name that does not exist",
        respond(f"{NAME}. 60 IN CNAME gone.acme.test.", rcode="NXDOMAIN", authority=[SOA]),
        "dns.nxdomain",
        f"{NAME} (an alias of gone.acme.test) does not exist (NXDOMAIN)",
        shares_remedy_with="the name does not exist",
    ),
    DnsFault("no record of the type", respond(authority=[SOA]), "dns.no_data", f"{NAME} has no A record"),
    DnsFault(
        "an expression is broken as well",
        respond(authority=[SOA]),
        "dns.no_data",
        f"{NAME} has no A record; ",
        fields={"expect": ["size(answers) > 0"]},
        shares_remedy_with="no record of the type",
    ),
    DnsFault(
        "the name server fails",
        with_extended_error,
        "dns.servfail",
        "{server} failed to answer (SERVFAIL): DNSSEC Bogus: signature expired",
        facts={"extended_error": "DNSSEC Bogus: signature expired"},
    ),
    DnsFault(
        "the name server refuses the query", respond(rcode="REFUSED"), "dns.refused", "{server} refuses the query"
    ),
    DnsFault("the name server reports an error", respond(rcode="NOTIMP"), "dns.error_response", "responds with NOTIMP"),
    DnsFault(
        "the name server rejects even the simplest query",
        respond(rcode="FORMERR"),
        "dns.error_response",
        "responds with FORMERR",
        shares_remedy_with="the name server reports an error",
    ),
    DnsFault(
        "the name server refers to others",
        respond(authority=["acme.test. 300 IN NS ns1.acme.test.", "acme.test. 300 IN NS ns2.acme.test."]),
        "dns.referral",
        "{server} has no answer, but refers to ns1.acme.test, ns2.acme.test",
    ),
    DnsFault(
        "aliases lead in a circle",
        respond(f"{NAME}. 60 IN CNAME b.test.", f"b.test. 60 IN CNAME {NAME}."),
        "dns.cname_loop",
        "the CNAME records form a loop",
    ),
    DnsFault(
        "the answer is another address",
        respond(f"{NAME}. 300 IN A {ADDRESS_OF_OTHER_SERVER}"),
        "dns.unexpected_answer",
        f"{NAME} A is {ADDRESS_OF_OTHER_SERVER}; missing: 203.0.113.7",
        dns={"contains": "203.0.113.7"},
        facts={"answers": [ADDRESS_OF_OTHER_SERVER]},
    ),
    DnsFault(
        "one answer too many",
        respond(WEB_A, f"{NAME}. 300 IN A {ADDRESS_OF_OTHER_SERVER}"),
        "dns.unexpected_answer",
        f"{NAME} A is 203.0.113.7, {ADDRESS_OF_OTHER_SERVER}; unexpected: {ADDRESS_OF_OTHER_SERVER}",
        dns={"equals": ["203.0.113.7"]},
        shares_remedy_with="the answer is another address",
    ),
    DnsFault(
        "the name server is silent",
        stay_silent,
        "timeout.dns_query",
        "timed out: no response from {server} to 2 queries over UDP",
        fields={"timeout": "3s"},
    ),
    DnsFault(
        "every response has another id",
        change_bytes(lambda data: bytes([data[0] ^ 1]) + data[1:]),
        "timeout.dns_query",
        "no response from {server}",
        facts={"ignored_responses": 1, "queries": 1},
        fields={"timeout": "1s"},
        shares_remedy_with="the name server is silent",
    ),
    DnsFault(
        "every response is to another question",
        respond_to_other_question,
        "timeout.dns_query",
        "no response from {server}",
        facts={"ignored_responses": 1},
        fields={"timeout": "1s"},
        shares_remedy_with="the name server is silent",
    ),
    DnsFault(
        "the name server is silent over TCP",
        stay_silent,
        "timeout.dns_query",
        "timed out: no response from {server}",
        dns={"protocol": "tcp"},
        fields={"timeout": "1s"},
        shares_remedy_with="the name server is silent",
    ),
    DnsFault(
        "the response is truncated, and TCP closes",
        respond(truncated=True),
        "dns.truncated",
        "the query over TCP failed: {server} closed the connection before it responded",
        tcp_script=stay_silent,
    ),
    DnsFault(
        "the response is truncated, and TCP is silent",
        respond_by_transport(udp=respond(truncated=True), tcp=stay_silent),
        "dns.truncated",
        "the query over TCP failed: no response",
        fields={"timeout": "1s"},
        shares_remedy_with="the response is truncated, and TCP closes",
    ),
    DnsFault(
        "the response is truncated over TCP as well",
        respond(truncated=True),
        "dns.truncated",
        "the query over TCP failed: truncated again",
        shares_remedy_with="the response is truncated, and TCP closes",
    ),
    DnsFault(
        "the response is shorter than a header",
        change_bytes(lambda data: data[:5]),
        "dns.malformed_response",
        "the response is malformed: it has only 5 bytes, less than a header",
        facts={"reply_bytes": 5},
    ),
    DnsFault(
        "a compressed name points forward",
        change_bytes(lambda data: data.replace(b"\xc0\x0c", b"\xc0\xff", 1)),
        "dns.malformed_response",
        "it contains a malformed name or record",
        facts={"detail": "BadPointer"},
        shares_remedy_with="the response is shorter than a header",
    ),
    DnsFault(
        "the response is cut off",
        change_bytes(lambda data: data[:-16]),
        "dns.malformed_response",
        "it contains a malformed name or record",
        shares_remedy_with="the response is shorter than a header",
    ),
    DnsFault(
        "bytes follow the response",
        change_bytes(lambda data: data + b"junk"),
        "dns.malformed_response",
        "it contains bytes after its last record",
        shares_remedy_with="the response is shorter than a header",
    ),
    DnsFault(
        "an answer for a name that does not exist",
        respond(WEB_A, rcode="NXDOMAIN"),
        "dns.malformed_response",
        "it contains an answer, but states that the name does not exist",
        shares_remedy_with="the response is shorter than a header",
    ),
    DnsFault(
        "a flood of responses to other queries",
        lambda query: [bytes([query.message.id >> 8 ^ 1, number]) + bytes(10) for number in range(101)],
        "dns.malformed_response",
        "more than 100 responses have the id or the question of another query",
        dns={"protocol": "tcp"},
        shares_remedy_with="the response is shorter than a header",
    ),
    DnsFault(
        "TCP closes within the response",
        stay_silent,
        "dns.malformed_response",
        "the connection was closed after 3 of 40 bytes",
        dns={"protocol": "tcp"},
        tcp_script=lambda _: [b"\x00\x28abc"],
        shares_remedy_with="the response is shorter than a header",
    ),
    DnsFault(
        "TCP closes without a response",
        stay_silent,
        "connection.closed",
        "{server} closed the connection before it responded",
        dns={"protocol": "tcp"},
        tcp_script=stay_silent,
        shares_remedy_with="closed after the handshake",
    ),
]


def build_probe(server: ScriptedNameServer, fault: DnsFault) -> DnsProbe:
    target = {"name": NAME, "server": server.host, "port": server.port, **fault.dns}
    return DnsProbe.model_validate({"name": "Record", "dns": target, "timeout": "10s", **fault.fields})


@asynccontextmanager
async def running_faulty_server(fault: DnsFault) -> AsyncIterator[ScriptedNameServer]:
    async with running_name_server(fault.script, tcp_script=fault.tcp_script) as server:
        yield server


async def observe(fault: DnsFault) -> tuple[ResultToRecord, ScriptedNameServer]:
    async with running_faulty_server(fault) as server:
        return await asyncio.wait_for(run_probe(build_probe(server, fault)), HANG_S), server


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_a_queried_name_server(fault: DnsFault) -> None:
    recorded, server = asyncio.run(observe(fault))
    result, facts = recorded.result, recorded.evidence.facts
    assert (result.outcome, result.reason) == (Outcome.FAIL, fault.reason), result.message
    assert fault.message.format(server=f"{server.host}:{server.port}") in result.message
    assert {name: facts.get(name) for name in fault.facts} == fault.facts
    assert (facts["question"], facts["server"].startswith(f"{server.host}:{server.port}")) == (f"{NAME} A", True)


def test_no_fault_leaves_anything_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_client, "DNS_UDP_ATTEMPT_TIMEOUT_S", 0.05)

    async def run_scenario() -> None:
        silent = next(fault for fault in FAULTS if fault.name == "the name server is silent")
        await observe(silent)
        await asyncio.sleep(0)
        descriptors, threads = count_open_descriptors(), threading.active_count()
        for fault in FAULTS:
            await observe(fault)
        await wait_until_async(lambda: count_open_descriptors() == descriptors)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert threading.active_count() == threads

    asyncio.run(run_scenario())


def test_nothing_listens() -> None:
    probe = DnsProbe.model_validate(
        {"name": "A", "dns": {"name": NAME, "server": "127.0.0.1", "port": find_free_port()}}
    )
    result = asyncio.run(run_probe(probe)).result
    assert (result.outcome, result.reason, result.message) == (Outcome.FAIL, "connection.refused", "connection refused")
