"""A message as Slack blocks. All escaping for Slack is here."""

from __future__ import annotations

import re
from urllib.parse import quote

from watchdog.domain.model import HealthState, Json
from watchdog.domain.text import truncate_at_word
from watchdog.notifiers.message import AlertMessage
from watchdog.notifiers.message_fields import AlertMessageField
from watchdog.notifiers.slack_buttons import (
    SlackButtonValue,
    build_slack_act_buttons,
    build_slack_details_button,
)

MAX_SLACK_MEMBER_BLOCKS, MAX_SLACK_MEMBER_BLOCK_CHARS = 10, 2_900
MAX_SLACK_HEADER_CHARS, MAX_SLACK_URL_CHARS = 150, 1_000
"""The first is Slack's limit. The limits of `AlertMessage` keep everything else far below those of Slack."""
_MRKDWN_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_MRKDWN_LOOKALIKES = {"*": "\u2217", "_": "\u02cd", "~": "\u223c", "`": "\u02cb"}


def escape_mrkdwn(text: str) -> str:
    """Escapes a text that Slack parses: it creates no mention, link or formatting. `_` inside words is harmless."""
    text = re.sub(r"(?<!\w)[*_~]|[*_~](?!\w)|`", lambda markup: _MRKDWN_LOOKALIKES[markup[0]], text)
    return text.translate(_MRKDWN_ESCAPES)


def format_slack_fallback_text(message: AlertMessage) -> str:
    """For lock screens, and the whole message if Slack rejects the blocks."""
    return escape_mrkdwn(f"{_choose_slack_state_symbol(message)} {message.summary_text}")


def build_slack_blocks(message: AlertMessage, reference: SlackButtonValue | None = None) -> list[Json]:
    """`reference`: of a message whose buttons people can act through; None: they cannot."""
    headline = f"{_choose_slack_state_symbol(message)} {message.change_text_or_headline}"
    header = escape_and_truncate_mrkdwn(headline, MAX_SLACK_HEADER_CHARS)
    header_text = {"type": "plain_text", "text": header, "emoji": not message.is_open}
    blocks: list[Json] = [{"type": "header", "block_id": "header", "text": header_text}]
    if message.notice:
        blocks.append(_build_slack_section_block("notice", escape_mrkdwn(message.notice)))
    if header != escape_mrkdwn(headline):
        blocks.append(_build_slack_section_block("title", escape_mrkdwn(message.title)))
    blocks.append(_build_slack_section_block("main_fields", "\n".join(map(_format_mrkdwn_field, message.main_fields))))
    blocks += _build_slack_incident_list_blocks(message)
    attributes = [
        _build_mrkdwn_object(f"*{field.label}*\n{escape_mrkdwn(field.text)}") for field in message.attribute_fields
    ]
    blocks.append({"type": "section", "block_id": "attributes", "fields": attributes})
    if message.evidence:
        if not message.is_open:
            title = _build_mrkdwn_object(message.evidence_title)
            blocks.append({"type": "context", "block_id": "evidence_title", "elements": [title]})
        blocks.append(_build_slack_preformatted_block("evidence", message.evidence))
    if buttons := _build_slack_buttons(message, reference):
        blocks.append({"type": "actions", "block_id": "actions", "elements": buttons})
    if footer := _format_slack_footer_links(message):
        blocks.append({"type": "context", "block_id": "footer", "elements": [_build_mrkdwn_object(footer)]})
    return blocks


def escape_and_truncate_mrkdwn(text: str, max_chars: int) -> str:
    """Escapes the text and cuts it so that it is within the limit, whichever way Slack counts characters."""
    escaped, length = escape_mrkdwn(text), len(text)
    while len(escaped.encode("utf-16-le")) > 2 * max_chars:
        length -= 1
        escaped = escape_mrkdwn(truncate_at_word(text, length))
    return escaped


def _choose_slack_state_symbol(message: AlertMessage) -> str:
    return "✅" if message.state is HealthState.UP else message.state_symbol


def _format_mrkdwn_field(field: AlertMessageField) -> str:
    text = "".join(
        _format_mrkdwn_code(part) if index % 2 else escape_mrkdwn(part)
        for index, part in enumerate(field.alternating_text_and_code_parts)
    )
    return " ".join(part for part in (f"*{field.label}*", _format_mrkdwn_code(field.code), text) if part)


def _format_mrkdwn_code(text: str) -> str:
    return f"`{text.replace('`', _MRKDWN_LOOKALIKES['`']).translate(_MRKDWN_ESCAPES)}`" if text else ""


def _format_slack_footer_links(message: AlertMessage) -> str:
    """Links. An open incident has a button of its own."""
    details = _format_mrkdwn_link(message.incident_url, "Incident") if not message.is_open else ""
    links = (
        details,
        _format_mrkdwn_link(message.probe_url, "Probe"),
        _format_mrkdwn_link(message.runbook_url, "Runbook"),
    )
    return " · ".join(filter(None, links))


def _format_mrkdwn_link(url: str, label: str) -> str:
    return f"<{_to_mrkdwn_safe_url(url).replace('&', '&amp;')}|{label}>" if _to_mrkdwn_safe_url(url) else ""


def _to_mrkdwn_safe_url(text: str) -> str:
    """The URL without characters that end a link. Empty if it is not an http URL, or too long."""
    quoted = quote(text, safe="%/:?#[]@!$&'()*+,;=~")
    return quoted if re.match(r"https?://.", text) and len(quoted) <= MAX_SLACK_URL_CHARS else ""


def _build_mrkdwn_object(text: str) -> Json:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _build_slack_section_block(id: str, text: str) -> Json:
    return {"type": "section", "block_id": id, "text": _build_mrkdwn_object(text)}


def _build_slack_buttons(message: AlertMessage, reference: SlackButtonValue | None) -> list[Json]:
    """None once the message is over."""
    if not message.is_open:
        return []
    buttons = build_slack_act_buttons(message, reference) if reference is not None else []
    url = _to_mrkdwn_safe_url(message.incident_url)
    return [*buttons, *([build_slack_details_button(url)] if url else [])]


def _build_slack_incident_list_blocks(message: AlertMessage) -> list[Json]:
    """The incidents that the message is about, as many as Slack can show."""
    texts: list[str] = []
    for index, member_line in enumerate(message.members):
        line = escape_mrkdwn(member_line.text)
        if texts and len(texts[-1]) + 1 + len(line) <= MAX_SLACK_MEMBER_BLOCK_CHARS:
            texts[-1] += f"\n{line}"
        elif len(texts) < MAX_SLACK_MEMBER_BLOCKS:
            texts.append(line)
        else:
            more = sum(rest.incident_count for rest in message.members[index:])
            texts.append(f"and {more:,} more: Watchdog's pages list them")
            break
    return [_build_slack_section_block(f"members_{number}", text) for number, text in enumerate(texts)]


def _build_slack_preformatted_block(id: str, text: str) -> Json:
    """Literal text, which Slack does not parse."""
    element = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "block_id": id, "elements": [element]}
