"""A message as an email: headers, a text part that is complete by itself, and HTML with inlined styles."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.header import Header
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy, Policy
from email.utils import format_datetime
from functools import cache
from hashlib import blake2b
from typing import Any

from watchdog.domain.formatting import to_utc_datetime
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.notifiers.message import AlertMessage
from watchdog.notifiers.message_fields import replace_nbsp
from watchdog.notifiers.plain_text import render_alert_text_body
from watchdog.resources import find_resource_folder

MAX_EMAIL_SUBJECT_CHARS = 200
EMAIL_PREHEADER_FIELD_LABELS = ("Since", "Was")
"""The field that mail clients show beside the subject."""


class _EmailSubjectHeader(UnstructuredHeader, BaseHeader):
    """Folded by the older `Header`: `EmailMessage` would begin some subjects with an empty line, and lose blanks of
    others."""

    def fold(self, *, policy: Policy[Any]) -> str:
        header = Header(str(self), "us-ascii" if self.isascii() else "utf-8", header_name=self.name)
        return f"{self.name}: {header.encode(linesep=policy.linesep)}{policy.linesep}"


class _MessageIdReferenceHeader(UnstructuredHeader, BaseHeader):
    """Not folded: `EmailMessage` would encode an id of more than 60 characters, and no client would know it again."""

    def fold(self, *, policy: Policy[Any]) -> str:
        return f"{self.name}: {self}{policy.linesep}"


def _create_email_policy() -> EmailPolicy[EmailMessage]:
    registry = HeaderRegistry()
    registry.map_to_type("subject", _EmailSubjectHeader)
    for name in ("in-reply-to", "references"):
        registry.map_to_type(name, _MessageIdReferenceHeader)
    return SMTP.clone(header_factory=registry)


_EMAIL_POLICY = _create_email_policy()


def derive_email_message_id_from_idempotency_key(idempotency_key: str, domain: str) -> str:
    """The same on every attempt, so that mail clients show one of two copies."""
    return f"<{blake2b(idempotency_key.encode(), digest_size=16).hexdigest()}@{domain}>"


def build_email(
    message: AlertMessage,
    *,
    sender: Address,
    recipients: tuple[str, ...],
    message_id: str,
    in_reply_to: str,
    sent_at: int,
) -> EmailMessage:
    """`in_reply_to`: Message-ID of the first email of the thread; empty for the first."""
    mail, subject = EmailMessage(policy=_EMAIL_POLICY), format_email_subject(message)
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Subject"] = subject
    mail["Date"] = format_datetime(to_utc_datetime(sent_at))
    mail["Message-ID"] = message_id
    if in_reply_to:
        mail["In-Reply-To"] = mail["References"] = in_reply_to
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    mail.set_content(render_email_text_part(message), cte="quoted-printable")
    mail.add_alternative(render_email_html_part(message, subject), subtype="html", cte="quoted-printable")
    return mail


def format_email_subject(message: AlertMessage) -> str:
    """`=?` would start an encoded word, which mail clients decode."""
    return truncate_with_ellipsis(message.email_subject.replace("=?", "= ?"), MAX_EMAIL_SUBJECT_CHARS)


def render_email_text_part(message: AlertMessage) -> str:
    first_line = replace_nbsp(f"{message.state_symbol} {message.change_text_or_headline}")
    return f"{first_line}\n\n{render_alert_text_body(message)}\n"


def render_email_html_part(message: AlertMessage, subject: str) -> str:
    preview = next((field.text for field in message.main_fields if field.label in EMAIL_PREHEADER_FIELD_LABELS), "")
    urls = {"incident": message.incident_url, "probe": message.probe_url, "runbook": message.runbook_url}
    safe_urls = {name: url if re.match(r"https?://", url) else "" for name, url in urls.items()}
    return _load_email_html_renderer()(message=message, subject=subject, preview=preview, urls=safe_urls)


@cache
def _load_email_html_renderer() -> Callable[..., str]:
    import css_inline
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(find_resource_folder("templates") / "email"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("incident.html.j2")
    inliner = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
    return lambda **context: inliner.inline(template.render(context))
