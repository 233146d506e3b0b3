"""Which certificates a mail server may have, and with which name Watchdog introduces itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.notifiers.conftest import SendFixture
from tests.support.alert_contexts import OPENED_ALERT
from tests.support.fakes import FakeMailServer, make_certificate
from watchdog.net import NetworkAccess
from watchdog.net.proxy import RequestRouting
from watchdog.notifiers.email import EmailNotifier, SmtpServerSettings

SERVER = {"host": "localhost", "from": "watchdog@acme.example"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def other_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def shared_ca_file(loop_and_wire: tuple[Any, NetworkAccess], certificate: Path) -> Iterator[str]:
    """The network of the process trusts this file."""
    _, network = loop_and_wire
    former, network.routing = network.routing, RequestRouting(ca_file=str(certificate))
    yield str(certificate)
    network.routing = former


def notifier(mail: FakeMailServer, **fields: Any) -> EmailNotifier:
    server = SmtpServerSettings.model_validate({**SERVER, "port": mail.port, **fields})
    return EmailNotifier(to=("oncall@acme.example",), server=server)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_private_authority_of_the_mail_server(certificate: Path, send: SendFixture, security: Any) -> None:
    with FakeMailServer(security, certificate) as mail:
        send(notifier(mail, security=security, ca_file=str(certificate)), OPENED_ALERT)
        assert [delivered.tls for delivered in mail.received] == [True]


def test_the_authorities_of_the_network_are_the_default(
    certificate: Path, send: SendFixture, shared_ca_file: str
) -> None:
    with FakeMailServer("starttls", certificate) as mail:
        send(notifier(mail), OPENED_ALERT)
        assert len(mail.received) == 1


def test_the_file_of_the_mail_server_comes_first(
    certificate: Path, other_certificate: Path, fail: SendFixture, shared_ca_file: str
) -> None:
    with FakeMailServer("starttls", certificate) as mail:
        failed = fail(notifier(mail, ca_file=str(other_certificate)), OPENED_ALERT)
        assert mail.received == []
    assert failed["reason"] == "tls.self_signed"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_unusable_file_is_retried_for_an_hour(
    certificate: Path, tmp_path: Path, fail: SendFixture, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with FakeMailServer("starttls", certificate) as mail:
        failed = fail(notifier(mail, ca_file=str(file)), OPENED_ALERT)
    assert (failed["reason"], failed["retried"]) == ("tls.invalid_file", "an hour")


def test_the_name_in_ehlo(send: SendFixture) -> None:
    with FakeMailServer() as mail:
        for fields in ({}, {"ehlo": "monitor.acme.example"}, {"ehlo": "[192.0.2.1]"}):
            send(notifier(mail, security="none", **fields), OPENED_ALERT)
        assert mail.ehlo_names == [socket.gethostname(), "monitor.acme.example", "[192.0.2.1]"]


@pytest.mark.parametrize("name", ["monitor acme", "-a", "a..b", "a\r\nMAIL FROM:<x>", "[x]", "monitor_1", "ü.example"])
def test_a_name_that_servers_reject_is_an_error_of_the_configuration(name: str) -> None:
    with pytest.raises(ValidationError, match=r"expected a host name such as monitor\.acme\.example"):
        SmtpServerSettings.model_validate({**SERVER, "ehlo": name})
