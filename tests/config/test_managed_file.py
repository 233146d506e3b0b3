"""The managed file: it is read like an included one, and only the lines of one probe ever change."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.config.load import load_config
from watchdog.config.managed_file import ManagedFileText, ManagedTextError, compute_managed_version
from watchdog.config.problems import ConfigError
from watchdog.config.yaml_spans import parse_yaml_into_comparable_structure

MAIN = "managed: conf.d/managed.yaml\ninclude: [conf.d/*.yaml]\nprobes: [{name: Main, http: 'http://a.test/'}]\n"
TEXT = """\
# Ours; see the wiki
probes:
  # The first
  - name: A   # keep this name
    http: {url: "http://a.test/",
           method: POST}
    expect: ["status == 200"]
    # every: 5s would be too often

  -
    # B is slow
    name: B
    http:
      url: http://b.test/
      body: |
        one

        two
      method: PUT
  - {name: C, http: "http://c.test/"}
# The end
receivers: {}
"""


def edit(text: str) -> ManagedFileText:
    return ManagedFileText(text.encode(), "managed.yaml")


@pytest.fixture
def main(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "watchdog.yaml").write_text(MAIN)
    return tmp_path / "watchdog.yaml"


def test_it_is_read_last_and_once(main: Path) -> None:
    (main.parent / "conf.d/managed.yaml").write_text("probes: [{name: Own, http: 'http://b.test/'}]")
    (main.parent / "conf.d/zzz.yaml").write_text("probes: [{name: Last, http: 'http://b.test/'}]")
    loaded = load_config(main, env={})
    assert [probe.id for probe in loaded.config.probes] == ["main", "last", "own"]
    assert (loaded.managed_file, loaded.managed_probe_ids) == (
        main.parent / "conf.d/managed.yaml",
        frozenset({"own"}),
    )


@pytest.mark.parametrize("text", [None, "", "# nothing yet\n", "probes: []"])
def test_it_may_be_missing_or_empty(main: Path, text: str | None) -> None:
    file = main.parent / "conf.d/managed.yaml"
    if text is not None:
        file.write_text(text)
    loaded = load_config(main, env={})
    assert loaded.managed_probe_ids == frozenset()
    assert file in loaded.files.paths, "its creation leads to a reload"


def test_another_text_takes_its_place(main: Path) -> None:
    (main.parent / "conf.d/managed.yaml").write_text("not: valid")
    loaded = load_config(main, env={}, managed_text="probes: [{name: Own, http: 'http://b.test/'}]")
    assert loaded.managed_probe_ids == {"own"}


def test_a_folder_that_is_missing_is_a_warning(main: Path) -> None:
    main.write_text(MAIN.replace("managed: conf.d", "managed: nowhere"))
    (warning,) = [w.message for w in load_config(main, env={}).warnings if w.path == "managed"]
    assert "nowhere does not exist, so no probe can be added: create the folder" in warning


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("watchdog.yaml", "the managed file cannot be the main file: name a file of its own"),
        ("conf.d", "not a regular file"),
        ('"a\\0b"', "expected the path of a file"),
        ("[a]", "expected a mapping of fields, found a list"),
        ('""', "expected at least one character"),
        ("{variables: [A]}", "required field is missing"),
    ],
)
def test_a_value_that_is_not_valid(main: Path, value: str, message: str) -> None:
    main.write_text(f"managed: {value}\nprobes: []\n")
    with pytest.raises(ConfigError, match=r"watchdog\.yaml:1:") as caught:
        load_config(main, env={})
    assert message in str(caught.value)


def test_problems_name_its_line_and_field(main: Path) -> None:
    (main.parent / "conf.d/managed.yaml").write_text("probes:\n  - name: A\n    evry: 5s\n    http: http://a.test/\n")
    with pytest.raises(ConfigError, match=r"managed\.yaml:3:5: probes\.0\.evry: .*did you mean 'every'"):
        load_config(main, env={})


def test_an_included_file_cannot_name_one(main: Path) -> None:
    (main.parent / "conf.d/other.yaml").write_text("managed: x.yaml")
    with pytest.raises(ConfigError, match="`managed` is allowed only in the main file"):
        load_config(main, env={})


# --- its text


def test_each_probe_is_listed_with_its_text() -> None:
    entries = edit(TEXT).entries
    assert [(e.line, e.id, e.name) for e in entries] == [(4, "a", "A"), (10, "b", "B"), (20, "c", "C")]
    assert entries[0].yaml == (
        'name: A   # keep this name\nhttp: {url: "http://a.test/",\n       method: POST}\nexpect: ["status == 200"]'
        "\n# every: 5s would be too often"
    )
    assert entries[1].yaml.startswith("# B is slow\nname: B\nhttp:\n  url")
    assert entries[2].yaml == '{name: C, http: "http://c.test/"}'


def test_only_the_lines_of_a_probe_are_replaced() -> None:
    new = edit(TEXT).replace(1, "name: B\nhttp: http://bb.test/")
    before, after = TEXT.index("  -\n"), TEXT.index("  - {name: C")
    assert new == f"{TEXT[:before]}  - name: B\n    http: http://bb.test/\n{TEXT[after:]}"


def test_only_the_lines_of_a_probe_are_removed() -> None:
    text = TEXT
    for index in (2, 0, 0):
        text = edit(text).remove(index)
    assert text == "# Ours; see the wiki\nprobes: []\n  # The first\n\n# The end\nreceivers: {}\n"
    assert edit(text).add("name: D").startswith("# Ours; see the wiki\nprobes:\n  - name: D\n  # The first\n")


def test_comments_below_a_probe_belong_to_it_if_they_are_indented_like_it() -> None:
    text = edit("probes:\n- name: A\n\n  # own\n\n  # last\n\n# of B\n- name: B\n# end\n")
    assert [entry.yaml for entry in text.entries] == ["name: A\n\n# own\n\n# last", "name: B"]
    assert text.replace(0, "name: A") == "probes:\n- name: A\n\n# of B\n- name: B\n# end\n"
    again = edit(text.replace(1, "name: B\n# own comment"))
    assert again.replace(1, again.entries[1].yaml) == again.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# only this\n", "# only this\nprobes:\n  - name: Z\n"),
        ("probes:", "probes:\n  - name: Z\n"),
        ("probes: []  # none\n# end\n", "probes:  # none\n  - name: Z\n# end\n"),
        ("routes: []\n", "routes: []\nprobes:\n  - name: Z\n"),
        ("probes:\n- name: A\n# end", "probes:\n- name: A\n# end\n- name: Z\n"),
        ("probes:\r\n    - name: A\r\n", "probes:\r\n    - name: A\r\n    - name: Z\r\n"),
        ("\ufeffprobes:\n  - name: A\n", "\ufeffprobes:\n  - name: A\n  - name: Z\n"),
        ("probes:\n  - name: A\nroutes: []\n", "probes:\n  - name: A\n  - name: Z\nroutes: []\n"),
        ("---\nprobes:\n  - name: A\n", "---\nprobes:\n  - name: A\n  - name: Z\n"),
    ],
)
def test_a_probe_is_added_in_the_style_of_the_file(text: str, expected: str) -> None:
    assert edit(text).add("name: Z") == expected
    new = edit(expected)
    assert parse_yaml_into_comparable_structure(new.remove(len(new.entries) - 1).lstrip("\ufeff"))


def test_the_first_probe_creates_the_file_with_a_heading() -> None:
    new = edit("").add("name: Z")
    assert new.startswith("# Probes that operators have created")
    assert edit(new).entries[0].id == "z"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("probes: [\n", "managed.yaml:1:10: .*correct the file by hand"),
        ("probes: [{name: A}]", "written in brackets: begin a line with `- `"),
        ("{probes: []}", "not written as `probes:`"),
        ("- name: A", "not written as `probes:`"),
        ("probes: []\nprobes: []", "duplicate key"),
        ("probes: {a: 1}", "written in brackets"),
        ("a: &a [*a]", "correct the file by hand"),
    ],
)
def test_a_file_that_cannot_be_edited(text: str, message: str) -> None:
    with pytest.raises(ManagedTextError, match=message):
        edit(text)


def test_a_file_that_is_no_text() -> None:
    with pytest.raises(ManagedTextError, match="not UTF-8"):
        ManagedFileText(b"\xff", "managed.yaml")


def test_probes_that_share_values_are_edited_by_hand() -> None:
    text = edit(
        "probes:\n  - &a {name: A}\n  - *a\n  - name: B\n    tags: &t [x]\n  - name: C\n    tags: *t\n  - name: D\n"
    )
    assert [entry.yaml for entry in text.entries] == ["", "", "", "", "name: D"]
    with pytest.raises(ManagedTextError, match="without changing others"):
        text.remove(0)


@pytest.mark.parametrize(
    "probe",
    [
        "name: x\n- name: y",
        "name: x\n---\nname: y",
        "name: x\n...\nroutes: []",
        "%YAML 1.1\n---\nname: x",
        "}",
        "name: x\x85routes: []",
        "name: x\u2028y: z",
        "name: *a",
        "name: 'x",
        "name: x\n\ty: z",
    ],
)
def test_no_text_reaches_beyond_its_probe(probe: str) -> None:
    text = edit("probes:\n  - name: A\n  - name: B\nroutes: []\n")
    with pytest.raises(ManagedTextError, match="cannot be written into"):
        text.replace(0, probe)
    with pytest.raises(ManagedTextError, match="cannot be written into"):
        text.add(probe)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("-: \n#{}[]&*!|>'\"%@`ab\t,?\r\x85\u2028")), max_size=30))
def test_any_text_is_refused_or_stays_within_its_probe(probe: str) -> None:
    text = edit(TEXT)
    try:
        new = text.replace(1, probe)
    except ManagedTextError:
        return
    assert new.startswith(TEXT[: TEXT.index("  -\n")])
    assert new.endswith(TEXT[TEXT.index("  - {name: C") :])
    assert len(edit(new).entries) == 3


def test_the_version_is_of_the_bytes() -> None:
    assert compute_managed_version(b"a") != compute_managed_version(b"a\n")
    assert len(compute_managed_version(b"")) == 32
