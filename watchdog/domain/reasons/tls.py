"""Reasons about TLS connections that fail or are not trusted, and certificates that are not as expected."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)
_error_reason_entry = partial(ReasonEntry, ReasonCategory.ERROR)

TLS_REASON_ENTRIES = (
    _failure_reason_entry(
        "tls.expired",
        "Certificate expired",
        "The validity period of the server's certificate has ended.",
        "Renew the certificate, and check why it was not renewed automatically.",
        sentence="TLS: certificate expired{when}",
    ),
    _failure_reason_entry(
        "tls.not_yet_valid",
        "Certificate not valid yet",
        "The server's certificate is not valid yet.",
        "Check the clocks of the server, of the authority and of the machine that Watchdog runs on.",
        sentence="TLS: certificate is not valid{when}",
    ),
    _failure_reason_entry(
        "tls.chain_expired",
        "Authority's certificate expired",
        "The server's own certificate is valid, but the certificate of one of its authorities has expired or is not "
        "valid yet.",
        "Replace the intermediate certificate that the server sends, or the authority in `ca_file`.",
        sentence="TLS: the server's certificate is valid, but the certificate of one of its authorities has expired or "
        "is not valid yet{authority}",
    ),
    _failure_reason_entry(
        "tls.hostname",
        "Certificate for another name",
        "The host name or address is not among the subject alternative names of the certificate. As in browsers, the "
        "common name does not count.",
        "Check whether the host name or address in the URL leads to the right server, and issue a certificate that is "
        "valid for it. If the server has another name on purpose, set `server_name` in the probe's `tls`.",
        sentence="TLS: certificate is not valid for {host}{names}",
    ),
    _failure_reason_entry(
        "tls.missing_names",
        "Names missing in the certificate",
        "The certificate is not valid for all `names` of the probe. As in browsers, a wildcard stands for one label.",
        "Issue a certificate with all the names, and install it on this server.",
        sentence="TLS: certificate is not valid for {missing}{names}",
    ),
    _failure_reason_entry(
        "tls.self_signed",
        "Certificate self-signed",
        "The server's certificate is signed with its own key.",
        "Install a certificate from a trusted authority, or set `ca_file` in `tls` to this certificate.",
        sentence="TLS: certificate is self-signed",
    ),
    _failure_reason_entry(
        "tls.untrusted",
        "Certificate authority not trusted",
        "The certificate is signed by an authority that is not trusted.",
        "If the authority is your own, set `ca_file` in `tls` to its certificate.",
        sentence="TLS: certificate is signed by an unknown authority{authority}",
    ),
    _failure_reason_entry(
        "tls.missing_intermediate",
        "Intermediate certificate missing",
        "The server does not send the intermediate certificate that links its certificate to a trusted authority. "
        "Browsers may hide this problem, because they store or download intermediate certificates.",
        "Configure the full chain on the server: its certificate followed by the intermediate certificates.",
        sentence="TLS: the server does not send the intermediate certificate{authority}",
    ),
    _failure_reason_entry(
        "tls.revoked",
        "Certificate revoked",
        "The authority has revoked the certificate.",
        "Replace the certificate and its key.",
        sentence="TLS: certificate is revoked",
    ),
    _failure_reason_entry(
        "tls.wrong_purpose",
        "Certificate for another purpose",
        "The certificate is not meant for servers: its extended key usage does not include server authentication.",
        "Issue a server certificate.",
        sentence="TLS: certificate is not meant for servers",
    ),
    _failure_reason_entry(
        "tls.invalid_chain",
        "Certificate chain invalid",
        "A certificate in the chain violates a rule; for example, an authority is not allowed to sign certificates. "
        "The message shows OpenSSL's text.",
        "Find the invalid certificate with `openssl verify`, and replace it.",
        sentence="TLS: {problem}",
    ),
    _failure_reason_entry(
        "tls.client_certificate",
        "Client certificate required",
        "The server requires a client certificate, and none is configured.",
        "Set `cert_file` and `key_file` in `tls`.",
        sentence="TLS: the server requires a client certificate",
    ),
    _failure_reason_entry(
        "tls.client_certificate_rejected",
        "Client certificate rejected",
        "The server does not accept the client certificate. The message shows why, if the server states it.",
        "Check the expiry of the client certificate, and whether the server trusts the authority that signed it.",
        sentence="TLS: {problem}",
    ),
    _failure_reason_entry(
        "tls.unknown_name",
        "Host name unknown to the server",
        "The server has no certificate for the host name that was requested (SNI).",
        "Configure the name on the server, or set `server_name` in `tls`.",
        sentence="TLS: the server does not recognize this host name",
    ),
    _failure_reason_entry(
        "tls.not_tls",
        "Port does not speak TLS",
        "The service on this port does not speak TLS.",
        "Use `http://` or `ws://`, or for gRPC `tls: false`, or use the port of the TLS service. If the service begins "
        "TLS with STARTTLS, use a `tls` probe with `starttls`.",
        sentence="TLS: the server does not speak TLS on this port",
    ),
    _failure_reason_entry(
        "tls.legacy_version",
        "Legacy version of TLS",
        "The server offers only TLS 1.1 or older, which Watchdog refuses, as browsers do.",
        "Update the server. If that is impossible, set `allow_legacy: true` in `tls`.",
        sentence="TLS: the server supports neither TLS 1.2 nor 1.3, and Watchdog requires one of them; "
        "`tls: {{allow_legacy: true}}` also allows 1.0 and 1.1",
    ),
    _failure_reason_entry(
        "tls.weak_security",
        "Weak key or signature",
        "The server uses a key, a signature or a parameter that OpenSSL on this machine rejects as too weak.",
        "Issue a stronger certificate or update the server. If that is impossible, set `allow_legacy: true` in `tls`.",
        sentence="TLS: Watchdog rejects the server's TLS parameters as too weak ({problem}); "
        "`tls: {{allow_legacy: true}}` allows them",
    ),
    _failure_reason_entry(
        "tls.handshake_refused",
        "TLS handshake refused",
        "The server refuses the handshake, usually because it shares no cipher or key exchange with Watchdog.",
        "Check the server's ciphers and its TLS log.",
        sentence="TLS: the server rejects the handshake",
    ),
    _failure_reason_entry(
        "tls.closed",
        "Connection closed during the TLS handshake",
        "The server closed the connection before the handshake was complete.",
        "Check whether the port speaks TLS, and read the TLS log of the server or proxy.",
        sentence="TLS: connection closed by the server",
    ),
    _failure_reason_entry(
        "tls.failed",
        "TLS failed",
        "The TLS connection could not be established. The message shows OpenSSL's text.",
        "Try `openssl s_client -connect HOST:PORT` from the machine that Watchdog runs on.",
        sentence="TLS: {problem}",
    ),
    _error_reason_entry(
        "tls.unreadable_certificate",
        "Certificate unreadable",
        "OpenSSL accepts the server's certificate, but Watchdog cannot read its dates and names.",
        "Inspect it with `openssl s_client -connect HOST:PORT`, and issue a certificate that conforms to the standard "
        "(X.509).",
        sentence="no verdict: Watchdog cannot read the server's certificate",
    ),
    _failure_reason_entry(
        "starttls.wrong_protocol",
        "Protocol differs from `starttls`",
        "The service on this port does not speak the protocol that `starttls` names. The evidence shows what it sent.",
        "Check the port and the value of `starttls`.",
        sentence="the server does not speak {protocol}{problem}",
    ),
    _failure_reason_entry(
        "starttls.session_refused",
        "Session refused before STARTTLS",
        "The server accepts the connection, but refuses the session before TLS can begin. The message shows its "
        "response.",
        "Check the limits and block lists of the server: it may refuse the address of the machine that Watchdog runs "
        "on.",
        sentence="the server refuses the session before STARTTLS: {response}",
    ),
    _failure_reason_entry(
        "starttls.not_offered",
        "STARTTLS not offered",
        "The server does not offer TLS on this port.",
        "Enable TLS in the server, and check that it can read its certificate and key: many servers disable TLS if "
        "they cannot.",
        sentence="the server does not offer STARTTLS{problem}",
    ),
    _failure_reason_entry(
        "starttls.refused",
        "STARTTLS refused",
        "The server offers STARTTLS, but refuses it. The message shows its response.",
        "See the server's log. Often, the server cannot read its certificate or key.",
        sentence="the server refuses STARTTLS: {response}",
    ),
)
