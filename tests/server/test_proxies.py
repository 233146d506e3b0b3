"""Behind a reverse proxy: only a trusted one is believed about its clients, and each of them has a share of its own."""

from __future__ import annotations

import pytest

from tests.support.guard_harness import CONNECTION_TIMEOUTS, running_guard
from watchdog.server import InboundConnectionLimits

LIMITS = InboundConnectionLimits(total=20, reserved=4, per_address=2, timeouts=CONNECTION_TIMEOUTS)
PROXY = ("127.0.0.1",)


@pytest.mark.parametrize(
    ("case", "trusted_proxies", "headers", "client"),
    [
        ("no proxy is trusted by default", (), "X-Forwarded-For: 198.51.100.1\r\n", ("127.0.0.1", "http")),
        ("nor is its scheme", (), "X-Forwarded-Proto: https\r\n", ("127.0.0.1", "http")),
        ("another one is trusted", ("10.0.0.1",), "X-Forwarded-For: 198.51.100.1\r\n", ("127.0.0.1", "http")),
        ("this one is trusted", PROXY, "X-Forwarded-For: 198.51.100.1\r\n", ("198.51.100.1", "http")),
        ("its network is trusted", ("127.0.0.0/8",), "X-Forwarded-For: 198.51.100.1\r\n", ("198.51.100.1", "http")),
        (
            "a header of the client before that of the proxy",
            PROXY,
            "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: http, https\r\n",
            ("198.51.100.1", "https"),
        ),
        ("a scheme that is none", PROXY, "X-Forwarded-Proto: javascript\r\n", ("127.0.0.1", "http")),
    ],
)
async def test_the_client_and_the_scheme(
    case: str, trusted_proxies: tuple[str, ...], headers: str, client: tuple[str, str]
) -> None:
    async with running_guard(LIMITS, trusted_proxies) as harness:
        await (await harness.request("/", headers=headers)).read_response()
        assert harness.clients == [client], case


async def test_a_client_behind_a_proxy_replaces_only_its_own_requests() -> None:
    async with running_guard(LIMITS, PROXY) as harness:
        neighbour = await harness.request("/wait", headers="X-Forwarded-For: 198.51.100.2\r\n")
        harness.pass_time(1)
        own = []
        for _ in range(3):
            own.append(await harness.request("/wait", headers="X-Forwarded-For: 198.51.100.1\r\n"))
            harness.pass_time(1)
        assert await own[0].is_closed()
        assert harness.counts == {"address_share": 1}
        harness.may_respond.set()
        for visitor in (neighbour, *own[1:]):
            assert await visitor.read_response() == b"/wait"


async def test_a_proxy_may_keep_more_connections_than_a_share() -> None:
    async with running_guard(LIMITS, PROXY) as harness:
        connections = []
        for number in range(6):
            connections.append(await harness.request("/", headers=f"X-Forwarded-For: 198.51.100.{number}\r\n"))
            await connections[-1].read_response()
            harness.pass_time(1)
        for visitor in connections:
            visitor.send("GET /again HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n")
            assert await visitor.read_response() == b"/again"
        assert harness.counts == {}


async def test_a_check_in_from_the_address_of_a_flood_behind_the_same_proxy() -> None:
    async with running_guard(LIMITS, PROXY) as harness:
        header = "X-Forwarded-For: 198.51.100.1\r\n"
        for _ in range(30):
            await harness.request("/wait", headers=header)
            harness.pass_time(1)
        for path in ("/in/token", "/healthz", "/readyz"):
            visitor = await harness.request(path, headers=header)
            assert await visitor.read_response() == path.encode()
