"""Messages to the many services that the library Apprise supports."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, field_validator, model_validator

from watchdog.config_types import STRING_OR_LIST_SCHEMA, MultiFieldValidationError, Secret, wrap_string_in_list
from watchdog.config_values import describe_missing_package_extra
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.model import IncidentEvent, Json, Severity
from watchdog.net.redact import SecretMask
from watchdog.net.threads import run_in_daemon_thread
from watchdog.notifiers.base import (
    DELIVERY_CONFIG_ERROR_RETRY_DURATION_S,
    NotificationDeliveryError,
    NotificationDeliveryRequest,
    Notifier,
)
from watchdog.notifiers.message import compose_alert_message
from watchdog.notifiers.message_fields import MAX_MESSAGE_CAUSE_CHARS, replace_nbsp, to_safe_single_line
from watchdog.notifiers.plain_text import render_alert_text_body
from watchdog.notifiers.shared_message import find_highest_incident_severity

if TYPE_CHECKING:
    from apprise.plugins.base import NotifyBase


APPRISE_TIMEOUT_S = 18.0
"""Until the library has returned. Less than a delivery may take."""
MIN_MASKED_APPRISE_URL_PART_CHARS = 4
LOCAL_APPRISE_SCHEMAS = frozenset(
    {"blink1", "dbus", "gio", "glib", "gnome", "kde", "macosx", "qt", "syslog", "windows"}
)
"""Services that reach only the machine itself: its desktop, its log, a lamp at its USB port."""
_VALID_APPRISE_URL_PATTERN = re.compile(r"(?P<schema>[A-Za-z][A-Za-z0-9]*)://\S*")
_APPRISE_URL_PART_SEPARATOR_PATTERN = re.compile(r"[\s/?&=:@,;#]+")
_LOST_RESPONSE_PATTERN = re.compile(
    r"read timed out|remote end closed|connection aborted|incompleteread", re.IGNORECASE
)
"""How the library's log names a response that did not arrive, although the request was sent."""
_NOTIFY_TYPE_BY_SEVERITY: Mapping[Severity, Literal["failure", "warning", "info"]] = {
    Severity.CRITICAL: "failure",
    Severity.WARNING: "warning",
    Severity.INFO: "info",
}
_CHAT_MENTION_OR_LINK_START_PATTERN = re.compile(r"(?<![\w.])@(?=\w)|<(?=[@!#&]|\w+:)|(?<=\])\(")
_LOOKALIKE_BY_MENTION_OR_LINK_CHARACTER = {"@": "\uff20", "<": "\u2039", "(": " ("}


class AppriseNotifier(Notifier):
    """Sends the message to services that the library Apprise supports, such as ntfy, Telegram, Discord or Teams. Each
    URL is a destination of its own. Requires the extra `apprise`. The library opens its own connections, so
    Watchdog's address filter does not apply to them: set only URLs that you trust."""

    kind: ClassVar[str] = "apprise"
    shorthand_field: ClassVar[str] = "urls"
    example: ClassVar[str] = """
        receivers:
          oncall: {apprise: ["${NTFY_URL}", "${TELEGRAM_URL}"]}
    """

    urls: Annotated[
        tuple[Secret, ...], BeforeValidator(wrap_string_in_list), STRING_OR_LIST_SCHEMA, Field(min_length=1)
    ]
    """The Apprise URLs, such as `ntfys://acme-oncall`. Services that reach only the machine itself (`dbus://`,
    `syslog://` and similar ones) are refused."""

    @model_validator(mode="before")
    @classmethod
    def _wrap_url_list_in_mapping(cls, data: Any) -> Any:
        return {"urls": data} if isinstance(data, list) else data

    @field_validator("urls")
    @classmethod
    def _validate_urls(cls, urls: tuple[Secret, ...]) -> tuple[Secret, ...]:
        errors = [
            ((index,), problem)
            for index, url in enumerate(urls)
            if (problem := _find_apprise_url_problem(url.get_secret_value()))
        ]
        if errors:
            raise MultiFieldValidationError(errors)
        return urls

    @model_validator(mode="after")
    def _require_apprise_library(self) -> Self:
        if find_spec("apprise") is None:
            raise ValueError(f"this receiver needs the package apprise: {describe_missing_package_extra('apprise')}")
        return self

    @property
    def recipient(self) -> str:
        """The service alone: every other part of the URL may be a secret."""
        return ", ".join(f"{_get_apprise_schema(url.get_secret_value())} (Apprise)" for url in self.urls)

    def split_into_destinations(self) -> Mapping[str, Notifier]:
        """Named by the service, so that neither another order nor another token changes a destination."""
        counts: Counter[str] = Counter()
        notifiers: dict[str, Notifier] = {}
        for url in self.urls:
            schema = _get_apprise_schema(url.get_secret_value())
            counts[schema] += 1
            number = f"-{counts[schema]}" if counts[schema] > 1 else ""
            notifiers[f"-{schema}{number}"] = self.model_copy(update={"urls": (url,)})
        return notifiers

    async def send(self, request: NotificationDeliveryRequest) -> dict[str, Json]:
        import asyncio

        (url,) = self.urls
        delivery = _AppriseDelivery(url.get_secret_value(), request.alert_context)
        try:
            async with asyncio.timeout(APPRISE_TIMEOUT_S):
                await run_in_daemon_thread(delivery.deliver_or_raise, "apprise")
        except TimeoutError:
            raise NotificationDeliveryError(
                "timeout.exceeded",
                f"no response within {APPRISE_TIMEOUT_S:g} s",
                maybe_delivered=not delivery.cancel_unless_started(),
            ) from None
        finally:
            delivery.cancel_unless_started()
        return {}


class _AppriseDelivery:
    """One call of the library, which blocks and cannot be interrupted. It can be cancelled until
    it sends: loading the library may take long."""

    def __init__(self, url: str, context: AlertMessageContext):
        message = compose_alert_message(context)
        self.url, self.notify_type = url, _choose_apprise_notify_type(context)
        self.title = neutralize_mentions_and_links(
            replace_nbsp(f"{message.state_symbol} {message.change_text_or_headline}")
        )
        self.body = neutralize_mentions_and_links(render_alert_text_body(message))
        self._permit_to_start = threading.Lock()

    def cancel_unless_started(self) -> bool:
        """Whether nothing was sent, and nothing will be."""
        return self._permit_to_start.acquire(blocking=False)

    def deliver_or_raise(self) -> None:
        """Raises NotificationDeliveryError unless the service has accepted the message."""
        with _AppriseThreadLogHandler() as log:
            service = _create_apprise_service(self.url, log)
            if not self._permit_to_start.acquire(blocking=False):
                return
            is_accepted = False
            try:
                is_accepted = service.notify(
                    title=self.title, body=self.body, notify_type=self.notify_type, body_format="text"
                )
            except Exception as error:
                log.append_warning(f"{type(error).__name__} inside Apprise")
            if not is_accepted:
                has_several_targets = len(service) > 1
                raise NotificationDeliveryError(
                    "apprise.not_accepted",
                    log.format_last_masked_warning(self.url) or "the service did not accept the message",
                    maybe_delivered=has_several_targets or log.names_lost_response,
                )


class _AppriseThreadLogHandler(logging.Handler):
    """What the library logs on this thread. It goes nowhere else, because it may quote a part of the URL."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._thread_id = threading.get_ident()
        self._warnings: list[str] = []
        self.names_lost_response = False

    def __enter__(self) -> Self:
        logger = logging.getLogger("apprise")
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("apprise").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread != self._thread_id:
            return
        text = record.getMessage()
        self.names_lost_response |= _LOST_RESPONSE_PATTERN.search(text) is not None
        if record.levelno >= logging.WARNING:
            self.append_warning(text)

    def append_warning(self, warning: str) -> None:
        self._warnings.append(warning)

    def format_last_masked_warning(self, url: str) -> str:
        """The last warning, without any part of the URL; empty if there is none."""
        mask = SecretMask(_list_apprise_url_parts(url))
        return to_safe_single_line(mask(self._warnings[-1]), MAX_MESSAGE_CAUSE_CHARS) if self._warnings else ""


def neutralize_mentions_and_links(text: str) -> str:
    """The text without mentions and links that a service may interpret: some parse plain text as well."""
    return _CHAT_MENTION_OR_LINK_START_PATTERN.sub(
        lambda match: _LOOKALIKE_BY_MENTION_OR_LINK_CHARACTER[match[0]], text
    )


def _create_apprise_service(url: str, log: _AppriseThreadLogHandler) -> NotifyBase:
    """Loads the library, which takes long the first time. Raises NotificationDeliveryError."""
    from apprise import Apprise

    service = Apprise.instantiate(url)
    if service is None:
        detail = log.format_last_masked_warning(url)
        raise NotificationDeliveryError(
            "apprise.invalid_url",
            f"Apprise cannot use the URL{detail and f': {detail}'}",
            retry_for_s=DELIVERY_CONFIG_ERROR_RETRY_DURATION_S,
        )
    return service


def _find_apprise_url_problem(url: str) -> str:
    """Why the URL cannot be used; empty if it may be valid. Quotes no other part of it than the service."""
    match = _VALID_APPRISE_URL_PATTERN.fullmatch(url)
    if match is None:
        return "expected an Apprise URL, such as ntfys://acme-oncall"
    if (schema := match["schema"].lower()) in LOCAL_APPRISE_SCHEMAS:
        return f"{schema}:// reaches only the machine that Watchdog runs on: choose a service on the network"
    return ""


def _get_apprise_schema(url: str) -> str:
    return url.partition("://")[0].lower()


def _list_apprise_url_parts(url: str) -> Iterator[str]:
    """The URL, and each part of it, as written and decoded: the library may log a token alone."""
    _, _, rest = url.partition("://")
    yield url
    for text in {rest, unquote(rest)}:
        for part in _APPRISE_URL_PART_SEPARATOR_PATTERN.split(text):
            if len(part) >= MIN_MASKED_APPRISE_URL_PART_CHARS:
                yield part


def _choose_apprise_notify_type(context: AlertMessageContext) -> Literal["failure", "warning", "info", "success"]:
    """Determines the colour and the icon."""
    if context.event is IncidentEvent.RESOLVED:
        return "success"
    return _NOTIFY_TYPE_BY_SEVERITY[find_highest_incident_severity(context)]
