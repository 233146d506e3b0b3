"""The tools for contracts: the changes are read, and accepted in the name of the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.contracts import (
    REMOVED,
    SAMPLE_CONTRACT,
    build_stored_contract,
    change_contract,
    load_stored_contract,
    store_contract,
)
from tests.support.mcp_clients import (
    ACCESS_CONFIG,
    OPERATOR_KEY,
    PROTOCOL_VERSION_BY_MODE,
    READER_KEY,
    call_tool,
    call_tool_error,
    connected_client,
    running_watchdog,
)
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.store.read.acts import list_acts
from watchdog.store.read.status import list_probe_statuses

SEARCH = {"name": "Search", "mcp": "http://127.0.0.1:1/", "schedule": "0 0 1 1 *"}
CHANGED = change_contract("tools/fetch", REMOVED)


@pytest.mark.parametrize("mode", PROTOCOL_VERSION_BY_MODE)
async def test_the_changes_are_read_and_accepted(tmp_path: Path, mode: str) -> None:
    async with running_watchdog(tmp_path, [SEARCH], access=ACCESS_CONFIG) as (app, url):
        executor = app.store_executor
        with executor.database.open_read_transaction() as connection:
            (status,) = list_probe_statuses(connection, "search")
        probe = status.probe.database_id
        async with connected_client(url, OPERATOR_KEY, mode) as operator:
            empty = {"probe": "search", "protocol": None, "accepted": None, "drift": None}
            assert await call_tool(operator, "get_contract", probe="Search") == empty
            await executor.run_write(store_contract, executor.database, probe, build_stored_contract(CHANGED))
            contract = await call_tool(operator, "get_contract", probe="search")
            assert contract["protocol"] == SAMPLE_CONTRACT.protocol
            assert [change["text"] for change in contract["drift"]["changes"]] == ["tool fetch was removed"]
            refused = await call_tool_error(operator, "accept_contract", probe="search", digest="0" * 32)
            assert refused == "the contract of Search has changed again: read its changes once more"
            digest = contract["drift"]["digest"]
            accepted = await call_tool(operator, "accept_contract", probe="Search", digest=digest, comment="planned")
            assert (accepted["digest"], accepted["change_count"], accepted["acceptance"]["by"]) == (digest, 1, "ops")
        async with connected_client(url, READER_KEY, mode) as reader:
            contract = await call_tool(reader, "get_contract", probe="search")
            assert contract["drift"]["acceptance"] == accepted["acceptance"]
            assert "operator" in await call_tool_error(reader, "accept_contract", probe="search")
        assert load_stored_contract(executor.database, probe).is_drift_accepted
        with executor.database.open_read_transaction() as connection:
            (act,) = list_acts(connection, limit=5)
    ops = Actor("ops", OperatorInterfaceKind.MCP)
    assert (act.kind, act.actor, act.probe) == ("accept_contract", ops, "search")
    assert act.comment == "1\N{NO-BREAK SPACE}change: planned"
