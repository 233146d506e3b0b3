"""The TLS handshake, and what it says about the server's certificate."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from watchdog.domain.formatting import DAY_MS, format_duration_rounded, utc_datetime
from watchdog.domain.timestamps import to_epoch_ms
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.phases import PhaseTimer
from watchdog.net.tls import TlsConfig

if TYPE_CHECKING:
    from watchdog.net.http import HttpRequest
    from watchdog.net.network import Network
    from watchdog.net.url import Url

CERTIFICATE_RECHECK_TIMEOUT_S = 2.0
"""Seconds for a second look at a certificate that was refused."""
_VERIFY_CODE_NOT_YET_VALID, _VERIFY_CODE_EXPIRED = 9, 10


async def perform_tls_handshake(network: Network, writer: asyncio.StreamWriter, url: Url, request: HttpRequest) -> int:
    """Counts the phase `tls`. Returns the certificate's whole days left. Raises Fault and OSError."""
    context = network.ssl_context(request.tls)
    request.phase_timer.start_phase("tls")
    try:
        await writer.start_tls(context, server_hostname=_tls_server_name(request.tls, url))
    except ssl.SSLCertVerificationError as error:
        fault = error_from_exception(error)
        if fault and error.verify_code in (_VERIFY_CODE_NOT_YET_VALID, _VERIFY_CODE_EXPIRED):
            fault = await _add_validity_dates(fault, network, url, request)
        raise fault or error from None
    request.phase_timer.end_phase("tls")
    _, end = certificate_validity(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    return (end - request.now) // DAY_MS


def _tls_server_name(tls: TlsConfig, url: Url) -> str:
    return tls.server_name or url.host.rstrip(".")


async def _add_validity_dates(error: ProbeError, network: Network, url: Url, request: HttpRequest) -> ProbeError:
    """The same fault, saying since or until when. Python hides a refused certificate, so this shakes hands again
    without judging, and sends nothing."""
    certificate = None
    with suppress(OSError, ProbeError):  # a second look only words it better; TimeoutError is an OSError
        async with asyncio.timeout(CERTIFICATE_RECHECK_TIMEOUT_S):
            sock = await network.connect(url.host, url.port, PhaseTimer(), request.allow_private_addresses)
            _, writer = await asyncio.open_connection(sock=sock)
            try:
                blind = network.ssl_context(request.tls.model_copy(update={"verify": False, "ca_file": ""}))
                await writer.start_tls(blind, server_hostname=_tls_server_name(request.tls, url))
                certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            finally:
                writer.transport.abort()
    if certificate is None:
        return error
    begin, end = certificate_validity(certificate)
    error.facts["certificate"] = (
        f"valid from {utc_datetime(begin):%Y-%m-%d %H:%M} to {utc_datetime(end):%Y-%m-%d %H:%M} UTC"
    )
    if end < request.now:
        error.message = f"TLS: certificate expired {format_duration_rounded(request.now - end)} ago"
    elif begin > request.now:
        error.message = f"TLS: certificate becomes valid in {format_duration_rounded(begin - request.now)}"
    else:
        error.message = "TLS: the certificate is current, but one of its authorities' is not"
    return error


@lru_cache(512)
def certificate_validity(certificate: bytes) -> tuple[int, int]:
    """Begin and end of a DER certificate, ms since the epoch."""
    from cryptography.x509 import load_der_x509_certificate

    read = load_der_x509_certificate(certificate)
    return to_epoch_ms(read.not_valid_before_utc), to_epoch_ms(read.not_valid_after_utc)
