"""Probes, canary jobs and remediations through proxies, over HTTP/2, and with access tokens."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support.fake_network import install_fake_network
from tests.support.probe_runs import run_probe
from tests.support.proxy_servers import PROXY_PASSWORD, RecordingProxy, running_recording_proxy
from tests.support.scripted_servers import CertificateAuthority, http_response, running_server, send_parts
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.net import SecretMask
from watchdog.net.proxy import RequestRouting, parse_proxy_url
from watchdog.probes import CanaryProbe, HttpProbe, StepsProbe


def http_probe(target: Any, **fields: Any) -> HttpProbe:
    return HttpProbe.model_validate({"name": "API", "http": target, **fields})


def shared(proxy: RecordingProxy) -> RequestRouting:
    return RequestRouting(parse_proxy_url(proxy.url), ("direct.example",))


def test_a_probe_uses_the_proxy_of_the_process_unless_it_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    network = install_fake_network(monkeypatch)
    network.names = {"direct.example": [["127.0.0.1"]], "api.example": [["127.0.0.1"]]}

    async def run_scenario() -> None:
        async with (
            running_server(send_parts(http_response(b"{}"))) as target,
            running_recording_proxy(destination_port=target.port) as first,
            running_recording_proxy(destination_port=target.port) as second,
        ):

            def url(host: str) -> str:
                return target.url_of(host=host)

            cases: list[tuple[HttpProbe, int, int]] = [
                (http_probe(url("api.example")), 1, 0),
                (http_probe(url("direct.example")), 0, 0),
                (http_probe(url("127.0.0.1")), 0, 0),
                (http_probe(url("api.example"), proxy="off"), 0, 0),
                (http_probe(url("api.example"), proxy=second.url), 0, 1),
                (http_probe(url("direct.example"), proxy=second.url), 0, 1),
                (http_probe(url("127.0.0.1"), proxy=second.url), 0, 1),
            ]
            for probe, in_first, in_second in cases:
                first.request_heads.clear()
                second.request_heads.clear()
                recorded = await run_probe(probe, routing=shared(first))
                assert recorded.result.outcome is Outcome.PASS, recorded.result.message
                assert (len(first.request_heads), len(second.request_heads)) == (in_first, in_second)
                used = first if in_first else second if in_second else None
                proxy = recorded.evidence.facts.get("proxy")
                assert proxy == (f"127.0.0.1:{used.server.port}" if used else None)

    asyncio.run(run_scenario())


def test_a_fault_of_the_proxy_is_no_fault_of_the_target() -> None:
    probe = http_probe("https://api.example/", proxy="http://127.0.0.1:1")
    recorded = asyncio.run(run_probe(probe))
    assert (recorded.result.outcome, recorded.result.reason) == (Outcome.ERROR, "proxy.unreachable")
    assert recorded.result.message == "no verdict: the proxy 127.0.0.1:1 cannot be reached: connection refused"
    assert recorded.evidence.facts["proxy"] == "127.0.0.1:1"


def test_the_address_of_a_probe_s_own_proxy_follows_its_filter() -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(http_response())) as proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            own = http_probe("http://api.example/", proxy=url, allow_private_addresses=False)
            recorded = await run_probe(own)
            assert recorded.result.reason == "proxy.unreachable"
            assert "refused by `allow_private_addresses: false`" in recorded.result.message
            assert proxy.connection_count == 0
            other = http_probe("http://api.example/", allow_private_addresses=False)
            assert (await run_probe(other, routing=RequestRouting(parse_proxy_url(url)))).result.outcome is Outcome.PASS

    asyncio.run(run_scenario())


def test_the_deadline_names_the_phase_of_the_proxy() -> None:
    async def run_scenario() -> ResultToRecord:
        async with running_server(send_parts(delay_s=60), read_request=False) as proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            return await run_probe(http_probe("https://api.example/", proxy=url, timeout="300ms"))

    recorded = asyncio.run(run_scenario())
    assert (recorded.result.outcome, recorded.result.reason) == (Outcome.FAIL, "timeout.tunnel")
    assert "tunnel" in recorded.result.phases


def test_the_authorities_of_a_probe(tmp_path_factory: pytest.TempPathFactory) -> None:
    right, other = (CertificateAuthority(tmp_path_factory.mktemp("authority")) for _ in range(2))

    async def run_scenario() -> None:
        context = right.server_tls_context("127.0.0.1")
        async with running_server(send_parts(http_response()), context) as target:
            url = target.url_of(scheme="https")
            cases = [
                (http_probe(url), right.ca_file, True),
                (http_probe(url), other.ca_file, False),
                (http_probe(url, ca_file=right.ca_file), other.ca_file, True),
                (http_probe({"url": url, "tls": {"ca_file": right.ca_file}}, ca_file=other.ca_file), "", True),
                (http_probe({"url": url, "tls": {"verify": False}}), other.ca_file, True),
            ]
            for probe, shared_file, passes in cases:
                recorded = await run_probe(probe, routing=RequestRouting(ca_file=shared_file))
                assert (recorded.result.outcome is Outcome.PASS) == passes, recorded.result.message

    asyncio.run(run_scenario())


def test_a_canary_job_goes_through_the_proxy() -> None:
    async def run_scenario() -> None:
        reply = http_response(json.dumps({"job_id": "7", "status": "completed"}).encode())
        async with running_server(send_parts(reply)) as target, running_recording_proxy() as proxy:
            probe = CanaryProbe.model_validate(
                {
                    "name": "Jobs",
                    "every": "5m",
                    "proxy": proxy.url,
                    "canary": {
                        "http": {
                            "enqueue": target.url_of("/jobs"),
                            "poll": target.url_of("/jobs/{job_id}"),
                            "done": "body.status == 'completed'",
                        }
                    },
                }
            )
            recorded = await run_probe(probe)
            assert recorded.result.outcome is Outcome.PASS, recorded.result.message
            paths = [head.partition(" HTTP")[0].rpartition("/jobs")[2] for head in proxy.request_heads]
            assert paths[:2] == ["", "/7"]

    asyncio.run(run_scenario())


def test_each_step_goes_through_the_proxy_and_carries_the_cookies_of_the_steps_before() -> None:
    steps = [
        {"name": "Log in", "http": "http://shop.example/login", "capture": {"token": "body.token"}},
        {"name": "Cart", "http": "http://shop.example/carts/{token}"},
    ]

    async def run_scenario() -> None:
        reply = http_response(b'{"token": "t0ken-number-1"}', Set_Cookie="session=5e551on-number-1")
        async with (
            running_server(send_parts(reply)) as target,
            running_recording_proxy(destination_port=target.port) as proxy,
        ):
            probe = StepsProbe.model_validate({"name": "Shop", "steps": steps, "proxy": proxy.url})
            recorded = await run_probe(probe)
            assert recorded.result.outcome is Outcome.PASS, recorded.result.message
            assert [head.partition(" HTTP")[0] for head in proxy.request_heads] == [
                "GET http://shop.example/login",
                "GET http://shop.example/carts/t0ken-number-1",
            ]
            assert ["session=5e551on-number-1" in head for head in proxy.request_heads] == [False, True]
            assert recorded.evidence.facts["proxy"] == f"127.0.0.1:{proxy.server.port}"

    asyncio.run(run_scenario())


def test_a_step_trusts_the_authorities_of_its_probe(tmp_path_factory: pytest.TempPathFactory) -> None:
    authority = CertificateAuthority(tmp_path_factory.mktemp("authority"))

    async def run_scenario() -> None:
        async with running_server(send_parts(http_response()), authority.server_tls_context("127.0.0.1")) as target:
            steps = [{"name": "Start", "http": target.url_of(scheme="https")}]
            for ca_file, passes in ((authority.ca_file, True), ("", False)):
                probe = StepsProbe.model_validate({"name": "Shop", "steps": steps, "ca_file": ca_file})
                recorded = await run_probe(probe)
                assert (recorded.result.outcome is Outcome.PASS) == passes, recorded.result.message

    asyncio.run(run_scenario())


OAUTH2 = {"client_id": "watchdog", "client_secret": "s3cret-of-acme"}


def test_an_access_token_that_the_target_repeats_is_masked() -> None:
    token = http_response(b'{"access_token": "t0ken-number-1", "expires_in": 60}')

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        received = head.partition("Authorization: ")[2].partition("\r\n")[0]
        writer.write(http_response(json.dumps({"got": received}).encode(), "403 Forbidden"))

    async def run_scenario() -> ResultToRecord:
        async with running_server(send_parts(token)) as tokens, running_server(echo, read_request=False) as target:
            auth = {"oauth2": {**OAUTH2, "token_url": tokens.url_of("/token")}}
            probe = http_probe({"url": target.url_of(), "auth": auth}, expect=["body.got == 'nothing'"])
            return await run_probe(probe, mask=SecretMask(["s3cret-of-acme"]))

    recorded = asyncio.run(run_scenario())
    text = f"{recorded.result.message} {recorded.evidence.facts} {recorded.evidence.excerpt}"
    assert recorded.result.reason == "http.403"
    assert "Bearer •••" in recorded.evidence.excerpt
    assert "t0ken-number-1" not in text


def test_a_run_without_an_access_token_has_a_reason_of_its_own() -> None:
    refusal = http_response(json.dumps({"error": "invalid_client", "hint": "s3cret-of-acme"}).encode(), "401 No")

    async def run_scenario() -> ResultToRecord:
        async with running_server(send_parts(refusal)) as tokens:
            auth = {"oauth2": {**OAUTH2, "token_url": tokens.url_of("/token")}}
            probe = http_probe({"url": "https://api.example/", "auth": auth})
            return await run_probe(probe, mask=SecretMask(["s3cret-of-acme"]))

    recorded = asyncio.run(run_scenario())
    assert (recorded.result.outcome, recorded.result.reason) == (Outcome.FAIL, "auth.token_refused")
    assert recorded.result.message == "the token endpoint refuses an access token: HTTP 401 (invalid_client)"
    assert recorded.evidence.facts["status"] == 401
    assert "s3cret-of-acme" not in recorded.evidence.excerpt
    assert "token" in recorded.result.phases


def test_the_deadline_names_the_phase_of_the_token() -> None:
    async def run_scenario() -> ResultToRecord:
        async with running_server(send_parts(delay_s=60)) as tokens:
            auth = {"oauth2": {**OAUTH2, "token_url": tokens.url_of("/token")}}
            return await run_probe(http_probe({"url": "https://api.example/", "auth": auth}, timeout="300ms"))

    recorded = asyncio.run(run_scenario())
    assert (recorded.result.outcome, recorded.result.reason) == (Outcome.FAIL, "timeout.token")


def test_no_evidence_contains_the_password_of_a_proxy() -> None:
    async def run_scenario() -> None:
        async with running_server(send_parts(http_response(status="407 Auth"))) as proxy:
            url = f"http://monitor:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}"
            for target in ("https://api.example/", "http://api.example/"):
                recorded = await run_probe(http_probe(target, proxy=url))
                assert recorded.result.reason == "proxy.authentication_required"
                text = f"{recorded.result.message} {recorded.evidence.facts} {recorded.evidence.excerpt}"
                assert PROXY_PASSWORD not in text

    asyncio.run(run_scenario())
