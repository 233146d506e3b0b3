"""Errors of OpenSSL: which part of the TLS handshake failed, and whether Watchdog or the server refused."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import NamedTuple

_REASON_BY_OPENSSL_VERIFY_CODE = {
    9: "tls.not_yet_valid",
    10: "tls.expired",
    **dict.fromkeys((2, 19, 20, 21, 27), "tls.untrusted"),
    18: "tls.self_signed",
    23: "tls.revoked",
    26: "tls.wrong_purpose",
    28: "tls.wrong_purpose",
    62: "tls.hostname",
    64: "tls.hostname",
    66: "tls.weak_security",
    67: "tls.weak_security",
    68: "tls.weak_security",
}
"""OpenSSL's X509_V_ERR codes. Every other code is `tls.invalid_chain`."""
_REASON_BY_OPENSSL_ERROR = (
    ("NO_APPLICATION_PROTOCOL", "protocol.http2_only"),
    ("WRONG_VERSION_NUMBER", "tls.not_tls"),
    ("RECORD_LAYER_FAILURE", "tls.not_tls"),
    ("PACKET_LENGTH_TOO_LONG", "tls.not_tls"),
    ("HTTP_REQUEST", "tls.not_tls"),
    ("CERTIFICATE_REQUIRED", "tls.client_certificate"),
    ("DH_KEY_TOO_SMALL", "tls.weak_security"),
    ("EE_KEY_TOO_SMALL", "tls.weak_security"),
    ("CA_KEY_TOO_SMALL", "tls.weak_security"),
    ("CA_MD_TOO_WEAK", "tls.weak_security"),
    ("UNSAFE_LEGACY_RENEGOTIATION", "tls.weak_security"),
    ("WRONG_SIGNATURE_TYPE", "tls.weak_security"),
    ("LEGACY_SIGALG", "tls.weak_security"),
    ("UNRECOGNIZED_NAME", "tls.unknown_name"),
    ("UNSUPPORTED_PROTOCOL", "tls.legacy_version"),
    ("PROTOCOL_VERSION", "tls.legacy_version"),
    ("HANDSHAKE_FAILURE", "tls.handshake_refused"),
    ("INSUFFICIENT_SECURITY", "tls.handshake_refused"),
)
"""Parts of OpenSSL's error names, the first that occurs applies."""
_CLIENT_CERTIFICATE_PROBLEM_BY_TLS_ALERT = (
    ("ALERT_UNKNOWN_CA", "the server does not trust the authority that signed the client certificate"),
    ("ALERT_CERTIFICATE_EXPIRED", "the server reports that the client certificate has expired"),
    ("ALERT_CERTIFICATE_REVOKED", "the server reports that the client certificate is revoked"),
    ("ALERT_BAD_CERTIFICATE", "the server rejects the client certificate"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "the server rejects the client certificate: it is not meant for clients"),
    ("ALERT_CERTIFICATE_UNKNOWN", "the server rejects the client certificate"),
    ("ALERT_ACCESS_DENIED", "the server rejects the client certificate: access denied"),
)


class SslProblem(NamedTuple):
    """A reason of the family `tls`, and the facts for its sentence."""

    reason: str
    facts: Mapping[str, str] = {}
    retryable: bool = False


def classify_ssl_error(error: ssl.SSLError) -> SslProblem:
    """Without what only the certificate shows, such as its dates; `TlsHandshaker` adds that."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _classify_verification_error(error)
    name = _get_openssl_error_name(error)
    if "UNEXPECTED_EOF" in name or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return SslProblem("tls.closed", retryable=True)
    for part, problem in _CLIENT_CERTIFICATE_PROBLEM_BY_TLS_ALERT:
        if part in name:
            return SslProblem("tls.client_certificate_rejected", {"problem": problem})
    facts = {"problem": name.lower().replace("_", " ")}
    for part, reason in _REASON_BY_OPENSSL_ERROR:
        if part in name:
            return SslProblem(reason, facts)
    return SslProblem("tls.failed", facts)


def _get_openssl_error_name(error: ssl.SSLError) -> str:
    """OpenSSL's name of the error, as "TLSV1_ALERT_UNKNOWN_CA". Python has no name for newer ones, only their text."""
    if error.reason:
        return error.reason
    text = re.sub(r"^\[SSL[^\]]*\]|\(_ssl\.c:\d+\)$", "", str(error.strerror or "")).strip()
    return text.upper().replace(" ", "_")


def _classify_verification_error(error: ssl.SSLCertVerificationError) -> SslProblem:
    text = error.verify_message
    reason = _REASON_BY_OPENSSL_VERIFY_CODE.get(error.verify_code)
    if reason is None:
        return SslProblem("tls.invalid_chain", {"problem": text})
    host = re.search(r"not valid for '(.+)'", text)
    when = " yet" if reason == "tls.not_yet_valid" else ""
    facts = {"problem": text, "host": host[1] if host else "this address", "names": "", "authority": "", "when": when}
    return SslProblem(reason, facts)
