"""The `tls` probe: which certificates it accepts, of real servers and of servers with a single fault."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pydantic import ValidationError

from tests.faults.pki import CLIENT_USAGE, Identity, issue, write_chain
from tests.support.fakes import FakeMailServer
from tests.support.leftovers import requiring_no_leftovers
from tests.support.nginx import find_nginx
from tests.support.openssl_server import create_self_signed_certificate, running_openssl_server
from tests.support.ports import find_free_port
from tests.support.postgres import PostgresServer
from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import running_server
from tests.support.tls_servers import (
    find_dovecot,
    find_pgbouncer,
    running_dovecot,
    running_nginx_with_tls,
    running_pgbouncer,
)
from watchdog.domain.formatting import NBSP
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.net import handshake
from watchdog.net.certificates import Certificate, parse_certificates
from watchdog.probes.tls import TlsProbe

Run = Callable[[Coroutine[Any, Any, ResultToRecord]], ResultToRecord]
PACKAGES = {"nginx": "nginx-light", "dovecot": "dovecot-imapd", "pgbouncer": "pgbouncer"}
NAMES = ("127.0.0.1", "localhost", "acme.example", "*.acme.example")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


class Authorities:
    """A trusted root, its intermediate, and a folder for what they sign."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = issue("Acme Root", is_authority=True, days=(-30, 1000))
        self.intermediate = issue("Acme Intermediate 1", self.root, is_authority=True, days=(-30, 400))
        self.ca_file = write_chain(folder, self.root, name="root.pem")

    def write_server_chain(self, **fields: Any) -> str:
        """A PEM file with a good certificate and its intermediate, but for what `fields` change."""
        server = issue("peer", self.intermediate, **{"names": NAMES, "days": (-30, 90.5), **fields})
        return write_chain(self.folder, server, self.intermediate, name="server.pem")


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(tmp_path_factory.mktemp("certificates"))


def tls_probe(tls: Any, **fields: Any) -> TlsProbe:
    return TlsProbe.model_validate({"name": "Certificate", "tls": tls, **fields})


def verdict(recorded: ResultToRecord) -> tuple[str, str, str]:
    result = recorded.result
    return result.outcome, result.reason, result.message.replace(NBSP, " ")


def preferences(recorded: ResultToRecord) -> dict[str, str]:
    """Expression -> its problem; empty if it holds."""
    listing = recorded.result.listings.get("preference")
    return {text: facts.problem.replace(NBSP, " ") for text, facts in (listing.subjects if listing else {}).items()}


async def observe(pem_file: str, options: dict[str, Any], **fields: Any) -> ResultToRecord:
    """A run against a server that sends these certificates. It leaves nothing behind."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem_file)

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with running_server(wait, context, read_request=False) as server, requiring_no_leftovers():
        return await run_probe(tls_probe({"host": "127.0.0.1", "port": server.port, **options}, **fields))


# --- real servers


@contextmanager
def running_smtp_server(pem_file: str) -> Iterator[int]:
    with FakeMailServer("starttls", Path(pem_file)) as server:
        yield server.port


REAL_SERVERS: dict[str, tuple[Callable[[str], AbstractContextManager[int]], str | None]] = {
    "nginx": (running_nginx_with_tls, None),
    "aiosmtpd": (running_smtp_server, "smtp"),
    "dovecot": (running_dovecot, "imap"),
    "pgbouncer": (running_pgbouncer, "postgres"),
}


def require_server(name: str) -> None:
    finders = {"nginx": find_nginx, "dovecot": find_dovecot, "pgbouncer": find_pgbouncer}
    if name in finders and finders[name]() is None:
        pytest.skip(f"{name} is missing: apt install {PACKAGES[name]}")


@pytest.mark.parametrize("name", REAL_SERVERS)
def test_real_servers(run: Run, authorities: Authorities, name: str) -> None:
    require_server(name)
    start, starttls = REAL_SERVERS[name]
    with start(authorities.write_server_chain()) as port:
        server = {"host": f"127.0.0.1:{port}", "starttls": starttls}
        trusted = {**server, "ca_file": authorities.ca_file}
        good = run(run_probe(tls_probe({**trusted, "names": ["www.acme.example", "acme.example"]})))
        late = run(run_probe(tls_probe({**trusted, "min_days": 91})))
        untrusted = run(run_probe(tls_probe(server)))
        unnamed = run(run_probe(tls_probe({**trusted, "names": ["b.example", "www.acme.example", "a.b.acme.example"]})))
    assert verdict(good) == ("pass", "", "")
    assert preferences(good) == {"cert_days >= 14": ""}
    assert list(good.result.phases) == ["connect", *(["starttls"] if starttls else []), "tls"]
    assert good.result.measurements["cert_days"] == 90
    facts = good.evidence.facts
    assert (facts["address"], facts["tls_version"]) == (f"127.0.0.1:{port}", "TLSv1.3")
    assert facts.get("starttls") == starttls
    assert facts["cipher"].startswith("TLS_")
    assert [(each["subject"], each["issuer"]) for each in facts["certificates"]] == [
        ("CN=peer", "CN=Acme Intermediate 1"),
        ("CN=Acme Intermediate 1", "CN=Acme Root"),
        ("CN=Acme Root", "CN=Acme Root"),
    ]
    assert facts["certificates"][0]["names"] == list(NAMES)
    assert late.result.outcome is Outcome.PASS
    assert preferences(late)["cert_days >= 91"].startswith("certificate expires in 90 days (")
    assert preferences(late)["cert_days >= 91"].endswith(" UTC), expected at least 91")
    assert untrusted.result.reason == "tls.untrusted"
    assert [each["subject"] for each in untrusted.evidence.facts["certificates"]] == [
        "CN=peer",
        "CN=Acme Intermediate 1",
    ]
    assert verdict(unnamed) == (
        "fail",
        "tls.missing_names",
        "TLS: certificate is not valid for b.example and a.b.acme.example; it is valid for 127.0.0.1, localhost, "
        "acme.example and 1 more",
    )


def test_an_expired_certificate_of_a_server_that_begins_without_tls_is_explained(
    run: Run, authorities: Authorities
) -> None:
    """The second handshake, which finds its date, begins in the same way."""
    pem_file = authorities.write_server_chain(days=(-90, -2.5))
    with running_smtp_server(pem_file) as port:
        options = {"host": f"127.0.0.1:{port}", "starttls": "smtp", "ca_file": authorities.ca_file}
        recorded = run(run_probe(tls_probe(options)))
    assert recorded.result.reason == "tls.expired"
    assert recorded.result.message.startswith("TLS: certificate expired on ")
    assert recorded.evidence.facts["certificates"][0]["subject"] == "CN=peer"


def test_postgres_without_tls(postgres: PostgresServer) -> None:
    recorded = asyncio.run(run_probe(tls_probe({"host": "127.0.0.1", "port": postgres.port, "starttls": "postgres"})))
    assert verdict(recorded) == ("fail", "starttls.not_offered", "the server does not offer STARTTLS")


def test_dovecot_without_tls(authorities: Authorities) -> None:
    require_server("dovecot")
    with running_dovecot(authorities.write_server_chain(), offers_tls=False) as port:
        recorded = asyncio.run(run_probe(tls_probe({"host": f"127.0.0.1:{port}", "starttls": "imap"})))
    assert recorded.result.reason == "starttls.not_offered"
    assert recorded.result.message.startswith('the server does not offer STARTTLS: "BAD TLS support')
    assert recorded.evidence.excerpt.startswith("* OK ")


def test_aiosmtpd_without_tls() -> None:
    with FakeMailServer() as server:
        recorded = asyncio.run(run_probe(tls_probe({"host": f"127.0.0.1:{server.port}", "starttls": "smtp"})))
    assert verdict(recorded) == ("fail", "starttls.not_offered", "the server does not offer STARTTLS")


def test_a_server_that_knows_only_its_own_protocol_is_offered_no_other(tmp_path: Path) -> None:
    """PostgreSQL 17 and later refuse a client that offers another protocol in the handshake (ALPN)."""
    pem = create_self_signed_certificate(tmp_path)
    with running_openssl_server(pem, "-alpn", "postgresql") as port:
        recorded = asyncio.run(run_probe(tls_probe({"host": f"127.0.0.1:{port}", "ca_file": pem, "min_days": 1})))
    assert verdict(recorded) == ("pass", "", "")


# --- certificates with a single fault


def good_chain(root: Identity, intermediate: Identity) -> tuple[Identity, ...]:
    return issue("peer", intermediate, names=NAMES), intermediate


FAULTS: dict[str, tuple[Callable[[Identity, Identity], tuple[Identity, ...]], dict[str, Any], str, str]] = {
    "expired": (
        lambda _, ca: (issue("peer", ca, names=NAMES, days=(-90, -2)), ca),
        {},
        *("tls.expired", "TLS: certificate expired on "),
    ),
    "expired, and not verified": (
        lambda *_: (issue("peer", names=["other.example"], days=(-90, -2)),),
        {"verify": False},
        *("tls.expired", "TLS: certificate expired on "),
    ),
    "not valid yet": (
        lambda _, ca: (issue("peer", ca, names=NAMES, days=(2, 90)), ca),
        {},
        *("tls.not_yet_valid", "TLS: certificate is not valid before "),
    ),
    "not valid yet, and not verified": (
        lambda *_: (issue("peer", names=NAMES, days=(2, 90)),),
        {"verify": False},
        *("tls.not_yet_valid", "TLS: certificate is not valid before "),
    ),
    "for another name": (
        lambda _, ca: (issue("peer", ca, names=["acme.example"]), ca),
        {},
        *("tls.hostname", "TLS: certificate is not valid for 127.0.0.1; it is valid for acme.example"),
    ),
    "for another name than server_name": (
        good_chain,
        {"server_name": "db.internal"},
        *("tls.hostname", "TLS: certificate is not valid for db.internal; it is valid for 127.0.0.1, localhost, "),
    ),
    "without one of the names": (
        good_chain,
        {"names": ["acme.example", "*.b.example"]},
        *("tls.missing_names", "TLS: certificate is not valid for *.b.example; it is valid for 127.0.0.1, "),
    ),
    "without one of the names, and not verified": (
        lambda *_: (issue("peer", names=["acme.example"]),),
        {"verify": False, "names": ["b.example"]},
        *("tls.missing_names", "TLS: certificate is not valid for b.example; it is valid for acme.example"),
    ),
    "self-signed": (
        lambda *_: (issue("peer", names=NAMES),),
        {},
        *("tls.self_signed", "TLS: certificate is self-signed"),
    ),
    "without its intermediate": (
        lambda _, ca: (issue("peer", ca, names=NAMES),),
        {},
        *("tls.missing_intermediate", "TLS: the server does not send the intermediate certificate Acme Intermediate 1"),
    ),
    "for clients": (
        lambda _, ca: (issue("peer", ca, names=NAMES, usage=CLIENT_USAGE), ca),
        {},
        *("tls.wrong_purpose", "TLS: certificate is not meant for servers"),
    ),
}


@pytest.mark.parametrize(("make", "options", "reason", "message"), FAULTS.values(), ids=FAULTS)
def test_each_fault_of_a_certificate_has_its_reason(
    run: Run,
    authorities: Authorities,
    make: Callable[[Identity, Identity], tuple[Identity, ...]],
    options: dict[str, Any],
    reason: str,
    message: str,
) -> None:
    pem_file = write_chain(authorities.folder, *make(authorities.root, authorities.intermediate))
    trust = {} if "verify" in options else {"ca_file": authorities.ca_file}
    recorded = run(observe(pem_file, {**trust, **options}))
    outcome, actual_reason, actual_message = verdict(recorded)
    assert (outcome, actual_reason) == ("fail", reason)
    assert actual_message.startswith(message)
    assert recorded.evidence.facts["certificates"][0]["subject"] == "CN=peer"
    assert recorded.result.listings == {}


def test_the_authority_that_expires_first_is_named(run: Run, tmp_path: Path) -> None:
    root = issue("Acme Root", is_authority=True)
    brief = issue("Acme {Brief} CA", root, is_authority=True, days=(-300, 5.5))
    pem_file = write_chain(tmp_path, issue("peer", brief, names=NAMES), brief)
    recorded = run(observe(pem_file, {"ca_file": write_chain(tmp_path, root, name="root.pem")}))
    assert recorded.result.outcome is Outcome.PASS
    [problem] = preferences(recorded).values()
    assert problem.startswith("certificate of the authority CN=Acme {Brief} CA expires in 5 days (")
    assert recorded.evidence.facts["certificate"].startswith("CN=Acme {Brief} CA expires on ")


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        ({}, {}, {"cert_days >= 14": ""}),
        ({"min_days": 90}, {}, {"cert_days >= 90": ""}),
        ({"min_days": 91}, {}, {"cert_days >= 91": "certificate expires in 90 days"}),
        ({"min_days": 0}, {}, {}),
        ({"min_days": 91}, {"prefer": ["cert_days >= 91"]}, {"cert_days >= 91": "certificate expires in 90 days"}),
        ({"min_days": 0}, {"prefer": ["names.size() == 5"]}, {"names.size() == 5": "names.size() is 4, expected 5"}),
    ],
)
def test_min_days_is_a_preference(
    authorities: Authorities, options: dict[str, Any], fields: dict[str, Any], expected: dict[str, str]
) -> None:
    pem_file = authorities.write_server_chain()
    recorded = asyncio.run(observe(pem_file, {"ca_file": authorities.ca_file, **options}, **fields))
    assert recorded.result.outcome is Outcome.PASS
    assert {text: problem.partition(" (")[0] for text, problem in preferences(recorded).items()} == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("cert_days > 80 && elapsed_ms >= 0", ""),
        ("subject == 'CN=peer' && issuer == 'CN=Acme Intermediate 1'", ""),
        ("'*.acme.example' in names", ""),
        ("tls_version == 'TLSv1.3' && cipher.startsWith('TLS_')", ""),
        ("issuer.contains('R11')", "issuer does not contain 'R11'"),
        ("tls_version == 'TLSv1.2'", "tls_version is 'TLSv1.3', expected 'TLSv1.2'"),
    ],
)
def test_expressions(authorities: Authorities, expression: str, message: str) -> None:
    pem_file = authorities.write_server_chain()
    recorded = asyncio.run(observe(pem_file, {"ca_file": authorities.ca_file}, expect=[expression]))
    assert verdict(recorded) == (("fail", "expectation.failed", message) if message else ("pass", "", ""))
    assert expression in recorded.evidence.facts["expect"]
    assert bool(recorded.result.listings) is not bool(message)


def parse_all_but_own(chain: tuple[bytes, ...]) -> tuple[Certificate, ...]:
    return parse_certificates(chain[1:])


@pytest.mark.parametrize("parse", [lambda chain: (), parse_all_but_own], ids=["none", "all but its own"])
def test_a_certificate_that_cannot_be_read_is_no_fault_of_the_target(
    authorities: Authorities, monkeypatch: pytest.MonkeyPatch, parse: Callable[..., tuple[Certificate, ...]]
) -> None:
    monkeypatch.setattr(handshake, "parse_certificates", parse)
    pem_file = authorities.write_server_chain()
    recorded = asyncio.run(observe(pem_file, {"ca_file": authorities.ca_file}))
    message = "no verdict: Watchdog cannot read the server's certificate"
    assert verdict(recorded) == ("error", "tls.unreadable_certificate", message)


@pytest.mark.parametrize(
    ("port_fields", "reason", "message"),
    [
        ({}, "connection.refused", "connection refused"),
        ({"starttls": "smtp"}, "connection.refused", "connection refused"),
    ],
)
def test_a_refused_connection(port_fields: dict[str, Any], reason: str, message: str) -> None:
    recorded = asyncio.run(run_probe(tls_probe({"host": f"127.0.0.1:{find_free_port()}", **port_fields})))
    assert verdict(recorded) == ("fail", reason, message)


def test_an_old_version_is_refused_unless_it_is_allowed(run: Run, tmp_path: Path) -> None:
    pem = create_self_signed_certificate(tmp_path)
    with running_openssl_server(pem, "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0") as port:
        options = {"host": f"127.0.0.1:{port}", "ca_file": pem, "min_days": 1}
        refused = run(run_probe(tls_probe(options)))
        allowed = run(run_probe(tls_probe({**options, "allow_legacy": True})))
    assert refused.result.reason == "tls.legacy_version"
    assert (allowed.result.outcome, allowed.evidence.facts["tls_version"]) == (Outcome.PASS, "TLSv1.1")


# --- configuration


@pytest.mark.parametrize(
    ("tls", "target"),
    [
        ("acme.example", "tls://acme.example:443"),
        ("acme.example:8443", "tls://acme.example:8443"),
        ({"host": "mail.acme.example", "starttls": "smtp"}, "tls://mail.acme.example:25"),
        ({"host": "mail.acme.example", "starttls": "imap"}, "tls://mail.acme.example:143"),
        ({"host": "db.acme.example", "starttls": "postgres"}, "tls://db.acme.example:5432"),
        ({"host": "db.acme.example", "port": 6432, "starttls": "postgres"}, "tls://db.acme.example:6432"),
        ({"host": "2001:db8::1"}, "tls://[2001:db8::1]:443"),
    ],
)
def test_the_default_of_the_port(tls: Any, target: str) -> None:
    probe = tls_probe(tls)
    assert (probe.target, f"tls://{probe.network_endpoint}") == (target, target)
    assert (probe.may_change_target, probe.may_run_without_store) == (False, True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tls": {"host": "a", "min_days": -1}}, "greater than or equal to 0"),
        ({"tls": {"host": "a", "names": ["https://a/"]}}, "expected a host name such as www.acme.example, a wildcard"),
        ({"tls": {"host": "a", "names": ["a.*.example"]}}, "or an address, found 'a.*.example'"),
        ({"tls": {"host": "a", "starttls": "ftp"}}, "'smtp', 'imap' or 'postgres'"),
        ({"tls": {"host": "a", "verify": False, "ca_file": "x"}}, "`ca_file` has no effect with `verify: false`"),
        ({"tls": "a", "expect": ["received == ''"]}, "unknown name 'received'"),
        ({"tls": "https://acme.example"}, "expected a host and a port, such as db.acme.example:5432, found a URL"),
    ],
)
def test_a_probe_that_cannot_work_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TlsProbe.model_validate({"name": "Certificate", **fields})
