"""Reads expressions of Prometheus: which series they select, and by which labels they group."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
ALERT_RULES_FILE = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD_FILES = sorted((ROOT / "deploy/grafana").glob("*.json"))
SELECTOR = re.compile(r"\b(?P<name>(?:watchdog_\w+|up))(?:\{(?P<matchers>[^}]*)\})?")
MATCHER = re.compile(r'(?P<label>\w+)\s*(?P<operator>=~|!~|!=|=)\s*"(?P<value>(?:[^"\\]|\\.)*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
TARGET_LABELS = frozenset({"instance", "job"})
"""Labels that Prometheus adds."""


class LabelMatcher(NamedTuple):
    label: str
    operator: str
    value: str


class SeriesSelector(NamedTuple):
    name: str
    matchers: tuple[LabelMatcher, ...]


def find_promtool() -> str | None:
    """The path of its binary."""
    return shutil.which("promtool")


def run_promtool(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    program = find_promtool()
    assert program is not None
    return subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False)


def list_selectors(expression: str) -> list[SeriesSelector]:
    return [
        SeriesSelector(match["name"], tuple(LabelMatcher(*m) for m in MATCHER.findall(match["matchers"] or "")))
        for match in SELECTOR.finditer(expression)
    ]


def list_grouping_labels(expression: str) -> set[str]:
    return {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")} - {""}


def load_dashboard(file: Path) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return dashboard


def list_dashboard_expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The title and the expression of each panel, with Grafana's variables replaced by values."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m")
            yield panel["title"], re.sub(r"\$\w+", ".*", expression)


def list_alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERT_RULES_FILE.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def find_unmatched_selectors(expression: str, series: Iterable[tuple[str, dict[str, str]]]) -> list[str]:
    """What the expression selects and groups by that no series has. `series`: names and labels."""
    listed = [(name, labels) for name, labels in series]
    problems = []
    selected_labels = set(TARGET_LABELS)
    for selector in list_selectors(expression):
        if selector.name == "up":
            continue
        candidates = [labels for name, labels in listed if name == selector.name]
        selected_labels |= {label for labels in candidates for label in labels}
        matchers = [matcher for matcher in selector.matchers if matcher.label not in TARGET_LABELS]
        if not any(all(_matches(labels, matcher) for matcher in matchers) for labels in candidates):
            problems.append(f"{selector.name}{list(selector.matchers)}")
    return problems + sorted(list_grouping_labels(expression) - selected_labels)


def _matches(labels: dict[str, str], matcher: LabelMatcher) -> bool:
    if matcher.label not in labels:
        return False
    is_pattern, is_negated = matcher.operator.endswith("~"), matcher.operator.startswith("!")
    value = labels[matcher.label]
    is_equal = re.fullmatch(matcher.value, value) is not None if is_pattern else matcher.value == value
    return is_equal != is_negated
