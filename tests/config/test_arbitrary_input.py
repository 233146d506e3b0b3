"""Arbitrary files either load or are rejected with readable problems. Nothing else can happen."""

from __future__ import annotations

from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.config.error_messages import list_yaml_field_names
from watchdog.config.load import load_config
from watchdog.config.models import ApiKeySettings, Config
from watchdog.config.problems import CONFIG_FIELD_SYNONYMS, ConfigError
from watchdog.probes import PROBE_KINDS

SECRET = "s3cr3t-0123456789"
ENV = {"SECRET": SECRET, "N": "5", "E": ""}
FULL = (Path(__file__).parents[2] / "examples/full.yaml").read_text().replace("include:", "tags:")


def load_error(path: Path | None, text: str | None = None) -> ConfigError | None:
    try:
        load_config(path, text, ENV)
    except ConfigError as e:
        return e
    return None


def assert_loads_or_explains(text: str) -> None:
    if error := load_error(None, text):
        assert error.problems
        for problem in error.problems:
            assert problem.message
            assert str(problem).isprintable()
        assert SECRET not in str(error)


@settings(deadline=None)
@given(st.text())
def test_any_text(text: str) -> None:
    assert_loads_or_explains(text)


@settings(deadline=None)
@given(st.binary())
def test_any_bytes(tmp_path_factory: object, content: bytes) -> None:
    assert hasattr(tmp_path_factory, "getbasetemp")
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    error = load_error(path)
    assert error is None or error.problems


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(
    [*"{}[]:,-?&*!|>'\"%@`#$\n \t", "- ", ": ", "\n  ", "probes", "name", "http", "mcp", "receivers", "routes",
     "defaults", "every", "${SECRET}", "${N}", "${U}", "<<", "&a ", "*a", "!!int ", "null", "0x1", "5m", "https://a.b/"]
)))  # fmt: skip
def test_any_pieces_of_yaml(pieces: list[str]) -> None:
    assert_loads_or_explains("".join(pieces))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_damage_to_a_valid_file(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(FULL)))
    stop = data.draw(st.integers(start, min(start + 30, len(FULL))))
    assert_loads_or_explains(FULL[:start] + data.draw(st.text(max_size=5)) + FULL[stop:])


NAMES = sorted(
    {
        *list_yaml_field_names(Config),
        *list_yaml_field_names(ApiKeySettings),
        *PROBE_KINDS,
        *(name for kind in PROBE_KINDS.values() for name in list_yaml_field_names(kind)),
    }
    | {*CONFIG_FIELD_SYNONYMS}
    | {
        "url",
        "tool",
        "call",
        "tasks",
        "slack",
        "email",
        "webhook",
        "log",
        "severity",
        "failure_threshold",
        "listen",
        "x",
        "*",
    }
)
LEAVES = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "5m", "https://a.example/", "${SECRET}", "x${SECRET}y", "${N}", "${E}", "${U}", "$$",
                       "off", "status == 200", "* * * * *", "oncall", "0.0.0.0:80", "postgresql://w:${SECRET}@db/x"])
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(NAMES), below, max_size=4),
    max_leaves=12,
)
PROBES = st.dictionaries(
    st.sampled_from(["name", "id", *PROBE_KINDS, "every", "schedule", "alert", "expect", "x"]), TREES
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        **{name: TREES for name in list_yaml_field_names(Config) if name != "include"},
        "probes": st.lists(PROBES, max_size=3) | TREES,
        "receivers": st.dictionaries(st.sampled_from(["oncall", "chat", "a/b"]), TREES) | TREES,
    },
)


@settings(max_examples=100, deadline=None)
@given(FILES)
def test_any_tree_of_known_fields(tree: object) -> None:
    assert_loads_or_explains(yaml.safe_dump(tree))
