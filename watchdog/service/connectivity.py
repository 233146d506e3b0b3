"""Asks whether the network of this machine works: whether a configured URL is reached, or another name resolves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address

from watchdog.domain.local_hosts import is_loopback_host
from watchdog.domain.own_network import OwnNetworkFaultSymptomKind
from watchdog.net import NetworkAccess, PhaseTimer
from watchdog.net.errors import ProbeError
from watchdog.net.http import HttpRequest
from watchdog.net.own_network import read_static_host_names
from watchdog.net.url import parse_http_url
from watchdog.service.clock import Clock

CONNECTIVITY_CHECK_TIMEOUT_S = 3.0
MAX_NAMES_RESOLVED_IN_CONNECTIVITY_CHECK = 8


class ConnectivityCheck:
    """Reaches `targets`, URLs of which any response will do, and resolves names: theirs, and `hosts`, those of probes.

    A host whose probe fails is not asked, because it may be what has failed. A name is asked again last.
    """

    def __init__(self, network: NetworkAccess, targets: Iterable[str], hosts: Iterable[str], clock: Clock):
        self.network, self.clock = network, clock
        self._host_by_target = {url: parse_http_url(url).host for url in targets}
        static_names = read_static_host_names()
        self._names = [
            host
            for host in dict.fromkeys([*self._host_by_target.values(), *hosts])
            if _needs_dns_server_to_resolve(host, static_names)
        ]

    def list_names_or_urls_to_check(
        self, symptom: OwnNetworkFaultSymptomKind, doubtful_hosts: Collection[str], failing_hosts: Collection[str]
    ) -> Sequence[str]:
        """The names to resolve or the URLs to reach; empty if there is nothing to ask.

        `doubtful_hosts`: those that the check is about. `failing_hosts`: those of other probes that fail.
        """
        suspects = {*doubtful_hosts, *failing_hosts}
        if not symptom.is_checked_by_name_lookup:
            return [url for url, host in self._host_by_target.items() if host not in suspects]
        only = set(doubtful_hosts) if len(set(doubtful_hosts)) == 1 else set()
        others = [name for name in self._names if name not in only]
        others.sort(key=suspects.__contains__)
        return others[:MAX_NAMES_RESOLVED_IN_CONNECTIVITY_CHECK]

    async def run(self, symptom: OwnNetworkFaultSymptomKind, questions: Iterable[str]) -> bool:
        """Whether the network works: one of `list_names_or_urls_to_check` can be resolved or reached in time."""
        ask = self._can_resolve_name if symptom.is_checked_by_name_lookup else self._can_reach_url
        return await _is_any_true_within_timeout([ask(question) for question in questions])

    async def _can_reach_url(self, url: str) -> bool:
        with suppress(ProbeError, OSError):
            await self.network.send_http_request(HttpRequest(url, max_body_bytes=0), now=self.clock())
            return True
        return False

    async def _can_resolve_name(self, name: str) -> bool:
        with suppress(ProbeError):
            await self.network.connector.resolve(name, 0, PhaseTimer())
            return True
        return False


def _needs_dns_server_to_resolve(host: str, static_names: Collection[str]) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return bool(host) and host.lower() not in static_names and not is_loopback_host(host)
    return False


async def _is_any_true_within_timeout(answers: Iterable[Awaitable[bool]]) -> bool:
    """Whether one of them is true within CONNECTIVITY_CHECK_TIMEOUT_S."""
    tasks = [asyncio.ensure_future(answer) for answer in answers]
    try:
        async with asyncio.timeout(CONNECTIVITY_CHECK_TIMEOUT_S):
            for answer in asyncio.as_completed(tasks):
                if await answer:
                    return True
    except TimeoutError:
        pass
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return False
