"""Email over SMTP: one letter when an incident opens, one in the same thread when it resolves."""

from __future__ import annotations

import math
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from watchdog.config_types import ConfigModel, Secret
from watchdog.domain.model import IncidentEvent, Json
from watchdog.net import error_from_exception
from watchdog.notifiers.base import CONFIG_ERROR_RETRY_S, DeliveryError, DeliveryRequest, Notifier, unreachable_error
from watchdog.notifiers.message import compose_message, safe_line

if TYPE_CHECKING:
    import ssl
    from email.headerregistry import Address
    from email.message import EmailMessage

    import aiosmtplib


SMTP_COMMAND_TIMEOUT_S = 10.0
"""Seconds that the server may take for each step."""
DEFAULT_SMTP_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_DOMAIN_LABEL_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL_ADDRESS_PATTERN = r"(?!\.|[^@]*\.[.@])[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
_EMAIL_ADDRESS_PATTERN += rf"@(?:{_DOMAIN_LABEL_PATTERN}\.){{0,60}}{_DOMAIN_LABEL_PATTERN}"
_SENDER_PATTERN = re.compile(
    rf"""(?:"(?P<quoted>[^"\\]*)"|(?P<name>[^"\\<>]*)) *<(?P<address>{_EMAIL_ADDRESS_PATTERN})>"""
    rf"|{_EMAIL_ADDRESS_PATTERN}"
)
"""Read by ourselves: what the standard library makes of an odd address differs between patch releases of Python."""


def _validate_email_address(text: str) -> str:
    if not re.fullmatch(_EMAIL_ADDRESS_PATTERN, text):
        raise ValueError("expected an email address such as oncall@acme.example")
    return text


def _parse_sender(sender: str) -> Address:
    from email.headerregistry import Address

    found = _SENDER_PATTERN.fullmatch(sender) if sender.isprintable() else None
    if found is None:
        raise ValueError("expected an email address, optionally with a name: Watchdog <watchdog@acme.example>")
    name = (found["quoted"] or found["name"] or "").strip()
    local, _, domain = (found["address"] or sender).rpartition("@")
    return Address(name or "Watchdog", local, domain)


def _validate_sender(text: str) -> str:
    _parse_sender(text)
    return text


class SmtpServerSettings(ConfigModel):
    """The SMTP server that sends the mail of all `email` notifiers."""

    host: str = Field(min_length=1, pattern=r"^\S+$")
    """The host name or address of the server."""
    port: StrictInt | None = Field(default=None, ge=1, le=65_535)
    """The port; default: 587 with `starttls`, 465 with `tls`, 25 with `none`."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """The encryption of the connection. `starttls` and `tls` verify the certificate and never fall back to `none`."""
    username: str = ""
    """The user name to log in with; default: no login. Requires `password`."""
    password: Secret | None = None
    """The password of `username`."""
    sender: Annotated[str, AfterValidator(_validate_sender)] = Field(alias="from")
    """The sender's address, optionally with a name: `Watchdog <watchdog@acme.example>`."""

    @model_validator(mode="after")
    def _require_username_with_password(self) -> Self:
        if bool(self.username) != (self.password is not None):
            raise ValueError("username and password require each other: set both or neither")
        return self

    @property
    def sender_address(self) -> Address:
        return _parse_sender(self.sender)

    async def send_mail(self, mail: EmailMessage, recipients: tuple[str, ...]) -> dict[str, tuple[int, str]]:
        """Returns who was refused while others were not: address -> the server's answer, its code first. Raises
        DeliveryError."""
        import asyncio

        import aiosmtplib

        port = self.port or DEFAULT_SMTP_PORTS[self.security]
        client = aiosmtplib.SMTP(
            hostname=self.host,
            port=port,
            use_tls=self.security == "tls",
            start_tls=self.security == "starttls",
            tls_context=None if self.security == "none" else await asyncio.to_thread(_make_ssl_context),
            username=self.username or None,
            password=self.password.get_secret_value() if self.password is not None else None,
            local_hostname=socket.gethostname(),  # the default asks DNS, and the loop waits for it
            timeout=SMTP_COMMAND_TIMEOUT_S,
        )
        try:
            await client.connect()
            refused, _ = await client.send_message(
                mail, sender=self.sender_address.addr_spec, recipients=list(recipients)
            )
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.execute_command(b"QUIT")  # it has our mail: what happens now changes nothing
        except (aiosmtplib.SMTPException, OSError, ValueError) as e:
            raise _delivery_error_from(e, self.host, port) from None
        finally:
            if isinstance(client.transport, asyncio.WriteTransport):
                client.transport.abort()  # a polite end of TLS may take 30 s and tells nothing
            client.close()
        return {who: (answer.code, _format_smtp_reply(answer.code, answer.message)) for who, answer in refused.items()}


class EmailNotifier(Notifier):
    """Sends an email. Later messages of an incident are replies to its first one."""

    kind: ClassVar[str] = "email"

    to: tuple[Annotated[str, AfterValidator(_validate_email_address)], ...] = Field(min_length=1)
    """The addresses of the recipients."""
    server: SmtpServerSettings | None = None
    """The SMTP server; default: that of the section `email`."""

    @property
    def recipient(self) -> str:
        return ", ".join(self.to)

    async def send(self, request: DeliveryRequest) -> dict[str, Json]:
        """The receipt is `message_id` and `subject`, and in `refused` whom the server did not take. Whom it does not
        take yet hears of it later, and nobody twice: `settled` says who needs no further try."""
        from watchdog.notifiers.email_letter import build_email, derive_message_id, email_subject

        if self.server is None:
            raise DeliveryError("smtp.not_configured", "the section `email` names no server", retry_for_s=0)
        message, author = compose_message(request.alert_context), self.server.sender_address
        id, subject = derive_message_id(request.notification.idempotency_key, author.domain), email_subject(message)
        first = (
            ""
            if request.notification.event is IncidentEvent.OPENED
            else str(request.previous_receipt.get("message_id", ""))
        )
        if first:
            subject = f"Re: {request.previous_receipt.get('subject') or message.thread_subject}"
        mail = build_email(
            message,
            sender=author,
            recipients=self.to,
            message_id=id,
            subject=subject,
            in_reply_to=first,
            sent_at=request.alert_context.now,
        )
        settled, refused = (
            set(request.partial_receipt.get("settled", ())),
            dict(request.partial_receipt.get("refused", {})),
        )
        to = tuple(who for who in self.to if who not in settled)
        answers = await _send_to_remaining(self.server, mail, to, others_delivered=bool(settled)) if to else {}
        later = {who: said for who, (code, said) in answers.items() if _retry_duration_s(code)}
        refused |= {who: said for who, (_, said) in answers.items() if who not in later}
        if later:
            told = "; ".join(f"{who}: {said}" for who, said in later.items())
            known = {"settled": [who for who in self.to if who not in later], "refused": refused}
            raise DeliveryError("smtp.recipients_refused", f"not taken yet: {told}"[:400], partial_receipt=known)
        if refused:
            import structlog

            structlog.get_logger().warning(
                "recipients_refused", incident=message.incident_id, refused_recipients=refused
            )
        return {"message_id": id, "subject": subject, "refused": refused}


async def _send_to_remaining(
    server: SmtpServerSettings, mail: EmailMessage, recipients: tuple[str, ...], *, others_delivered: bool
) -> dict[str, tuple[int, str]]:
    """`others`: it has reached somebody before, so that it is no failure if nobody else can be reached."""
    try:
        return await server.send_mail(mail, recipients)
    except DeliveryError as e:
        if not others_delivered or e.reason != "smtp.recipients_refused" or e.retry_for_s:
            raise
        return {who: (550, str(e)) for who in recipients}


def _make_ssl_context() -> ssl.SSLContext:
    """Takes 15 ms, hence a thread of its own."""
    from watchdog.net.tls import TlsConfig, create_ssl_context

    context = create_ssl_context(TlsConfig())
    context.set_alpn_protocols([])  # those of HTTP, which some mail servers refuse
    return context


_UNSUPPORTED_FEATURE_REASONS = {
    "AUTH": ("smtp.auth_unavailable", "the server offers no login over this connection"),
    "authentication": ("smtp.auth_unavailable", "the server offers no login that we know"),
    "STARTTLS": ("smtp.starttls_missing", "the server offers no STARTTLS, and without it nothing is sent"),
}
"""A word of the library's complaint -> what to tell."""


def _delivery_error_from(error: aiosmtplib.SMTPException | OSError | ValueError, host: str, port: int) -> DeliveryError:
    """No text of the library, which may quote what we sent; of the server's, only what is no answer to a password."""
    import aiosmtplib

    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        codes = [r.code for r in error.recipients]
        told = "; ".join(f"{r.recipient}: {_format_smtp_reply(r.code, r.message)}" for r in error.recipients)
        lasts = max(_retry_duration_s(code) for code in codes)
        return DeliveryError("smtp.recipients_refused", f"every recipient refused: {told}"[:400], retry_for_s=lasts)
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        message = f"got {error.code}: the server does not accept the user name and password"
        return DeliveryError(
            "smtp.auth_failed", message, retry_for_s=CONFIG_ERROR_RETRY_S if error.code >= 500 else math.inf
        )
    if isinstance(error, aiosmtplib.SMTPResponseException):
        told = f"got {_format_smtp_reply(error.code, error.message)}"
        return DeliveryError(f"smtp.{error.code}", told, retry_for_s=_retry_duration_s(error.code))
    if fault := error_from_exception(error):
        return unreachable_error(fault, host, port)
    if isinstance(error, aiosmtplib.SMTPException):
        for word, (reason, message) in _UNSUPPORTED_FEATURE_REASONS.items():
            if word in str(error):
                return DeliveryError(reason, message)
        return DeliveryError("smtp.protocol_error", "the server does not speak SMTP as we know it")
    return DeliveryError("delivery.invalid_request", "the mail cannot be sent as it is configured", retry_for_s=0)


def _retry_duration_s(status_code: int) -> float:
    """For how long an answer is worth another try: SMTP's 5xx are final."""
    return 0 if 500 <= status_code < 600 else math.inf


def _format_smtp_reply(status_code: int, message: str) -> str:
    return f"{status_code} {safe_line(message, 160)}".strip()
