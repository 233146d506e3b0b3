"""URLs are parsed once, by Watchdog's own rules."""

from __future__ import annotations

import re

import pytest

from watchdog.net.url import parse_http_url


@pytest.mark.parametrize(
    ("text", "origin", "authority", "path"),
    [
        ("http://api.example", ("http", "api.example", 80), "api.example", "/"),
        ("HTTPS://API.Example/A?b=C#d", ("https", "api.example", 443), "api.example", "/A?b=C"),
        ("https://api.example:443/", ("https", "api.example", 443), "api.example", "/"),
        ("https://api.example:80/", ("https", "api.example", 80), "api.example:80", "/"),
        ("http://[2001:DB8::1]:8080/x", ("http", "2001:db8::1", 8080), "[2001:db8::1]:8080", "/x"),
        ("http://[2001:db8:0:0::1]", ("http", "2001:db8::1", 80), "[2001:db8::1]", "/"),
        ("http://bücher.example/", ("http", "xn--bcher-kva.example", 80), "xn--bcher-kva.example", "/"),
        ("http://faß.example/", ("http", "xn--fa-hia.example", 80), "xn--fa-hia.example", "/"),
        ("http://a_b.example./x", ("http", "a_b.example.", 80), "a_b.example.", "/x"),
        ("http://h/a b/ü?q=ä b", ("http", "h", 80), "h", "/a%20b/%C3%BC?q=%C3%A4%20b"),
        ("http://h/a%2Fb?x=%20&y=[1]", ("http", "h", 80), "h", "/a%2Fb?x=%20&y=[1]"),
        ("http://h?x", ("http", "h", 80), "h", "/?x"),
        ("http://user:pa%3Ass@h/", ("http", "h", 80), "h", "/"),
    ],
)
def test_a_url_is_split(text: str, origin: tuple[str, str, int], authority: str, path: str) -> None:
    url = parse_http_url(text)
    assert (url.origin, url.authority, url.path_and_query) == (origin, authority, path)


def test_credentials_are_separated() -> None:
    url = parse_http_url("https://user:pa%3Ass@host/x")
    assert url.userinfo == "user:pa:ss"
    assert url.url_without_credentials == "https://host/x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a URL that starts with http:// or https://"),
        ("api.example/health", "expected a URL that starts with http:// or https://"),
        ("ftp://api.example", "expected a URL that starts with http:// or https://"),
        ("file:///etc/passwd", "expected a URL that starts with http:// or https://"),
        ("https:///path", "the URL has no host"),
        ("http://:80/", "the URL has no host"),
        ("http://a b.example/", "invalid host name: a b.example"),
        ("http://ex%61mple.com/", "invalid host name: ex%61mple.com"),
        ("http://-/", "invalid host name: -"),
        ("http://api.example:port/", "invalid URL: "),
        ("http://api.example:99999/", "invalid URL: "),
        ("http://api.example:0/", "invalid URL: port 0"),
        ("http://[::1/", "invalid URL: "),
        ("http://[fe80::1%25eth0]/", "invalid IPv6 address: fe80::1%25eth0"),
        ("http://[1:2]/", "invalid"),
        ("http://h/\nX: y", "a URL must not contain control characters, or spaces at its start or end"),
        (" http://h/", "a URL must not contain control characters, or spaces at its start or end"),
        ("http://h\\@evil/", "invalid URL: backslash"),
    ],
)
def test_an_invalid_url_has_an_explanation(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        parse_http_url(text)


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("/new", "https://h:8443/new"),
        ("next?x=1", "https://h:8443/a/next?x=1"),
        ("//other/x", "https://other/x"),
        ("http://other:81", "http://other:81/"),
        ("?page=2", "https://h:8443/a/b?page=2"),
        (" /spaced ", "https://h:8443/spaced"),
        ("https://user:pass@h:8443/", "https://h:8443/"),
    ],
)
def test_a_redirect_is_relative_to_its_url(location: str, text: str) -> None:
    target = parse_http_url("https://user:secret@h:8443/a/b").join(location)
    assert target.url_without_credentials == text


def test_redirects_carry_no_credentials() -> None:
    assert parse_http_url("https://u:p@h/").join("https://x:y@h/").userinfo == ""


@pytest.mark.parametrize(("length", "is_remembered"), [(100, True), (60_000, False)])
def test_only_short_urls_are_remembered(length: int, is_remembered: bool) -> None:
    """A redirect can lead to another long one each time."""
    text = f"https://acme.example/{'x' * length}"
    first, second = parse_http_url(text), parse_http_url(text)
    assert first == second
    assert (first is second) is is_remembered
