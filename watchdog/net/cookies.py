"""Cookies of one run: a server receives the cookies that its earlier responses in the run have set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from watchdog.net.url import ParsedHttpUrl

MAX_COOKIES_PER_ORIGIN = 50
MAX_SENT_COOKIE_HEADER_BYTES = 8 * 1024
"""Of all cookies in a request."""


class RunCookieJar:
    """Cookies by origin. They last for one run, are never stored, and are sent only to the origin that set them."""

    def __init__(self) -> None:
        self._cookies: dict[tuple[str, str, int], dict[tuple[str, str], str]] = {}

    def store(self, url: ParsedHttpUrl, set_cookie_headers: Iterable[str]) -> None:
        """Keeps the cookies of a response from this URL; one that has expired is deleted."""
        cookies = self._cookies.setdefault(url.origin, {})
        for name, value, attributes in map(_parse_set_cookie_header, set_cookie_headers):
            path = attributes.get("path", "")
            if not name or ("secure" in attributes and url.scheme != "https"):
                continue
            key = name, path if path.startswith("/") else _get_default_cookie_path(url)
            if attributes.get("max-age", "1").lstrip("+")[:1] in ("0", "-") or "1970" in attributes.get("expires", ""):
                cookies.pop(key, None)
            elif len(cookies) < MAX_COOKIES_PER_ORIGIN or key in cookies:
                cookies[key] = value

    @property
    def values(self) -> list[str]:
        """The values of all cookies, to be masked: session cookies are secrets."""
        return [value for cookies in self._cookies.values() for value in cookies.values()]

    def build_cookie_header(self, url: ParsedHttpUrl) -> str:
        """The value of the Cookie header; empty: there is none to send."""
        if not self._cookies:
            return ""
        path = url.path_and_query.partition("?")[0]
        matching = [
            (cookie_path, f"{name}={value}")
            for (name, cookie_path), value in self._cookies.get(url.origin, {}).items()
            if path == cookie_path or path.startswith(cookie_path.rstrip("/") + "/")
        ]
        header = "; ".join(pair for _, pair in sorted(matching, key=lambda item: -len(item[0])))
        return header if len(header) <= MAX_SENT_COOKIE_HEADER_BYTES else ""


class _SetCookieHeader(NamedTuple):
    name: str
    """Empty: the header is invalid."""
    value: str
    attributes: Mapping[str, str]
    """Lower-case name -> value: {"path": "/", "secure": ""}."""


def _parse_set_cookie_header(header: str) -> _SetCookieHeader:
    pair, *attribute_texts = header.split(";")
    name, separator, value = (part.strip() for part in pair.partition("="))
    attributes = (text.partition("=") for text in attribute_texts)
    return _SetCookieHeader(
        name if separator else "", value, {name.strip().lower(): value.strip() for name, _, value in attributes}
    )


def parse_cookie_values_by_name(set_cookie_headers: Iterable[str]) -> dict[str, str]:
    """The cookies that a response sets, by name."""
    parsed = map(_parse_set_cookie_header, set_cookie_headers)
    return {cookie.name: cookie.value for cookie in parsed if cookie.name}


def _get_default_cookie_path(url: ParsedHttpUrl) -> str:
    """The directory of the URL (RFC 6265, 5.1.4)."""
    return url.path_and_query.partition("?")[0].rpartition("/")[0] or "/"
