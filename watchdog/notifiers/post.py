"""POST requests to receivers, and what their responses mean for the outbox."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from watchdog.domain.text import replace_unsafe_characters, to_single_line
from watchdog.domain.timestamps import to_epoch_ms
from watchdog.net import error_from_exception
from watchdog.net.url import parse_url
from watchdog.notifiers.base import CONFIG_ERROR_RETRY_S, DeliveryError, unreachable_error

if TYPE_CHECKING:
    from watchdog.net import Network


MAX_RESPONSE_BYTES = 64 * 1024
BODY_TIMEOUT_S = 5.0
"""Timeout for the body. The status alone decides whether the delivery succeeded."""
MAX_RETRY_AFTER_S = 3_600.0
TRANSIENT_STATUSES = frozenset({408, 425, 429})
"""Errors that pass by themselves."""
REJECTED_CONTENT_STATUSES = frozenset({400, 413, 415, 422})
"""Errors about the message itself. All other 4xx errors are about tokens, addresses and proxies."""


class ReceiverResponse(NamedTuple):
    status: int
    body_text: str
    retry_after_s: float | None


async def post_json(
    network: Network, url: str, body: bytes, headers: Mapping[str, str], *, now: int
) -> ReceiverResponse:
    """Raises DeliveryError if there is no response. `now`: in epoch ms; a Retry-After date is measured from it."""
    import asyncio

    import httpx

    read = bytearray()
    headers = {"content-type": "application/json", "accept-encoding": "identity", **headers}
    try:
        async with network.notifier_http_client.stream("POST", url, content=body, headers=headers) as response:
            with suppress(httpx.HTTPError, TimeoutError):  # the status decides; a retry would deliver a copy
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    async for chunk in response.aiter_raw():
                        read += chunk
                        if len(read) >= MAX_RESPONSE_BYTES:
                            break
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exception:
        # The text of the exception may quote the URL or a header, and so a secret.
        error = error_from_exception(exception)
        if error is None:
            message = "the URL or a header is not valid in HTTP"
            raise DeliveryError("delivery.invalid_request", message, retry_for_s=0) from None
        raise unreachable_error(error, parse_url(url).host, parse_url(url).port) from None
    text = replace_unsafe_characters(read[:MAX_RESPONSE_BYTES].decode("utf-8", "replace"))
    return ReceiverResponse(response.status_code, text, _parse_retry_after(response.headers.get("retry-after"), now))


def error_from_status(response: ReceiverResponse) -> DeliveryError | None:
    """The error that the status of a response stands for. None for 2xx."""
    status, note, retry_for_s = response.status, "", math.inf
    if 200 <= status < 300:
        return None
    if status in TRANSIENT_STATUSES:
        note = " (try again later)"
    elif status in REJECTED_CONTENT_STATUSES:
        retry_for_s = 0
    elif 400 <= status < 500:
        retry_for_s = CONFIG_ERROR_RETRY_S
    elif 300 <= status < 400:
        note = " (redirects are not followed)"
    body_line = to_single_line(response.body_text, 100)
    message = f"HTTP {status}{note}{body_line and f': {body_line}'}"
    return DeliveryError(f"http.{status}", message, retry_for_s=retry_for_s, retry_after_s=response.retry_after_s)


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
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else None
