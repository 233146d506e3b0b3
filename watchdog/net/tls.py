"""TLS options in the configuration, and the SSL contexts created from them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pydantic import StrictBool, model_validator

from watchdog.config_types import ConfigModel, LocalFilePath, MultiFieldValidationError
from watchdog.net.errors import ProbeError
from watchdog.net.host_names import TlsServerName

if TYPE_CHECKING:
    import ssl


class TlsConfig(ConfigModel):
    """How to verify the server's certificate, and which client certificate to send."""

    verify: StrictBool = True
    """Whether the server's certificate is verified. `false` accepts any certificate."""
    ca_file: LocalFilePath = ""
    """A PEM file with the certificate authorities to trust instead of the system's."""
    cert_file: LocalFilePath = ""
    """A PEM file with the client certificate, for servers that require one."""
    key_file: LocalFilePath = ""
    """A PEM file with the private key of `cert_file`; default: the key in `cert_file` itself."""
    allow_legacy: StrictBool = False
    """Whether to accept TLS 1.0 and 1.1, and keys, signatures and renegotiation that OpenSSL refuses as too weak. Use
    this only for servers that cannot be updated. Browsers refuse to connect to such servers."""
    server_name: TlsServerName = ""
    """The server name to send (SNI) and to expect in the certificate; default: the host of the target."""

    @property
    def files(self) -> tuple[str, ...]:
        """Empty: there is none."""
        return self.ca_file, self.cert_file, self.key_file

    @model_validator(mode="after")
    def _validate_consistency(self) -> TlsConfig:
        if self.key_file and not self.cert_file:
            raise MultiFieldValidationError([(("key_file",), "key_file requires cert_file")])
        if self.ca_file and not self.verify:
            raise MultiFieldValidationError(
                [(("ca_file",), "`ca_file` has no effect with `verify: false`: remove one of them")]
            )
        return self


TlsFileVersions: TypeAlias = tuple[tuple[int, ...], ...]
"""Equal as long as no file is replaced."""


def read_tls_file_versions(*paths: str) -> TlsFileVersions:
    """`paths`: empty ones are ignored. A file that is missing has a version of its own."""
    return tuple(_read_file_change_stamp(path) for path in paths if path)


def _read_file_change_stamp(path: str) -> tuple[int, ...]:
    try:
        status = Path(path).stat()
    except OSError:  # reading the file raises the error that states why
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


HTTP_ALPN_PROTOCOLS = ("http/1.1",)
"""What a client of HTTP offers in the handshake. Servers of some other protocols refuse a client that offers this."""
HTTP2_ALPN_PROTOCOL = "h2"


def create_ssl_context(tls: TlsConfig, alpn_protocols: tuple[str, ...] = HTTP_ALPN_PROTOCOLS) -> ssl.SSLContext:
    """Takes about 15 ms, so contexts are cached. Raises ProbeError (internal) if a file is unusable."""
    import ssl

    with _translate_tls_file_errors("ca_file", tls.ca_file):
        context = ssl.create_default_context(cafile=tls.ca_file or None)
    if not tls.ca_file and not _has_trusted_certificate_authorities(context):
        import certifi

        context.load_verify_locations(certifi.where())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # it rejects the private authorities of many companies
    context.hostname_checks_common_name = False  # as in browsers
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _configure_tls_versions_ciphers_and_client_cert(context, tls, alpn_protocols)
    return context


def _configure_tls_versions_ciphers_and_client_cert(
    context: ssl.SSLContext, tls: TlsConfig, alpn_protocols: tuple[str, ...]
) -> None:
    """Versions and ciphers as wide as OpenSSL's own defaults, which curl uses; Python's list is narrower."""
    import ssl

    context.set_ciphers("DEFAULT:@SECLEVEL=0" if tls.allow_legacy else "DEFAULT")
    if tls.allow_legacy:
        with warnings.catch_warnings():  # Python warns of every legacy version
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
        context.options |= _SSL_OP_LEGACY_SERVER_CONNECT
    elif context.minimum_version < ssl.TLSVersion.TLSv1_2:
        # Debian's Python would offer 1.0 and 1.1, which then fail with an unspecific error about the signature.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    if alpn_protocols:
        context.set_alpn_protocols(alpn_protocols)
    if tls.cert_file:
        with _translate_tls_file_errors("cert_file", tls.cert_file):
            context.load_cert_chain(tls.cert_file, tls.key_file or None, password=_reject_encrypted_private_key)


_SSL_OP_LEGACY_SERVER_CONNECT = 0x4
"""SSL_OP_LEGACY_SERVER_CONNECT: servers without secure renegotiation. Python names it only from 3.12 on."""


class ClientCertificateRequestRecorder:
    """Records whether a server asks for a client certificate during a handshake."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(
        self, _conn: object, _direction: object, _version: object, _type: object, message: int, _: bytes
    ) -> None:
        if message == _CERTIFICATE_REQUEST_MESSAGE_TYPE:
            self.requested = True


_CERTIFICATE_REQUEST_MESSAGE_TYPE = 13
"""RFC 8446, HandshakeType."""


def create_unverified_ssl_context(
    tls: TlsConfig,
    recorder: ClientCertificateRequestRecorder,
    alpn_protocols: tuple[str, ...] = HTTP_ALPN_PROTOCOLS,
) -> ssl.SSLContext:
    """For a handshake that only looks at the server: verifies nothing and accepts every version and cipher."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    legacy_too = tls.model_copy(update={"allow_legacy": True})
    _configure_tls_versions_ciphers_and_client_cert(context, legacy_too, alpn_protocols)
    context._msg_callback = recorder  # type: ignore[attr-defined] # the only hook that shows what a server requests
    return context


def _reject_encrypted_private_key() -> str:
    """Called for an encrypted key. Without it OpenSSL would prompt on the terminal."""
    raise ValueError("its key is encrypted")


@contextmanager
def _translate_tls_file_errors(option: str, path: str) -> Iterator[None]:
    import ssl

    try:
        yield
        return
    except ssl.SSLError:
        problem = "it is not a valid PEM file for this option"
    except OSError as error:
        problem = (error.strerror or "it cannot be read").lower()
    except ValueError as error:
        problem = str(error)
    raise ProbeError("tls.invalid_file", f"cannot use {option} {path}: {problem}", "tls", is_internal=True)


def _has_trusted_certificate_authorities(context: ssl.SSLContext) -> bool:
    """OpenSSL reads a directory of authorities on demand, so the context does not list its contents."""
    import ssl

    directory = ssl.get_default_verify_paths().capath
    return bool(context.cert_store_stats()["x509_ca"] or (directory and any(Path(directory).iterdir())))
