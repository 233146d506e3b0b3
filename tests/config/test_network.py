"""How requests are routed: the section `network`, the fields of a probe, and the credentials of a target."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.config.definitions import ConfigDigests
from watchdog.config.load import LoadedConfig, load_config
from watchdog.net.auth import HttpDigestAuth, OAuth2ClientCredentials
from watchdog.net.proxy import ProxyAddress, RequestRouting
from watchdog.probes import HttpProbe, McpProbe

PROXY_URL = "http://monitor:pr0xy-passw0rd@proxy.acme.example:3128"
SHARED = RequestRouting(ProxyAddress("http", "shared.example", 80), ("acme.example",), "/shared.pem")


def loaded(text: str, env: dict[str, str] | None = None) -> LoadedConfig:
    return load_config(None, text, env or {})


def probe_with(**fields: Any) -> HttpProbe:
    return HttpProbe.model_validate({"name": "API", "http": "https://api.acme.example/", **fields})


def routing_of(probe: HttpProbe) -> RequestRouting:
    change = probe.build_routing_change(allow_private_addresses=probe.allow_private_addresses)
    return change(SHARED) if change is not None else SHARED


def test_without_a_section_requests_are_sent_directly() -> None:
    routing = loaded("probes: [{name: A, http: 'https://a.example/'}]").config.network.request_routing
    assert routing == RequestRouting()


def test_the_section_applies_to_all_requests() -> None:
    text = f'network: {{proxy: "{PROXY_URL}", no_proxy: [Acme.example, 10.0.0.0/8], ca_file: ca.pem}}'
    network = loaded(f"{text}\nprobes: [{{name: A, http: 'https://a.example/'}}]").config.network
    assert network.request_routing == RequestRouting(
        ProxyAddress("http", "proxy.acme.example", 3128, "monitor", "pr0xy-passw0rd"),
        ("acme.example", "10.0.0.0/8"),
        network.ca_file,
    )


def test_a_variable_that_is_not_set_means_no_proxy() -> None:
    text = 'network: {proxy: "${HTTPS_PROXY:-}", no_proxy: [acme.example]}\nprobes: [{name: A, http: "https://a.example/"}]'
    assert loaded(text).config.network.request_routing.proxy is None
    proxy = loaded(text, {"HTTPS_PROXY": PROXY_URL}).config.network.request_routing.proxy
    assert proxy is not None
    assert proxy.host == "proxy.acme.example"


@pytest.mark.parametrize("where", ["network: {proxy: URL}", "network: {proxy_file: FILE}"])
def test_the_password_of_a_proxy_is_masked(where: str, tmp_path: Any) -> None:
    file = tmp_path / "proxy"
    file.write_text(PROXY_URL)
    text = where.replace("URL", f'"{PROXY_URL}"').replace("FILE", f'"{file}"')
    config = loaded(f"{text}\nprobes: [{{name: A, http: 'https://a.example/'}}]")
    assert config.config.network.request_routing.proxy is not None
    assert config.mask("as pr0xy-passw0rd") == "as •••"


def test_the_password_of_a_probe_s_own_proxy_is_masked() -> None:
    config = loaded(f'probes: [{{name: A, http: "https://a.example/", proxy: "{PROXY_URL}"}}]')
    assert config.mask("as pr0xy-passw0rd") == "as •••"
    assert "pr0xy-passw0rd" not in config.probe_yaml["a"]


def test_a_changed_section_is_one_of_this_process_alone() -> None:
    probes = "probes: [{name: A, http: 'https://a.example/'}]"
    first, second = (ConfigDigests(loaded(f"network: {{proxy: 'http://{name}.example'}}\n{probes}")) for name in "ab")
    assert first.digest == second.digest
    sections = [digests.build_config_section_snapshots(of_one_process=True)["network"] for digests in (first, second)]
    assert sections[0].digest != sections[1].digest


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, SHARED),
        ({"proxy": "off"}, RequestRouting(None, SHARED.no_proxy, "/shared.pem")),
        (
            {"proxy": "socks5://own.example"},
            RequestRouting(ProxyAddress("socks5", "own.example", 1080), (), "/shared.pem", proxies_loopback=True),
        ),
        (
            {"proxy": "http://own.example", "allow_private_addresses": False},
            RequestRouting(
                ProxyAddress("http", "own.example", 80, allow_private_address=False),
                (),
                "/shared.pem",
                proxies_loopback=True,
            ),
        ),
        ({"ca_file": "/own.pem"}, RequestRouting(SHARED.proxy, SHARED.no_proxy, "/own.pem")),
    ],
)
def test_a_probe_may_be_routed_otherwise(fields: dict[str, Any], expected: RequestRouting) -> None:
    assert routing_of(probe_with(**fields)) == expected


HTTP_CANARY = {"enqueue": "https://a.example/", "poll": "https://a.example/{job_id}", "done": "true"}


@pytest.mark.parametrize(
    ("fields", "permitted"),
    [
        ({"http": "https://a.example/"}, True),
        ({"mcp": "https://a.example/mcp"}, True),
        ({"mcp": {"sse": "https://a.example/sse"}}, True),
        ({"mcp": {"command": ["server"]}}, False),
        ({"canary": {"http": HTTP_CANARY}, "every": "5m"}, True),
        ({"canary": {"mcp": {"url": "https://a.example/mcp", "tool": "t"}}, "every": "5m"}, True),
        ({"canary": {"mcp": {"command": ["server"], "tool": "t"}}, "every": "5m"}, False),
        ({"canary": {"rq": {"redis": "redis://a.example", "queue": "q"}}, "every": "5m"}, False),
        ({"heartbeat": {"token": "0123456789abcdef0123", "every": "1m"}}, False),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_only_probes_that_send_http_requests_have_a_proxy(fields: dict[str, Any], permitted: bool) -> None:
    from pydantic import ValidationError

    from watchdog.probes import PROBE_KINDS

    kind = next(kind for kind in PROBE_KINDS if kind in fields)
    probe = {"name": "A", **fields}
    PROBE_KINDS[kind].model_validate(probe)
    if permitted:
        assert PROBE_KINDS[kind].model_validate({**probe, "proxy": "off"}).proxy == "off"
    else:
        with pytest.raises(ValidationError, match="sends no HTTP requests: remove it"):
            PROBE_KINDS[kind].model_validate({**probe, "proxy": "off"})


def test_credentials_that_are_negotiated() -> None:
    digest = probe_with(http={"url": "https://a.example/", "auth": {"digest": {"username": "u", "password": "p"}}})
    request = digest.http.build_http_request("", True)
    assert isinstance(request.auth, HttpDigestAuth)
    assert "Authorization" not in request.headers
    oauth2 = {"token_url": "https://login.example/token?tenant=x", "client_id": "c", "client_secret": "s"}
    token = probe_with(http={"url": "https://a.example/", "auth": {"oauth2": oauth2}})
    auth = token.http.build_http_request("", True).auth
    assert isinstance(auth, OAuth2ClientCredentials)
    assert auth.token_url == "https://login.example/token?tenant=x"
    mcp = McpProbe.model_validate({"name": "M", "mcp": {"url": "https://a.example/mcp", "auth": {"oauth2": oauth2}}})
    assert mcp.mcp.auth is not None


def test_the_url_of_a_token_endpoint_is_no_secret() -> None:
    fields = "client_id: watchdog, client_secret: 's3cret-of-acme'"
    auth = f"{{oauth2: {{token_url: 'https://login.acme.example/token', {fields}}}}}"
    config = loaded(f"probes: [{{name: A, http: {{url: 'https://a.example/', auth: {auth}}}}}]")
    assert config.mask("https://login.acme.example/token") == "https://login.acme.example/token"
    assert config.mask("s3cret-of-acme") == "•••"
    assert "token_url: https://login.acme.example/token" in config.probe_yaml["a"]
    assert "s3cret-of-acme" not in config.probe_yaml["a"]
    assert not config.warnings or all("secret" not in warning.message for warning in config.warnings)


def test_another_token_endpoint_is_another_configuration() -> None:
    auth = "{oauth2: {token_url: 'https://NAME.example/token', client_id: watchdog, client_secret: 's3cret-of-acme'}}"
    text = f"probes: [{{name: A, http: {{url: 'https://a.example/', auth: {auth}}}}}]"
    first, second = (ConfigDigests(loaded(text.replace("NAME", name))).digest for name in ("a", "b"))
    assert first != second
