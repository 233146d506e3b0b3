"""Where a configuration uses the values of its variables, files and literals: which of them are secrets, by structure.

A value is a declared secret if its field, header, parameter, argument or variable has the name of a secret, or if it is
the password of a URL.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from watchdog.config.references import list_config_variable_names, replace_config_variables_with_callback
from watchdog.config.yaml_tree import YamlNode
from watchdog.net.command_line import find_secret_spans_by_argument_index
from watchdog.net.redact import SECRET_NAME_PATTERN
from watchdog.net.secret_fields import Span, find_value_spans_of_secret_named_fields, list_field_value_decodings

MIN_MASKED_SECRET_CHARS = 8
"""Secrets are masked by value from this length on. Shorter ones would mask parts of ordinary words."""
_POSSIBLY_SECRET_URL_PARAMETERS = frozenset({"key", "auth", "code"})
"""Parameters of a URL whose value is a secret if it is long enough."""
_DISPLAYED_TARGET_CONFIG_FIELD_NAMES = frozenset(
    {"queue", "schema", "table", "prefix", "host", "port", "channel", "tool", "job", "vhost", "tcp", "tls"}
)
"""Fields that state what is monitored, and kinds whose short form states it. Their values are visible, also those from
variables."""
_DISPLAYED_LINK_CONFIG_FIELD_NAMES = frozenset({"runbook", "public_url"})
"""URLs for people: no targets."""
FIELD_NAMES_THAT_ONLY_LOOK_SECRET = frozenset({"token_url"})
"""Of Watchdog's own fields: the URL of a token endpoint is no secret."""
_CONFIG_FIELD_NAMES_OF_JSON_SENT_TO_TARGET = frozenset({"json", "payload", "arguments", "args"})
"""Fields whose content is sent to the target, with names that are not Watchdog's."""
_AUTHORIZATION_SCHEMES = frozenset({"apikey", "basic", "bearer", "token"})
_URL_PARTS_PATTERN = re.compile(
    r"(?P<scheme>[^:/?#\s]+)://(?:(?P<user>[^/?#@:]*)(?::(?P<password>[^/?#]*))?@)?(?P<address>[^/?#@]*)"
    r"(?P<path>[^?#]*)(?P<query>.*)",
    re.DOTALL,
)
_STEP_FIELD_PATH_PATTERN = re.compile(r"(?:probes\.[0-9]+\.)?steps\.[0-9]+\.(?P<capture>capture\.)?")
"""The path of a field of a step of a `steps` probe."""
_CAPTURE_PLACEHOLDER_ALONE_PATTERN = re.compile(r"(?:[A-Za-z]+ )?\{[A-Za-z_][A-Za-z0-9_]*\}")
"""A placeholder that a step of a `steps` probe replaces when it runs, also after the scheme of an `Authorization`
header: the text in the configuration is no secret."""
_URL_PARAMETER_PATTERN = re.compile(r"(?<=[?&;#])(?P<name>[^=&;#]+)=(?P<value>[^&;#]*)")


@dataclass
class ConfigValuesBySensitivity:
    """Where the values of a configuration are used."""

    secret: list[tuple[str, YamlNode]] = field(default_factory=list)
    """Declared secrets: in a secret field or header, as the password or in the query of a URL, as the argument of a
    command, or of a variable with the name of a secret."""
    secret_variables: set[str] = field(default_factory=set)
    """The names of variables that hold a secret."""
    shown_variables: dict[str, str] = field(default_factory=dict)
    """Name -> value of the variables inside what targets show: the path of a URL, and a command."""
    visible: set[str] = field(default_factory=set)
    """Values of variables that say what is monitored."""
    other: set[str] = field(default_factory=set)
    """All other values of variables and files."""

    def add_secrets(self, values: Iterable[str], node: YamlNode) -> None:
        is_in_step = _STEP_FIELD_PATH_PATTERN.match(node.path) is not None
        self.secret += [
            (value, node)
            for value in values
            if value and not (is_in_step and _CAPTURE_PLACEHOLDER_ALONE_PATTERN.fullmatch(value))
        ]

    def add_secret_variables(self, variables: Mapping[str, str], node: YamlNode) -> None:
        self.secret_variables |= variables.keys()
        self.add_secrets(variables.values(), node)

    @property
    def secret_values(self) -> set[str]:
        return {value for value, _ in self.secret}

    @property
    def secret_values_in_target(self) -> set[str]:
        """Declared secrets inside the path of a URL, or a command."""
        return {value for name, value in self.shown_variables.items() if value and name in self.secret_variables}


def classify_config_values_by_sensitivity(
    trees: Iterable[YamlNode], file_contents: Mapping[str, Sequence[str]]
) -> ConfigValuesBySensitivity:
    """`file_contents`: path as written -> what the files of fields that end in `_file` hold."""
    uses = ConfigValuesBySensitivity()
    for tree in trees:
        for node in tree.walk():
            key = node.path.rpartition(".")[2]
            arguments = node.list_items if is_command_line_field(node.path) else ()
            for argument, spans in find_argument_nodes_with_secret_spans(arguments):
                _record_embedded_secrets(argument, spans, uses)
            if not isinstance(node.value, dict | list):
                _record_embedded_secrets(node, find_embedded_secret_spans(node), uses)
                _record_yaml_scalar_sensitivity(node, key, file_contents, uses)
    return uses


def is_command_line_field(path: str) -> bool:
    """Whether the field holds the arguments of a command: `mcp.command`, `command.run`, or `command` for short."""
    return f".{path}".endswith((".command", ".command.run"))


def find_argument_nodes_with_secret_spans(arguments: Sequence[YamlNode]) -> Iterator[tuple[YamlNode, list[Span]]]:
    """The arguments of a command that hold secrets, and where in the text as written."""
    secrets = find_secret_spans_by_argument_index([get_yaml_text_as_written(argument) for argument in arguments])
    yield from ((arguments[index], spans) for index, spans in secrets.items())


def find_embedded_secret_spans(node: YamlNode) -> list[Span]:
    """Where the text of a body, a query or another text to send, of JSON for the target, of a header or an environment
    variable, as written, holds fields with the name of a secret."""
    keys = node.path.split(".")
    is_in_mapping = len(keys) > 1 and keys[-2] in ("env", "headers", "metadata")
    is_free_text = (
        keys[-1] in ("body", "query", "send")
        or is_in_mapping
        or not _CONFIG_FIELD_NAMES_OF_JSON_SENT_TO_TARGET.isdisjoint(keys)
    )
    return find_value_spans_of_secret_named_fields(get_yaml_text_as_written(node)) if is_free_text else []


def is_field_named_like_secret(path: str) -> bool:
    """Whether a field, or the list that an item is in, has the name of a secret. In JSON for the target, this extends
    to everything below."""
    keys = path.split(".")
    if keys[-1].endswith("_file"):
        return False
    if (step_field := _STEP_FIELD_PATH_PATTERN.match(path)) and step_field["capture"]:
        return False  # what is captured may be named like a secret, but is written as an expression
    start = next((i for i, key in enumerate(keys) if key in _CONFIG_FIELD_NAMES_OF_JSON_SENT_TO_TARGET), None)
    if start is None:
        names = [key for key in keys if not key.isdecimal()][-1:]
        return any(SECRET_NAME_PATTERN.search(name) and name not in FIELD_NAMES_THAT_ONLY_LOOK_SECRET for name in names)
    names = keys[start + 1 :]
    return any(SECRET_NAME_PATTERN.search(name) for name in names)


def get_yaml_text_as_written(node: YamlNode) -> str:
    """With references to variables, unless only their defaults apply."""
    text = node.raw_value if node.variables else _get_interpolated_text(node)
    return text if isinstance(text, str) else ""


def _record_embedded_secrets(node: YamlNode, spans: Iterable[Span], uses: ConfigValuesBySensitivity) -> None:
    for start, end in spans:
        value = get_yaml_text_as_written(node)[start:end]
        if names := list_config_variable_names(value):
            uses.add_secret_variables({name: node.variables.get(name, "") for name in names}, node)
        else:
            scheme, _, credentials = value.partition(" ")
            is_header = scheme.lower() in _AUTHORIZATION_SCHEMES
            uses.add_secrets(
                [
                    *list_field_value_decodings(value),
                    credentials if is_header else "",
                    _parse_basic_auth_password(value),
                ],
                node,
            )


def _get_interpolated_text(node: YamlNode) -> str | None:
    text = node.interpolated_text if node.interpolated_text is not None else node.value
    return text if isinstance(text, str) else None


def _record_yaml_scalar_sensitivity(
    node: YamlNode, key: str, file_contents: Mapping[str, Sequence[str]], uses: ConfigValuesBySensitivity
) -> None:
    text = _get_interpolated_text(node)
    if text is None:
        return
    if key.endswith("_file") and text in file_contents:
        _record_secret_file_contents(node, file_contents[text], uses)
    if key.endswith("_file") and not node.variables:
        return
    if is_field_named_like_secret(node.path):
        uses.add_secret_variables(node.variables, node)
        literals = () if node.variables else (text, text.partition(" ")[2])  # with and without "Bearer"
        uses.add_secrets([*literals, _parse_basic_auth_password(text)], node)
    elif "://" in text and key not in _DISPLAYED_LINK_CONFIG_FIELD_NAMES:
        _record_url_sensitivity(node, text, uses)
    else:
        for name, value in node.variables.items():
            is_shown = key in _DISPLAYED_TARGET_CONFIG_FIELD_NAMES
            if is_command_line_field(node.path.rpartition(".")[0]):
                uses.shown_variables[name] = value
            _record_variable_sensitivity(name, value, node, uses, uses.visible if is_shown else uses.other)


def _record_secret_file_contents(node: YamlNode, contents: Iterable[str], uses: ConfigValuesBySensitivity) -> None:
    """A file holds a secret, or a URL that contains one."""
    for content in contents:
        if "://" in content:
            uses.add_secrets(find_url_secrets(content), node)
            if not node.path.startswith("probes."):
                uses.other.add(content.strip())
        else:
            uses.add_secrets({content, content.strip()}, node)


def _record_url_sensitivity(node: YamlNode, text: str, uses: ConfigValuesBySensitivity) -> None:
    """A target's scheme, address and path are shown. The credentials of any URL, and what variables put into its query,
    are secrets. The path of a receiver's URL often is one, too."""
    uses.add_secrets(_list_spellings_of_url_password_or_user_token(text), node)
    uses.add_secrets(
        (value for name, value in _iter_url_parameter_names_and_values(text) if _is_secret_url_parameter(name, value)),
        node,
    )
    visible = uses.visible if node.path.startswith("probes.") else uses.other
    for name, value in node.variables.items():
        parts = _find_url_parts_with_variable(node, name)
        if "path" in parts:
            uses.shown_variables[name] = value
        if "://" in value:
            uses.add_secrets(find_url_secrets(value), node)
            visible.add(value)
        elif not parts or parts & {"password", "query"}:
            uses.add_secret_variables({name: value}, node)
        else:
            _record_variable_sensitivity(name, value, node, uses, uses.other if "user" in parts else visible)


def _find_url_parts_with_variable(node: YamlNode, name: str) -> set[str]:
    """The parts of a URL that refer to a variable; none if the text as written is no URL."""
    marked = replace_config_variables_with_callback(str(node.raw_value), lambda other: "\0" if other == name else "x")
    written = _URL_PARTS_PATTERN.match(marked)
    return {part for part, text in written.groupdict().items() if "\0" in (text or "")} if written else set()


def _record_variable_sensitivity(
    name: str, value: str, node: YamlNode, uses: ConfigValuesBySensitivity, otherwise: set[str]
) -> None:
    """A secret if it has the name of one; if not, the value is added to `otherwise`. An URL is never one as a whole."""
    if "://" in value:
        uses.add_secrets(find_url_secrets(value), node)
    elif SECRET_NAME_PATTERN.search(name):
        uses.add_secret_variables({name: value}, node)
    else:
        otherwise |= {value, value.strip()}


def find_url_secrets(url: str) -> Iterator[str]:
    """Of a URL from a variable or file: its credentials, and the values of its parameters that may be secrets."""
    yield from _list_spellings_of_url_password_or_user_token(url)
    yield from (
        value
        for name, value in _iter_url_parameter_names_and_values(url)
        if len(value) >= MIN_MASKED_SECRET_CHARS or _is_secret_url_parameter(name, value)
    )


def _list_spellings_of_url_password_or_user_token(url: str) -> set[str]:
    """The password, as written and decoded; of an HTTP URL without one the user, which is a token then."""
    if (match := _URL_PARTS_PATTERN.match(url.strip())) is None:
        return set()
    is_http = match["scheme"].lower() in ("http", "https", "ws", "wss")
    secret = match["password"] or (match["user"] if is_http else "") or ""
    return {secret, unquote(secret)} - {""}


def _is_secret_url_parameter(name: str, value: str) -> bool:
    is_long = len(value) >= MIN_MASKED_SECRET_CHARS
    return SECRET_NAME_PATTERN.search(name) is not None or (is_long and name.lower() in _POSSIBLY_SECRET_URL_PARAMETERS)


def _parse_basic_auth_password(header: str) -> str:
    """The password in the value of an `Authorization` header; empty if it has none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _iter_url_parameter_names_and_values(url: str) -> Iterator[tuple[str, str]]:
    """Names and values in the query and the fragment of a URL, as written and decoded."""
    match = _URL_PARTS_PATTERN.match(url.strip())
    for parameter in _URL_PARAMETER_PATTERN.finditer(match["query"]) if match else ():
        name, value = unquote(parameter["name"]), parameter["value"]
        decoded = parse_qsl(f"x={value}")
        yield from ((name, each) for each in {value, *(text for _, text in decoded)} if each)


def mask_literal_secret_url_parameters(url: str, placeholder: str) -> str:
    """A URL as written, with the literal values of parameters that have the name of a secret replaced."""

    def mask_matched_parameter_if_secret(match: re.Match[str]) -> str:
        is_secret = _is_secret_url_parameter(unquote(match["name"]), match["value"]) and "$" not in match["value"]
        return f"{match['name']}={placeholder}" if is_secret and match["value"] else match[0]

    return _URL_PARAMETER_PATTERN.sub(mask_matched_parameter_if_secret, url)
