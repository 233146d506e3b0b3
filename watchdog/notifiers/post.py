"""One POST to a receiver, and what its answer means for the outbox."""

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
"""Bytes read of an answer."""
BODY_TIMEOUT_S = 5.0
"""Seconds that an answer's text may take after its status, which decides by itself."""
MAX_RETRY_AFTER_S = 3_600.0
"""Seconds that a receiver may make us wait."""
TRANSIENT_STATUSES = frozenset({408, 425, 429})
"""Refusals that time heals."""
REJECTED_CONTENT_STATUSES = frozenset({400, 413, 415, 422})
"""Refusals of what we send, which stays the same. Any other 4xx is about keys, addresses and proxies."""


class ReceiverResponse(NamedTuple):
    status: int
    body_text: str
    retry_after_s: float | None
    """Seconds."""


async def post_json(
    network: Network, url: str, body: bytes, headers: Mapping[str, str], *, now: int
) -> ReceiverResponse:
    """Raises DeliveryError when no answer came. `now`: epoch ms, which a dated Retry-After is measured from."""
    import asyncio

    import httpx

    read = bytearray()
    headers = {"content-type": "application/json", "accept-encoding": "identity", **headers}
    try:
        async with network.notifier_http_client.stream("POST", url, content=body, headers=headers) as response:
            with suppress(httpx.HTTPError, TimeoutError):  # the receiver has decided: asking again would be a copy
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    async for chunk in response.aiter_raw():
                        read += chunk
                        if len(read) >= MAX_RESPONSE_BYTES:
                            break
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as e:
        # The exception itself may quote the URL or a header, and so a secret.
        fault = error_from_exception(e)
        if fault is None:
            raise DeliveryError(
                "delivery.invalid_request", "the URL or a header cannot be sent", retry_for_s=0
            ) from None
        raise unreachable_error(fault, parse_url(url).host, parse_url(url).port) from None
    text = replace_unsafe_characters(read[:MAX_RESPONSE_BYTES].decode("utf-8", "replace"))
    return ReceiverResponse(response.status_code, text, _parse_retry_after(response.headers.get("retry-after"), now))


def error_from_status(response: ReceiverResponse) -> DeliveryError | None:
    """The error that the answer's status stands for; None for a 2xx."""
    status = response.status
    if 200 <= status < 300:
        return None
    lasts = (
        math.inf
        if status in TRANSIENT_STATUSES or not 400 <= status < 500
        else 0
        if status in REJECTED_CONTENT_STATUSES
        else CONFIG_ERROR_RETRY_S
    )
    what = "redirects are not followed" if 300 <= status < 400 else "try later" if status in TRANSIENT_STATUSES else ""
    said = to_single_line(response.body_text, 100)
    message = f"got {status}" + (f" ({what})" if what else "") + (f": {said}" if said else "")
    return DeliveryError(f"http.{status}", message, retry_for_s=lasts, retry_after_s=response.retry_after_s)


def _parse_retry_after(value: str | None, now: int) -> float | None:
    """Seconds or a date -> seconds; None when there is none, or none that can be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            then = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        seconds = (to_epoch_ms(then) - now) / 1_000
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else None
