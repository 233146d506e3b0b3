"""Sites of which a test scripts each response, for probes that send several requests."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.support.probe_runs import EMPTY_MASK, run_probe
from tests.support.scripted_servers import ConnectionHandler, ScriptedServer, http_response, running_server
from watchdog.domain.model import ResultToRecord
from watchdog.net import SecretMask
from watchdog.probes import StepsProbe

SITE = "http://site.example"
"""In the URLs of steps: stands for the scripted site."""


class SentRequest(NamedTuple):
    head: str
    body: bytes

    @property
    def target(self) -> str:
        """ "GET /cart?x=1"."""
        return self.head.partition(" HTTP/")[0]

    def header(self, name: str) -> str | None:
        match = re.search(rf"(?im)^{re.escape(name)}: (.*?)\r$", self.head)
        return match and match[1]


@dataclass
class ScriptedSite:
    server: ScriptedServer
    requests: list[SentRequest] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url_of("")

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.requests]


@asynccontextmanager
async def running_site(
    replies: Iterable[bytes | ConnectionHandler], tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedSite]:
    """A site that answers one request after another, each on a connection of its own. It reads a request as a whole."""
    remaining = iter(replies)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = site.server.request_heads[-1]
        length = re.search(r"(?i)content-length: (\d+)", head)
        site.requests.append(SentRequest(head, await reader.readexactly(int(length[1]) if length else 0)))
        reply = next(remaining, b"")
        if isinstance(reply, bytes):
            writer.write(reply)
            await writer.drain()
        else:
            await reply(reader, writer)

    async with running_server(handle, tls) as server:
        site = ScriptedSite(server)
        yield site


def json_response(value: Any, status: str = "200 OK", **headers: str) -> bytes:
    return http_response(json.dumps(value).encode(), status, Content_Type="application/json", **headers)


def build_steps_probe(url: str, steps: Sequence[Mapping[str, Any]], **fields: Any) -> StepsProbe:
    """`url`: of the site that SITE stands for."""
    site_steps = json.loads(json.dumps(steps).replace(SITE, url))
    return StepsProbe.model_validate({"name": "Checkout", "every": "5m", "steps": site_steps, **fields})


@dataclass(frozen=True)
class StepsProbeRun:
    """A run as the service makes it, and what the site received."""

    recorded: ResultToRecord
    requests: list[SentRequest]

    @property
    def verdict(self) -> tuple[str, str, str]:
        result = self.recorded.result
        return result.outcome.value, result.reason, result.message.replace("\N{NO-BREAK SPACE}", " ")

    @property
    def steps(self) -> list[str]:
        """What became of each step, without times: "Cart: HTTP 503"."""
        return [re.sub(r" in .*", "", text) for text in self.recorded.evidence.facts["steps"].split("; ")]

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.requests]

    @property
    def everything_shown(self) -> str:
        """All that is stored and shown of the run."""
        return repr(self.recorded)


async def run_steps_on_site(
    replies: Iterable[bytes | ConnectionHandler],
    steps: Sequence[Mapping[str, Any]],
    mask: SecretMask = EMPTY_MASK,
    **fields: Any,
) -> StepsProbeRun:
    async with running_site(replies) as site:
        recorded = await run_probe(build_steps_probe(site.url, steps, **fields), mask=mask)
        return StepsProbeRun(recorded, site.requests)


def run_steps(
    replies: Iterable[bytes | ConnectionHandler], steps: Sequence[Mapping[str, Any]], **fields: Any
) -> StepsProbeRun:
    return asyncio.run(run_steps_on_site(replies, steps, **fields))
