"""One POST to a receiver, and what its answer means for the outbox."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import AfterValidator, WithJsonSchema

from watchdog.fields import FROM_FILE
from watchdog.notifiers.base import MENDING, DeliveryError, unreached
from watchdog.wire import fault_of, harmless
from watchdog.wire.url import parse_url

if TYPE_CHECKING:
    from watchdog.wire import Wire


def usable(url: str) -> str:
    """Raises ValueError, with a message for people, unless it is an absolute http or https URL."""
    parse_url(url)
    return url


Url = Annotated[str, AfterValidator(usable), WithJsonSchema({"type": "string", "pattern": "^https?://"}), FROM_FILE]

MOST = 64 * 1024
"""Bytes read of an answer."""
READING = 5.0
"""Seconds that an answer's text may take after its status, which decides by itself."""
LONGEST_WAIT = 3_600.0
"""Seconds that a receiver may make us wait."""
PATIENT = frozenset({408, 425, 429})
"""Refusals that time heals."""
CONTENT = frozenset({400, 413, 415, 422})
"""Refusals of what we send, which stays the same. Any other 4xx is about keys, addresses and proxies."""


class Answer(NamedTuple):
    status: int
    text: str
    retry_after: float | None
    """Seconds."""


async def post(wire: Wire, url: str, body: bytes, headers: Mapping[str, str], *, now: int) -> Answer:
    """Raises DeliveryError when no answer came. `now`: epoch ms, which a dated Retry-After is measured from."""
    import httpx

    read = bytearray()
    headers = {"content-type": "application/json", "accept-encoding": "identity", **headers}
    try:
        async with wire.client.stream("POST", url, content=body, headers=headers) as response:
            with suppress(httpx.HTTPError, TimeoutError):  # the receiver has decided: asking again would be a copy
                async with asyncio.timeout(READING):
                    async for chunk in response.aiter_raw():
                        read += chunk
                        if len(read) >= MOST:
                            break
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as e:
        # The exception itself may quote the URL or a header, and so a secret.
        fault = fault_of(e)
        if fault is None:
            raise DeliveryError("delivery.invalid_request", "the URL or a header cannot be sent", retry_for=0) from None
        raise unreached(fault, parse_url(url).host, parse_url(url).port) from None
    text = harmless(read[:MOST].decode("utf-8", "replace"))
    return Answer(response.status_code, text, _retry_after(response.headers.get("retry-after"), now))


def refusal(answer: Answer) -> DeliveryError | None:
    """The error that the answer's status stands for; None for a 2xx."""
    status = answer.status
    if 200 <= status < 300:
        return None
    lasts = math.inf if status in PATIENT or not 400 <= status < 500 else 0 if status in CONTENT else MENDING
    what = "redirects are not followed" if 300 <= status < 400 else "try later" if status in PATIENT else ""
    said = " ".join(answer.text.split())[:100]
    message = f"got {status}" + (f" ({what})" if what else "") + (f": {said}" if said else "")
    reason = "http.429" if status == 429 else f"http_{status}"
    return DeliveryError(reason, message, retry_for=lasts, retry_after=answer.retry_after)


def _retry_after(value: str | None, now: int) -> float | None:
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
        seconds = then.replace(tzinfo=then.tzinfo or UTC).timestamp() - now / 1_000
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None
