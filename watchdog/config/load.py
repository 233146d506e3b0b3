"""Loads a configuration: read and merge the files, validate the sections, check references between them. All problems
are reported at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from watchdog.config.cross_checks import cross_validate_config_and_resolve_references
from watchdog.config.defaults import merge_defaults_into_probe_node
from watchdog.config.error_messages import (
    list_yaml_field_names,
    retype_variable_values_after_validation_error,
    translate_validation_errors,
)
from watchdog.config.models import Config, ReceiverNotifiersSettings
from watchdog.config.problems import (
    NO_CONFIG_FILES,
    ConfigError,
    ConfigProblem,
    ConfiguredDatabase,
    ServiceConnectionInfo,
    WatchedConfigPaths,
    build_did_you_mean_suffix,
)
from watchdog.config.routes import NotificationRouteSettings
from watchdog.config.secrets import (
    build_mask_of_invalid_config,
    collect_placeholders_by_secret,
    collect_secrets,
    mask_secrets_in_displayed_config_fields,
    mask_yaml_tree,
    redact_config_problems,
)
from watchdog.config.sources import MergedConfigSources, read_and_merge_config_files
from watchdog.config.warnings import find_config_warnings
from watchdog.config.yaml_tree import YamlNode, format_yaml_key_for_message
from watchdog.config_types import ConfigFileValidationContext, ConfigModel
from watchdog.config_values import build_local_base_url
from watchdog.net.redact import SecretMask
from watchdog.probes import PROBE_KINDS, Probe

ModelT = TypeVar("ModelT", bound=ConfigModel)


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration, ready to run."""

    config: Config
    probe_yaml: Mapping[str, str]
    """Probe id -> its configuration in YAML, as written: variables not replaced, defaults merged."""
    mask: SecretMask
    """Masks every secret of the configuration."""
    warnings: Sequence[ConfigProblem] = ()
    """What is valid but has no effect, such as a route that matches no probe."""
    secret_names: Mapping[str, str] = field(default_factory=dict)
    """Value of a variable or secret -> where it is from: `${NAME}`, or the path of a file."""
    files: WatchedConfigPaths = NO_CONFIG_FILES
    managed_file: Path | None = None
    """The file that pages and the API write probes to; None: there is none."""
    managed_probe_ids: frozenset[str] = frozenset()
    """The probes in that file."""

    @property
    def database(self) -> ConfiguredDatabase:
        return ConfiguredDatabase(self.config.storage.url, self.mask)

    @property
    def service(self) -> ServiceConnectionInfo:
        return _build_service_connection_info(self.config)


def load_config(
    path: Path | None,
    text: str | None = None,
    env: Mapping[str, str] = os.environ,
    *,
    regular_files_only: bool = False,
    managed_text: str | None = None,
) -> LoadedConfig:
    """Load a file, or `text` in its place (`path` is then its name). Raises ConfigError with all problems.
    `managed_text`: in place of the managed file.

    `regular_files_only`: refuse named pipes, which can be read once only and may wait for their writer.
    """
    sources = read_and_merge_config_files(
        path, text, env, regular_files_only=regular_files_only, managed_text=managed_text
    )
    sources.probes = [merge_defaults_into_probe_node(sources.root.get("defaults"), probe) for probe in sources.probes]
    builder = _ConfigModelFromYamlBuilder(sources)
    probes = {probe.id: (node, probe) for node in sources.probes if (probe := builder.build_probe(node)) is not None}
    sections = {name: value for name in sources.root if (value := builder.build_config_section_value(name)) is not None}
    sections["probes"] = tuple(probe for _, probe in probes.values())
    sections["receivers"] = {
        name: value for name in sources.receivers if (value := builder.build_receiver_settings(name)) is not None
    }
    sections["routes"] = tuple(
        route
        for node in sources.routes
        if (route := builder.build_config_model_of_yaml_node(NotificationRouteSettings, node, "routes"))
    )
    config = cross_validate_config_and_resolve_references(Config.model_construct(**sections), sources)
    files = WatchedConfigPaths(
        frozenset(chain(sources.watched_paths, *(each.watched_paths for each in builder.load_contexts.values()))),
        frozenset(sources.include_patterns),
    )
    if sources.problems:
        raise _build_config_error_of_redacted_problems(config, sources, builder, files)
    secrets = collect_secrets(sources, builder.load_contexts.values(), config)
    mask = SecretMask(secrets.by_value, secrets.in_target)
    probe_yaml = {id: _dump_yaml(mask_yaml_tree(node, mask)) for id, (node, _) in probes.items()}
    sources.warnings += secrets.warnings
    warnings = [w._replace(message=mask(w.message)) for w in find_config_warnings(config, sources)]
    secret_names = collect_placeholders_by_secret(sources, builder.load_contexts.values())
    config = mask_secrets_in_displayed_config_fields(config, mask)
    managed = frozenset(id for id, (node, _) in probes.items() if node.location.file == str(sources.managed_file))
    return LoadedConfig(
        *(config, probe_yaml, mask, tuple(warnings), secret_names),
        files=files,
        managed_file=sources.managed_file,
        managed_probe_ids=managed,
    )


def _build_config_error_of_redacted_problems(
    config: Config, sources: MergedConfigSources, builder: _ConfigModelFromYamlBuilder, files: WatchedConfigPaths
) -> ConfigError:
    contexts = builder.load_contexts.values()
    database = None
    if _is_section_valid_or_absent(sources, "storage"):
        database = ConfiguredDatabase(config.storage.url, build_mask_of_invalid_config(sources, contexts))
    is_service_known = _is_section_valid_or_absent(sources, "server") and _is_section_valid_or_absent(sources, "access")
    service = _build_service_connection_info(config) if is_service_known else None
    return ConfigError(redact_config_problems(sources, contexts), files, database, service)


def _build_service_connection_info(config: Config) -> ServiceConnectionInfo:
    base_url = build_local_base_url(config.server.listen) if config.server.bind_address[1] else ""
    keys = sorted(config.access.api_keys, key=lambda key: key.role != "operator")
    return ServiceConnectionInfo(base_url, config.server.public_url, keys[0].key.get_secret_value() if keys else "")


def _is_section_valid_or_absent(sources: MergedConfigSources, name: str) -> bool:
    """True also without such a section. False if it may have another name or place: the default would be wrong."""
    if not sources.root:
        return False
    paths = [problem.path.split(".") for problem in sources.problems]
    if name in sources.root:
        return all(path[0] != name for path in paths)
    has_unreadable_key = [""] in paths  # such as a merge key
    is_elsewhere = any(name in node.mapping_entries for tree in sources.trees for node in tree.walk())
    return not has_unreadable_key and not is_elsewhere and sources.root.keys() <= {*list_yaml_field_names(Config)}


def _dump_yaml(tree: Any) -> str:
    return str(yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120))


class _ConfigModelFromYamlBuilder:
    """Builds models from YAML nodes and adds their problems to the sources."""

    def __init__(self, sources: MergedConfigSources):
        self.sources = sources
        self.load_contexts = {
            file: ConfigFileValidationContext(folder, regular_files_only=sources.regular_files_only)
            for file, folder in sources.base_folders.items()
        }

    def build_config_model_of_yaml_node(self, model: type[ModelT], node: YamlNode, section: str) -> ModelT | None:
        """The model of a node, or None if it is invalid. `section`: the field that holds the node."""
        while True:
            try:
                return model.model_validate(node.to_python(), context=self.load_contexts[node.location.file])
            except ValidationError as e:
                if not retype_variable_values_after_validation_error(e, node):
                    self.sources.problems += translate_validation_errors(e, model, node, section)
                    return None

    def build_config_section_value(self, name: str) -> Any:
        """The value of a section of the main file. None for sections that included files can hold, too."""
        if name in ("probes", "receivers", "routes"):
            return None
        node = self.sources.root[name]
        config = self.build_config_model_of_yaml_node(
            Config, YamlNode({name: node}, node.key_location, "", node.key_location), ""
        )
        return config and getattr(config, name)

    def build_receiver_settings(self, name: str) -> Any:
        return self.build_config_model_of_yaml_node(
            ReceiverNotifiersSettings, self.sources.receivers[name], "receivers"
        )

    def build_probe(self, node: YamlNode) -> Probe | None:
        if not isinstance(node.value, dict):
            if not node.invalid:
                self.sources.add_problem(node.location, node.path, "expected a mapping with a name and a probe kind")
            return None
        kinds = [kind for kind in PROBE_KINDS if kind in node.mapping_entries]
        if len(kinds) == 1:
            return self.build_config_model_of_yaml_node(PROBE_KINDS[kinds[0]], node, "probes")
        if kinds:
            second = node.mapping_entries[kinds[1]]
            message = f"a probe has exactly one kind, and this one already has {kinds[0]}: remove one of them"
            self.sources.add_problem(second.key_location, second.path, message)
        else:
            self._report_missing_probe_kind(node)
        return None

    def _report_missing_probe_kind(self, node: YamlNode) -> None:
        """Report the missing kind, and still validate the fields that every kind has."""
        common_fields = list_yaml_field_names(Probe)
        unknown_names = [name for name in node.mapping_entries if name not in common_fields]
        for name in unknown_names:
            entry = node.mapping_entries[name]
            hint = build_did_you_mean_suffix(name, common_fields)
            hint = hint or f"{build_did_you_mean_suffix(name, PROBE_KINDS)} (probe kinds: {', '.join(PROBE_KINDS)})"
            self.sources.add_problem(
                entry.key_location, entry.path, f"unknown field '{format_yaml_key_for_message(name)}'{hint}"
            )
        if not unknown_names:
            self.sources.add_problem(node.location, node.path, f"no probe kind: add one of {', '.join(PROBE_KINDS)}")
        kind, model = next(iter(PROBE_KINDS.items()))
        validated = {
            name: entry
            for name, entry in node.mapping_entries.items()
            if name in {*common_fields} - {"expect", "prefer"}
        }
        kind_path = f"{node.path}.{kind}"
        first_new = len(self.sources.problems)
        self.build_config_model_of_yaml_node(
            model, YamlNode(validated, node.location, node.path, node.key_location), "probes"
        )
        self.sources.problems[first_new:] = [p for p in self.sources.problems[first_new:] if p.path != kind_path]
