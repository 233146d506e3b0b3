"""The mask of one run's secrets: whole ones, encoded ones, and those whose end is cut off."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.domain.model import Evidence
from watchdog.net.run_secrets import RunSecretMask

WORDS = st.sampled_from(["q" * 8, "q", "a", "b", " ", "…"])
SECRETS = st.lists(st.text("ab", max_size=5).map("qqqqqqqq".__add__), min_size=1, max_size=5)


def mask_of(*secrets: str) -> RunSecretMask:
    mask = RunSecretMask()
    mask.add(secrets)
    return mask


def mask_slowly(text: str, secrets: list[str]) -> str:
    """At each position, the longest secret, or one that is cut off."""
    masked, position = "", 0
    while position < len(text):
        complete = [secret for secret in secrets if text.startswith(secret, position)]
        rest = text[position:].partition("…")[0]
        if complete:
            position += len(max(complete, key=len))
            masked += "•••"
        elif len(rest) >= 8 and any(secret.startswith(rest) for secret in secrets):
            position += len(rest)
            masked += "•••"
        else:
            masked += text[position]
            position += 1
    return masked


@given(st.lists(WORDS, max_size=12).map("".join), SECRETS)
def test_every_secret_is_masked_wherever_it_is(text: str, secrets: list[str]) -> None:
    assert mask_of(*secrets)(text) == mask_slowly(text, secrets)


@pytest.mark.parametrize(
    ("secrets", "text", "masked"),
    [
        (["abcdefgh"], "xabcdefghx", "x•••x"),
        (["abcdefgh"], "abcdefg", "abcdefg"),
        (["abcdefghijkl"], "it is abcdefgh", "it is •••"),
        (["abcdefghijkl"], "it is abcdefgh…, not x", "it is •••…, not x"),
        (["abcdefghijkl"], "it is abcdefgh, not x", "it is abcdefgh, not x"),
        (["abc"], "abc abcd xabc abc.", "••• abcd xabc •••."),
        (["17", "-"], "17 - 170", "••• - 170"),
        (["", "..", "--------"], ".. --------", ".. •••"),
        (["a b/c?dé"], "a%20b%2Fc%3Fd%C3%A9 a%20b%2fc%3fd%c3%a9 a+b%2Fc%3Fd%C3%A9 a b/c?d\\u00e9", "••• ••• ••• •••"),
        (["x" * 600 + "/é"], "x" * 600 + "%2F%C3%A9 " + "x" * 600 + "/\\u00e9", "••• •••"),
    ],
)
def test_what_is_masked(secrets: list[str], text: str, masked: str) -> None:
    assert mask_of(*secrets)(text) == masked


def test_secrets_that_almost_occur_everywhere_hold_nothing_up() -> None:
    secrets = ["a" * 8_000 + "0" * number + "b" for number in range(1, 11)]
    mask, text = mask_of(*secrets), "a" * 9_999 + "b"
    started_s = process_time()
    assert mask(text) == text
    assert process_time() - started_s < 1, "a loop over characters would take 3 s"


def test_secrets_can_be_added_later() -> None:
    mask = mask_of("first-secret", "one")
    mask.add(["second-secret", "two", "first-secret"])
    assert mask("first-secret second-secret one two") == "••• ••• ••• •••"


def test_evidence_is_masked() -> None:
    mask = mask_of("t0ken-of-acme?x=1")
    facts = {"expect": {"body == 't0ken-of-acme?x=1'": "false"}, "status": 200, "t0ken-of-acme?x=1": "kept"}
    excerpt = 'HTTP/1.1 200 OK\nlocation: t0ken-of-acme\n\n{"password": "other", "a": "t0ken-of-acme?x=1"}'
    masked = mask.mask_evidence(Evidence(facts, excerpt))
    assert masked.facts["expect"] == {"body == '•••'": "false"}
    assert masked.facts["status"] == 200
    assert masked.excerpt == 'HTTP/1.1 200 OK\nlocation: •••\n\n{"password": "•••", "a": "•••"}'
