"""Credentials whose `Authorization` header depends on what a server answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from watchdog.net.auth import HttpDigestAuth, OAuth2ClientCredentials
from watchdog.net.digest_auth import DigestChallengeCache
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.oauth import OAuthTokenCache
from watchdog.net.phases import PhaseTimer
from watchdog.net.proxy import RequestRouting
from watchdog.net.token_endpoint import TokenRequester
from watchdog.net.url import ParsedHttpUrl

_UNAUTHORIZED_STATUS = 401


@dataclass(slots=True)
class RequestAuthenticator:
    """Authenticates one request at its first origin. A request that is refused is repeated once."""

    request: HttpRequest
    routing: RequestRouting
    tokens: OAuthTokenCache
    challenges: DigestChallengeCache
    now: int
    """In ms since the epoch."""
    _token: str = field(default="", init=False)
    _was_repeated: bool = field(default=False, init=False)

    async def get_authorization(self, url: ParsedHttpUrl, phase_timer: PhaseTimer) -> str:
        """The value of the header for this URL; empty: the server has to send a challenge first. Raises ProbeError."""
        credentials = self.request.auth
        if credentials is None:
            return ""
        if isinstance(credentials, HttpDigestAuth):
            return self.challenges.build_authorization(credentials, url, self.request.method)
        self._token = await self.tokens.get_token(self._build_token_requester(credentials), phase_timer, self.now)
        return f"Bearer {self._token}"

    def may_try_again(self, url: ParsedHttpUrl, response: HttpResponse) -> bool:
        """Whether the response refuses the credentials, and another attempt may succeed."""
        credentials = self.request.auth
        if response.status != _UNAUTHORIZED_STATUS or credentials is None:
            return False
        if isinstance(credentials, HttpDigestAuth):
            challenge = response.headers.get("www-authenticate", "")
            is_new = self.challenges.learn(credentials, url, challenge)
            if self._was_repeated:
                self.challenges.forget(credentials, url)
        else:
            requester = self._build_token_requester(credentials)
            is_new = not self._was_repeated and self.tokens.replace_rejected_token(requester, self._token)
        is_first_refusal, self._was_repeated = not self._was_repeated, True
        return is_new and is_first_refusal

    def _build_token_requester(self, credentials: OAuth2ClientCredentials) -> TokenRequester:
        return TokenRequester(credentials, self.routing, self.request.allow_private_addresses)
