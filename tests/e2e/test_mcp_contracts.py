"""A tool of an MCP server changes: one incident, until a person accepts the change."""

from __future__ import annotations

from typing import Any

from tests.support.end_to_end import FAST_PROBE, OPENED, RESOLVED, EndToEndHarness, email_texts
from tests.support.mcp_servers.raw_http import running_raw_server
from tests.support.polling import wait_until_async
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.model import HealthState
from watchdog.service.acts import accept_contract
from watchdog.store.read.contracts import list_probe_contracts
from watchdog.store.read.status import list_probe_statuses

ANA = Actor("Ana", OperatorInterfaceKind.PAGE)


def tool(name: str, **members: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", **members}}


async def test_a_breaking_change_is_one_incident_until_it_is_accepted(each_harness: EndToEndHarness) -> None:
    harness = each_harness
    async with running_raw_server(tools=[tool("search"), tool("fetch")]) as server:
        harness.probes = [{"name": "Search", "mcp": {"url": server.url, "call": "off"}, **FAST_PROBE}]
        async with harness.running_watchdog() as watchdog:
            await watchdog.wait_for_results("pass", 2)
            server.tools = [tool("search"), tool("fetch"), tool("list")]
            await watchdog.wait_for_results("pass", 2)
            assert harness.all_received(), "a tool that is added refuses no call"
            server.tools = [tool("search", required=["query"]), tool("list")]
            await wait_until_async(lambda: harness.all_received(OPENED))
            await watchdog.wait_for_results("pass", 2)
            assert harness.all_received(OPENED)
            (status,) = watchdog.query_store(list_probe_statuses)
            assert status.state is HealthState.DEGRADED
            (contract,) = watchdog.query_store(list_probe_contracts)
            assert contract.is_to_be_accepted
            drift = contract.stored.drift
            await watchdog.app.store_executor.run_write_with_now(
                lambda now: accept_contract(
                    watchdog.app.store_executor.database, "search", drift.digest, ANA, "announced", now=now
                )
            )
            await wait_until_async(lambda: harness.all_received(OPENED, RESOLVED))
            (incident,) = watchdog.list_incidents()
            (contract,) = watchdog.query_store(list_probe_contracts)
    assert (incident.rule, incident.subject, incident.reason) == ("contract", "tools", "mcp.contract_breaking")
    assert incident.message == "tool fetch was removed; tool search: argument query is now required"
    assert (contract.stored.accepted.name, contract.stored.drift) == ("Ana", None)
    first, last = email_texts(harness)
    assert "breaking: tool fetch was removed" in first
    assert "watchdog contracts accept search" in first
    assert "recovered" in last
