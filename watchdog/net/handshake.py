"""The TLS handshake, and the validity dates of the server's certificate."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from watchdog.domain.formatting import DAY_MS, format_duration_rounded, utc_datetime
from watchdog.domain.timestamps import to_epoch_ms
from watchdog.net.connector import Connector
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.phases import PhaseTimer
from watchdog.net.tls import TlsConfig
from watchdog.net.url import Url

CERTIFICATE_RECHECK_TIMEOUT_S = 2.0
"""Timeout for reading the dates of a certificate that was rejected."""
_VERIFY_CODE_NOT_YET_VALID, _VERIFY_CODE_EXPIRED = 9, 10


@dataclass(frozen=True, slots=True)
class TlsHandshake:
    """A TLS handshake with one server."""

    connector: Connector
    url: Url
    tls: TlsConfig
    allow_private_addresses: bool
    now: int
    """In ms since the epoch; certificates are judged against it."""

    async def perform(self, writer: asyncio.StreamWriter, phase_timer: PhaseTimer) -> int:
        """Upgrades the connection and times the phase `tls`. Returns the whole days until the certificate expires.

        Raises ProbeError and OSError.
        """
        context = self.connector.ssl_context(self.tls)
        phase_timer.start_phase("tls")
        try:
            await writer.start_tls(context, server_hostname=self._server_name)
        except ssl.SSLCertVerificationError as ssl_error:
            error = error_from_exception(ssl_error)
            if error and ssl_error.verify_code in (_VERIFY_CODE_NOT_YET_VALID, _VERIFY_CODE_EXPIRED):
                await self._add_validity_dates(error)
            raise error or ssl_error from None
        phase_timer.end_phase("tls")
        _, expires_at = certificate_validity(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        return (expires_at - self.now) // DAY_MS

    @property
    def _server_name(self) -> str:
        return self.tls.server_name or self.url.host.rstrip(".")

    async def _add_validity_dates(self, error: ProbeError) -> None:
        """Adds to the error since when, or until when, the certificate is invalid."""
        certificate = None
        with suppress(OSError, ProbeError):  # only the wording depends on it; TimeoutError is an OSError
            async with asyncio.timeout(CERTIFICATE_RECHECK_TIMEOUT_S):
                certificate = await self._fetch_unverified_certificate()
        if certificate is None:
            return
        valid_from, expires_at = certificate_validity(certificate)
        error.facts["certificate"] = (
            f"valid from {utc_datetime(valid_from):%Y-%m-%d %H:%M} to {utc_datetime(expires_at):%Y-%m-%d %H:%M} UTC"
        )
        if expires_at < self.now:
            error.message = f"TLS: certificate expired {format_duration_rounded(self.now - expires_at)} ago"
        elif valid_from > self.now:
            error.message = f"TLS: certificate becomes valid in {format_duration_rounded(valid_from - self.now)}"
        else:
            error.message = "TLS: the certificate is valid, but a certificate of its authorities is not"

    async def _fetch_unverified_certificate(self) -> bytes | None:
        """Python does not expose a rejected certificate, so this performs a second handshake without verification. It
        sends no data."""
        sock = await self.connector.connect(self.url.host, self.url.port, PhaseTimer(), self.allow_private_addresses)
        _, writer = await asyncio.open_connection(sock=sock)
        try:
            context = self.connector.ssl_context(self.tls.model_copy(update={"verify": False, "ca_file": ""}))
            await writer.start_tls(context, server_hostname=self._server_name)
            certificate: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return certificate
        finally:
            writer.transport.abort()


@lru_cache(512)
def certificate_validity(certificate: bytes) -> tuple[int, int]:
    """Start and end of the validity of a DER certificate, in ms since the epoch."""
    from cryptography.x509 import load_der_x509_certificate

    parsed = load_der_x509_certificate(certificate)
    return to_epoch_ms(parsed.not_valid_before_utc), to_epoch_ms(parsed.not_valid_after_utc)
