"""Faults of name servers: getaddrinfo asks a real one, in a mount namespace with its own /etc/resolv.conf."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults import name_server
from tests.support.scripted_servers import http_response, running_server, send_parts

SCRIPT = 'mount --bind "$1" /etc/resolv.conf && exec "$2" -m tests.faults.name_server "$3"'


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, str]]:
    """By name: outcome, reason and message."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is missing: the name server of a process cannot be replaced")
    try:
        server = name_server.serve()
    except PermissionError:
        pytest.skip("the right to bind port 53 is missing: a name server cannot be started")
    configuration = tmp_path_factory.mktemp("resolver") / "resolv.conf"
    configuration.write_text(f"nameserver {server.getsockname()[0]}\noptions timeout:2 attempts:1\n")

    async def run_scenario() -> tuple[bytes, int | None]:
        async with running_server(send_parts(http_response(b"hello"))) as target:
            child = await asyncio.create_subprocess_exec(
                *("unshare", "-m", "sh", "-c", SCRIPT, "sh", str(configuration), sys.executable, str(target.port)),
                cwd=Path(__file__).parents[2],
                stdout=asyncio.subprocess.PIPE,
            )
            return (await child.communicate())[0], child.returncode

    with server:
        output, exit_code = asyncio.run(run_scenario())
    if exit_code:
        pytest.skip("the right to mount is missing: the name server of a process cannot be replaced")
    observed: dict[str, tuple[str, str, str]] = {name: tuple(row) for name, row in json.loads(output).items()}
    return observed


@dataclass(frozen=True)
class LookupFault:
    """One row: a name of the name server, and what has to be reported."""

    name: str
    reason: str
    message: str
    """How the message begins."""
    shares_remedy_with: str = ""
    """The row that has the same reason, because the same has to be done about it."""


FAULTS = [
    LookupFault(
        "missing",
        "dns.not_found",
        "cannot resolve missing.acme.test: host name not found",
        shares_remedy_with="an unknown host name",
    ),
    LookupFault("no-address", "dns.no_address", "cannot resolve no-address.acme.test: host name has no address"),
    LookupFault("servfail", "dns.no_response", "cannot resolve servfail.acme.test: no response from the name server"),
    LookupFault(
        "refused",
        "dns.no_response",
        "cannot resolve refused.acme.test: no response from the name server",
        shares_remedy_with="servfail",
    ),
    LookupFault(
        "silent",
        "dns.no_response",
        "cannot resolve silent.acme.test: no response from the name server",
        shares_remedy_with="servfail",
    ),
    LookupFault("metadata", "connection.address_blocked", "169.254.169.254 is a cloud metadata address"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_a_name_server(results: dict[str, tuple[str, str, str]], fault: LookupFault) -> None:
    outcome, reason, message = results[fault.name]
    assert (outcome, reason) == ("fail", fault.reason), message
    assert message.startswith(fault.message)


def test_the_neighbour_on_the_same_name_server_is_not_blamed(results: dict[str, tuple[str, str, str]]) -> None:
    assert results["healthy"] == ("pass", "", "")
