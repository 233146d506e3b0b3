"""A message as Slack lays it out. All of Slack's escaping is here."""

from __future__ import annotations

import re
from urllib.parse import quote

from watchdog.model import Json, State
from watchdog.notifiers.message import Line, Message

HEADER, URL = 150, 1_000
"""Slack's limit for a header, and one of ours for a link. All else is far below Slack's limits by the message's own."""
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_LOOKALIKES = {"*": "\u2217", "_": "\u02cd", "~": "\u223c", "`": "\u02cb"}


def escape(text: str) -> str:
    """For every text that Slack parses: no mention, link or formatting of its own. Inside words `_` means nothing."""
    text = re.sub(r"(?<!\w)[*_~]|[*_~](?!\w)|`", lambda found: _LOOKALIKES[found[0]], text)
    return text.translate(_ENTITIES)


def text(message: Message) -> str:
    """What a lock screen shows, and the whole message where the layout is refused."""
    return escape(f"{_glyph(message)} {message.text}")


def blocks(message: Message) -> list[Json]:
    lead = f"{_glyph(message)} {message.lead}"
    head = fit(lead, HEADER)
    title = {"type": "plain_text", "text": head, "emoji": not message.open}
    told: list[Json] = [{"type": "header", "block_id": "head", "text": title}]
    if message.note:
        told.append(_section("note", escape(message.note)))
    if head != escape(lead):
        told.append(_section("title", escape(message.title)))
    told.append(_section("lines", "\n".join(map(_line, message.lines))))
    facts = [_mrkdwn(f"*{fact.label}*\n{escape(fact.text)}") for fact in message.facts]
    told.append({"type": "section", "block_id": "facts", "fields": facts})
    if message.evidence:
        told.append(_preformatted("evidence", message.evidence))
    if message.open and _url(message.link):
        button = {"type": "plain_text", "text": "Details"}
        details = {"type": "button", "action_id": "details", "text": button, "url": _url(message.link)}
        told.append({"type": "actions", "block_id": "act", "elements": [details]})
    told.append({"type": "context", "block_id": "foot", "elements": [_mrkdwn(_foot(message))]})
    return told


def fit(text: str, limit: int) -> str:
    """Escaped, and cut to a length that stays within the limit however Slack counts."""
    shown = escape(text)
    while len(shown.encode("utf-16-le")) > 2 * limit:
        text = text[:-1]
        shown = escape(f"{text}…")
    return shown


def _glyph(message: Message) -> str:
    return "✅" if message.state is State.UP else message.glyph


def _line(line: Line) -> str:
    parts = [f"*{line.label}*", _code(line.code), escape(line.text)]
    return " ".join(part for part in parts if part)


def _code(text: str) -> str:
    return f"`{text.replace('`', _LOOKALIKES['`']).translate(_ENTITIES)}`" if text else ""


def _foot(message: Message) -> str:
    details = _link(message.link, "Details") if not message.open else ""
    return " · ".join(filter(None, [details, _link(message.runbook, "Runbook"), f"incident {_code(message.incident)}"]))


def _link(url: str, label: str) -> str:
    return f"<{_url(url).replace('&', '&amp;')}|{label}>" if _url(url) else ""


def _url(text: str) -> str:
    """With nothing in it that ends a link; empty when it is none, or too long for Slack."""
    quoted = quote(text, safe="%/:?#[]@!$&'()*+,;=~")
    return quoted if re.match(r"https?://.", text) and len(quoted) <= URL else ""


def _mrkdwn(text: str) -> Json:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _section(id: str, text: str) -> Json:
    return {"type": "section", "block_id": id, "text": _mrkdwn(text)}


def _preformatted(id: str, text: str) -> Json:
    """Literal text: Slack looks for nothing in it."""
    element = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "block_id": id, "elements": [element]}
