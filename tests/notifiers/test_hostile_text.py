"""Hostile text from targets and configurations stays text in every channel."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from tests.notifiers.conftest import SendFixture
from tests.support import alert_contexts
from tests.support.alert_contexts import HOSTILE_TEXTS, OPENED_ALERT, RESOLVED_ALERT, hostile_alert
from tests.support.fakes import FakeMailServer, FakePagerDuty, FakeSlack, FakeWebhookReceiver
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.notifiers.blocks import build_slack_blocks, format_slack_fallback_text
from watchdog.notifiers.email import EmailNotifier, SmtpServerSettings
from watchdog.notifiers.email_letter import format_email_subject, render_email_html_part, render_email_text_part
from watchdog.notifiers.log import LogNotifier
from watchdog.notifiers.message import AlertMessage, compose_alert_message
from watchdog.notifiers.pagerduty import PagerDutyNotifier
from watchdog.notifiers.slack import SlackNotifier
from watchdog.notifiers.webhook import WebhookNotifier

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

EVERY = pytest.mark.parametrize(
    "context",
    [hostile_alert(text, resolved=over) for text in HOSTILE_TEXTS for over in (False, True)],
    ids=[f"{i}-{'resolved' if over else 'opened'}" for i in range(len(HOSTILE_TEXTS)) for over in (False, True)],
)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def parsed(value: Any) -> Iterator[str]:
    """Every text in which Slack interprets markup."""
    if isinstance(value, dict):
        if value.get("type") in ("mrkdwn", "plain_text"):
            yield value["text"]
        for inner in value.values():
            yield from parsed(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from parsed(inner)


@EVERY
def test_slack(context: AlertMessageContext) -> None:
    message = compose_alert_message(context)
    made = build_slack_blocks(message)
    ours = {f"<{context.incident_url}|Incident>", f"<{context.probe_url}|Probe>", "Runbook>"}
    for text in (format_slack_fallback_text(message), *parsed(made)):
        links = re.findall(r"<[^>]*>?", text)
        assert all(link in ours or link.startswith("<https://") for link in links)
        assert text.count("<") == text.count(">") == len(links) <= 3
        assert re.sub("&(amp|lt|gt);", "", text).count("&") == 0
        assert "```" not in text
    assert all("|" in text_ or "<" not in text_ for text_ in parsed(made))
    assert not any(CONTROL.search(text_) for text_ in strings(made))
    assert all(block.get("elements", [{}])[0].get("verbatim", True) for block in made)


@EVERY
def test_slack_accepts_hostile_text(slack: FakeSlack, send: SendFixture, context: AlertMessageContext) -> None:
    send(SlackNotifier(bot_token=SecretStr(slack.token), channel="#oncall", api_url=slack.url), context)
    assert len(slack.posts) == 1
    assert "blocks" in slack.posts[0], "the layout was not refused"


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[tuple[str, tuple[str, ...]]] = set()
        self.links: set[str] = set()
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add((tag, tuple(sorted(name for name, _ in attrs))))
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}

    def handle_data(self, data: str) -> None:
        self.words += data


@cache
def tags_of_ours() -> set[tuple[str, tuple[str, ...]]]:
    rendered = [context for context in vars(alert_contexts).values() if isinstance(context, AlertMessageContext)]
    return set().union(
        *(Tags(render_email_html_part(m, m.email_subject)).tags for m in map(compose_alert_message, rendered))
    )


@EVERY
def test_html(context: AlertMessageContext) -> None:
    message = compose_alert_message(context)
    page = Tags(render_email_html_part(message, format_email_subject(message)))
    assert page.tags <= tags_of_ours()
    assert page.links <= {context.incident_url, context.probe_url, message.runbook_url}
    assert all(link.startswith("https://") for link in page.links)
    assert not CONTROL.search(page.words)
    for part in visible_texts(message):
        assert squeezed(part) in squeezed(page.words)


def visible_texts(message: AlertMessage) -> list[str]:
    return [
        message.title,
        message.duration_text,
        message.evidence,
        *(part for line in message.main_fields for part in (line.text, line.code)),
    ]


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


@EVERY
def test_text(context: AlertMessageContext) -> None:
    message = compose_alert_message(context)
    rendered = render_email_text_part(message)
    assert not CONTROL.search(rendered)
    assert rendered.splitlines()[0].endswith(message.duration_text.replace("\u00a0", " "))
    assert all(squeezed(part) in squeezed(rendered) for part in visible_texts(message))


@pytest.fixture(scope="module")
def mail() -> Iterator[FakeMailServer]:
    with FakeMailServer() as standin:
        yield standin


HEADERS = {
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress", "MIME-Version",
    "Content-Type",
}  # fmt: skip


@EVERY
def test_mail(mail: FakeMailServer, send: SendFixture, context: AlertMessageContext) -> None:
    mail.received.clear()
    server = SmtpServerSettings.model_validate(
        {"host": "127.0.0.1", "port": mail.port, "security": "none", "from": "w@a.example"}
    )
    send(EmailNotifier(to=("oncall@acme.example",), server=server), context)
    (request,) = mail.received
    assert set(request.message.keys()) == HEADERS
    assert len(request.message.keys()) == len(HEADERS)
    assert (request.sender, request.recipients) == ("w@a.example", ["oncall@acme.example"])
    assert squeezed(request.message["Subject"]) == squeezed(format_email_subject(compose_alert_message(context)))
    assert len(format_email_subject(compose_alert_message(context))) <= 200
    assert [part.get_content_type() for part in request.message.iter_parts()] == ["text/plain", "text/html"]
    assert max(map(len, request.raw_message.split(b"\r\n"))) <= 998


@EVERY
def test_webhook(hook: FakeWebhookReceiver, send: SendFixture, context: AlertMessageContext) -> None:
    send(WebhookNotifier(url=hook.url), context)
    (request,) = hook.received
    assert request.body.isascii()
    assert b"\n" not in request.body
    assert request.json["probe"]["name"] == context.probe.name
    assert request.json["evidence"]["first_bad"]["excerpt"] == context.probe.name
    assert not CONTROL.search(request.json["text"] + request.json["title"] + request.json["evidence"]["text"])


@EVERY
def test_pagerduty(pagerduty: FakePagerDuty, send: SendFixture, context: AlertMessageContext) -> None:
    send(PagerDutyNotifier(routing_key=SecretStr(pagerduty.routing_key), api_url=pagerduty.url), context)
    (request,) = pagerduty.received
    assert not any(CONTROL.search(text_) for text_ in strings(request.json))
    assert "\n" not in request.json.get("payload", {}).get("summary", "")
    assert len(request.body) < 20_000


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    out = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    yield out
    structlog.reset_defaults()


@EVERY
def test_log(logged: io.StringIO, send: SendFixture, context: AlertMessageContext) -> None:
    assert send(LogNotifier(), context) == {}
    (line,) = logged.getvalue().splitlines()
    assert not any(CONTROL.search(text_) or "\n" in text_ for text_ in strings(json.loads(line)))
    assert len(line) < 8_000


def test_a_log_line_is_a_record_of_facts(logged: io.StringIO, send: SendFixture) -> None:
    send(LogNotifier(), OPENED_ALERT)
    send(LogNotifier(), RESOLVED_ALERT)
    opened, resolved = map(json.loads, logged.getvalue().splitlines())
    assert (opened["event"], opened["level"], resolved["event"], resolved["level"]) == (
        "alert_opened", "warning", "alert_resolved", "info",
    )  # fmt: skip
    assert opened["incident"] == resolved["incident"] == OPENED_ALERT.incident.id
    assert opened["text"] == "Down: API: HTTP 503, expected 200 · critical"
    assert opened["probe_name"] == "API"
    assert "subject" not in opened
    assert LogNotifier().recipient == "log"


def test_a_log_line_also_reaches_the_logging_module(caplog: pytest.LogCaptureFixture, send: SendFixture) -> None:
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs], logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger, cache_logger_on_first_use=False,
    )  # fmt: skip
    try:
        with caplog.at_level(logging.INFO):
            send(LogNotifier(), OPENED_ALERT)
    finally:
        structlog.reset_defaults()
    assert [record.message for record in caplog.records if record.message.startswith("alert_")] == ["alert_opened"]
