"""Reads urlencoded forms: those of pages, which are short, and those that Slack sends."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_FORM_BYTES = 16_384
"""Anyone may send the form to sign in. FastAPI's own form parser would keep a gigabyte of it in memory or on disk."""

FORM_RECEIVE_TIMEOUT_S = 10.0
"""The connections that send a form slowly count towards those that the server accepts."""


async def read_form(request: Request, max_bytes: int = MAX_FORM_BYTES) -> dict[str, str]:
    """The fields of a page's form. Raises HTTPException if it is too long, or not sent in time."""
    body = await read_raw_form_body_bytes(request, max_bytes)
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


async def read_raw_form_body_bytes(request: Request, max_bytes: int) -> bytes:
    """A form as it was sent. Raises HTTPException if it is too long, or not sent in time."""
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_RECEIVE_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise HTTPException(413, "The form is too long")
    except TimeoutError:
        raise HTTPException(408, "The form was not sent in time") from None
    return bytes(body)
