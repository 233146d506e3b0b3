"""Targets that browsers and curl accept, and that were reported as down."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cases import http_targets
from tests.support.openssl_server import create_self_signed_certificate, running_openssl_server
from tests.support.probe_runs import run_probe
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.probes.http import HttpProbe


def run_http(http: Any, expect: Sequence[str] = ()) -> ResultToRecord:
    return asyncio.run(run_probe(HttpProbe.model_validate({"name": "V", "http": http, "expect": list(expect)})))


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    listener, url = http_targets.start()
    with listener:
        yield url


@pytest.mark.parametrize(
    ("path", "expect"),
    [
        ("/cookie-loop", []),
        ("/bom", ["body.status == 'ok'"]),
        ("/page300k", ["body.contains('Checkout')"]),
    ],
)
def test_a_target_that_others_accept_passes(base_url: str, path: str, expect: list[str]) -> None:
    result = run_http(base_url + path, expect).result
    assert (result.outcome, result.message) == (Outcome.PASS, "")


def test_a_limit_of_watchdog_is_never_a_failure(base_url: str) -> None:
    result = run_http(f"{base_url}/page300k", ["body.contains('Kasse')"]).result
    assert (result.outcome, result.reason) == (Outcome.ERROR, "body.too_large")
    assert "256 KiB (max_body)" in result.message


# --- tls_ciphers.sh: openssl s_server with options that curl on the same OpenSSL accepts


def curl_accepts(url: str, *options: str) -> bool:
    return subprocess.run(["curl", "-sf", "-o", "/dev/null", *options, url], check=False, timeout=20).returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        ["-tls1_2", "-cipher", "AES256-GCM-SHA384"],  # RSA key exchange, the case that was handed in
        ["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        ["-tls1_2", "-cipher", "AES256-SHA"],
        ["-tls1_2", "-cipher", "AES128-SHA256"],
        ["-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384"],
        ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"],
        ["-tls1_2", "-cipher", "DHE-RSA-AES128-SHA256"],
        ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
    ],
    ids=lambda options: options[-1],
)
def test_a_server_that_curl_accepts_passes(tmp_path: Path, options: list[str]) -> None:
    pem = create_self_signed_certificate(tmp_path)
    with running_openssl_server(pem, *options) as port:
        url = f"https://localhost:{port}/"
        assert curl_accepts(url, "--cacert", pem)
        result = run_http({"url": url, "tls": {"ca_file": pem}}).result
        assert (result.outcome, result.message) == (Outcome.PASS, "")
        assert run_http({"url": url, "tls": {"verify": False}}).result.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("sentence", "key_options", "options", "reason"),
    [
        ("TLS 1.1", [], ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "tls.legacy_version"),
        ("TLS 1.0", [], ["-tls1", "-cipher", "ALL:@SECLEVEL=0"], "tls.legacy_version"),
        ("a key of 1024 bits", ["-newkey", "rsa:1024"], ["-cipher", "ALL:@SECLEVEL=0"], "tls.weak_security"),
        ("a key of 1536 bits", ["-newkey", "rsa:1536"], ["-cipher", "ALL:@SECLEVEL=0"], "tls.weak_security"),
    ],
)
def test_what_watchdog_refuses_is_worded_so_and_has_an_option(
    tmp_path: Path, sentence: str, key_options: list[str], options: list[str], reason: str
) -> None:
    pem = create_self_signed_certificate(tmp_path, *key_options)
    with running_openssl_server(pem, *options) as port:
        url = f"https://localhost:{port}/"
        assert not curl_accepts(url, "--cacert", pem), sentence
        result = run_http({"url": url, "tls": {"ca_file": pem}}).result
        assert (result.outcome, result.reason) == (Outcome.FAIL, reason), result.message
        assert "Watchdog" in result.message
        assert "`tls: {allow_legacy: true}`" in result.message
        allowed = run_http({"url": url, "tls": {"ca_file": pem, "allow_legacy": True}}).result
        assert (allowed.outcome, allowed.message) == (Outcome.PASS, "")
