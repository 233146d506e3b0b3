"""Email over SMTP: one letter when an incident opens, one in the same thread when it resolves."""

from __future__ import annotations

import asyncio
import math
import re
import socket
from contextlib import suppress
from email.headerregistry import Address
from email.message import EmailMessage
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from watchdog.fields import Model, Secret
from watchdog.model import Event, Json
from watchdog.notifiers.base import MENDING, Delivery, DeliveryError, Notifier, unreached
from watchdog.notifiers.email_letter import letter, message_id, subject_of
from watchdog.notifiers.message import compose, one_line
from watchdog.wire import fault_of

if TYPE_CHECKING:
    import ssl

    import aiosmtplib


TIMEOUT = 10.0
"""Seconds that the server may take for each step."""
PORT = {"starttls": 587, "tls": 465, "none": 25}
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = rf"(?!\.|[^@]*\.[.@])[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@(?:{_LABEL}\.){{0,60}}{_LABEL}"
_SENDER = re.compile(rf"""(?:"(?P<quoted>[^"\\]*)"|(?P<name>[^"\\<>]*)) *<(?P<address>{_ADDRESS})>|{_ADDRESS}""")
"""Read by ourselves: what the standard library makes of an odd address differs between patch releases of Python."""


def _address(text: str) -> str:
    if not re.fullmatch(_ADDRESS, text):
        raise ValueError("expected an email address such as oncall@acme.example")
    return text


def _author(sender: str) -> Address:
    found = _SENDER.fullmatch(sender) if sender.isprintable() else None
    if found is None:
        raise ValueError("expected an email address, or one with a name: Watchdog <watchdog@acme.example>")
    name = (found["quoted"] or found["name"] or "").strip()
    local, _, domain = (found["address"] or sender).rpartition("@")
    return Address(name or "Watchdog", local, domain)


def _sender(text: str) -> str:
    _author(text)
    return text


class EmailServer(Model):
    """The SMTP server that takes our mail."""

    host: str = Field(min_length=1, pattern=r"^\S+$")
    port: StrictInt | None = Field(default=None, ge=1, le=65_535)
    """Default: 587 with starttls, 465 with tls, 25 with none."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """`starttls` and `tls` never fall back to plain text and check the server's certificate."""
    username: str = ""
    password: Secret | None = None
    sender: Annotated[str, AfterValidator(_sender)] = Field(alias="from")
    """The address that mail comes from, with or without a name."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if bool(self.username) != (self.password is not None):
            raise ValueError("`username` and `password` come together")
        return self

    @property
    def author(self) -> Address:
        return _author(self.sender)

    async def deliver(self, mail: EmailMessage, to: tuple[str, ...]) -> dict[str, tuple[int, str]]:
        """Returns who was refused while others were not: address -> the server's answer, its code first. Raises
        DeliveryError."""
        import aiosmtplib

        port = self.port or PORT[self.security]
        client = aiosmtplib.SMTP(
            hostname=self.host,
            port=port,
            use_tls=self.security == "tls",
            start_tls=self.security == "starttls",
            tls_context=None if self.security == "none" else await asyncio.to_thread(_context),
            username=self.username or None,
            password=self.password.get_secret_value() if self.password is not None else None,
            local_hostname=socket.gethostname(),  # the default asks DNS, and the loop waits for it
            timeout=TIMEOUT,
        )
        try:
            await client.connect()
            refused, _ = await client.send_message(mail, sender=self.author.addr_spec, recipients=list(to))
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.execute_command(b"QUIT")  # it has our mail: what happens now changes nothing
        except (aiosmtplib.SMTPException, OSError, ValueError) as e:
            raise _failure(e, self.host, port) from None
        finally:
            if isinstance(client.transport, asyncio.WriteTransport):
                client.transport.abort()  # a polite end of TLS may take 30 s and tells nothing
            client.close()
        return {who: (answer.code, _said(answer.code, answer.message)) for who, answer in refused.items()}


class Email(Notifier):
    kind: ClassVar[str] = "email"

    to: tuple[Annotated[str, AfterValidator(_address)], ...] = Field(min_length=1)
    server: EmailServer | None = None
    """Default: the server of the section `email`."""

    @property
    def address(self) -> str:
        return ", ".join(self.to)

    async def send(self, delivery: Delivery) -> dict[str, Json]:
        """The receipt is `message_id` and `subject`, and in `refused` whom the server did not take. Whom it does not
        take yet hears of it later, and nobody twice: `settled` says who needs no further try."""
        if self.server is None:
            raise DeliveryError("smtp.not_configured", "the section `email` names no server", retry_for=0)
        message, author = compose(delivery.story), self.server.author
        id, subject = message_id(delivery.notification.key, author.domain), subject_of(message)
        first = "" if delivery.notification.event is Event.OPENED else str(delivery.receipt.get("message_id", ""))
        if first:
            subject = f"Re: {delivery.receipt.get('subject') or message.thread}"
        mail = letter(message, sender=author, to=self.to, id=id, subject=subject, answers=first, now=delivery.story.now)
        settled, refused = set(delivery.partly.get("settled", ())), dict(delivery.partly.get("refused", {}))
        to = tuple(who for who in self.to if who not in settled)
        answers = await _deliver(self.server, mail, to, others=bool(settled)) if to else {}
        later = {who: said for who, (code, said) in answers.items() if _lasts(code)}
        refused |= {who: said for who, (_, said) in answers.items() if who not in later}
        if later:
            told = "; ".join(f"{who}: {said}" for who, said in later.items())
            known = {"settled": [who for who in self.to if who not in later], "refused": refused}
            raise DeliveryError("smtp.recipients_refused", f"not taken yet: {told}"[:400], partly=known)
        if refused:
            import structlog

            structlog.get_logger().warning("recipients_refused", incident=message.incident, refused=refused)
        return {"message_id": id, "subject": subject, "refused": refused}


async def _deliver(
    server: EmailServer, mail: EmailMessage, to: tuple[str, ...], *, others: bool
) -> dict[str, tuple[int, str]]:
    """`others`: it has reached somebody before, so that it is no failure if nobody else can be reached."""
    try:
        return await server.deliver(mail, to)
    except DeliveryError as e:
        if not others or e.reason != "smtp.recipients_refused" or e.retry_for:
            raise
        return {who: (550, str(e)) for who in to}


def _context() -> ssl.SSLContext:
    """Takes 15 ms, hence a thread of its own."""
    from watchdog.wire.tls import Tls, make_context

    context = make_context(Tls())
    context.set_alpn_protocols([])  # those of HTTP, which some mail servers refuse
    return context


_MISSING = {
    "AUTH": ("smtp.auth_unavailable", "the server offers no login over this connection"),
    "authentication": ("smtp.auth_unavailable", "the server offers no login that we know"),
    "STARTTLS": ("smtp.starttls_missing", "the server offers no STARTTLS, and without it nothing is sent"),
}
"""A word of the library's complaint -> what to tell."""


def _failure(error: aiosmtplib.SMTPException | OSError | ValueError, host: str, port: int) -> DeliveryError:
    """No text of the library, which may quote what we sent; of the server's, only what is no answer to a password."""
    import aiosmtplib

    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        codes = [r.code for r in error.recipients]
        told = "; ".join(f"{r.recipient}: {_said(r.code, r.message)}" for r in error.recipients)
        lasts = max(_lasts(code) for code in codes)
        return DeliveryError("smtp.recipients_refused", f"every recipient refused: {told}"[:400], retry_for=lasts)
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        message = f"got {error.code}: the server does not accept the user name and password"
        return DeliveryError("smtp.auth_failed", message, retry_for=MENDING if error.code >= 500 else math.inf)
    if isinstance(error, aiosmtplib.SMTPResponseException):
        told = f"got {_said(error.code, error.message)}"
        return DeliveryError(f"smtp_{error.code}", told, retry_for=_lasts(error.code))
    if fault := fault_of(error):
        return unreached(fault, host, port)
    if isinstance(error, aiosmtplib.SMTPException):
        for word, (reason, message) in _MISSING.items():
            if word in str(error):
                return DeliveryError(reason, message)
        return DeliveryError("smtp.protocol_error", "the server does not speak SMTP as we know it")
    return DeliveryError("delivery.invalid_request", "the mail cannot be sent as it is configured", retry_for=0)


def _lasts(code: int) -> float:
    """For how long an answer is worth another try: SMTP's 5xx are final."""
    return 0 if 500 <= code < 600 else math.inf


def _said(code: int, message: str) -> str:
    return f"{code} {one_line(message, 160)}".strip()
