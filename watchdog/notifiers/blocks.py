"""A message as Slack lays it out. All of Slack's escaping is here."""

from __future__ import annotations

import re
from urllib.parse import quote

from watchdog.domain.model import HealthState, Json
from watchdog.notifiers.message import AlertMessage, MessageField

MAX_HEADER_CHARS, MAX_URL_CHARS = 150, 1_000
"""Slack's limit for a header, and one of ours for a link. All else is far below Slack's limits by the message's own."""
_HTML_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_MARKUP_LOOKALIKES = {"*": "\u2217", "_": "\u02cd", "~": "\u223c", "`": "\u02cb"}


def escape_mrkdwn(text: str) -> str:
    """For every text that Slack parses: no mention, link or formatting of its own. Inside words `_` means nothing."""
    text = re.sub(r"(?<!\w)[*_~]|[*_~](?!\w)|`", lambda found: _MARKUP_LOOKALIKES[found[0]], text)
    return text.translate(_HTML_ENTITIES)


def fallback_text(message: AlertMessage) -> str:
    """What a lock screen shows, and the whole message where the layout is refused."""
    return escape_mrkdwn(f"{_state_symbol(message)} {message.summary_text}")


def build_blocks(message: AlertMessage) -> list[Json]:
    lead = f"{_state_symbol(message)} {message.headline}"
    head = escape_and_truncate(lead, MAX_HEADER_CHARS)
    title = {"type": "plain_text", "text": head, "emoji": not message.is_open}
    told: list[Json] = [{"type": "header", "block_id": "head", "text": title}]
    if message.notice:
        told.append(_section_block("note", escape_mrkdwn(message.notice)))
    if head != escape_mrkdwn(lead):
        told.append(_section_block("title", escape_mrkdwn(message.title)))
    told.append(_section_block("lines", "\n".join(map(_format_field, message.main_fields))))
    facts = [_mrkdwn_object(f"*{fact.label}*\n{escape_mrkdwn(fact.text)}") for fact in message.attribute_fields]
    told.append({"type": "section", "block_id": "facts", "fields": facts})
    if message.evidence:
        told.append(_preformatted_block("evidence", message.evidence))
    if message.is_open and _safe_url(message.incident_url):
        button = {"type": "plain_text", "text": "Details"}
        details = {"type": "button", "action_id": "details", "text": button, "url": _safe_url(message.incident_url)}
        told.append({"type": "actions", "block_id": "act", "elements": [details]})
    told.append({"type": "context", "block_id": "foot", "elements": [_mrkdwn_object(_footer_text(message))]})
    return told


def escape_and_truncate(text: str, max_chars: int) -> str:
    """Escaped, and cut to a length that stays within the limit however Slack counts."""
    shown = escape_mrkdwn(text)
    while len(shown.encode("utf-16-le")) > 2 * max_chars:
        text = text[:-1]
        shown = escape_mrkdwn(f"{text}…")
    return shown


def _state_symbol(message: AlertMessage) -> str:
    return "✅" if message.state is HealthState.UP else message.state_symbol


def _format_field(field: MessageField) -> str:
    parts = [f"*{field.label}*", _format_code(field.code), escape_mrkdwn(field.text)]
    return " ".join(part for part in parts if part)


def _format_code(text: str) -> str:
    return f"`{text.replace('`', _MARKUP_LOOKALIKES['`']).translate(_HTML_ENTITIES)}`" if text else ""


def _footer_text(message: AlertMessage) -> str:
    details = _format_link(message.incident_url, "Details") if not message.is_open else ""
    return " · ".join(
        filter(
            None,
            [details, _format_link(message.runbook_url, "Runbook"), f"incident {_format_code(message.incident_id)}"],
        )
    )


def _format_link(url: str, label: str) -> str:
    return f"<{_safe_url(url).replace('&', '&amp;')}|{label}>" if _safe_url(url) else ""


def _safe_url(text: str) -> str:
    """With nothing in it that ends a link; empty when it is none, or too long for Slack."""
    quoted = quote(text, safe="%/:?#[]@!$&'()*+,;=~")
    return quoted if re.match(r"https?://.", text) and len(quoted) <= MAX_URL_CHARS else ""


def _mrkdwn_object(text: str) -> Json:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _section_block(id: str, text: str) -> Json:
    return {"type": "section", "block_id": id, "text": _mrkdwn_object(text)}


def _preformatted_block(id: str, text: str) -> Json:
    """Literal text: Slack looks for nothing in it."""
    element = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "block_id": id, "elements": [element]}
