"""POST requests to receivers, and what their responses mean for the outbox."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from watchdog.domain.model import Json
from watchdog.domain.text import replace_invisible_characters, truncate_to_single_line
from watchdog.domain.timestamps import to_epoch_ms
from watchdog.net import ProbeError, build_probe_error_from_exception
from watchdog.net.url import parse_http_url
from watchdog.notifiers.base import (
    DELIVERY_CONFIG_ERROR_RETRY_DURATION_S,
    NotificationDeliveryError,
    build_notification_receiver_unreachable_error,
)

if TYPE_CHECKING:
    from watchdog.expressions import CelExpression
    from watchdog.net import NetworkAccess


MAX_NOTIFICATION_RESPONSE_BYTES = 64 * 1024
NOTIFICATION_RESPONSE_BODY_TIMEOUT_S = 5.0
"""Timeout for the body. What was read of it until then is judged."""
MAX_DELIVERY_RETRY_AFTER_S = 3_600.0
TRANSIENT_4XX_DELIVERY_HTTP_STATUSES = frozenset({408, 425, 429})
"""Errors that pass by themselves."""
REJECTED_NOTIFICATION_HTTP_STATUSES = frozenset({400, 413, 415, 422})
"""Errors about the message itself. All other 4xx errors are about tokens, addresses and proxies."""


WEBHOOK_NOTIFIER_CONFIRM_VARIABLE_TYPES = {"status": "int", "headers": "map(string, string)", "body": "dyn"}
"""The variables of `confirm`, with their CEL types."""
_HTML_DOCUMENT_PATTERN = re.compile(
    r"\s*+(<\?xml\b[^>]*>\s*+)?(<!--.*?-->\s*+)*+<(!doctype html|html)\b", re.IGNORECASE | re.DOTALL
)
"""Possessive: otherwise a body of comments would be divided in every possible way, in exponential time."""


class NotificationResponse(NamedTuple):
    status: int
    body_text: str
    retry_after_s: float | None
    headers: Mapping[str, str] = {}
    """By lower-case name."""
    is_complete: bool = True
    """Whether the body was read to its end, or to the limit."""

    @property
    def json_or_text_body(self) -> Json:
        """The body as JSON if it is JSON, else as text."""
        try:
            return json.loads(self.body_text)
        except (ValueError, RecursionError):
            return self.body_text


async def post_notification_json_without_status_check(
    network: NetworkAccess, url: str, body: bytes, headers: Mapping[str, str], *, now: int
) -> NotificationResponse:
    """Raises NotificationDeliveryError if there is no response. `now`: in epoch ms; a Retry-After date is measured from
    it."""
    import asyncio

    import httpx

    read, is_complete = bytearray(), False
    headers = {"content-type": "application/json", "accept-encoding": "identity", **headers}
    try:
        async with network.notifier_http_client.stream("POST", url, content=body, headers=headers) as response:
            with suppress(httpx.HTTPError, TimeoutError):  # the request was accepted; a retry would deliver a copy
                async with asyncio.timeout(NOTIFICATION_RESPONSE_BODY_TIMEOUT_S):
                    async for chunk in response.aiter_raw():
                        read += chunk
                        if len(read) >= MAX_NOTIFICATION_RESPONSE_BYTES:
                            break
                is_complete = True
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exception:
        # The text of the exception may quote the URL or a header, and so a secret.
        error = build_probe_error_from_exception(exception)
        if error is None:
            message = "the URL or a header is not valid in HTTP"
            raise NotificationDeliveryError(
                "delivery.invalid_request", message, retry_for_s=DELIVERY_CONFIG_ERROR_RETRY_DURATION_S
            ) from None
        raise build_notification_receiver_unreachable_error(
            error, parse_http_url(url).host, parse_http_url(url).port
        ) from None
    content = _decompress_notification_response(read, response.headers.get("content-encoding", ""))[
        :MAX_NOTIFICATION_RESPONSE_BYTES
    ]
    text = replace_invisible_characters(content.decode("utf-8-sig", "replace"))
    retry_after_s = _parse_retry_after(response.headers.get("retry-after"), now)
    return NotificationResponse(response.status_code, text, retry_after_s, dict(response.headers), is_complete)


def _decompress_notification_response(data: bytearray, content_encoding: str) -> bytes | bytearray:
    """What a proxy has compressed, although the request asks for no compression. Other data is returned as it is."""
    from watchdog.net.content_encoding import ContentEncodingDecoder, UnsupportedContentEncodingError

    with suppress(UnsupportedContentEncodingError, ProbeError):
        return ContentEncodingDecoder(content_encoding, MAX_NOTIFICATION_RESPONSE_BYTES).decode(data)
    return data


def build_delivery_error_from_status(response: NotificationResponse) -> NotificationDeliveryError | None:
    """The error that the status of a response stands for. None for 2xx."""
    status, note, retry_for_s = response.status, "", math.inf
    if 200 <= status < 300:
        return None
    if status in TRANSIENT_4XX_DELIVERY_HTTP_STATUSES:
        note = " (try again later)"
    elif status in REJECTED_NOTIFICATION_HTTP_STATUSES:
        retry_for_s = 0
    elif 400 <= status < 500:
        retry_for_s = DELIVERY_CONFIG_ERROR_RETRY_DURATION_S
    elif 300 <= status < 400:
        note = " (redirects are not followed)"
    body_line = truncate_to_single_line(response.body_text, 100)
    message = f"HTTP {status}{note}{body_line and f': {body_line}'}"
    return NotificationDeliveryError(
        f"http.{status}", message, retry_for_s=retry_for_s, retry_after_s=response.retry_after_s
    )


def require_response_confirms_notification(response: NotificationResponse, confirm: CelExpression | None) -> None:
    """Raises NotificationDeliveryError unless a 2xx response confirms the delivery: unless its body denies it with `ok:
    false`, or shows that another program answered, such as a login page. `confirm` replaces both conditions."""
    body = response.json_or_text_body
    is_denied = isinstance(body, dict) and body.get("ok") is False
    body_line = truncate_to_single_line(response.body_text, 100)
    excerpt = body_line and f": {body_line}"
    if confirm is None:
        is_confirmed = not is_denied and not _HTML_DOCUMENT_PATTERN.match(response.body_text)
        expectation = "the body is an HTML document"
    else:
        is_confirmed, expectation = _evaluate_delivery_confirmation_expression(confirm, response, body)
    if is_denied and not is_confirmed:
        message = f"HTTP {response.status}, but the body reports a failure{excerpt}"
        raise NotificationDeliveryError("delivery.denied", message, retry_after_s=response.retry_after_s)
    if not is_confirmed:
        message = f"HTTP {response.status} does not confirm delivery: {expectation}{excerpt}"
        raise NotificationDeliveryError("delivery.unconfirmed", message, maybe_delivered=True)


def _evaluate_delivery_confirmation_expression(
    confirm: CelExpression, response: NotificationResponse, body: Json
) -> tuple[bool, str]:
    """Whether the expression is true, and why not."""
    from watchdog.expression_failures import describe_false_expression
    from watchdog.expressions import CelExpressionError

    values: dict[str, Json] = {"status": response.status, "headers": dict(response.headers), "body": body}
    try:
        is_confirmed = confirm.evaluate_bool(values)
    except CelExpressionError as error:
        return False, f"{confirm.text} cannot be evaluated: {error}"
    return is_confirmed, "" if is_confirmed else describe_false_expression(confirm, values)


def _parse_retry_after(value: str | None, now: int) -> float | None:
    """In seconds, from a number of seconds or a date. None if the header is absent or invalid."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            retry_at = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        seconds = (to_epoch_ms(retry_at) - now) / 1_000
    return min(max(seconds, 0.0), MAX_DELIVERY_RETRY_AFTER_S) if math.isfinite(seconds) else None
