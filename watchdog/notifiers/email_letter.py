"""A message as a letter: headers, a text part that is complete by itself, and HTML with its styles inlined."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import cache
from hashlib import blake2b

from watchdog.assets import asset
from watchdog.notifiers.message import Line, Message, plain
from watchdog.words import utc

SUBJECT = 200
"""Characters of a subject that are told."""


def message_id(key: str, domain: str) -> str:
    """Stable over retries: mail readers show one of two copies."""
    return f"<{blake2b(key.encode(), digest_size=16).hexdigest()}@{domain}>"


def letter(
    message: Message, *, sender: Address, to: tuple[str, ...], id: str, subject: str, answers: str, now: int
) -> EmailMessage:
    """`answers`: the Message-ID of the letter that this one follows, or empty."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Subject"] = subject
    mail["Date"] = format_datetime(utc(now))
    mail["Message-ID"] = id
    if answers:
        mail["In-Reply-To"] = mail["References"] = answers
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    mail.set_content(text_part(message), cte="quoted-printable")
    mail.add_alternative(html_part(message, subject), subtype="html", cte="quoted-printable")
    return mail


def subject_of(message: Message) -> str:
    """For a letter that starts its thread. `=?` would start an encoded word, which mail readers decode."""
    subject = f"{'' if message.open else 'Resolved: '}{message.thread}".replace("=?", "= ?")
    return subject if len(subject) <= SUBJECT else f"{subject[: SUBJECT - 1]}…"


def text_part(message: Message) -> str:
    parts = [f"{message.glyph} {message.lead}", message.note]
    parts.append("\n".join(map(_line, (*message.lines, *message.facts))))
    if message.evidence:
        indented = "\n".join(f"    {line}" for line in message.evidence.splitlines())
        parts.append(f"Evidence, from the target, untrusted, secrets removed:\n\n{indented}")
    links = (("Details", message.link), ("Runbook", message.runbook), ("Incident", message.incident))
    parts.append("\n".join(f"{label}: {value}" for label, value in links if value))
    return plain("\n\n".join(part for part in parts if part) + "\n")


def _line(line: Line) -> str:
    return f"{line.label}: {' '.join(part for part in (line.code, line.text) if part)}"


def html_part(message: Message, subject: str) -> str:
    preview = message.lines[1 if message.open else 0].text
    link, runbook = (url if re.match(r"https?://", url) else "" for url in (message.link, message.runbook))
    return _renderer()(message=message, subject=subject, preview=preview, link=link, runbook=runbook)


@cache
def _renderer() -> Callable[..., str]:
    import css_inline
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(asset("templates") / "email"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("incident.html.j2")
    inliner = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
    return lambda **told: inliner.inline(template.render(told))
