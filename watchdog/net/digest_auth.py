"""HTTP Digest authentication (RFC 7616)."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from watchdog.net.auth import HttpDigestAuth
    from watchdog.net.url import ParsedHttpUrl

MAX_REMEMBERED_DIGEST_CHALLENGES = 1_000
"""Beyond this, the one that was used longest ago is forgotten."""
MAX_DIGEST_CHALLENGE_CHARS = 8_192
_HASH_BY_ALGORITHM: Mapping[str, Callable[[bytes], hashlib._Hash]] = {
    "sha-256": hashlib.sha256,
    "sha-256-sess": hashlib.sha256,
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False),
    "md5-sess": lambda data: hashlib.md5(data, usedforsecurity=False),
}
"""The first one that the server offers is used."""
_CHALLENGE_PART_PATTERN = re.compile(
    r"""\s*(?:(?P<name>[\w!#$%&'*+.^`|~-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s,"]*))"""
    r"|(?P<scheme>[\w!#$%&'*+.^`|~-]+)(?=\s|,|$)|,)"
)
_CacheKey: TypeAlias = "tuple[HttpDigestAuth, tuple[str, str, int]]"


@dataclass(slots=True)
class DigestChallenge:
    """What a server requires, and how often it was answered."""

    realm: str
    nonce: str
    algorithm: str
    """Lower case."""
    algorithm_as_sent: str
    """Empty: the server states none."""
    opaque: str | None = None
    has_qop: bool = False
    """Whether the server offers qop=auth; otherwise it follows RFC 2069."""
    hashes_username: bool = False
    use_count: int = 0


def parse_digest_challenge(header: str) -> DigestChallenge | None:
    """The best challenge in the value of `WWW-Authenticate` that Watchdog can answer. None: there is none."""
    if len(header) > MAX_DIGEST_CHALLENGE_CHARS:
        return None
    challenges = [
        challenge
        for scheme, parameters in _iter_challenges(header)
        if scheme == "digest" and (challenge := _build_digest_challenge(parameters))
    ]
    ranking = list(_HASH_BY_ALGORITHM)
    return min(challenges, key=lambda challenge: ranking.index(challenge.algorithm), default=None)


def _iter_challenges(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Scheme in lower case, and its parameters by lower-case name."""
    scheme, parameters, position = "", dict[str, str](), 0
    while position < len(header) and (part := _CHALLENGE_PART_PATTERN.match(header, position)):
        position = part.end()
        if part["scheme"]:
            yield scheme, parameters
            scheme, parameters = part["scheme"].lower(), {}
        elif part["name"]:
            quoted = part["quoted"]
            value = part["token"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(part["name"].lower(), value)
    yield scheme, parameters


def _build_digest_challenge(parameters: Mapping[str, str]) -> DigestChallenge | None:
    algorithm = parameters.get("algorithm", "MD5")
    qops = {qop.strip().lower() for qop in parameters.get("qop", "").split(",")} - {""}
    if algorithm.lower() not in _HASH_BY_ALGORITHM or not parameters.get("nonce") or (qops and "auth" not in qops):
        return None
    return DigestChallenge(
        parameters.get("realm", ""),
        parameters["nonce"],
        algorithm.lower(),
        parameters.get("algorithm", ""),
        parameters.get("opaque"),
        has_qop=bool(qops),
        hashes_username=parameters.get("userhash", "").lower() == "true",
    )


def build_digest_authorization(
    challenge: DigestChallenge, credentials: HttpDigestAuth, method: str, uri: str, *, client_nonce: str
) -> str:
    """The value of `Authorization`. `uri`: as in the request line. Counts the use of the nonce."""
    challenge.use_count += 1

    def digest(*parts: str) -> str:
        return _HASH_BY_ALGORITHM[challenge.algorithm](":".join(parts).encode()).hexdigest()

    username, realm, nonce = credentials.username, challenge.realm, challenge.nonce
    secret = digest(username, realm, credentials.password.get_secret_value())
    if challenge.algorithm.endswith("-sess"):
        secret = digest(secret, nonce, client_nonce)
    count, request = f"{challenge.use_count:08x}", digest(method, uri)
    response = digest(secret, nonce, *((count, client_nonce, "auth") if challenge.has_qop else ()), request)
    quoted = {
        "username": digest(username, realm) if challenge.hashes_username else username,
        "realm": realm,
        "nonce": nonce,
        "uri": uri,
        "response": response,
        **({} if challenge.opaque is None else {"opaque": challenge.opaque}),
        **({"cnonce": client_nonce} if challenge.has_qop or challenge.algorithm.endswith("-sess") else {}),
    }
    unquoted = {
        **({"algorithm": challenge.algorithm_as_sent} if challenge.algorithm_as_sent else {}),
        **({"qop": "auth", "nc": count} if challenge.has_qop else {}),
        **({"userhash": "true"} if challenge.hashes_username else {}),
    }
    texts = [f'{name}="{_escape_quoted(value)}"' for name, value in quoted.items()]
    return f"Digest {', '.join([*texts, *(f'{name}={value}' for name, value in unquoted.items())])}"


def _escape_quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


class DigestChallengeCache:
    """The challenges of servers, by credentials and origin, so that a request need not be refused first."""

    def __init__(self) -> None:
        self._challenges: OrderedDict[_CacheKey, DigestChallenge] = OrderedDict()

    def build_authorization(self, credentials: HttpDigestAuth, url: ParsedHttpUrl, method: str) -> str:
        """The value of `Authorization`; empty: the server has not sent a challenge yet."""
        key = credentials, url.origin
        if (challenge := self._challenges.get(key)) is None:
            return ""
        self._challenges.move_to_end(key)
        return build_digest_authorization(
            challenge, credentials, method, url.path_and_query, client_nonce=secrets.token_hex(16)
        )

    def learn(self, credentials: HttpDigestAuth, url: ParsedHttpUrl, challenge_header: str) -> bool:
        """Remembers the challenge of a response that refuses a request. Returns whether another attempt may succeed:
        there is a challenge, and the request did not answer this one already."""
        key, challenge = (credentials, url.origin), parse_digest_challenge(challenge_header)
        former = self._challenges.pop(key, None)
        if challenge is None or (former is not None and former.use_count and former.nonce == challenge.nonce):
            return False
        self._challenges[key] = challenge
        if len(self._challenges) > MAX_REMEMBERED_DIGEST_CHALLENGES:
            self._challenges.popitem(last=False)
        return True

    def forget(self, credentials: HttpDigestAuth, url: ParsedHttpUrl) -> None:
        self._challenges.pop((credentials, url.origin), None)
