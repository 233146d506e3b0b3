"""Certificates of every kind, and the errors that they cause."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from pydantic import ValidationError

from tests.support import scripted_servers
from tests.support.scripted_servers import (
    OPEN_DESCRIPTORS,
    CertificateAuthority,
    ConnectionHandler,
    count_open_descriptors,
    http_response,
    redirect_to,
    running_server,
    send_parts,
)
from watchdog.net import NetworkAccess, PhaseTimer, ProbeError, handshake
from watchdog.net.connector import TcpConnector
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.http_exchange import HttpExchangeProtocol
from watchdog.net.tls import TlsConfig, create_ssl_context

Run = Callable[[Coroutine[Any, Any, HttpResponse]], HttpResponse]
NOW = round(scripted_servers.NOW.timestamp() * 1000)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


async def ask(
    context: ssl.SSLContext,
    tls: TlsConfig,
    host: str = "127.0.0.1",
    handler: ConnectionHandler | None = None,
    timer: PhaseTimer | None = None,
) -> HttpResponse:
    async with (
        running_server(handler or send_parts(http_response(b"hello")), context) as target,
        NetworkAccess() as network,
    ):
        request = HttpRequest(
            target.url_of(scheme="https", host=host),
            tls=tls,
            follow_redirects=True,
        )
        async with asyncio.timeout(5):
            return await network.send_http_request(request, timer, now=NOW)


def day(days: float) -> str:
    """The instant `days` from now, as messages write it."""
    return f"{scripted_servers.NOW + timedelta(days=days):%-d\N{NO-BREAK SPACE}%b %Y %H:%M}"


def test_a_valid_certificate_is_accepted_and_its_days_are_counted(run: Run, authority: CertificateAuthority) -> None:
    timer = PhaseTimer()
    response = run(
        ask(authority.server_tls_context("127.0.0.1", end=90.5), TlsConfig(ca_file=authority.ca_file), timer=timer)
    )
    assert (response.body, response.cert_days) == (b"hello", 90)
    assert list(timer.phase_durations_ms) == ["connect", "tls", "first_byte", "body"]


@pytest.mark.parametrize(
    ("names", "begin", "end", "self_signed", "host", "reason", "message"),
    [
        (["127.0.0.1"], -90, -3.5, False, "127.0.0.1", "tls.expired", f"TLS: certificate expired on {day(-3.5)} UTC"),
        (["127.0.0.1"], -90, -0.1, False, "127.0.0.1", "tls.expired", f"TLS: certificate expired on {day(-0.1)} UTC"),
        (
            *(["127.0.0.1"], 5.5, 90, False, "127.0.0.1", "tls.not_yet_valid"),
            f"TLS: certificate is not valid before {day(5.5)} UTC",
        ),
        (["127.0.0.1"], -90, 90, True, "127.0.0.1", "tls.self_signed", "TLS: certificate is self-signed"),
        (
            *(["acme.example"], -90, 90, False, "127.0.0.1", "tls.hostname"),
            "TLS: certificate is not valid for 127.0.0.1; it is valid for acme.example",
        ),
        (
            *(["a.example", "b.example", "c.example", "10.0.0.1"], -90, 90, False, "localhost", "tls.hostname"),
            "TLS: certificate is not valid for localhost; it is valid for a.example, b.example, c.example and 1 more",
        ),
        (
            *([], -90, 90, False, "localhost", "tls.hostname"),
            "TLS: certificate is not valid for localhost; it has no subject alternative name",
        ),
    ],
    ids=["expired", "expired-today", "not-yet-valid", "self-signed", "other-host", "four-other-hosts", "no-names"],
)  # fmt: skip
def test_an_invalid_certificate_is_refused_with_an_explanation(
    run: Run,
    authority: CertificateAuthority,
    names: list[str],
    begin: float,
    end: float,
    self_signed: bool,
    host: str,
    reason: str,
    message: str,
) -> None:
    context = authority.server_tls_context(*names, begin=begin, end=end, self_signed=self_signed)
    with pytest.raises(ProbeError) as caught:
        run(ask(context, TlsConfig(ca_file=authority.ca_file), host))
    assert str(caught.value) == message
    assert (caught.value.reason, caught.value.phase, caught.value.retryable) == (reason, "tls", False)


def test_an_expired_authority_is_distinguished_from_an_expired_certificate(tmp_path: Path) -> None:
    expired = CertificateAuthority(tmp_path, end=-1)
    with pytest.raises(ProbeError, match=r"has expired or is not valid yet$"):
        asyncio.run(ask(expired.server_tls_context("127.0.0.1"), TlsConfig(ca_file=expired.ca_file)))


def test_an_expired_certificate_has_no_date_if_the_second_connection_fails(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    async def refuse(*_: Any) -> HttpExchangeProtocol:
        nonlocal attempts
        attempts += 1
        raise ProbeError("connection.refused", "connection refused")

    monkeypatch.setattr(handshake, "open_connection_by_route", refuse)
    with pytest.raises(ProbeError, match=r"^TLS: certificate expired$"):
        asyncio.run(
            ask(authority.server_tls_context("127.0.0.1", begin=-90, end=-3), TlsConfig(ca_file=authority.ca_file))
        )
    assert attempts == 1


def test_an_unknown_authority_is_an_error(run: Run, authority: CertificateAuthority) -> None:
    with pytest.raises(
        ProbeError, match=r"^TLS: certificate is signed by an unknown authority: Watchdog test authority$"
    ):
        run(ask(authority.server_tls_context("127.0.0.1"), TlsConfig()))


@pytest.mark.parametrize(("end", "days"), [(3.5, 3), (0.5, 0), (-0.5, -1), (-3.5, -4)])
def test_without_verification_any_certificate_is_accepted_and_its_days_are_counted(
    run: Run, authority: CertificateAuthority, end: float, days: int
) -> None:
    context = authority.server_tls_context("acme.example", begin=-90, end=end, self_signed=True)
    assert run(ask(context, TlsConfig(verify=False))).cert_days == days


UNREADABLE_EXTENSIONS = {
    "a name of a form that is not supported": (x509.OID_SUBJECT_ALTERNATIVE_NAME, b"\x30\x04\xa3\x02\x30\x00"),
    "no valid extension": (x509.OID_AUTHORITY_INFORMATION_ACCESS, b"\x05\x00"),
}


@pytest.mark.parametrize(("oid", "value"), UNREADABLE_EXTENSIONS.values(), ids=UNREADABLE_EXTENSIONS)
def test_the_days_of_a_certificate_with_an_unreadable_extension_are_counted(
    authority: CertificateAuthority, oid: x509.ObjectIdentifier, value: bytes
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue_certificate(end=3.5, extension=x509.UnrecognizedExtension(oid, value)))
    assert asyncio.run(ask(context, TlsConfig(verify=False))).cert_days == 3
    with pytest.raises(ProbeError, match="TLS: certificate is signed by an unknown authority"):
        asyncio.run(ask(context, TlsConfig()))


def test_server_name_changes_the_expected_name(run: Run, authority: CertificateAuthority) -> None:
    tls = TlsConfig(ca_file=authority.ca_file, server_name="acme.example")
    assert run(ask(authority.server_tls_context("acme.example"), tls)).status == 200


@pytest.mark.parametrize(
    ("text", "server_name"),
    [("Acme.Example.", "acme.example"), ("bücher.example", "xn--bcher-kva.example"), ("[::1]", "::1"), ("", "")],
)
def test_a_server_name_is_normalized(text: str, server_name: str) -> None:
    assert TlsConfig(server_name=text).server_name == server_name


def demanding(authority: CertificateAuthority) -> ssl.SSLContext:
    context = authority.server_tls_context("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_file)
    return context


def test_a_client_certificate_is_sent(run: Run, authority: CertificateAuthority) -> None:
    ours = authority.issue_certificate("watchdog")
    response = run(ask(demanding(authority), TlsConfig(ca_file=authority.ca_file, cert_file=ours)))
    assert response.status == 200
    with pytest.raises(ProbeError) as caught:
        run(ask(demanding(authority), TlsConfig(ca_file=authority.ca_file)))
    assert caught.value.reason == "tls.client_certificate"


def test_no_client_certificate_is_sent_to_another_origin(authority: CertificateAuthority) -> None:
    certificates: list[object] = []

    async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificates.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.write(http_response())

    context = demanding(authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    tls = TlsConfig(
        ca_file=authority.ca_file, cert_file=authority.issue_certificate("watchdog"), server_name="127.0.0.1"
    )

    async def run_scenario(redirected: bool) -> HttpResponse:
        async with running_server(look, context) as second:
            target_url = second.url_of(scheme="https")
            return (
                await ask(context, tls, handler=redirect_to(target_url))
                if redirected
                else await ask(context, tls, handler=look)
            )

    asyncio.run(run_scenario(redirected=False))
    assert certificates.pop() is not None
    asyncio.run(run_scenario(redirected=True))
    assert certificates == [None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ca_file": "none.pem"}, "cannot use ca_file none.pem: no such file or directory"),
        ({"ca_file": "text.pem"}, "cannot use ca_file text.pem: it is not a valid PEM file for this option"),
        ({"cert_file": "none.pem"}, "cannot use cert_file none.pem: no such file or directory"),
        ({"cert_file": "text.pem"}, "cannot use cert_file text.pem: it is not a valid PEM file for this option"),
        ({"cert_file": "locked.pem"}, "cannot use cert_file locked.pem: its key is encrypted"),
    ],
)
def test_unusable_files_are_an_error(
    options: dict[str, str],
    message: str,
    tmp_path: Path,
    authority: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pem").write_text("no certificate")
    Path("locked.pem").write_bytes(Path(authority.issue_certificate("watchdog", password=b"open sesame")).read_bytes())
    with pytest.raises(ProbeError) as caught:
        create_ssl_context(TlsConfig(**options))
    assert (caught.value.reason, str(caught.value), caught.value.is_internal) == ("tls.invalid_file", message, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_file": "key.pem"}, "key_file requires cert_file"),
        ({"verify": False, "ca_file": "ca.pem"}, "`ca_file` has no effect with `verify: false`"),
        ({"verfy": True}, "Extra inputs are not permitted"),
        ({"server_name": "acme..example"}, "expected a host name whose parts have 1 to 63 characters"),
        ({"server_name": "a" * 64}, "expected a host name whose parts have 1 to 63 characters"),
        ({"server_name": ".acme.example"}, "expected a host name or an IP address"),
        ({"server_name": "acme.example:443"}, "expected a host name or an IP address"),
        ({"server_name": "acme\0.example"}, "expected a host name or an IP address"),
    ],
)
def test_contradictory_and_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TlsConfig.model_validate(options)


def test_equal_options_share_a_context(authority: CertificateAuthority) -> None:
    async def run_scenario() -> None:
        async with NetworkAccess() as network:
            context = network.connector.get_ssl_context(TlsConfig(ca_file=authority.ca_file))
            assert network.connector.get_ssl_context(TlsConfig(ca_file=authority.ca_file)) is context
            assert network.connector.get_ssl_context(TlsConfig(ca_file=authority.ca_file, server_name="x")) is context
            assert network.connector.get_ssl_context(TlsConfig()) is not context
            assert not network.connector.get_ssl_context(TlsConfig(verify=False)).check_hostname

    asyncio.run(run_scenario())


@pytest.mark.parametrize("option", ["ca_file", "cert_file", "key_file"])
def test_a_file_that_is_replaced_is_read_again(authority: CertificateAuthority, tmp_path: Path, option: str) -> None:
    file = tmp_path / "file.pem"
    old, new = (authority.issue_certificate("127.0.0.1") for _ in range(2))
    content = Path(authority.ca_file if option == "ca_file" else old).read_bytes()
    options = {"cert_file": old, option: str(file)} if option == "key_file" else {option: str(file)}
    file.write_bytes(content)
    connector = TcpConnector()
    first = connector.get_ssl_context(TlsConfig(**options))
    assert connector.get_ssl_context(TlsConfig(**options)) is first
    replacement = tmp_path / "new.pem"
    replacement.write_bytes(Path(new).read_bytes() if option == "cert_file" else content)
    replacement.replace(file)
    second = connector.get_ssl_context(TlsConfig(**options))
    assert second is not first
    file.unlink()
    with pytest.raises(ProbeError, match=f"cannot use {'cert_file' if option == 'key_file' else option}"):
        connector.get_ssl_context(TlsConfig(**options))
    connector.close()


def test_without_system_authorities_the_bundled_ones_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "missing"))
    assert len(create_ssl_context(TlsConfig()).get_ca_certs()) > 50


async def plainly(handler: ConnectionHandler) -> HttpResponse:
    async with running_server(handler, read_request=False) as target, NetworkAccess() as network:
        return await network.send_http_request(HttpRequest(target.url_of(scheme="https")))


def test_a_server_that_does_not_speak_tls(run: Run) -> None:
    async def complain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        await send_parts(b"HTTP/1.1 400 Bad Request\r\n\r\n", delay_s=5)(reader, writer)

    with pytest.raises(ProbeError, match=r"^TLS: the server does not speak TLS on this port$"):
        run(plainly(complain))


def test_a_server_that_hangs_up_during_the_handshake(run: Run) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)

    with pytest.raises(ProbeError, match=r"^TLS: connection closed by the server$") as caught:
        run(plainly(hang_up))
    assert (caught.value.reason, caught.value.retryable) == ("tls.closed", True)


@pytest.mark.skipif(not OPEN_DESCRIPTORS.exists(), reason="/proc is missing: open descriptors cannot be counted")
def test_no_connection_stays_open_after_a_failed_handshake(run: Run, authority: CertificateAuthority) -> None:
    async def run_scenario() -> HttpResponse:
        expired = authority.server_tls_context("127.0.0.1", begin=-90, end=-1)
        async with (
            NetworkAccess() as network,
            running_server(send_parts(http_response(b"hello")), expired) as target,
            running_server(send_parts(delay_s=60)) as deaf,
        ):
            counts = []
            for server in (target, deaf) * 3:
                request = HttpRequest(server.url_of(scheme="https"), tls=TlsConfig(ca_file=authority.ca_file))
                with suppress(ProbeError, TimeoutError):
                    async with asyncio.timeout(0.1):
                        await network.send_http_request(request, now=NOW)
                await asyncio.sleep(0.02)
                counts.append(count_open_descriptors())
            assert counts[2::2] == counts[:1] * 2
            return await network.send_http_request(
                HttpRequest(target.url_of(scheme="https"), tls=TlsConfig(verify=False))
            )

    run(run_scenario())


def test_a_response_in_many_records_is_read_as_it_was_sent(run: Run, authority: CertificateAuthority) -> None:
    """Several records that arrive at once are read into one buffer."""
    parts = [bytes([65 + i % 26]) * 100 for i in range(150)]

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 15000\r\n\r\n")
        for part in parts:
            writer.write(part)

    async def run_scenario() -> HttpResponse:
        context = authority.server_tls_context("127.0.0.1")
        async with running_server(handle, context) as server, NetworkAccess() as network:
            tls = TlsConfig(ca_file=authority.ca_file)
            return await network.send_http_request(HttpRequest(server.url_of(scheme="https"), tls=tls))

    assert run(run_scenario()).body == b"".join(parts)
