"""Cookies of one run: a server gets back what it set before it redirected."""

from __future__ import annotations

from collections.abc import Iterable

from watchdog.net.url import ParsedHttpUrl

MAX_COOKIES_PER_ORIGIN = 50
MAX_SENT_COOKIE_HEADER_BYTES = 8 * 1024
"""Of all cookies in a request."""


class RunCookieJar:
    """Cookies by origin. They live for one run, are never stored, and go to the origin that set them alone."""

    def __init__(self) -> None:
        self._cookies: dict[tuple[str, str, int], dict[tuple[str, str], str]] = {}

    def store(self, url: ParsedHttpUrl, set_cookie_headers: Iterable[str]) -> None:
        """Keeps the cookies of a response from this URL; one that has expired is deleted."""
        cookies = self._cookies.setdefault(url.origin, {})
        for header in set_cookie_headers:
            pair, *attribute_texts = header.split(";")
            name, separator, value = (part.strip() for part in pair.partition("="))
            attributes = _parse_cookie_attributes(attribute_texts)
            path = attributes.get("path", "")
            if not separator or not name or ("secure" in attributes and url.scheme != "https"):
                continue
            key = name, path if path.startswith("/") else _get_default_cookie_path(url)
            if attributes.get("max-age", "1").lstrip("+")[:1] in ("0", "-") or "1970" in attributes.get("expires", ""):
                cookies.pop(key, None)
            elif len(cookies) < MAX_COOKIES_PER_ORIGIN or key in cookies:
                cookies[key] = value

    def build_cookie_header(self, url: ParsedHttpUrl) -> str:
        """The value of the Cookie header; empty: there is none to send."""
        path = url.path_and_query.partition("?")[0]
        matching = [
            (cookie_path, f"{name}={value}")
            for (name, cookie_path), value in self._cookies.get(url.origin, {}).items()
            if path == cookie_path or path.startswith(cookie_path.rstrip("/") + "/")
        ]
        header = "; ".join(pair for _, pair in sorted(matching, key=lambda item: -len(item[0])))
        return header if len(header) <= MAX_SENT_COOKIE_HEADER_BYTES else ""


def _parse_cookie_attributes(texts: Iterable[str]) -> dict[str, str]:
    """Lower-case name -> value: {"path": "/", "secure": ""}."""
    pairs = (text.partition("=") for text in texts)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _get_default_cookie_path(url: ParsedHttpUrl) -> str:
    """The directory of the URL (RFC 6265, 5.1.4)."""
    return url.path_and_query.partition("?")[0].rpartition("/")[0] or "/"
