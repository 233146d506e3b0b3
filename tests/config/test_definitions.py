"""Digests of configurations: equal if two processes mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchdog.config.definitions import ConfigDigests
from watchdog.config.load import load_config

BACKUP_PROBE = '  - {name: Backup, heartbeat: {token: "${BACKUP_TOKEN}", every: 1h}}\n'
CONFIG = """
server: {listen: "127.0.0.1:8080"}
defaults: {every: 60s}
probes:
  - name: API
    http: {url: "${TARGET}/health", headers: {Authorization: "Bearer ${API_TOKEN}"}}
  - {name: Backup, heartbeat: {token: "${BACKUP_TOKEN}", every: 1h}}
  - {name: Jobs, queue: {pgboss: {url: "${JOBS_URL}", queue: mail}}}
receivers:
  oncall: {webhook: {url: "https://hooks.example/in", secret: "${HOOK_SECRET}"}}
routes: [{receivers: [oncall]}]
"""
ENV = {
    "TARGET": "http://api.example",
    "API_TOKEN": "0123456789abcdef-api",
    "BACKUP_TOKEN": "0123456789abcdef-backup",
    "JOBS_URL": "postgresql://reader:hush-hush@db.example/app",
    "HOOK_SECRET": "0123456789abcdef-hook",
}


def definitions(text: str = CONFIG, **env: str) -> ConfigDigests:
    return ConfigDigests(load_config(None, text, ENV | env))


ORIGINAL = definitions()


@pytest.mark.parametrize(
    ("sentence", "text", "env"),
    [
        ("a rotated token", CONFIG, {"BACKUP_TOKEN": "fedcba9876543210-backup"}),
        ("a rotated password in a URL", CONFIG, {"JOBS_URL": "postgresql://reader:other-one@db.example/app"}),
        ("a rotated credential in a header", CONFIG, {"API_TOKEN": "fedcba9876543210-api"}),
        ("a rotated secret of a receiver", CONFIG, {"HOOK_SECRET": "fedcba9876543210-hook"}),
        ("another address to listen on", CONFIG.replace("8080", "9090"), {}),
        ("another database", f"storage: {{url: 'sqlite:///other.db'}}\n{CONFIG}", {}),
        ("another duration with the same value", CONFIG.replace("60s", "1m"), {}),
        ("a default written out", CONFIG.replace("defaults: {every: 60s}", "defaults: {every: 60s, retries: 0}"), {}),
        ("a value in place of a default for it", CONFIG.replace("name: API", "name: API\n    every: 1m"), {}),
        (
            "probes in another order",
            CONFIG.replace(BACKUP_PROBE, "").replace("probes:\n", f"probes:\n{BACKUP_PROBE}"),
            {},
        ),
        ("a comment", f"# our probes\n{CONFIG}", {}),
    ],
)
def test_the_same_content_has_the_same_digest(sentence: str, text: str, env: dict[str, str]) -> None:
    assert definitions(text, **env).digest == ORIGINAL.digest, sentence
    assert definitions(text, **env).compute_probe_digests() == ORIGINAL.compute_probe_digests(), sentence
    assert definitions(text, **env).compute_destination_digests() == ORIGINAL.compute_destination_digests(), sentence


@pytest.mark.parametrize(
    ("sentence", "text", "env", "changed_probes", "changed_destinations"),
    [
        ("a variable with another value", CONFIG, {"TARGET": "http://other.example"}, {"api"}, set()),
        ("another host", CONFIG, {"JOBS_URL": "postgresql://reader:hush-hush@new.example/app"}, {"jobs"}, set()),
        ("a default", CONFIG.replace("60s", "30s"), {}, {"api", "backup", "jobs"}, set()),
        ("a field", CONFIG.replace("every: 1h", "every: 2h"), {}, {"backup"}, set()),
        ("the name of a secret", CONFIG.replace("${BACKUP_TOKEN}", "${API_TOKEN}"), {}, {"backup"}, set()),
        ("a receiver", CONFIG.replace("hooks.example", "hooks2.example"), {}, set(), {"oncall/webhook"}),
        ("send_resolved", CONFIG.replace("{webhook", "{send_resolved: false, webhook"), {}, set(), {"oncall/webhook"}),
        ("a route", CONFIG.replace("[oncall]}", "[oncall], match: {probe: api}}"), {}, set(), set()),
        ("the status page", f"{CONFIG}status_page: {{title: Acme}}\n", {}, set(), set()),
    ],
)
def test_other_content_has_another_digest(
    sentence: str, text: str, env: dict[str, str], changed_probes: set[str], changed_destinations: set[str]
) -> None:
    changed = definitions(text, **env)
    assert changed.digest != ORIGINAL.digest, sentence
    for digests, original, expected in (
        (changed.compute_probe_digests(), ORIGINAL.compute_probe_digests(), changed_probes),
        (changed.compute_destination_digests(), ORIGINAL.compute_destination_digests(), changed_destinations),
    ):
        assert {name for name, digest in digests.items() if digest != original[name]} == expected, sentence


def test_a_secret_of_a_file_counts_by_the_path_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("0123456789abcdef")
    (tmp_path / "b").write_text("fedcba9876543210")
    text = "probes: [{name: Backup, heartbeat: {token_file: PATH, every: 1h}}]"

    def digest(path: str) -> str:
        return ConfigDigests(load_config(tmp_path / "watchdog.yaml", text.replace("PATH", path), {})).digest

    first, other = digest("a"), digest("b")
    (tmp_path / "a").write_text("another-secret-value")
    assert digest("a") == first != other
