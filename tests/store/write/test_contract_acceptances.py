"""Decisions that what an MCP server offers is right."""

from __future__ import annotations

import pytest

from tests.support.contracts import (
    REMOVED,
    SAMPLE_CONTRACT,
    build_stored_contract,
    change_contract,
    load_stored_contract,
    make_registered_mcp_probe,
    store_contract,
)
from tests.support.store import START_AT, StoreHarness, make_registered_probe
from watchdog.domain.acts import Actor, OperatorActRefusalReason, OperatorActRefusedError, OperatorInterfaceKind
from watchdog.domain.mcp_contract.stored import ContractAcceptanceRecord, StoredContract
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.read.contracts import list_probe_contracts, load_probe_contract
from watchdog.store.transition_tables import transitions
from watchdog.store.write.contract_acceptances import accept_contract

ANA, BEN = Actor("Ana", OperatorInterfaceKind.PAGE), Actor("Ben", OperatorInterfaceKind.CLI)
CHANGED = change_contract("tools/fetch", REMOVED, change_contract("tools/search/title", "Find"))
DIGEST = CHANGED.compute_digest()


@pytest.fixture
def harness(database: Database) -> StoreHarness:
    """A server that has changed, one that has not, a probe without a contract, and one that is of another kind by
    now."""
    probes = [make_registered_mcp_probe(name) for name in ("api", "shop", "mail")]
    harness = StoreHarness(database, [*probes, make_registered_probe("former")])
    for probe in ("api", "former"):
        store_contract(database, harness.database_id(probe), build_stored_contract(CHANGED, since=START_AT))
    store_contract(database, harness.database_id("shop"), build_stored_contract())
    return harness


def load(harness: StoreHarness, probe: str = "api") -> StoredContract:
    return load_stored_contract(harness.database, harness.database_id(probe))


def test_the_first_acceptance_stays(database: Database, harness: StoreHarness) -> None:
    accepted = accept_contract(database, "Api", DIGEST, ANA, "announced", now=START_AT)
    assert (accepted.probe_id, accepted.probe_name, accepted.is_new) == ("api", "Api", True)
    assert accepted.acceptance == ContractAcceptanceRecord(
        DIGEST, SAMPLE_CONTRACT.compute_digest(), START_AT, "Ana", "page"
    )
    repeated = accept_contract(database, "api", "", BEN, "", now=START_AT + 1)
    assert repeated == accepted._replace(is_new=False)
    stored = load(harness)
    assert (stored.is_drift_accepted, stored.acceptance) == (True, accepted.acceptance)
    row = harness.select_row(acts)
    assert (row["kind"], row["author"], row["interface"], row["probe"], row["comment"], row["occurred_at"]) == (
        *("accept_contract", "Ana", "page", "api", "2\N{NO-BREAK SPACE}changes: announced"),
        START_AT,
    )
    (transition,) = [each for each in harness.select_rows(transitions) if each["act"] == row["id"]]
    assert (transition["kind"], transition["probe"]) == ("contract_accepted", "api")


def test_only_the_changes_that_were_read_are_accepted(database: Database, harness: StoreHarness) -> None:
    for probe, digest, refusal, message in (
        ("api", "0" * 32, OperatorActRefusalReason.CONFLICT,
         "the contract of Api has changed again: read its changes once more"),
        ("shop", "", OperatorActRefusalReason.CONFLICT, "the contract of Shop has not changed"),
        ("mail", "", OperatorActRefusalReason.CONFLICT, "Mail has no contract that could have changed"),
        ("former", "", OperatorActRefusalReason.CONFLICT, "Former has no contract that could have changed"),
        ("nowhere", "", OperatorActRefusalReason.NOT_FOUND, "no probe has the id or name nowhere"),
    ):  # fmt: skip
        with pytest.raises(OperatorActRefusedError, match=f"^{message}$") as caught:
            accept_contract(database, probe, digest, ANA, "", now=START_AT)
        assert caught.value.refusal is refusal
    assert (harness.select_rows(acts), load(harness).acceptance) == ([], None)


def test_another_change_after_the_acceptance_can_be_accepted(database: Database, harness: StoreHarness) -> None:
    accept_contract(database, "api", "", ANA, "", now=START_AT)
    other = build_stored_contract(change_contract("tools/search", REMOVED))
    store_contract(database, harness.database_id("api"), other)
    assert not load(harness).is_drift_accepted
    assert accept_contract(database, "api", "", BEN, "", now=START_AT + 1).is_new
    assert load(harness).is_drift_accepted


def test_the_contracts_of_all_probes_are_read(database: Database, harness: StoreHarness) -> None:
    accept_contract(database, "api", "", ANA, "", now=START_AT)
    with database.open_read_transaction() as connection:
        contracts = list_probe_contracts(connection)
        assert [(each.probe.name, each.status_label, each.is_to_be_accepted) for each in contracts] == [
            ("Api", "accepted, from the next run on", False),
            ("Shop", "as accepted", False),
        ]
        assert load_probe_contract(connection, harness.database_id("mail")) is None
        assert [*list_probe_contracts(connection, [])] == []
    store_contract(database, harness.database_id("shop"), build_stored_contract(CHANGED))
    with database.open_read_transaction() as connection:
        shop = load_probe_contract(connection, harness.database_id("shop"))
        assert shop is not None
        assert (shop.probe.id, shop.status_label, shop.is_to_be_accepted) == ("shop", "changed", True)
