"""Secrets and harmful characters are removed from text for people."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest

from watchdog.net import SecretMask, mask_and_truncate_json_tree, strip_url_to_scheme_host_and_path

SECRETS = (
    "hunter2hunter2",
    "p@ss w0rd/with+all&of<it>\"'",
    "mot-de-passe-très-secret",
    "line one\nline two\ttabbed",
    "back\\slash-and-$(dollar)",
    "xoxb-1234567890-ABCdef",
    "密码密码密码密码",
    "a%20b%2Fc-already",
)

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in a path": quote,
    "in a path, no slash": lambda s: quote(s, safe=""),
    "in a query": quote_plus,
    "in a form": lambda s: urlencode({"password": s}),
    "percent, lower case": lambda s: re.sub("%..", lambda m: m[0].lower(), quote(s, safe="")),
    "in JSON": lambda s: json.dumps({"k": s}),
    "in JSON, not ASCII": lambda s: json.dumps({"k": s}, ensure_ascii=False),
    "in JSON by PHP": lambda s: json.dumps({"k": s}).replace("/", "\\/"),
    "in HTML": html.escape,
    "in base64": lambda s: base64.b64encode(s.encode()).decode(),
    "in URL-safe base64": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "as Basic authorization": lambda s: base64.b64encode(f"watchdog:{s}".encode()).decode(),
    "as Basic authorization of a": lambda s: base64.b64encode(f"a:{s}".encode()).decode(),
    "as Basic authorization of ab": lambda s: base64.b64encode(f"ab:{s}:more".encode()).decode(),
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_masked_in_every_encoding(secret: str, spelling: str) -> None:
    spelled_secret = SPELLINGS[spelling](secret)
    masked = SecretMask(SECRETS)(f"before {spelled_secret} after")
    assert "•••" in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert secret not in masked
    left_over = masked.replace("•••", "").removeprefix("before ").removesuffix(" after")
    assert len(left_over) <= 18, left_over  # the text around the secret: `{"k": ""}`, the user's name


def test_the_longer_of_two_overlapping_secrets_is_masked() -> None:
    assert SecretMask(["secret-key", "secret-key-of-production"])("x secret-key-of-production y") == "x ••• y"


def test_masking_covers_nested_values_and_changes_nothing_else() -> None:
    value = {"token hunter22": ["hunter22", 1, None, {"a": "is hunter22!"}], "n": 1.5, "t": ("hunter22",), "ok": True}
    assert SecretMask(["hunter22"]).mask_json(value) == {
        "token •••": ["•••", 1, None, {"a": "is •••!"}],
        "n": 1.5,
        "t": ["•••"],
        "ok": True,
    }


@pytest.mark.parametrize("values", [(), ("",)])
def test_without_secrets_nothing_is_masked(values: tuple[str, ...]) -> None:
    assert SecretMask(values)("anything at all") == "anything at all"


def test_the_beginning_of_a_secret_is_masked_where_a_text_was_cut() -> None:
    """Texts of targets are shortened before they are masked, so a target could have all but the end of one shown."""
    mask = SecretMask(["s3cret-0123/456789"])
    for length in range(4, 18):
        for spelling in ("s3cret-0123/456789"[:length], "s3cret-0123%2F456789"[:length]):
            assert mask(f"HTTP 403: no {spelling}…; and …") == "HTTP 403: no •••…; and …"
            assert mask("x" * 1_000 + spelling) == "x" * 1_000 + "•••"
    for text in ("no s3c…", "no s3cret…x", "s3cret-0", "s3cret-01 …", "s3cres…", "…s3cret-0 ", "no s3cret-01"):
        assert mask(text) == (text if "s3cret…" not in text else "no •••…x")
    assert SecretMask(["aaaaabbbb"])("aaaaaaaabbb…") == "aaa•••…"
    other = SecretMask(())
    other.use_secrets_of(mask)
    assert other("s3cret-…") == "•••…"


def test_a_short_secret_is_masked_and_similar_text_is_not() -> None:
    mask = SecretMask(["ab1"])
    assert mask("the ab1 and YWIx") == "the ••• and YWIx"
    assert mask("a dull sentence about base64 text") == "a dull sentence about base64 text"


def test_json_of_a_target_is_made_safe_to_show() -> None:
    nested_list: list[object] = []
    for _ in range(50):
        nested_list = [nested_list]
    value = {
        "a": "x" * 3_000,
        "hunter22": "\x00hunter22",
        "many": list(range(150)),
        "deep": nested_list,
        7: {"k": None},
    }
    sanitized = mask_and_truncate_json_tree(value, SecretMask(["hunter22"]), max_chars=100)
    assert sanitized["a"] == "x" * 100 + "… cut after 100 characters"
    assert sanitized["•••"] == "�•••"
    assert sanitized["many"][99:] == [99, "… cut, 150 entries in total"]
    assert "nested too deeply" in str(sanitized["deep"])
    assert sanitized["7"] == {"k": None}
    assert (
        mask_and_truncate_json_tree({str(i): i for i in range(101)}, SecretMask(()))["…"] == "cut, 101 entries in total"
    )
    numbers = mask_and_truncate_json_tree([0.5, math.nan, {"a": -math.inf}], SecretMask(()))
    assert numbers == [0.5, "nan", {"a": "-inf"}], "JSON has no such numbers"


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("https://api.example/health", "https://api.example/health"),
        ("https://user:password@api.example:8443/a/b?token=1#part", "https://api.example:8443/a/b"),
        ("http://[2001:db8::1]:80/x?y", "http://[2001:db8::1]:80/x"),
        ("redis://:password@cache:6379/0", "redis://cache:6379/0"),
        ("/relative?secret=1", "/relative"),
        ("//user:password@api.example/a?secret=1", "//api.example/a"),
        ("mailto:oncall@acme.example?secret=1", "mailto:oncall@acme.example"),
        ("http://[broken", "an invalid URL"),
        ("http://host:99999/", "an invalid URL"),
        ("http://host/\x1b[31m", "http://host/�[31m"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_parts_that_may_be_secret(url: str, redacted: str) -> None:
    assert strip_url_to_scheme_host_and_path(url) == redacted
