"""A message as plain text of several lines."""

from __future__ import annotations

from watchdog.notifiers.message import AlertMessage
from watchdog.notifiers.message_fields import replace_nbsp


def render_alert_text_body(message: AlertMessage) -> str:
    """Everything but the first line: notice, fields, incidents, evidence and links. No line break at the end."""
    fields = (
        f"{field.label}: {field.joined_code_and_text}" for field in (*message.main_fields, *message.attribute_fields)
    )
    parts = [message.notice, "\n".join(fields)]
    if message.members:
        parts.append("\n".join(line.text for line in message.members))
    if message.evidence:
        indented = "\n".join(f"    {line}" for line in message.evidence.splitlines())
        parts.append(
            f"{message.evidence_title} (includes untrusted text from the target; secrets are masked):\n\n{indented}"
        )
    parts.append("\n".join(f"{label}: {url}" for label, url in message.links))
    return replace_nbsp("\n\n".join(part for part in parts if part))
