"""Certificates of every kind, and what is said of them."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pydantic import ValidationError

from tests import servers
from tests.servers import Authority, Talk, answer, redirecting, saying, serving
from watchdog.wire import Fault, Trace, Wire
from watchdog.wire.http import Exchange, Request
from watchdog.wire.tls import Tls, make_context
from watchdog.words import NBSP

Run = Callable[[Coroutine[Any, Any, Exchange]], Exchange]
NOW = round(servers.NOW.timestamp() * 1000)
DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


async def ask(
    context: ssl.SSLContext, tls: Tls, host: str = "127.0.0.1", talk: Talk | None = None, trace: Trace | None = None
) -> Exchange:
    async with serving(talk or saying(answer(b"hello")), context) as peer, Wire() as wire:
        request = Request(peer.url(scheme="https", host=host), tls=tls, trace=trace or Trace(), now=NOW, follow=True)
        async with asyncio.timeout(5):
            return await wire.exchange(request)


def test_a_good_certificate_is_taken_and_its_days_are_counted(run: Run, authority: Authority) -> None:
    trace = Trace()
    got = run(ask(authority.serve("127.0.0.1", end=90.5), Tls(ca_file=authority.ca_file), trace=trace))
    assert (got.body, got.cert_days) == (b"hello", 90)
    assert list(trace.phases) == ["connect", "tls", "first_byte", "body"]


@pytest.mark.parametrize(
    ("names", "begin", "end", "self_signed", "host", "message"),
    [
        (["127.0.0.1"], -90, -3.5, False, "127.0.0.1", "TLS: certificate expired 3 days ago"),
        (["127.0.0.1"], -90, -0.1, False, "127.0.0.1", "TLS: certificate expired 2 h 24 min ago"),
        (["127.0.0.1"], 5.5, 90, False, "127.0.0.1", "TLS: certificate becomes valid in 5 days"),
        (["127.0.0.1"], -90, 90, True, "127.0.0.1", "TLS: certificate is self-signed"),
        (["acme.example"], -90, 90, False, "127.0.0.1", "TLS: certificate is not valid for 127.0.0.1"),
        (["acme.example"], -90, 90, False, "localhost", "TLS: certificate is not valid for localhost"),
    ],
)  # fmt: skip
def test_a_bad_certificate_is_refused_in_plain_words(
    run: Run,
    authority: Authority,
    names: list[str],
    begin: float,
    end: float,
    self_signed: bool,
    host: str,
    message: str,
) -> None:
    context = authority.serve(*names, begin=begin, end=end, self_signed=self_signed)
    with pytest.raises(Fault) as caught:
        run(ask(context, Tls(ca_file=authority.ca_file), host))
    assert str(caught.value).replace(NBSP, " ") == message
    assert (caught.value.reason, caught.value.phase, caught.value.retryable) == ("tls.failed", "tls", False)


def test_a_current_certificate_of_an_expired_authority_is_told_apart(tmp_path: Path) -> None:
    expired = Authority(tmp_path, end=-1)
    with pytest.raises(Fault, match=r"^TLS: the certificate is current, but one of its authorities' is not$"):
        asyncio.run(ask(expired.serve("127.0.0.1"), Tls(ca_file=expired.ca_file)))


def test_when_no_second_look_is_given_it_has_just_expired(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    dials = 0

    async def dial_once(self: Wire, *where: Any) -> socket.socket:
        nonlocal dials
        dials += 1
        if dials > 1:
            raise Fault("connection.refused", "connection refused")
        return await dial(self, *where)

    dial = Wire.dial
    monkeypatch.setattr(Wire, "dial", dial_once)
    with pytest.raises(Fault, match=r"^TLS: certificate has expired$"):
        asyncio.run(ask(authority.serve("127.0.0.1", begin=-90, end=-3), Tls(ca_file=authority.ca_file)))
    assert dials == 2


def test_an_unknown_authority_is_told(run: Run, authority: Authority) -> None:
    with pytest.raises(Fault, match=r"^TLS: certificate comes from an unknown authority$"):
        run(ask(authority.serve("127.0.0.1"), Tls()))


@pytest.mark.parametrize(("end", "days"), [(3.5, 3), (0.5, 0), (-0.5, -1), (-3.5, -4)])
def test_without_verification_any_certificate_is_taken_and_its_days_still_count(
    run: Run, authority: Authority, end: float, days: int
) -> None:
    context = authority.serve("acme.example", begin=-90, end=end, self_signed=True)
    assert run(ask(context, Tls(verify=False))).cert_days == days


def test_another_name_may_be_expected(run: Run, authority: Authority) -> None:
    tls = Tls(ca_file=authority.ca_file, server_name="acme.example")
    assert run(ask(authority.serve("acme.example"), tls)).status == 200


def demanding(authority: Authority) -> ssl.SSLContext:
    context = authority.serve("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_file)
    return context


def test_a_client_certificate_opens_the_door(run: Run, authority: Authority) -> None:
    ours = authority.issue("watchdog")
    got = run(ask(demanding(authority), Tls(ca_file=authority.ca_file, cert_file=ours)))
    assert got.status == 200
    with pytest.raises(Fault) as caught:
        run(ask(demanding(authority), Tls(ca_file=authority.ca_file)))
    assert caught.value.reason in ("connection.lost", "tls.failed")


def test_a_redirect_to_another_origin_is_shown_no_client_certificate(authority: Authority) -> None:
    shown: list[object] = []

    async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.write(answer())

    context = demanding(authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    tls = Tls(ca_file=authority.ca_file, cert_file=authority.issue("watchdog"), server_name="127.0.0.1")

    async def scene(redirected: bool) -> Exchange:
        async with serving(look, context) as second:
            there = second.url(scheme="https")
            return (
                await ask(context, tls, talk=redirecting(there)) if redirected else await ask(context, tls, talk=look)
            )

    asyncio.run(scene(redirected=False))
    assert shown.pop() is not None
    asyncio.run(scene(redirected=True))
    assert shown == [None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ca_file": "none.pem"}, "cannot use ca_file none.pem: no such file or directory"),
        ({"ca_file": "text.pem"}, "cannot use ca_file text.pem: it does not hold what it should"),
        ({"cert_file": "none.pem"}, "cannot use cert_file none.pem: no such file or directory"),
        ({"cert_file": "text.pem"}, "cannot use cert_file text.pem: it does not hold what it should"),
        ({"cert_file": "locked.pem"}, "cannot use cert_file locked.pem: its key is locked with a password"),
    ],
)
def test_files_of_no_use_are_our_own_fault(
    options: dict[str, str], message: str, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pem").write_text("no certificate")
    Path("locked.pem").write_bytes(Path(authority.issue("watchdog", password=b"open sesame")).read_bytes())
    with pytest.raises(Fault) as caught:
        make_context(Tls(**options))
    assert (caught.value.reason, str(caught.value), caught.value.ours) == ("tls.invalid_file", message, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_file": "key.pem"}, "expected a cert_file beside it"),
        ({"verify": False, "ca_file": "ca.pem"}, "names whom to trust, while verify: false trusts everybody"),
        ({"verfy": True}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Tls.model_validate(options)


def test_one_context_serves_all_who_ask_for_the_same(authority: Authority) -> None:
    async def scene() -> None:
        async with Wire() as wire:
            one = wire.context(Tls(ca_file=authority.ca_file))
            assert wire.context(Tls(ca_file=authority.ca_file)) is one
            assert wire.context(Tls(ca_file=authority.ca_file, server_name="x")) is one
            assert wire.context(Tls()) is not one
            assert not wire.context(Tls(verify=False)).check_hostname

    asyncio.run(scene())


def test_without_authorities_of_the_system_the_bundled_ones_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/certificates.pem")
    monkeypatch.setenv("SSL_CERT_DIR", "/nonexistent")
    assert len(make_context(Tls()).get_ca_certs()) > 50


async def plainly(talk: Talk) -> Exchange:
    async with serving(talk, listen=False) as peer, Wire() as wire:
        return await wire.exchange(Request(peer.url(scheme="https")))


def test_a_server_that_does_not_speak_tls(run: Run) -> None:
    async def complain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        await saying(b"HTTP/1.1 400 Bad Request\r\n\r\n", then=5)(reader, writer)

    with pytest.raises(Fault, match=r"^TLS: the server does not speak TLS on this port$"):
        run(plainly(complain))


def test_a_server_that_hangs_up_during_the_handshake(run: Run) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)

    with pytest.raises(Fault, match=r"while negotiating TLS$") as caught:
        run(plainly(hang_up))
    assert (caught.value.reason, caught.value.retryable) == ("connection.lost", True)


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="/proc is missing: open descriptors cannot be counted")
def test_nothing_is_left_open_after_a_failed_handshake(run: Run, authority: Authority) -> None:
    async def scene() -> Exchange:
        expired = authority.serve("127.0.0.1", begin=-90, end=-1)
        async with Wire() as wire, serving(saying(answer(b"hello")), expired) as peer, serving(saying(then=60)) as deaf:
            counts = []
            for server in (peer, deaf) * 3:
                request = Request(server.url(scheme="https"), tls=Tls(ca_file=authority.ca_file), now=NOW)
                with suppress(Fault, TimeoutError):
                    async with asyncio.timeout(0.1):
                        await wire.exchange(request)
                await asyncio.sleep(0.02)
                counts.append(len(os.listdir(DESCRIPTORS)))  # noqa: PTH208
            assert counts[2::2] == counts[:1] * 2
            return await wire.exchange(Request(peer.url(scheme="https"), tls=Tls(verify=False)))

    run(scene())
