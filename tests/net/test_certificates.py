"""Certificates of servers: what is remembered of them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.scripted_servers import CertificateAuthority
from watchdog.net.certificates import parse_certificates


def issue_der(authority: CertificateAuthority, name_count: int) -> bytes:
    file = authority.issue_certificate(*(f"host{number}.acme.example" for number in range(name_count)))
    return x509.load_pem_x509_certificate(Path(file).read_bytes()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(("name_count", "is_remembered"), [(2, True), (4_000, False)])
def test_only_small_certificates_are_remembered(tmp_path: Path, name_count: int, is_remembered: bool) -> None:
    """A server may send another large one in each handshake."""
    der = issue_der(CertificateAuthority(tmp_path), name_count)
    first, second = parse_certificates([der, der])
    assert first == second
    assert len(first.names) == name_count
    assert (first is second) is is_remembered


def test_large_certificates_take_no_memory_for_long(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    ders = [issue_der(authority, 4_000) for _ in range(4)]
    parse_certificates(ders[:1])
    tracemalloc.start()
    try:
        parse_certificates(ders)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
