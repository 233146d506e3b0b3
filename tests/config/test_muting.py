"""Which probes mute which, as a configuration states it."""

from __future__ import annotations

import pytest

from watchdog.config import muting
from watchdog.config.load import load_config
from watchdog.config.muting import map_muting_probes_by_probe_id
from watchdog.config.problems import ConfigError
from watchdog.domain.muting import MutingProbe
from watchdog.service.process_configuration import build_watchdog_process_configuration

PROBES = """
probes:
  - {name: API, group: Core, http: "https://api.example/", needs: [db]}
  - {name: Database, id: db, group: Core, http: "https://db.example/"}
  - {name: Search, group: Search, http: "https://search.example/", needs: [API, Database]}
  - {name: Shop, http: "https://shop.example/"}
"""


def load(text: str) -> dict[str, tuple[MutingProbe, ...]]:
    return map_muting_probes_by_probe_id(load_config(None, text, {}).config)


def test_needs_take_names_and_ids() -> None:
    assert load(PROBES) == {
        "api": (MutingProbe("db"),),
        "search": (MutingProbe("api"), MutingProbe("db")),
    }


def test_rules_add_to_needs_and_no_probe_mutes_itself() -> None:
    rules = (
        "inhibit:\n  - {when: {group: Core}, mute: {group: Search}}\n  - {when: {probe: Search}, mute: {probe: shop}}"
    )
    assert load(f"{PROBES}{rules}") == {
        "api": (MutingProbe("db"),),
        "search": (MutingProbe("api"), MutingProbe("db")),
        "shop": (MutingProbe("search", "inhibit.1"),),
    }


def test_a_rule_with_a_probe_on_both_sides_mutes_the_others() -> None:
    rule = "inhibit: [{when: {probe: db}, mute: {}}]"
    assert load(f"{PROBES}{rule}") == {
        "api": (MutingProbe("db"),),
        "search": (MutingProbe("api"), MutingProbe("db")),
        "shop": (MutingProbe("db", "inhibit.0"),),
    }


def test_a_group_from_a_secret_variable_still_matches() -> None:
    """Groups are masked in probes as well as in rules."""
    text = """
probes:
  - {name: API, group: "${TEAM_PASSWORD}", http: "https://api.example/"}
  - {name: Shop, http: "https://shop.example/"}
inhibit: [{when: {group: "${TEAM_PASSWORD}"}, mute: {probe: Shop}}]
"""
    config = load_config(None, text, {"TEAM_PASSWORD": "correct horse battery"}).config
    assert map_muting_probes_by_probe_id(config) == {"shop": (MutingProbe("api", "inhibit.0"),)}


def test_a_long_chain_is_no_cycle_and_a_long_cycle_is_reported_briefly() -> None:
    count = 3_000
    names = [f"P{n}" for n in range(count)]
    lines = [f'  - {{name: {name}, http: "https://h/", needs: [{names[n - 1]}]}}' for n, name in enumerate(names) if n]
    chain = "\n".join(["probes:", '  - {name: P0, http: "https://h/"}', *lines])
    assert len(load(chain)) == count - 1
    with pytest.raises(ConfigError) as raised:
        load(
            chain.replace('{name: P0, http: "https://h/"}', f'{{name: P0, http: "https://h/", needs: [P{count - 1}]}}')
        )
    (problem,) = raised.value.problems
    assert "one another" in problem.message
    assert "more" in problem.message
    assert len(problem.message) < 400


def test_each_cycle_is_reported() -> None:
    text = """
probes:
  - {name: A, http: "https://a/", needs: [B]}
  - {name: B, http: "https://b/", needs: [A]}
  - {name: C, http: "https://c/", needs: [D, A]}
  - {name: D, http: "https://d/", needs: [C]}
"""
    with pytest.raises(ConfigError) as raised:
        load(text)
    assert [(problem.line, problem.path) for problem in raised.value.problems] == [
        (4, "probes.1.needs.0"),
        (6, "probes.3.needs.0"),
    ]


def test_a_rule_for_too_many_pairs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muting, "MAX_MUTED_PAIRS_PER_INHIBIT_RULE", 1)
    with pytest.raises(ConfigError, match=r"inhibit\.0: 2 probes would mute 1, and at most 1 pairs are possible"):
        load(f"{PROBES}inhibit: [{{when: {{group: Core}}, mute: {{probe: Shop}}}}]")


def test_two_processes_agree_on_a_probe_only_if_the_same_probes_mute_it() -> None:
    def definitions(text: str) -> dict[str, tuple[str, tuple[MutingProbe, ...]]]:
        loaded = load_config(None, text, {})
        configuration = build_watchdog_process_configuration(loaded, loaded.config.probes)
        return {probe.info.id: (probe.definition, probe.muting_probes) for probe in configuration.probes}

    before = definitions(PROBES)
    after = definitions(f"{PROBES}inhibit: [{{when: {{probe: Search}}, mute: {{probe: Shop}}}}]")
    assert {id for id in before if before[id] != after[id]} == {"shop"}
    assert after["shop"][1] == (MutingProbe("search", "inhibit.0"),)
