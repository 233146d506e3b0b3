"""Warnings: every configuration that is valid, and in which something has no effect, beside the warnings."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.config.test_load import FLEET_ENV
from tests.support.command_line import PROJECT_ROOT as ROOT
from watchdog.cli.init import STARTER_CONFIG
from watchdog.config.load import load_config

A, B = "{name: A, tags: [prod], http: 'https://a.example/'}", "{name: B, group: Core, http: 'https://b.example/'}"
ONCALL = "receivers: {oncall: {log: {}}}\n"
PROBES = f"probes:\n  - {A}\n  - {B}\n"
FLEET = f"{PROBES}{ONCALL}"
NEEDING = (
    "probes:\n  - {{name: A, every: {every}, http: 'https://a.example/'}}\n"
    "  - {{name: B, group: Core, http: 'https://b.example/', needs: {needs}}}\n"
)
THREE_HOSTS = "".join(f"  - {{name: H{n}, http: 'http://h{n}.example/'}}\n" for n in range(3))
NINE_PATHS = "".join(f"  - {{name: P{n}, http: 'http://a.example/{n}'}}\n" for n in range(9))


class Case(NamedTuple):
    sentence: str
    text: str
    warnings: tuple[str, ...] = ()
    """Start of each: line, column, field, message."""


CASES = [
    Case("every probe has a route, every route a probe", f"{FLEET}routes: [{{receivers: [oncall]}}]"),
    Case("without routes every receiver is notified", FLEET),
    # --- no one to notify, nothing to monitor
    Case("no receivers", PROBES, (":0:0: receivers: no `receivers`: no alert is sent",)),
    Case("empty receivers", f"{PROBES}receivers: {{}}", (":4:1: receivers: no `receivers`: no alert is sent",)),
    Case("no probes", "version: 1", (":0:0: probes: no `probes`: nothing is monitored",)),
    Case("empty probes", f"{ONCALL}probes: []", (":2:1: probes: no `probes`: nothing is monitored",)),
    Case(
        "an include pattern that matches no file",
        f"{FLEET}include: ['conf.d/*.yaml']",
        (":5:11: include.0: no file matches 'conf.d/*.yaml', so nothing is included",),
    ),
    # --- connectivity
    Case("few hosts need no connectivity target", f"{PROBES}  - {{name: C, http: 'http://127.0.0.1:1'}}\n{ONCALL}"),
    Case(
        "many hosts, and nothing shows whether the own network has failed",
        f"{PROBES}{THREE_HOSTS}{ONCALL}",
        (":0:0: connectivity: no `connectivity`: when many probes fail at once",),
    ),
    Case(
        "many probes of few hosts",
        f"{PROBES}{NINE_PATHS}{ONCALL}",
    ),
    Case(
        "only targets that are monitored as well",
        f"{FLEET}connectivity: {{targets: ['https://a.example/x']}}",
        (":5:1: connectivity: probes monitor the hosts of all targets",),
    ),
    Case(
        "a target that no probe monitors",
        f"{FLEET}connectivity: {{targets: ['https://a.example/x', 'https://1.1.1.1/']}}",
    ),
    # --- routes and probes
    Case(
        "a route for some reasons leaves the others to the next route",
        f"{FLEET}routes: [{{match: {{reason: tls}}, receivers: [oncall]}}, {{receivers: [oncall]}}]",
    ),
    Case(
        "a probe that no route matches",
        f"{FLEET}routes: [{{match: {{group: Core}}, receivers: [oncall]}}]",
        (":2:12: probes.0.name: no route matches probe 'A', so no one is notified of its incidents:",),
    ),
    Case(
        "an unknown group, with the one that was probably meant",
        f"{FLEET}routes: [{{match: {{group: core}}, receivers: [oncall]}}, {{receivers: [oncall]}}]",
        (
            ":5:26: routes.0.match.group: this route matches no probe: no probe has the group 'core'; did you mean "
            "'Core'?",
        ),
    ),
    Case(
        "an unknown tag beside a known one",
        f"{FLEET}routes: [{{match: {{tags: [prod, eu]}}, receivers: [oncall]}}, {{receivers: [oncall]}}]",
        (":5:32: routes.0.match.tags.1: this route matches no probe: no probe has the tag 'eu'; defined: prod",),
    ),
    Case(
        "a kind that no probe is of",
        f"{FLEET}routes: [{{match: {{kind: mcp}}, receivers: [oncall]}}, {{receivers: [oncall]}}]",
        (":5:25: routes.0.match.kind: this route matches no probe: no probe is of kind mcp",),
    ),
    Case(
        "a severity that no probe has",
        f"{FLEET}routes: [{{match: {{severity: critical}}, receivers: [oncall]}}, {{receivers: [oncall]}}]",
        (":5:29: routes.0.match.severity: this route matches no probe: no probe has alert.severity critical",),
    ),
    Case(
        "values that exist, but not together",
        f"{FLEET}routes: [{{match: {{tags: [prod], group: Core}}, receivers: [oncall]}}, {{receivers: [oncall]}}]",
        (":5:18: routes.0.match: this route matches no probe: no probe fits all of its fields",),
    ),
    Case(
        "a probe by name and a tag that it does not have",
        f"{FLEET}routes: [{{match: {{tags: [prod], probe: B}}, receivers: [oncall]}}, {{receivers: [oncall]}}]",
        (":5:18: routes.0.match: this route matches no probe: no probe fits all of its fields",),
    ),
    Case(
        "a route below one that matches everything",
        f"{FLEET}routes:\n  - receivers: [oncall]\n  - {{match: {{tags: [prod]}}, receivers: [oncall]}}",
        (":7:5: routes.1: this route is never reached, because the route at ",),
    ),
    Case(
        "a route below two that together match all of its probes",
        f"{FLEET}routes:\n  - {{match: {{tags: [prod]}}, receivers: [oncall]}}\n"
        "  - {match: {group: Core}, receivers: [oncall]}\n  - {match: {kind: http}, receivers: [oncall]}",
        (":8:5: routes.2: this route is never reached, because the route at ",),
    ),
    Case(
        "a route below one that continues is reached",
        f"{FLEET}routes:\n  - {{receivers: [oncall], continue: true}}\n  - {{match: {{tags: [prod]}}, receivers: "
        "[oncall]}",
    ),
    Case(
        "a receiver that only an escalation names",
        f"{PROBES}receivers:\n  oncall: {{log: {{}}}}\n  chat: {{log: {{}}}}\nroutes: [{{receivers: [oncall], "
        "escalate: [{after: 15m, receivers: [chat]}]}]",
    ),
    Case(
        "a receiver that no route names",
        f"{PROBES}receivers:\n  oncall: {{log: {{}}}}\n  chat: {{log: {{}}}}\nroutes: [{{receivers: [oncall]}}]",
        (":6:3: receivers.chat: no route names this receiver, so it is never notified",),
    ),
    Case(
        "names from variables are worded as they are written",
        f"{PROBES}  - {{name: 'C ${{CITY}}', http: 'https://c.example/'}}\n{ONCALL}"
        "routes: [{match: {kind: http, tags: ['${CITY}']}, receivers: [oncall]}, {match: {probe: a}, receivers: "
        "[oncall]}, {match: {group: Core}, receivers: [oncall]}]",
        (
            ":4:12: probes.2.name: no route matches probe 'C ${CITY}'",
            ":6:38: routes.0.match.tags.0: this route matches no probe: no probe has the tag '${CITY}'; defined: prod",
        ),
    ),
    # --- needs and inhibit
    Case("a probe that needs another one", f"{NEEDING.format(every='1m', needs='[A]')}{ONCALL}"),
    Case(
        "the alerts of a probe are sent before the one that it needs is down",
        f"{NEEDING.format(every='15m', needs='[A]')}{ONCALL}",
        (":3:64: probes.1.needs.0: an incident of 'A' opens 30m or more after a failure, but the alerts of",),
    ),
    Case(
        "a rule whose probes no one has",
        f"{FLEET}inhibit: [{{when: {{group: Cora}}, mute: {{tags: [eu]}}}}]",
        (
            ":5:26: inhibit.0.when.group: inhibit rule 1 has no effect, because `when` matches no probe: no probe has "
            "the group 'Cora'; did you mean 'Core'?",
            ":5:47: inhibit.0.mute.tags.0: inhibit rule 1 has no effect, because `mute` matches no probe",
        ),
    ),
    Case(
        "a probe that would mute itself alone",
        f"{FLEET}inhibit: [{{when: {{group: Core}}, mute: {{probe: B}}}}]",
        (":5:11: inhibit.0: inhibit rule 1 has no effect, because `when` and `mute` match the same probe alone",),
    ),
    Case("a rule that mutes", f"{FLEET}inhibit: [{{when: {{group: Core, state: down}}, mute: {{tags: [prod]}}}}]"),
    # --- the status page
    Case(
        "an empty status page",
        f"{FLEET}status_page: {{match: {{group: Cor}}}}",
        (
            ":5:30: status_page.match.group: the status page is empty: no probe has the group 'Cor'; "
            "did you mean 'Core'?",
        ),
    ),
    Case(
        "a group that the status page does not show",
        f"{FLEET}status_page: {{match: {{tags: [prod]}}, groups: [Core]}}",
        (":5:47: status_page.groups.0: no probe on the status page has the group 'Core'",),
    ),
    # --- maintenance
    Case(
        "a window without a probe",
        f'{FLEET}maintenance: [{{name: Move, start: "2026-12-01T22:00", duration: 1h, match: {{group: Cor}}}}]',
        (
            ":5:84: maintenance.0.match.group: the window has no effect: no probe has the group 'Cor'; "
            "did you mean 'Core'?",
        ),
    ),
    Case(
        "a window of Watchdog itself, and one of all probes",
        f'{FLEET}maintenance:\n  - {{name: Move, schedule: "@weekly", duration: 1h, match: {{probe: watchdog}}}}\n'
        '  - {name: Restart, schedule: "@daily", duration: 1h}',
    ),
    # --- runs that last longer than their interval
    Case(
        "timeout above every",
        f"probes:\n  - {{name: A, every: 5s, timeout: 20s, http: 'https://a.example/'}}\n{ONCALL}",
        (
            ":2:35: probes.0.timeout: a run may take 20s (`timeout`), but the next one starts after 5s (`every`): runs "
            "overlap while the target hangs; reduce `timeout` to at most 5s, or increase `every` to at least 20s",
        ),
    ),
    Case(
        "the default timeout above every",
        f"probes:\n  - {{name: A, every: 5s, http: 'https://a.example/'}}\n{ONCALL}",
        (":2:22: probes.0.every: a run may take 10s (`timeout`), but the next one starts after 5s (`every`)",),
    ),
    Case(
        "a default of `defaults` above every",
        f"defaults: {{timeout: 3m}}\nprobes:\n  - {A}\n{ONCALL}",
        (":1:21: defaults.timeout: a run may take 3m (`timeout`), but the next one starts after 1m (`every`)",),
    ),
    Case(
        "timeout above the distance of a cron expression",
        f"probes:\n  - {{name: A, schedule: '*/20 * * * * *', timeout: 30s, http: 'https://a.example/'}}\n{ONCALL}",
        (
            ":2:52: probes.0.timeout: a run may take 30s (`timeout`), but the next one starts after 20s (`schedule`): "
            "runs overlap while the target hangs; reduce `timeout` to at most 20s, or choose a `schedule` with at "
            "least 30s between runs",
        ),
    ),
    Case(
        "timeout above retry_interval",
        f"probes:\n  - {{name: A, retry_interval: 5s, http: 'https://a.example/'}}\n{ONCALL}",
        (":2:31: probes.0.retry_interval: a run may take 10s (`timeout`), but the next one starts after 5s (`retry",),
    ),
    Case(
        "a heartbeat sends no request",
        f"probes:\n  - {{name: A, every: 5s, heartbeat: {{every: 1h, token: 'long-enough-token'}}}}\n{ONCALL}",
    ),
    Case("a timeout as long as the interval", f"defaults: {{timeout: 1m}}\n{FLEET}"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence)
def test_what_has_no_effect_is_a_warning_with_line_and_field(case: Case) -> None:
    warnings = load_config(Path("watchdog.yaml"), case.text, {"CITY": "Lisbon-on-the-sea"}).warnings
    lines = [f":{w.line}:{w.column}: {w.path}: {w.message}" for w in warnings]
    assert [line[: len(start)] for line, start in zip(lines, case.warnings, strict=False)] == list(case.warnings)
    assert len(lines) == len(case.warnings), lines
    assert "Lisbon" not in str(warnings)


def test_warnings_of_included_files_name_their_file(tmp_path: Path) -> None:
    (tmp_path / "watchdog.yaml").write_text(
        f"include: [more.yaml]\n{ONCALL}routes: [{{match: {{group: Core}}, receivers: [oncall]}}]"
    )
    (tmp_path / "more.yaml").write_text(PROBES)
    (warning,) = load_config(tmp_path / "watchdog.yaml").warnings
    assert str(warning).startswith(f"{tmp_path / 'more.yaml'}:2:12: probes.0.name: no route matches probe 'A'")


EXAMPLES = [ROOT / "examples/full.yaml", *sorted((ROOT / "examples/systems").glob("*.yaml"))]
ENV = FLEET_ENV | {"APP_URL": "https://app.acme.example", "LEDGER_CHECKIN_TOKEN": "ledger-checkin-token"}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_have_no_warnings_but_missing_receivers(file: Path) -> None:
    paths = [warning.path for warning in load_config(file, env=ENV).warnings]
    assert paths in ([], ["receivers"])


def test_the_starter_configuration_has_no_warnings() -> None:
    assert load_config(Path("watchdog.yaml"), STARTER_CONFIG).warnings == ()
