"""Email over SMTP: one when an incident opens; further ones in the same thread."""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from watchdog.config_types import ConfigModel, LocalFilePath, MultiFieldValidationError, Secret
from watchdog.domain.model import IncidentEvent, Json
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.net import ProbeError, build_probe_error_from_exception
from watchdog.notifiers.base import (
    DELIVERY_CONFIG_ERROR_RETRY_DURATION_S,
    NotificationDeliveryError,
    NotificationDeliveryRequest,
    Notifier,
    build_notification_receiver_unreachable_error,
)
from watchdog.notifiers.message import compose_alert_message
from watchdog.notifiers.message_fields import to_safe_single_line

if TYPE_CHECKING:
    import ssl
    from email.headerregistry import Address
    from email.message import EmailMessage

    import aiosmtplib

    from watchdog.net import NetworkAccess


SMTP_COMMAND_TIMEOUT_S = 10.0
SMTP_TIMEOUT_S, SMTP_QUIT_TIMEOUT_S = 18.0, 1.0
"""Until the server has accepted the email, and for its farewell. Together less than a delivery may take, so that an
email that was sent counts as such, however slow the server is."""
DEFAULT_SMTP_PORT_BY_SECURITY = {"starttls": 587, "tls": 465, "none": 25}
MIN_SMTP_STATUS_CODE = 200
"""The SMTP library reports a response that is none as a lower code."""
SMTP_LOGIN_PROBLEM_BY_CODE = {
    530: "the server requires encryption before the login",
    534: "the server requires another way to log in, such as an app password",
    538: "the server requires encryption before the login",
}
"""By the code of the response to a login (RFC 4954)."""
SMTP_UNKNOWN_ADDRESS_CODES = (550, 551, 553)
"""Codes that servers without enhanced status codes send for an address that does not exist."""
_SMTP_ENHANCED_STATUS_PATTERN = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b")
_SMTP_CONTENT_REFUSAL_PATTERN = re.compile(r"5\.(6\.\d{1,3}|3\.4|2\.3)\b")
"""Enhanced status codes (RFC 3463) about the content or the length of the email: no retry can help."""
_DOMAIN_LABEL_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL_ADDRESS_PATTERN = r"(?!\.|[^@]*\.[.@])[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
_EMAIL_ADDRESS_PATTERN += rf"@(?:{_DOMAIN_LABEL_PATTERN}\.){{0,60}}{_DOMAIN_LABEL_PATTERN}"
_EMAIL_SENDER_PATTERN = re.compile(
    rf"""(?:"(?P<quoted>[^"\\]*)"|(?P<name>[^"\\<>]*)) *<(?P<address>{_EMAIL_ADDRESS_PATTERN})>"""
    rf"|{_EMAIL_ADDRESS_PATTERN}"
)
"""The standard library is not used: how it parses unusual addresses differs between patch releases of Python."""


def _validate_email_address(text: str) -> str:
    if not re.fullmatch(_EMAIL_ADDRESS_PATTERN, text):
        raise ValueError("expected an email address such as oncall@acme.example")
    return text


def _parse_email_sender(sender: str) -> Address:
    from email.headerregistry import Address

    match = _EMAIL_SENDER_PATTERN.fullmatch(sender) if sender.isprintable() else None
    if match is None:
        raise ValueError("expected an email address, optionally with a name: Watchdog <watchdog@acme.example>")
    name = (match["quoted"] or match["name"] or "").strip()
    user, _, domain = (match["address"] or sender).rpartition("@")
    return Address(name or "Watchdog", user, domain)


def _validate_ehlo_name(text: str) -> str:
    if text and not re.fullmatch(rf"(?:{_DOMAIN_LABEL_PATTERN}\.)*{_DOMAIN_LABEL_PATTERN}|\[[0-9A-Fa-f:.IPv]+\]", text):
        raise ValueError("expected a host name such as monitor.acme.example, or an address such as [192.0.2.1]")
    return text


def _validate_email_sender(text: str) -> str:
    _parse_email_sender(text)
    return text


class SmtpRefusal(NamedTuple):
    """A server's refusal, of the email or of one recipient."""

    code: int
    text: str

    @property
    def retry_for_s(self) -> float:
        """For how long to retry. Time or an administrator may change every refusal but one of the content."""
        if not 500 <= self.code < 600:
            return math.inf
        return 0 if _SMTP_CONTENT_REFUSAL_PATTERN.match(self.text) else DELIVERY_CONFIG_ERROR_RETRY_DURATION_S

    @property
    def is_unknown_address(self) -> bool:
        """Whether it is about the recipient's address itself. If others were reached, it is final."""
        if _SMTP_ENHANCED_STATUS_PATTERN.match(self.text):
            return self.text.startswith("5.1.")
        return self.code in SMTP_UNKNOWN_ADDRESS_CODES

    def __str__(self) -> str:
        return f"{self.code} {to_safe_single_line(self.text, 160)}".strip()


class SmtpServerSettings(ConfigModel):
    """The SMTP server for all `email` notifiers."""

    host: str = Field(min_length=1, pattern=r"^\S+$")
    """The host name or address of the server."""
    port: StrictInt | None = Field(default=None, ge=1, le=65_535)
    """The port; default: 587 with `starttls`, 465 with `tls`, 25 with `none`."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is encrypted. `starttls` and `tls` verify the certificate and never fall back to `none`."""
    username: str = ""
    """The user name to log in with; default: no login. Requires `password`."""
    password: Secret | None = None
    """The password for `username`."""
    sender: Annotated[str, AfterValidator(_validate_email_sender)] = Field(alias="from")
    """The sender's address, optionally with a name: `Watchdog <watchdog@acme.example>`."""
    ca_file: LocalFilePath = ""
    """A PEM file with the certificate authorities to trust instead of the system's; default: that of `network`."""
    ehlo: Annotated[str, AfterValidator(_validate_ehlo_name)] = ""
    """The name with which Watchdog introduces itself to the server (EHLO), such as `monitor.acme.example` or
    `[192.0.2.1]`; default: the host name of the machine. Some servers accept only a name that resolves."""

    @model_validator(mode="after")
    def _require_username_with_password(self) -> Self:
        if bool(self.username) != (self.password is not None):
            raise ValueError("username and password must be set together: set both or neither")
        if self.ca_file and self.security == "none":
            message = "`ca_file` has no effect with `security: none`: remove one of them"
            raise MultiFieldValidationError([(("ca_file",), message)])
        return self

    @property
    def parsed_sender(self) -> Address:
        return _parse_email_sender(self.sender)

    async def send_mail_and_get_refused_recipients(
        self, mail: EmailMessage, recipients: tuple[str, ...], network: NetworkAccess
    ) -> dict[str, SmtpRefusal]:
        """Sends the email. Returns the recipients that the server refused, maybe all: address -> its reply. Raises
        NotificationDeliveryError. `network`: whose authorities are trusted by default."""
        import asyncio

        import aiosmtplib

        from watchdog.notifiers.email_smtp import SendTrackingSmtpClient

        port = self.port or DEFAULT_SMTP_PORT_BY_SECURITY[self.security]
        client = SendTrackingSmtpClient(
            hostname=self.host,
            port=port,
            use_tls=self.security == "tls",
            start_tls=self.security == "starttls",
            tls_context=await self._create_ssl_context(network),
            username=self.username or None,
            password=self.password.get_secret_value() if self.password is not None else None,
            local_hostname=self.ehlo or socket.gethostname(),  # the default is a DNS lookup that blocks the event loop
            timeout=SMTP_COMMAND_TIMEOUT_S,
        )
        try:
            async with asyncio.timeout(SMTP_TIMEOUT_S):
                await client.connect()
                refused, _ = await client.send_message(
                    mail, sender=self.parsed_sender.addr_spec, recipients=list(recipients)
                )
            with suppress(aiosmtplib.SMTPException, OSError):  # the server has accepted the email
                async with asyncio.timeout(SMTP_QUIT_TIMEOUT_S):
                    await client.execute_command(b"QUIT")
        except aiosmtplib.SMTPRecipientsRefused as error:
            return {r.recipient: SmtpRefusal(r.code, r.message) for r in error.recipients}
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            delivery_error = _delivery_error_from_smtp_error(error, self.host, port)
            is_refused = isinstance(error, aiosmtplib.SMTPResponseException) and error.code >= MIN_SMTP_STATUS_CODE
            delivery_error.maybe_delivered = client.is_email_sent and not is_refused
            raise delivery_error from None
        finally:
            if isinstance(client.transport, asyncio.WriteTransport):
                client.transport.abort()  # an orderly end of TLS may take 30 s, for nothing
            client.close()
        return {address: SmtpRefusal(reply.code, reply.message) for address, reply in refused.items()}

    async def _create_ssl_context(self, network: NetworkAccess) -> ssl.SSLContext | None:
        """None: the connection is not encrypted. Raises NotificationDeliveryError if the file is unusable."""
        import asyncio

        if self.security == "none":
            return None
        try:
            return await asyncio.to_thread(_create_smtp_ssl_context, self.ca_file or network.routing.ca_file)
        except ProbeError as error:
            raise NotificationDeliveryError(
                error.reason, str(error), retry_for_s=DELIVERY_CONFIG_ERROR_RETRY_DURATION_S
            ) from None


class EmailNotifier(Notifier):
    """Sends an email. Later messages of an incident are replies to its first one."""

    kind: ClassVar[str] = "email"
    example: ClassVar[str] = """
        receivers:
          oncall: {email: {to: [oncall@acme.example]}}
        email: {host: smtp.acme.example, from: watchdog@acme.example}
    """

    to: tuple[Annotated[str, AfterValidator(_validate_email_address)], ...] = Field(min_length=1)
    """The addresses of the recipients."""
    server: SmtpServerSettings | None = None
    """The SMTP server; default: the server in the `email` section."""

    @property
    def recipient(self) -> str:
        return ", ".join(self.to)

    async def send(self, request: NotificationDeliveryRequest) -> dict[str, Json]:
        """Sends the email to every recipient once, regardless of the number of attempts.

        The receipt contains `message_id`, which identifies the thread, and `refused`, the recipients that the server
        refused for good. While time or an administrator may still change some refusals, the partial receipt lists all
        others as `completed`.
        """
        from watchdog.notifiers.email_letter import build_email, derive_email_message_id_from_idempotency_key

        if self.server is None:
            text, retry_for_s = "the `email` section names no server", DELIVERY_CONFIG_ERROR_RETRY_DURATION_S
            raise NotificationDeliveryError("smtp.not_configured", text, retry_for_s=retry_for_s)
        message, sender = compose_alert_message(request.alert_context), self.server.parsed_sender
        message_id = derive_email_message_id_from_idempotency_key(request.notification.idempotency_key, sender.domain)
        is_first = request.notification.event is IncidentEvent.OPENED
        thread_id = "" if is_first else str(request.previous_receipt.get("message_id", ""))
        mail = build_email(
            message,
            sender=sender,
            recipients=self.to,
            message_id=message_id,
            in_reply_to=thread_id,
            sent_at=request.alert_context.now,
        )
        completed = set(request.partial_receipt.get("completed", ()))
        refused = dict(request.partial_receipt.get("refused", {}))
        remaining = tuple(address for address in self.to if address not in completed)
        if remaining:
            try:
                replies = await self.server.send_mail_and_get_refused_recipients(mail, remaining, request.network)
            except NotificationDeliveryError as error:
                error.partial_receipt = {**error.partial_receipt, "message_id": thread_id or message_id}
                raise
            if len(replies) == len(remaining) and not completed:
                raise _build_all_recipients_refused_error(replies)
            pending = {address: reply for address, reply in replies.items() if not reply.is_unknown_address}
            pending = {address: reply for address, reply in pending.items() if reply.retry_for_s}
            refused |= {address: str(reply) for address, reply in replies.items() if address not in pending}
            if pending:
                others = [address for address in self.to if address not in pending]
                receipt = {"completed": others, "refused": refused, "message_id": thread_id or message_id}
                raise _build_some_recipients_refused_error(pending, receipt)
        if refused:
            import structlog

            structlog.get_logger().warning(
                "email_recipients_refused", incident=message.incident_id, refused_recipients=refused
            )
        return {"message_id": thread_id or message_id, "refused": refused}


def _build_all_recipients_refused_error(replies: Mapping[str, SmtpRefusal]) -> NotificationDeliveryError:
    message = truncate_with_ellipsis(f"the server refuses all recipients: {_format_smtp_refusals(replies)}", 400)
    retry_for_s = max(reply.retry_for_s for reply in replies.values())
    return NotificationDeliveryError("smtp.recipients_refused", message, retry_for_s=retry_for_s)


def _build_some_recipients_refused_error(
    pending: Mapping[str, SmtpRefusal], partial_receipt: Mapping[str, Json]
) -> NotificationDeliveryError:
    return NotificationDeliveryError(
        "smtp.recipients_refused",
        truncate_with_ellipsis(f"refused for now: {_format_smtp_refusals(pending)}", 400),
        retry_for_s=max(reply.retry_for_s for reply in pending.values()),
        partial_receipt=partial_receipt,
    )


def _format_smtp_refusals(replies: Mapping[str, SmtpRefusal]) -> str:
    return "; ".join(f"{address}: {reply}" for address, reply in replies.items())


def _create_smtp_ssl_context(ca_file: str) -> ssl.SSLContext:
    """Takes about 15 ms, so it runs in a thread. Raises ProbeError if the file is unusable."""
    from watchdog.net.tls import TlsConfig, create_ssl_context

    return create_ssl_context(TlsConfig(ca_file=ca_file), alpn_protocols=())  # some servers reject those of HTTP


def _build_smtp_login_error(code: int) -> NotificationDeliveryError:
    if code < 500:
        return NotificationDeliveryError(
            "smtp.auth_failed", f"SMTP {code}: the server cannot check the login at the moment"
        )
    problem = SMTP_LOGIN_PROBLEM_BY_CODE.get(code, "the server rejects the user name or the password")
    return NotificationDeliveryError(
        "smtp.auth_failed", f"SMTP {code}: {problem}", retry_for_s=DELIVERY_CONFIG_ERROR_RETRY_DURATION_S
    )


_REASON_AND_MESSAGE_BY_UNSUPPORTED_SMTP_FEATURE = {
    "AUTH": ("smtp.auth_unavailable", "the server offers no authentication on this connection"),
    "authentication": ("smtp.auth_unavailable", "the server offers no supported authentication method"),
    "STARTTLS": ("smtp.starttls_missing", "the server does not offer STARTTLS, which is required"),
}
"""A word in the library's error -> reason and message."""


def _delivery_error_from_smtp_error(
    error: aiosmtplib.SMTPException | OSError | ValueError, host: str, port: int
) -> NotificationDeliveryError:
    """Omits the library's text, which may quote the email, and the server's reply to a password."""
    import aiosmtplib

    if isinstance(error, aiosmtplib.SMTPResponseException) and error.code < MIN_SMTP_STATUS_CODE:
        return NotificationDeliveryError("smtp.protocol_error", "the response is not that of a mail server")
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return _build_smtp_login_error(error.code)
    if isinstance(error, aiosmtplib.SMTPResponseException):
        reply = SmtpRefusal(error.code, error.message)
        return NotificationDeliveryError(f"smtp.{error.code}", f"SMTP {reply}", retry_for_s=reply.retry_for_s)
    if network_error := build_probe_error_from_exception(error):
        return build_notification_receiver_unreachable_error(network_error, host, port)
    if isinstance(error, aiosmtplib.SMTPException):
        for word, (reason, message) in _REASON_AND_MESSAGE_BY_UNSUPPORTED_SMTP_FEATURE.items():
            if word in str(error):
                return NotificationDeliveryError(reason, message)
        return NotificationDeliveryError("smtp.protocol_error", "the server violates the SMTP protocol")
    message = "the email cannot be sent as configured"
    return NotificationDeliveryError(
        "delivery.invalid_request", message, retry_for_s=DELIVERY_CONFIG_ERROR_RETRY_DURATION_S
    )
