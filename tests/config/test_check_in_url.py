"""The check-in address that `watchdog exec` reads is the one of the validated configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.config.test_load import FLEET_ENV
from watchdog.config.check_in_url import (
    load_check_in_url_from_validated_config,
    load_heartbeat_check_in_url_from_raw_config,
)
from watchdog.config.load import load_config
from watchdog.probes.heartbeat import HeartbeatProbe

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef-backup"
HEARTBEAT = f"{{name: Backup, heartbeat: {{token: {TOKEN}, every: 1h}}}}"
EXAMPLES = sorted([*ROOT.glob("examples/**/*.yaml"), ROOT / "deploy/watchdog.yaml"])


def example_env(*files: Path) -> dict[str, str]:
    """A value for every variable of the files."""
    names = {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text(encoding="utf-8"))}
    return {name: f"{name.lower().replace('_', '-')}-0123456789" for name in names} | FLEET_ENV


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_heartbeat_of_the_examples(file: Path) -> None:
    env = example_env(file) | {"DATABASE_URL": "sqlite:///x.db", "APP_URL": "https://app.example"}
    for probe in load_config(file, env=env).config.probes:
        for name in (probe.name, probe.id):
            if isinstance(probe, HeartbeatProbe):
                assert load_heartbeat_check_in_url_from_raw_config(
                    file, name, env
                ) == load_check_in_url_from_validated_config(file, name, env)
            else:
                assert load_heartbeat_check_in_url_from_raw_config(file, name, env) == ""


def test_the_examples_hold_heartbeats() -> None:
    assert sum("heartbeat:" in file.read_text(encoding="utf-8") for file in EXAMPLES) >= 2


LOCAL = f"http://127.0.0.1:8080/in/{TOKEN}"
CASES: dict[str, tuple[dict[str, str], str, str]] = {
    "by name": ({"main": f"probes: [{HEARTBEAT}]"}, "Backup", LOCAL),
    "by id derived from the name": ({"main": f"probes: [{HEARTBEAT}]"}, "backup", LOCAL),
    "by id": (
        {"main": f"probes: [{{name: Backup, id: nightly, heartbeat: {{token: {TOKEN}, every: 1h}}}}]"},
        "nightly",
        LOCAL,
    ),
    "spaces around the name": (
        {"main": f'probes: [{{name: " Backup ", heartbeat: {{token: {TOKEN}, every: 1h}}}}]'},
        "Backup",
        LOCAL,
    ),
    "letters beyond ASCII": (
        {"main": f"probes: [{{name: Größe über alles, heartbeat: {{token: {TOKEN}, every: 1h}}}}]"},
        "groe-uber-alles",
        LOCAL,
    ),
    "the id of a heartbeat is the name of another": (
        {
            "main": "probes:\n"
            f"  - {{name: First, id: Backup, heartbeat: {{token: {TOKEN}, every: 1h}}}}\n"
            f"  - {{name: Backup, id: second, heartbeat: {{token: {TOKEN}-2, every: 1h}}}}\n"
        },
        "Backup",
        LOCAL,
    ),
    "another kind has the name as id": (
        {"main": f"probes: [{{name: Web, id: job, http: 'http://a/'}}, {HEARTBEAT}]"},
        "backup",
        LOCAL,
    ),
    "listen on every address": (
        {"main": f"server: {{listen: ':9000'}}\naccess: KEYS\nprobes: [{HEARTBEAT}]"},
        "backup",
        f"http://127.0.0.1:9000/in/{TOKEN}",
    ),
    "listen on every IPv6 address": (
        {"main": f"server: {{listen: '[::]:9000'}}\naccess: KEYS\nprobes: [{HEARTBEAT}]"},
        "backup",
        f"http://[::1]:9000/in/{TOKEN}",
    ),
    "listen on a name": (
        {"main": f"server: {{listen: 'localhost:9000'}}\nprobes: [{HEARTBEAT}]"},
        "backup",
        f"http://localhost:9000/in/{TOKEN}",
    ),
    "public_url below a path": (
        {"main": f"server: {{public_url: 'https://acme.example/watch/dog/'}}\nprobes: [{HEARTBEAT}]"},
        "backup",
        f"https://acme.example/watch/dog/in/{TOKEN}",
    ),
    "public_url takes precedence over listen": (
        {"main": f"server: {{listen: '127.0.0.1:1', public_url: 'http://w:81'}}\nprobes: [{HEARTBEAT}]"},
        "backup",
        f"http://w:81/in/{TOKEN}",
    ),
    "variables everywhere": (
        {
            "main": "server: {public_url: '${SCHEME}://${HOST:-status.example}${PATH_OF:-/w}'}\n"
            'probes: [{name: "Backup ${STAGE}", heartbeat: {token: "${TOKEN}", every: 1h}}]'
        },
        "Backup 7",
        f"https://status.example/w/in/{TOKEN}",
    ),
    "a name that is a number in a variable": (
        {"main": f'probes: [{{name: "${{STAGE}}", heartbeat: {{token: {TOKEN}, every: 1h}}}}]'},
        "7",
        LOCAL,
    ),
    "a plain variable": (
        {"main": f"probes:\n  - name: ${{STAGE}}\n    heartbeat: {{token: {TOKEN}, every: 1h}}"},
        "7",
        LOCAL,
    ),
    "a default token": (
        {"main": f'probes: [{{name: Backup, heartbeat: {{token: "${{UNSET:-{TOKEN}}}", every: 1h}}}}]'},
        "backup",
        LOCAL,
    ),
    "an escaped dollar sign": (
        {"main": f"probes: [{{name: 'Cost $$5', heartbeat: {{token: {TOKEN}, every: 1h}}}}]"},
        "Cost $5",
        LOCAL,
    ),
    "token_file": (
        {"main": "probes: [{name: Backup, heartbeat: {token_file: token, every: 1h}}]", "token": f"{TOKEN}\r\n"},
        "backup",
        LOCAL,
    ),
    "token_file of an included file": (
        {
            "main": "include: [conf/*.yaml]",
            "conf/jobs.yaml": "probes: [{name: Backup, heartbeat: {token_file: ../secrets/token, every: 1h}}]",
            "secrets/token": TOKEN,
        },
        "backup",
        LOCAL,
    ),
    "an include of an include, with defaults": (
        {
            "main": "server: {public_url: 'http://w'}\ninclude: [a.yaml]\ndefaults: {group: Jobs, every: 30s}",
            "a.yaml": "include: ['${NEXT}.yaml']\nprobes: [{name: Web, http: 'http://a/'}]",
            "b.yaml": f"probes: [{HEARTBEAT}]",
        },
        "backup",
        f"http://w/in/{TOKEN}",
    ),
    "anchors and aliases": (
        {
            "main": f"probes:\n  - {{name: Other, heartbeat: &job {{token: {TOKEN}-2, every: 1h}}}}\n  - {HEARTBEAT}\n"
            "  - {name: Third, http: 'http://a/', runbook: &link 'http://r/'}"
        },
        "Other",
        f"{LOCAL}-2",
    ),
    "JSON": (
        {"main": f'{{"probes": [{{"name": "Backup", "heartbeat": {{"token": "{TOKEN}", "every": "1h"}}}}]}}'},
        "backup",
        LOCAL,
    ),
}
ENV = {"SCHEME": "https", "STAGE": "7", "TOKEN": TOKEN, "NEXT": "b"}
KEYS = "{api_keys: [{name: a, role: reader, key: 0123456789abcdef}]}"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_same_address(case: tuple[dict[str, str], str, str], tmp_path: Path) -> None:
    files, name, expected = case
    for file, text in files.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("KEYS", KEYS), encoding="utf-8")
    assert load_check_in_url_from_validated_config(tmp_path / "main", name, ENV) == expected
    assert load_heartbeat_check_in_url_from_raw_config(tmp_path / "main", name, ENV) == expected


UNSET_TOKEN = '"${UNSET}"'
INVALID = {
    "no such file": None,
    "not YAML": "probes: [",
    "no heartbeat of this name": f"probes: [{HEARTBEAT.replace('Backup', 'Other')}]",
    "another kind": "probes: [{name: Backup, http: 'http://a/'}]",
    "a short token": "probes: [{name: Backup, heartbeat: {token: short, every: 1h}}]",
    "a token that is invalid in a URL": f"probes: [{HEARTBEAT.replace(TOKEN, TOKEN + '/x')}]",
    "a token that is a number": "probes: [{name: Backup, heartbeat: {token: 12345678901234567890, every: 1h}}]",
    "no token": "probes: [{name: Backup, heartbeat: {every: 1h}}]",
    "an unset variable": f"probes: [{HEARTBEAT.replace(TOKEN, UNSET_TOKEN)}]",
    "no token file": "probes: [{name: Backup, heartbeat: {token_file: absent, every: 1h}}]",
    "an invalid public_url": f"server: {{public_url: 'ftp://w'}}\nprobes: [{HEARTBEAT}]",
    "an invalid listen": f"server: {{listen: '8080'}}\nprobes: [{HEARTBEAT}]",
    "a port without a colon": f"server: {{listen: 8080}}\nprobes: [{HEARTBEAT}]",
    "a heartbeat without fields": "probes: [{name: Backup, heartbeat: text}]",
    "a name that is not text": "probes: [{name: [Backup], heartbeat: {token: 0123456789abcdefg, every: 1h}}]",
    "a list instead of sections": "- 1",
}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID)
def test_an_invalid_configuration_has_no_address(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "watchdog.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert load_heartbeat_check_in_url_from_raw_config(file, "Backup", ENV) == ""
    with pytest.raises(LookupError):
        load_check_in_url_from_validated_config(file, "Backup", ENV)


@pytest.mark.parametrize(
    "text",
    [
        f'probes: [{HEARTBEAT}, {{name: Web, http: "${{UNSET}}"}}]',
        f"receivers: {{oncall: {{slack: {{webhook: '${{UNSET}}'}}}}}}\nprobes: [{HEARTBEAT}]",
        f"nonsense: 1\nprobes: [{HEARTBEAT}]",
    ],
)
def test_problems_elsewhere_do_not_keep_a_job_from_checking_in(text: str, tmp_path: Path) -> None:
    """A cron job often lacks the secrets that only the service needs."""
    file = tmp_path / "watchdog.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_heartbeat_check_in_url_from_raw_config(file, "Backup", ENV) == LOCAL


BAD_FILES = sorted((ROOT / "tests/config/bad").glob("*.yaml"))


@pytest.mark.parametrize("file", BAD_FILES, ids=lambda file: file.stem)
def test_no_bad_configuration_raises(file: Path) -> None:
    for name in ("Backup", "backup", ""):
        load_heartbeat_check_in_url_from_raw_config(file, name, ENV)
