"""What a server demands of clients without valid credentials: the header WWW-Authenticate of an HTTP 401 or 403."""

from __future__ import annotations

import re
from typing import NamedTuple

from watchdog.domain.model import Json
from watchdog.domain.text import replace_invisible_characters, truncate_to_single_line
from watchdog.net.redact import strip_url_to_scheme_host_and_path

MAX_AUTH_CHALLENGE_CHARS = 2_000
_MAX_CHALLENGE_VALUE_CHARS = 200
_SCHEME_PATTERN = re.compile(r"\s*([A-Za-z][A-Za-z0-9_-]{0,30})(?=\s|,|$)")
_PARAMETER_PATTERN = re.compile(r'([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class AuthChallenge(NamedTuple):
    """The first challenge of the header, without what is not of use to people."""

    scheme: str
    """Such as "Bearer"."""
    error: str = ""
    """A code of OAuth: "invalid_token"."""
    error_description: str = ""
    """Untrusted."""
    scope: str = ""
    resource_metadata: str = ""
    """The URL at which the server describes how to get a token, without its query."""

    def describe(self) -> str:
        """What follows "HTTP 401: the server requires credentials": "Bearer, described at https://…"."""
        error = ": ".join(filter(None, (self.error, self.error_description)))
        metadata = f"described at {self.resource_metadata}" if self.resource_metadata else ""
        scope = f"scope {self.scope}" if self.scope else ""
        return ", ".join(filter(None, (error or self.scheme, scope, metadata)))

    def to_facts(self) -> dict[str, Json]:
        values = {
            "auth_scheme": self.scheme,
            "auth_error": self.error,
            "auth_scope": self.scope,
            "resource_metadata": self.resource_metadata,
        }
        return {name: value for name, value in values.items() if value}


def parse_auth_challenge(header: str) -> AuthChallenge | None:
    """None: the header has none that can be read."""
    header = header[:MAX_AUTH_CHALLENGE_CHARS]
    scheme = _SCHEME_PATTERN.match(header)
    if scheme is None:
        return None
    parameters = {
        name: replace_invisible_characters(truncate_to_single_line(value, _MAX_CHALLENGE_VALUE_CHARS))
        for name, value in parse_challenge_parameters(header).items()
    }
    metadata = parameters.get("resource_metadata", "")
    return AuthChallenge(
        scheme[1],
        parameters.get("error", ""),
        parameters.get("error_description", ""),
        parameters.get("scope", ""),
        strip_url_to_scheme_host_and_path(metadata) if metadata else "",
    )


def parse_challenge_parameters(header: str) -> dict[str, str]:
    """Lower-case name -> value, as the server sent it; of those with the same name, the first. Empty: there is no
    challenge."""
    header = header[:MAX_AUTH_CHALLENGE_CHARS]
    parameters: dict[str, str] = {}
    if scheme := _SCHEME_PATTERN.match(header):
        for match in _PARAMETER_PATTERN.finditer(header, scheme.end()):
            value = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
            parameters.setdefault(match[1].lower(), value)
    return parameters
