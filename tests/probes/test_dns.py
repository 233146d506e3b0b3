"""The query of a DNS probe, and its evaluation of the response."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.message
import pytest
import uvloop
from pydantic import ValidationError

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
from tests.support.scripted_servers import (
    CertificateAuthority,
    count_open_descriptors,
    running_server,
    send_parts,
    wait_for_first_bytes_after_connecting,
)
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.domain.own_network import OwnNetworkFaultSymptomKind, find_own_network_fault_symptom_of_reason
from watchdog.net import NetworkAccess, PhaseTimer, connector, dns_client, dns_servers, name_lookup
from watchdog.net.dns_servers import read_system_name_servers
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.dns import DnsProbe

NAME = "web.acme.test"
RECORDS = (f"{NAME}. 300 IN A 203.0.113.8", f"{NAME}. 120 IN A 203.0.113.7")


def respond(*records: str, **options: Any) -> DnsScript:
    return lambda query: [dns_response(query, *records, **options)]


def build_probe(dns: Any, **fields: Any) -> DnsProbe:
    return DnsProbe.model_validate({"name": "Record", "dns": dns, **fields})


async def observe(script: DnsScript, dns: dict[str, Any] | None = None, **fields: Any) -> ResultToRecord:
    async with running_name_server(script) as server:
        probe = build_probe({"name": NAME, "server": server.host, "port": server.port, **(dns or {})}, **fields)
        return await asyncio.wait_for(run_probe(probe), HANG_S)


# --- verdicts


@pytest.mark.parametrize(
    ("sentence", "records", "rcode", "dns", "expect", "outcome", "reason", "message"),
    [
        ("any answer is good", RECORDS, "NOERROR", {}, [], "pass", "", ""),
        ("one of the answers", RECORDS, "NOERROR", {"contains": "203.0.113.7"}, [], "pass", "", ""),
        ("several answers", RECORDS, "NOERROR", {"contains": ["203.0.113.8", "203.0.113.7"]}, [], "pass", "", ""),
        ("all, in any order", RECORDS, "NOERROR", {"equals": ["203.0.113.8", "203.0.113.7"]}, [], "pass", "", ""),
        (
            "an answer that is missing", RECORDS, "NOERROR", {"contains": ["203.0.113.1", "203.0.113.7"]}, [], "fail",
            "dns.unexpected_answer", f"{NAME} A is 203.0.113.7, 203.0.113.8; missing: 203.0.113.1",
        ),
        (
            "one is missing, and others are not expected", RECORDS, "NOERROR", {"equals": "203.0.113.1"}, [], "fail",
            "dns.unexpected_answer",
            f"{NAME} A is 203.0.113.7, 203.0.113.8; missing: 203.0.113.1; unexpected: 203.0.113.7, 203.0.113.8",
        ),
        ("an expression", RECORDS, "NOERROR", {}, ["size(answers) == 2 && ttl <= 300"], "pass", "", ""),
        ("answers are sorted", RECORDS, "NOERROR", {}, ["answers[0] == '203.0.113.7'"], "pass", "", ""),
        (
            "a false expression", RECORDS, "NOERROR", {}, ["ttl <= 60"], "fail", "expectation.failed",
            "ttl is 120, expected <= 60",
        ),
        ("an expression about the response code decides", (), "NXDOMAIN", {}, ["rcode == 'NXDOMAIN'"], "pass", "", ""),
        (
            "also about no records", (), "NOERROR", {}, ["rcode == 'NOERROR' && size(answers) == 0"], "pass",
            "", "",
        ),
        (
            "the response code is not the expected one", (), "SERVFAIL", {}, ["rcode == 'NXDOMAIN'"], "fail",
            "expectation.failed", "response code 'SERVFAIL', expected 'NXDOMAIN'",
        ),
        (
            "any other expression does not", (), "NXDOMAIN", {}, ["size(answers) == 0"], "fail", "dns.nxdomain",
            f"{NAME} does not exist",
        ),
        (
            "expected answers are missing although the response code is good", (), "NXDOMAIN",
            {"contains": "203.0.113.7"}, ["rcode == 'NXDOMAIN'"], "fail", "dns.unexpected_answer",
            f"{NAME} A has no answer; missing: 203.0.113.7",
        ),
    ],
)  # fmt: skip
def test_the_verdict(
    sentence: str,
    records: tuple[str, ...],
    rcode: str,
    dns: dict[str, Any],
    expect: list[str],
    outcome: str,
    reason: str,
    message: str,
) -> None:
    result = asyncio.run(observe(respond(*records, rcode=rcode), dns, expect=expect)).result
    assert (result.outcome, result.reason) == (outcome, reason), sentence
    assert result.message.startswith(message), sentence


@pytest.mark.parametrize(
    ("type", "record", "answer", "expected"),
    [
        ("A", "203.0.113.7", "203.0.113.7", "203.0.113.7"),
        ("AAAA", "2001:db8:0:0::7", "2001:db8::7", "2001:DB8::0007"),
        ("CNAME", "Web.Acme.test.", "web.acme.test", "WEB.acme.test."),
        ("NS", "Ns1.acme.test.", "ns1.acme.test", "ns1.acme.test"),
        ("PTR", "Web.acme.test.", "web.acme.test", "web.acme.test"),
        ("MX", "10 Mail.acme.test.", "10 mail.acme.test", "10  mail.acme.test."),
        ("MX", "0 .", "0 .", "0 ."),
        ("TXT", '"v=spf1 " "-ALL."', "v=spf1 -ALL.", "v=spf1 -ALL."),
        ("SRV", "5 10 5060 Sip.acme.test.", "5 10 5060 sip.acme.test", "5 10 5060 sip.acme.test"),
        ("CAA", '0 issue "Letsencrypt.org"', "0 issue Letsencrypt.org", '0 issue "Letsencrypt.org"'),
        (
            "SOA",
            "ns1.acme.test. Hostmaster.acme.test. 7 7200 3600 1209600 60",
            "ns1.acme.test hostmaster.acme.test 7 7200 3600 1209600 60",
            "ns1.acme.test. hostmaster.acme.test. 7 7200 3600 1209600 60",
        ),
        ("HTTPS", '1 . alpn="h2,h3"', "1 . alpn=h2,h3", '1 . alpn="h2,h3"'),
        ("TLSA", f"3 1 1 {'AB' * 32}", f"3 1 1 {'ab' * 32}", f"3 1 1 {'ab' * 32}"),
    ],
)
def test_a_record_of_each_type_as_its_answer(type: str, record: str, answer: str, expected: str) -> None:
    script = respond(f"{NAME}. 300 IN {type} {record}")
    recorded = asyncio.run(observe(script, {"type": type.lower(), "equals": expected}))
    assert (recorded.result.outcome, recorded.evidence.facts["answers"]) == (Outcome.PASS, [answer])


def test_what_a_result_states() -> None:
    alias = f"{NAME}. 60 IN CNAME real.acme.test."
    records = tuple(record.replace("web", "real") for record in RECORDS)
    recorded = asyncio.run(observe(respond(alias, *records), prefer=["ttl >= 120", "elapsed_ms < 60000"]))
    result, facts = recorded.result, recorded.evidence.facts
    assert result.measurements == {"rcode": "NOERROR", "answers": 2, "ttl": 60}
    assert facts["canonical_name"] == "real.acme.test"
    assert [*result.phases] == ["dns_query"]
    assert result.duration == round(result.phases["dns_query"])
    assert recorded.evidence.excerpt.splitlines() == [
        f"{NAME}. 60 CNAME real.acme.test.",
        "real.acme.test. 120 A 203.0.113.8",
        "real.acme.test. 120 A 203.0.113.7",
    ]
    broken = {text: facts.problem for text, facts in result.listings["preference"].subjects.items()}
    assert broken == {"ttl >= 120": "ttl is 60, expected >= 120", "elapsed_ms < 60000": ""}


def test_many_long_answers_are_bounded_in_message_and_evidence() -> None:
    records = [f'{NAME}. 300 IN TXT "{number:03}{"x" * 240}"' for number in range(150)]
    recorded = asyncio.run(observe(respond(*records), {"type": "TXT", "protocol": "tcp", "contains": "absent"}))
    result, evidence = recorded.result, recorded.evidence
    assert result.reason == "dns.unexpected_answer"
    assert result.measurements["answers"] == evidence.facts["answer_count"] == 150
    assert [len(text) for text in evidence.facts["answers"]] == [200] * 20
    assert len(evidence.excerpt) <= 4_100
    assert "judge" in result.phases, "it is parsed in another process"
    assert (result.duration or 0) <= sum(ms for name, ms in result.phases.items() if name != "judge") + 1


# --- the query


def test_a_lost_packet_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_client, "DNS_UDP_ATTEMPT_TIMEOUT_S", 0.05)
    received: list[ReceivedDnsQuery] = []

    def respond_to_third(query: ReceivedDnsQuery) -> list[bytes]:
        received.append(query)
        return [dns_response(query, *RECORDS)] if len(received) == 3 else []

    recorded = asyncio.run(observe(respond_to_third))
    assert (recorded.result.outcome, recorded.evidence.facts["queries"]) == (Outcome.PASS, 3)
    assert len({query.sender for query in received}) == 1, "a late response to the first one counts as well"


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_server_that_does_not_understand_edns_is_queried_without(protocol: str) -> None:
    def reject_edns(query: ReceivedDnsQuery) -> list[bytes]:
        return [
            dns_response(
                query,
                *([] if query.message.edns >= 0 else RECORDS),
                rcode="FORMERR" if query.message.edns >= 0 else "NOERROR",
            )
        ]

    assert asyncio.run(observe(reject_edns, {"protocol": protocol})).result.outcome is Outcome.PASS


def test_a_truncated_response_is_fetched_over_tcp() -> None:
    def truncate_over_udp(query: ReceivedDnsQuery) -> list[bytes]:
        return [dns_response(query, *RECORDS, truncated=query.transport == "udp")]

    recorded = asyncio.run(observe(truncate_over_udp))
    assert (recorded.result.outcome, recorded.evidence.facts["server"][-5:]) == (Outcome.PASS, "(TCP)")


def test_a_response_from_another_address_is_not_received() -> None:
    async def run_scenario() -> ResultToRecord:
        def attack(query: ReceivedDnsQuery) -> list[bytes]:
            server.send_from_other_address(dns_response(query, f"{NAME}. 300 IN A 198.51.100.66"), query)
            return [dns_response(query, *RECORDS)]

        async with running_name_server(attack) as server:
            return await run_probe(build_probe({"name": NAME, "server": server.host, "port": server.port}))

    recorded = asyncio.run(run_scenario())
    assert recorded.evidence.facts["answers"] == ["203.0.113.7", "203.0.113.8"]
    assert "ignored_responses" not in recorded.evidence.facts


def record_places_of_cpu_work(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each work was done in the worker process."""
    places: list[bool] = []
    run_cpu_work = NetworkAccess.run_cpu_work_inline_or_in_worker

    def record_place(*args: Any, in_worker: bool) -> Any:
        places.append(in_worker)
        return run_cpu_work(*args, in_worker=in_worker)

    monkeypatch.setattr(NetworkAccess, "run_cpu_work_inline_or_in_worker", record_place)
    return places


@pytest.mark.parametrize(("size_bytes", "in_worker"), [(1_000, False), (40_000, True)])
def test_a_long_response_is_parsed_outside_the_event_loop(
    size_bytes: int, in_worker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few records it has: many short texts in one take as long."""
    places = record_places_of_cpu_work(monkeypatch)

    def respond_with_empty_texts(query: ReceivedDnsQuery) -> list[bytes]:
        header = struct.pack("!HHHHHH", query.message.id, 0x8180, 1, 1, 0, 0)
        question = b"".join(bytes([len(label)]) + label.encode() for label in [*NAME.split("."), ""])
        record = struct.pack("!HHHIH", 0xC00C, 16, 1, 60, size_bytes)
        return [header + question + struct.pack("!HH", 16, 1) + record + bytes(size_bytes)]

    recorded = asyncio.run(observe(respond_with_empty_texts, {"type": "TXT"}))
    assert (recorded.result.outcome, places) == (Outcome.PASS, [in_worker, False]), recorded.result.message


@pytest.mark.parametrize(
    ("count", "expression", "in_worker"),
    [
        (30, "answers.map(x, x + '.') != answers", False),
        (600, "answers.map(x, x + '.') != answers", True),
        (600, "size(answers) == 600", False),
    ],
)
@pytest.mark.parametrize("field", ["expect", "prefer"])
def test_a_loop_over_many_answers_runs_outside_the_event_loop(
    count: int, expression: str, in_worker: bool, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that builds a list takes quadratic time."""
    places = record_places_of_cpu_work(monkeypatch)
    records = [f"{NAME}. 300 IN A 10.0.{number // 256}.{number % 256}" for number in range(count)]
    fields: dict[str, Any] = {field: [expression]}
    recorded = asyncio.run(observe(respond(*records), None, **fields))
    assert (recorded.result.outcome, places[-1]) == (Outcome.PASS, in_worker), recorded.result.message
    assert bool(recorded.result.listings) is (field == "prefer")


def test_other_runs_get_their_turn_between_responses_to_other_queries() -> None:
    """Also if they have all arrived."""

    async def run_scenario() -> int:
        async with NetworkAccess() as network:
            client = dns_client.DnsClient(network, dns_client.DnsQuestion(NAME, "A"), PhaseTimer(), 0, 0.0)
            turns = 0

            async def count_turns() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            other = asyncio.create_task(count_turns())
            for _ in range(10):
                assert await client.parse(b"\0\0") is None
            other.cancel()
            return turns

    assert asyncio.run(run_scenario()) >= 10


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_responses_to_other_queries_are_ignored(protocol: str) -> None:
    def respond_late(query: ReceivedDnsQuery) -> list[bytes]:
        response = dns_response(query, *RECORDS)
        return [bytes([response[0] ^ 1]) + response[1:], response.replace(b"\x03web", b"\x03wob"), response]

    recorded = asyncio.run(observe(respond_late, {"protocol": protocol}))
    assert (recorded.result.outcome, recorded.evidence.facts["ignored_responses"]) == (Outcome.PASS, 2)


def test_the_query_names_the_record_and_asks_for_recursion() -> None:
    async def run_scenario() -> ReceivedDnsQuery:
        async with running_name_server(respond()) as server:
            await run_probe(
                build_probe({"name": "BÜcher.example.", "type": "mx", "server": "127.0.0.1", "port": server.port})
            )
            return server.queries[0]

    query = asyncio.run(run_scenario())
    assert str(query.message.question[0]) == "xn--bcher-kva.example. IN MX"
    assert (query.message.flags, query.message.edns, query.message.payload) == (0x0100, 0, 1232)


def test_ids_and_ports_cannot_be_guessed() -> None:
    async def run_scenario() -> list[ReceivedDnsQuery]:
        async with running_name_server(respond(*RECORDS)) as server:
            for _ in range(8):
                await run_probe(build_probe({"name": NAME, "server": "127.0.0.1", "port": server.port}))
            return server.queries

    queries = asyncio.run(run_scenario())
    assert len({query.message.id for query in queries}) > 4
    assert len({query.sender[1] for query in queries}) > 4


# --- the server


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("169.254.169.254", "169.254.169.254 is a cloud metadata address, which is always refused"),
        ("::ffff:169.254.169.254", "::ffff:a9fe:a9fe is a cloud metadata address, which is always refused"),
        ("fe80::1", "fe80::1 is a link-local address, which is always refused"),
        ("0251.0376.0251.0376", "169.254.169.254 is a cloud metadata address, which is always refused"),
        ("metadata.acme.example", "169.254.169.254 is a cloud metadata address, which is always refused"),
        ("10.1.2.3", "10.1.2.3 is a private address, which is refused by `allow_private_addresses: false`"),
    ],
)
@pytest.mark.parametrize("protocol", ["udp", "tcp", "tls"])
def test_a_blocked_address_of_a_server_is_not_contacted(
    monkeypatch: pytest.MonkeyPatch, server: str, message: str, protocol: str
) -> None:
    resolve = name_lookup.resolve_host_blocking

    def look_up(host: str, port: int) -> list[Any]:
        return [(socket.AF_INET, ("169.254.169.254", port))] if host == "metadata.acme.example" else resolve(host, port)

    def refuse(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(name_lookup, "resolve_host_blocking", look_up)
    monkeypatch.setattr(connector, "connect_socket_to_resolved_address", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    probe = build_probe({"name": NAME, "server": server, "protocol": protocol}, allow_private_addresses=False)
    result = asyncio.run(run_probe(probe)).result
    assert (result.reason, result.message) == ("connection.address_blocked", message)


def test_a_server_with_a_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    port = find_free_port()
    addresses = [(socket.AF_INET, ("127.0.0.2", port)), (socket.AF_INET, ("127.0.0.1", port))]
    monkeypatch.setattr(name_lookup, "resolve_host_blocking", lambda host, _: addresses)

    async def run_scenario() -> ResultToRecord:
        async with running_name_server(respond(*RECORDS), port=port):
            return await run_probe(build_probe({"name": NAME, "server": "ns.acme.test", "port": port}))

    recorded = asyncio.run(run_scenario())
    assert (recorded.result.outcome, [*recorded.result.phases]) == (Outcome.PASS, ["dns", "dns_query"])
    assert recorded.evidence.facts["server"] == f"127.0.0.1:{port} (UDP)"
    assert recorded.evidence.facts["failed_servers"] == {f"127.0.0.2:{port}": f"127.0.0.2:{port}: connection refused"}


def test_a_server_whose_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(host: str, _: int) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(name_lookup, "resolve_host_blocking", fail)
    result = asyncio.run(run_probe(build_probe({"name": NAME, "server": "ns.acme.test"}))).result
    assert (result.reason, result.message) == ("dns.not_found", "cannot resolve ns.acme.test: host name not found")


def test_dns_over_tls_needs_a_server_that_speaks_tls() -> None:
    async def run_scenario() -> ResultToRecord:
        async with running_server(send_parts(b"\0\x0c" + bytes(12)), read_request=False) as server:
            return await run_probe(
                build_probe({"name": NAME, "server": "127.0.0.1", "port": server.port, "protocol": "tls"})
            )

    assert asyncio.run(run_scenario()).result.reason == "tls.not_tls"


@pytest.fixture
def slow_to_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_first_bytes_after_connecting(monkeypatch)


@pytest.mark.usefixtures("slow_to_continue")
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_response_before_tls_is_not_read(run: Callable[..., ResultToRecord], tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    tls_context = authority.server_tls_context("127.0.0.1")

    async def inject_and_serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\x0c" + bytes(12))  # as an attacker on the way would
        await writer.start_tls(tls_context)
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        response = dns_response(ReceivedDnsQuery(dns.message.from_wire(query), "tls", ()), *RECORDS)
        writer.write(len(response).to_bytes(2) + response)

    async def run_scenario() -> ResultToRecord:
        async with running_server(inject_and_serve, read_request=False) as server:
            target = {"name": NAME, "server": "127.0.0.1", "port": server.port}
            return await run_probe(build_probe({**target, "protocol": "tls", "tls": {"ca_file": authority.ca_file}}))

    result = run(run_scenario()).result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "tls.not_tls"), result.message


@pytest.mark.usefixtures("slow_to_continue")
@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_a_connection_that_is_reset_at_once(protocol: str) -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def run_scenario() -> ResultToRecord:
        async with running_server(reset, read_request=False) as server:
            target = {"name": NAME, "server": "127.0.0.1", "port": server.port, "protocol": protocol}
            return await run_probe(build_probe(target))

    result = asyncio.run(run_scenario()).result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "connection.closed"), result.message


# --- the name servers of the machine


@pytest.fixture
def use_system_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Names these servers in resolv.conf. Returns the port that they have to listen on."""

    def use(*addresses: str) -> int:
        (tmp_path / "resolv.conf").write_text("".join(f"nameserver {address}\n" for address in addresses))
        monkeypatch.setattr(dns_servers, "RESOLVER_CONFIGURATION_FILE", tmp_path / "resolv.conf")
        monkeypatch.setattr(dns_client, "DNS_UDP_ATTEMPT_TIMEOUT_S", 0.05)
        port = find_free_port()
        monkeypatch.setattr(dns_servers, "SYSTEM_DNS_PORT", port)
        return port

    return use


async def observe_system_servers(
    port: int, *scripts: DnsScript, **fields: Any
) -> tuple[ResultToRecord, list[ScriptedNameServer]]:
    """One script for each of 127.0.0.1, 127.0.0.2, ..."""
    async with asyncio.timeout(HANG_S):
        servers = [running_name_server(script, host=f"127.0.0.{n + 1}", port=port) for n, script in enumerate(scripts)]
        started = [await server.__aenter__() for server in servers]
        try:
            return await run_probe(build_probe(NAME, **fields)), started
        finally:
            for server in servers:
                await server.__aexit__(None, None, None)


def test_the_first_name_server_of_the_machine_is_queried(use_system_servers: Callable[..., int]) -> None:
    port = use_system_servers("127.0.0.1", "127.0.0.2")
    recorded, servers = asyncio.run(observe_system_servers(port, respond(*RECORDS), respond(*RECORDS)))
    assert recorded.result.outcome is Outcome.PASS
    assert [len(server.queries) for server in servers] == [1, 0]
    assert recorded.evidence.facts["server"] == f"127.0.0.1:{port} (UDP)"


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        (lambda _: [], None),
        (respond(rcode="SERVFAIL"), "SERVFAIL"),
        (respond(rcode="REFUSED"), "REFUSED"),
        (lambda query: [query.message.id.to_bytes(2)], "the response is malformed"),
    ],
    ids=["silent", "SERVFAIL", "REFUSED", "malformed"],
)
def test_the_next_name_server_is_queried_if_one_does_not_answer(
    use_system_servers: Callable[..., int], first: DnsScript, problem: str | None
) -> None:
    port = use_system_servers("127.0.0.1", "127.0.0.2")
    recorded, _ = asyncio.run(observe_system_servers(port, first, respond(*RECORDS)))
    assert (recorded.result.outcome, recorded.result.message) == (Outcome.PASS, "")
    assert recorded.evidence.facts["server"] == f"127.0.0.2:{port} (UDP)"
    failed = recorded.evidence.facts.get("failed_servers", {})
    assert problem is None or problem in failed[f"127.0.0.1:{port}"]


def test_a_name_that_does_not_exist_is_an_answer(use_system_servers: Callable[..., int]) -> None:
    port = use_system_servers("127.0.0.1", "127.0.0.2")
    recorded, servers = asyncio.run(observe_system_servers(port, respond(rcode="NXDOMAIN"), respond(*RECORDS)))
    assert (recorded.result.reason, len(servers[1].queries)) == ("dns.nxdomain", 0)


def test_all_name_servers_refuse(use_system_servers: Callable[..., int]) -> None:
    port = use_system_servers("127.0.0.1", "127.0.0.2")
    recorded, _ = asyncio.run(observe_system_servers(port, respond(rcode="SERVFAIL"), respond(rcode="REFUSED")))
    assert recorded.result.reason in ("dns.servfail", "dns.refused")
    assert recorded.result.outcome is Outcome.FAIL


def test_silent_name_servers_of_the_machine_may_be_its_own_fault(use_system_servers: Callable[..., int]) -> None:
    port = use_system_servers("127.0.0.1", "127.0.0.2")
    recorded, servers = asyncio.run(observe_system_servers(port, lambda _: [], lambda _: [], timeout="1s"))
    result = recorded.result
    assert result.reason == "dns.no_response"
    assert result.message.endswith(
        f"from the name servers of Watchdog's machine (127.0.0.1:{port}, 127.0.0.2:{port})"
    ) or (f"(127.0.0.2:{port}, 127.0.0.1:{port})" in result.message)
    assert all(server.queries for server in servers)
    symptom = find_own_network_fault_symptom_of_reason(result.reason)
    assert symptom is OwnNetworkFaultSymptomKind.NO_NAME_SERVER


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_name_servers_of_the_machine_that_are_down_may_be_its_own_fault(
    use_system_servers: Callable[..., int], protocol: str
) -> None:
    port = use_system_servers("127.0.0.1", "127.0.0.2")
    result = asyncio.run(run_probe(build_probe({"name": NAME, "protocol": protocol}))).result
    assert result.reason == "dns.no_response", result.message
    assert f"the name servers of Watchdog's machine (127.0.0.1:{port}, 127.0.0.2:{port})" in result.message
    assert "connection refused" in result.message


def test_the_name_servers_of_resolv_conf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(dns_servers, "RESOLVER_CONFIGURATION_FILE", file)
    file.write_text(
        "# comment\nsearch acme.example\nnameserver 192.0.2.1\n nameserver  2001:db8::1 # near\n"
        "nameserver\nnameserver broken.example\nnameserver 169.254.169.253\nnameserver 192.0.2.9\noptions edns0\n"
    )
    addresses = [address[0] for _, address in read_system_name_servers()]
    assert addresses == ["192.0.2.1", "2001:db8::1", "169.254.169.253"], "as many as the C library uses"
    file.unlink()
    assert [address for _, address in read_system_name_servers()] == [("127.0.0.1", 53)]


# --- the event loop and the end


def test_it_works_on_the_event_loop_of_the_service() -> None:
    async def run_scenario() -> list[str]:
        results = [
            await observe(respond(*RECORDS)),
            await observe(respond(*RECORDS), {"protocol": "tcp"}),
            await observe(lambda _: [], timeout="1s"),
            await run_probe(build_probe({"name": NAME, "server": "127.0.0.1", "port": find_free_port()})),
        ]
        return [str(recorded.result.reason) for recorded in results]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run_scenario()) == ["", "", "timeout.dns_query", "connection.refused"]


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("protocol", ["udp", "tcp", "tls"])
def test_a_cancelled_run_leaves_nothing_behind(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], protocol: str
) -> None:
    async def run_scenario() -> None:
        async with running_name_server(lambda _: []) as server, NetworkAccess() as network:
            probe = build_probe({"name": NAME, "server": "127.0.0.1", "port": server.port, "protocol": protocol})
            descriptors, tasks = count_open_descriptors(), asyncio.all_tasks()
            context = ProbeAttemptContext(0, 0, 10.0, "key", {}, network)
            running = asyncio.create_task(probe.observe(context))
            phase = "tls" if protocol == "tls" else "dns_query"
            await wait_until_async(lambda: context.phase_timer.current_phase == phase)
            await wait_until_async(lambda: protocol == "tls" or server.queries)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            server_side = 0 if protocol == "udp" else 1
            await wait_until_async(lambda: count_open_descriptors() <= descriptors + server_side)
            assert len(asyncio.all_tasks() - tasks) <= server_side

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run_scenario())


# --- the configuration


@pytest.mark.parametrize(
    ("dns", "field", "message"),
    [
        ("a b", "name", "expected the name of a DNS record, such as acme.example, found 'a b'"),
        ("https://acme.example", "name", "expected the name of a DNS record"),
        ("a..b", "name", "expected the name of a DNS record"),
        ("x" * 64, "name", "expected the name of a DNS record"),
        ("192.0.2.1", "name", "expected a name, found an IP address: to look up its name, set `type: PTR`"),
        (
            {"name": "a", "contains": "1.2.3"},
            "contains",
            "expected an IPv4 address, such as 203.0.113.7, found '1.2.3'",
        ),
        (
            {"name": "a", "type": "AAAA", "equals": "192.0.2.1"},
            "equals",
            "expected an IPv6 address, such as 2001:db8::7",
        ),
        (
            {"name": "a", "contains": "192.0.2.1", "equals": "192.0.2.1"},
            "contains",
            "`contains` and `equals` cannot be combined: remove one of them",
        ),
        ({"name": "a", "port": 53}, "port", "`port` requires `server`: set `server`, or remove `port`"),
        (
            {"name": "a", "protocol": "tls"},
            "protocol",
            "`tls` requires `server`, whose certificate is verified: set `server`",
        ),
        (
            {"name": "a", "server": "192.0.2.1", "tls": {"verify": False}},
            "tls",
            "`tls` requires `protocol: tls`: set `protocol`, or remove `tls`",
        ),
    ],
)
def test_what_is_not_valid(dns: Any, field: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        build_probe(dns)
    [error] = caught.value.errors()
    errors = error["ctx"]["error"].errors
    assert [(path, text.startswith(message)) for path, text in errors] == [((field,), True)]


@pytest.mark.parametrize(
    ("server", "endpoint"),
    [("192.0.2.53", "192.0.2.53:53"), ("2001:DB8::1", "[2001:db8::1]:53"), ("NS1.acme.example", "ns1.acme.example:53")],
)
def test_the_target_and_the_endpoint(server: str, endpoint: str) -> None:
    probe = build_probe({"name": "acme.example", "server": server})
    assert (probe.target, probe.network_endpoint) == (f"acme.example A @{endpoint}", endpoint)
    over_tls = build_probe({"name": "acme.example", "server": server, "protocol": "tls"})
    assert over_tls.network_endpoint == endpoint.removesuffix("53") + "853"


def test_the_short_form() -> None:
    probe = build_probe("acme.example")
    assert (probe.target, probe.network_endpoint, probe.may_run_without_store) == ("acme.example A", "", True)
    assert not probe.may_change_target
