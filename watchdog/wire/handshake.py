"""The TLS handshake, and what it says about the server's certificate."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from watchdog.wire.faults import Fault, fault_of
from watchdog.wire.tls import Tls
from watchdog.wire.trace import Trace
from watchdog.words import DAY, about, utc

if TYPE_CHECKING:
    from watchdog.wire.http import Request
    from watchdog.wire.url import Url
    from watchdog.wire.wire import Wire

LOOK = 2.0
"""Seconds for a second look at a certificate that was refused."""
_NOT_YET_VALID, _EXPIRED = 9, 10


async def secure(wire: Wire, writer: asyncio.StreamWriter, url: Url, request: Request) -> int:
    """Counts the phase `tls`. Returns the certificate's whole days left. Raises Fault and OSError."""
    context = wire.context(request.tls)
    request.trace.begin("tls")
    try:
        await writer.start_tls(context, server_hostname=_name(request.tls, url))
    except ssl.SSLCertVerificationError as error:
        fault = fault_of(error)
        if fault and error.verify_code in (_NOT_YET_VALID, _EXPIRED):
            fault = await _dated(fault, wire, url, request)
        raise fault or error from None
    request.trace.end("tls")
    _, end = validity(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    return (end - request.now) // DAY


def _name(tls: Tls, url: Url) -> str:
    return tls.server_name or url.host.rstrip(".")


async def _dated(fault: Fault, wire: Wire, url: Url, request: Request) -> Fault:
    """The same fault, saying since or until when. Python hides a refused certificate, so this shakes hands again
    without judging, and sends nothing."""
    certificate = None
    with suppress(OSError, Fault):  # a second look only words it better; TimeoutError is an OSError
        async with asyncio.timeout(LOOK):
            sock = await wire.dial(url.host, url.port, Trace(), request.egress)
            _, writer = await asyncio.open_connection(sock=sock)
            try:
                blind = wire.context(request.tls.model_copy(update={"verify": False, "ca_file": ""}))
                await writer.start_tls(blind, server_hostname=_name(request.tls, url))
                certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            finally:
                writer.transport.abort()
    if certificate is None:
        return fault
    begin, end = validity(certificate)
    fault.facts["certificate"] = f"valid from {utc(begin):%Y-%m-%d %H:%M} to {utc(end):%Y-%m-%d %H:%M} UTC"
    if end < request.now:
        fault.message = f"TLS: certificate expired {about(request.now - end)} ago"
    elif begin > request.now:
        fault.message = f"TLS: certificate becomes valid in {about(begin - request.now)}"
    else:
        fault.message = "TLS: the certificate is current, but one of its authorities' is not"
    return fault


@lru_cache(512)
def validity(certificate: bytes) -> tuple[int, int]:
    """Begin and end of a DER certificate, ms since the epoch."""
    from cryptography.x509 import load_der_x509_certificate

    read = load_der_x509_certificate(certificate)
    return round(read.not_valid_before_utc.timestamp() * 1000), round(read.not_valid_after_utc.timestamp() * 1000)
