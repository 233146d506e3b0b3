"""A DNS probe against real name servers: NSD, and dnsmasq in front of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.name_servers import find_program, running_dnsmasq, running_nsd
from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import CertificateAuthority
from watchdog.domain.model import Observation, Outcome, ResultToRecord
from watchdog.net import NetworkAccess, dns_client
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.dns import DnsProbe


class RealNameServers(NamedTuple):
    nsd: int
    nsd_tls: int
    dnsmasq: int
    ca_file: str


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNameServers]:
    if find_program("nsd") is None:
        pytest.skip("NSD is missing: apt install nsd")
    if find_program("dnsmasq") is None:
        pytest.skip("dnsmasq is missing: apt install dnsmasq-base")
    authority = CertificateAuthority(tmp_path_factory.mktemp("ca"))
    pem_file = authority.issue_certificate("ns.acme.test", "127.0.0.1")
    with running_nsd(pem_file) as nsd, running_dnsmasq(nsd.port) as dnsmasq:
        yield RealNameServers(nsd.port, nsd.tls_port, dnsmasq, authority.ca_file)


def observe(port: int, dns: dict[str, Any], **fields: Any) -> ResultToRecord:
    target = {"server": "127.0.0.1", "port": port, **dns}
    return asyncio.run(run_probe(DnsProbe.model_validate({"name": "Record", "dns": target, **fields})))


@pytest.mark.parametrize("server", ["nsd", "dnsmasq"])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("type", "name", "answers"),
    [
        ("A", "web.acme.test", ["203.0.113.7", "203.0.113.8"]),
        ("A", "WWW.acme.test", ["203.0.113.7", "203.0.113.8"]),
        ("AAAA", "web.acme.test", ["2001:db8::7"]),
        ("MX", "acme.test", ["10 mail.acme.test", "20 backup.acme.example"]),
        ("NS", "acme.test", ["ns1.acme.test", "ns2.acme.test"]),
        ("TXT", "acme.test", ["v=spf1 -all"]),
        ("CAA", "acme.test", ["0 issue letsencrypt.org"]),
        ("SRV", "_sip._tcp.acme.test", ["5 10 5060 sip.acme.test"]),
        ("SOA", "acme.test", ["ns1.acme.test hostmaster.acme.test 2026113001 7200 3600 1209600 60"]),
        ("CNAME", "www.acme.test", ["web.acme.test"]),
    ],
)
def test_a_record(
    servers: RealNameServers, server: str, protocol: str, type: str, name: str, answers: list[str]
) -> None:
    dns = {"name": name, "type": type, "protocol": protocol, "equals": answers}
    recorded = observe(getattr(servers, server), dns, expect=["ttl > 0 && ttl <= 300", "rcode == 'NOERROR'"])
    assert (recorded.result.outcome, recorded.result.message) == (Outcome.PASS, "")
    assert recorded.evidence.facts["answers"] == answers


def test_the_name_of_an_address(servers: RealNameServers) -> None:
    recorded = observe(servers.nsd, {"name": "203.0.113.7", "type": "PTR", "equals": "web.acme.test"})
    assert recorded.result.outcome is Outcome.PASS


@pytest.mark.parametrize("server", ["nsd", "dnsmasq"])
def test_a_response_that_is_too_long_for_udp(servers: RealNameServers, server: str) -> None:
    recorded = observe(getattr(servers, server), {"name": "many.acme.test", "type": "TXT", "contains": "first"})
    assert (recorded.result.outcome, recorded.result.measurements["answers"]) == (Outcome.PASS, 13)
    assert recorded.evidence.facts["server"].endswith("(TCP)")


def test_dns_over_tls(servers: RealNameServers) -> None:
    dns = {"name": "web.acme.test", "protocol": "tls", "tls": {"ca_file": servers.ca_file}}
    recorded = observe(servers.nsd_tls, dns)
    assert (recorded.result.outcome, [*recorded.result.phases]) == (Outcome.PASS, ["connect", "tls", "dns_query"])
    named = {**dns, "tls": {"ca_file": servers.ca_file, "server_name": "ns.acme.test"}}
    assert observe(servers.nsd_tls, named).result.outcome is Outcome.PASS


@pytest.mark.parametrize(("tls", "reason"), [({}, "tls.untrusted"), ({"server_name": "other.test"}, "tls.hostname")])
def test_the_certificate_of_a_name_server_is_verified(
    servers: RealNameServers, tls: dict[str, Any], reason: str
) -> None:
    options = {"ca_file": servers.ca_file, **tls} if tls else {}
    result = observe(servers.nsd_tls, {"name": "web.acme.test", "protocol": "tls", "tls": options}).result
    assert (result.outcome, result.reason) == (Outcome.FAIL, reason)


@pytest.mark.parametrize(
    ("server", "name", "reason", "message"),
    [
        ("nsd", "no.acme.test", "dns.nxdomain", "no.acme.test does not exist (NXDOMAIN)"),
        (
            "nsd",
            "dangling.acme.test",
            "dns.nxdomain",
            "dangling.acme.test (an alias of nowhere.acme.test) does not exist",
        ),
        ("nsd", "acme.test", "dns.no_data", "acme.test has no A record"),
        ("nsd", "ring.acme.test", "dns.cname_loop", "the CNAME records form a loop"),
        ("nsd", "x.child.acme.test", "dns.referral", "has no answer, but refers to ns.child.acme.test"),
        ("nsd", "x.unloaded.test", "dns.servfail", "failed to answer (SERVFAIL)"),
        ("nsd", "x.other.test", "dns.refused", "refuses the query (REFUSED)"),
        ("dnsmasq", "no.own.test", "dns.nxdomain", "no.own.test does not exist (NXDOMAIN)"),
        ("dnsmasq", "own.test", "dns.no_data", "own.test has no A record"),
        ("dnsmasq", "elsewhere.test", "dns.refused", "refuses the query (REFUSED)"),
    ],
)
def test_what_a_real_name_server_reports(
    servers: RealNameServers, server: str, name: str, reason: str, message: str
) -> None:
    result = observe(getattr(servers, server), {"name": name}).result
    assert (result.outcome, result.reason) == (Outcome.FAIL, reason), result.message
    assert message in result.message


def test_a_response_that_arrives_while_the_event_loop_is_late_counts(
    servers: RealNameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_client, "DNS_UDP_ATTEMPT_TIMEOUT_S", 0.05)
    target = {"name": "web.acme.test", "server": "127.0.0.1", "port": servers.nsd}
    probe = DnsProbe.model_validate({"name": "Record", "dns": target})

    async def run_scenario() -> Observation:
        async with NetworkAccess() as network:
            context = ProbeAttemptContext(0, 0, 10.0, "key", {}, network)
            running = asyncio.create_task(probe.observe(context))
            while "queries" not in context.phase_timer.facts:  # noqa: ASYNC110 - to stop right after the query was sent
                await asyncio.sleep(0)
            time.sleep(0.5)  # noqa: ASYNC251 - this blocks the event loop
            return await running

    observation = asyncio.run(run_scenario())
    assert (observation.outcome, observation.evidence.facts["queries"]) == (Outcome.PASS, 1)


def test_dns_over_tls_at_a_port_without_tls(servers: RealNameServers) -> None:
    dns = {"name": "web.acme.test", "protocol": "tls"}
    result = observe(servers.nsd, dns, timeout="1s").result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "timeout.tls"), result.message
