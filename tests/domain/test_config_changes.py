"""What changes from one configuration to another."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from watchdog.api.config_changes import format_config_changes
from watchdog.domain.config_changes import (
    ComparableConfigSnapshot,
    ConfigChanges,
    ConfigFieldChange,
    ConfigSectionSnapshot,
    OpenIncidentWithNotifiedDestinations,
    ProbeConfigFieldChanges,
    ProbeConfigSnapshot,
    RoutingChange,
    SuspectedProbeRename,
    compare_configs,
    list_restart_required_fields,
)
from watchdog.domain.model import ProbeInfo
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable, ProbeMatcher

RECEIVERS = {"oncall": ("oncall/slack",), "chat": ("chat/slack", "chat/email")}
TO_ALL = NotificationRoutingTable(RECEIVERS)
TO_CHAT = NotificationRoutingTable(RECEIVERS, (NotificationRoute(("chat",)),))


def probe(
    id: str, target: str = "", *, content: str = "1", routing: str = "1", yaml: str = "", group: str = ""
) -> ProbeConfigSnapshot:
    info = ProbeInfo(0, id, id.title(), "http", group, target=target or f"https://{id}.example/")
    return ProbeConfigSnapshot(info, yaml, content, f"{content} {routing}")


def snapshot(
    *probes: ProbeConfigSnapshot,
    routes: NotificationRoutingTable = TO_ALL,
    destinations: Mapping[str, str] | None = None,
    sections: Mapping[str, ConfigSectionSnapshot] | None = None,
) -> ComparableConfigSnapshot:
    return ComparableConfigSnapshot({each.info.id: each for each in probes}, destinations or {}, routes, sections or {})


def parse_fields(text: str) -> Mapping[str, str]:
    return dict(part.split("=") for part in text.split())


def compare(
    old: ComparableConfigSnapshot, new: ComparableConfigSnapshot, *incidents: OpenIncidentWithNotifiedDestinations
) -> ConfigChanges:
    return compare_configs(old, new, parse_fields, incidents)


def title(text: str, digest: str = "") -> dict[str, ConfigSectionSnapshot]:
    return {"status_page": ConfigSectionSnapshot(digest or text, {"status_page.title": text})}


API, SHOP = probe("api"), probe("shop")


@pytest.mark.parametrize(
    ("sentence", "old", "new", "expected"),
    [
        ("nothing", snapshot(API), snapshot(API), ConfigChanges()),
        ("the order of probes", snapshot(API, SHOP), snapshot(SHOP, API), ConfigChanges()),
        (
            "other text with the same meaning",
            snapshot(probe("api", yaml="a=1m")),
            snapshot(probe("api", yaml="a=60s")),
            ConfigChanges(),
        ),
        ("a new probe", snapshot(API), snapshot(API, SHOP), ConfigChanges(added=("shop",))),
        ("a probe less", snapshot(API, SHOP), snapshot(API), ConfigChanges(removed=("shop",))),
        (
            "fields",
            snapshot(probe("api", yaml="every=60s retries=1")),
            snapshot(probe("api", content="2", yaml="every=30s timeout=5s")),
            ConfigChanges(
                changed=(
                    ProbeConfigFieldChanges(
                        "api",
                        (
                            ConfigFieldChange("every", "60s", "30s"),
                            ConfigFieldChange("timeout", None, "5s"),
                            ConfigFieldChange("retries", "1", None),
                        ),
                    ),
                )
            ),
        ),
        (
            "a variable",
            snapshot(API),
            snapshot(probe("api", content="2")),
            ConfigChanges(changed=(ProbeConfigFieldChanges("api", ()),)),
        ),
        (
            "a digest that an earlier version did not store",
            snapshot(API._replace(content_digest="", definition="x")),
            snapshot(API),
            ConfigChanges(
                changed=(ProbeConfigFieldChanges("api", ()),),
            ),
        ),
        (
            "another id for the same target",
            snapshot(probe("api", "https://a.example/")),
            snapshot(probe("front", "https://a.example/")),
            ConfigChanges(
                added=("front",),
                removed=("api",),
                renamed=(SuspectedProbeRename("api", "front", "https://a.example/"),),
            ),
        ),
        (
            "two probes for the target of one that was removed",
            snapshot(probe("api", "https://a.example/")),
            snapshot(probe("b", "https://a.example/"), probe("c", "https://a.example/")),
            ConfigChanges(added=("b", "c"), removed=("api",)),
        ),
        (
            "routes",
            snapshot(API),
            snapshot(probe("api", routing="2"), routes=TO_CHAT),
            ConfigChanges(
                rerouted=(
                    RoutingChange(
                        "api", "", ("oncall/slack", "chat/slack", "chat/email"), ("chat/slack", "chat/email")
                    ),
                )
            ),
        ),
        (
            "a probe that also fits another route",
            snapshot(API, routes=TO_CHAT),
            snapshot(probe("api", content="2", routing="2", group="Shop"), routes=TO_CHAT),
            ConfigChanges(changed=(ProbeConfigFieldChanges("api", ()),)),
        ),
        (
            "destinations",
            snapshot(API, destinations={"a/log": "1", "b/log": "1", "c/log": "1"}),
            snapshot(API, destinations={"b/log": "1", "c/log": "2", "d/log": "1"}),
            ConfigChanges(
                added_destinations=("d/log",), removed_destinations=("a/log",), changed_destinations=("c/log",)
            ),
        ),
        (
            "a section",
            snapshot(API, sections=title("Acme")),
            snapshot(API, sections=title("Status")),
            ConfigChanges(sections={"status_page": (ConfigFieldChange("status_page.title", "Acme", "Status"),)}),
        ),
        (
            "a section with a masked value",
            snapshot(API, sections=title("•••", "1")),
            snapshot(API, sections=title("•••", "2")),
            ConfigChanges(sections={"status_page": ()}),
        ),
        (
            "a section that is not known of the old one",
            snapshot(API),
            snapshot(API, sections=title("A")),
            ConfigChanges(),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_changes(
    sentence: str, old: ComparableConfigSnapshot, new: ComparableConfigSnapshot, expected: ConfigChanges
) -> None:
    assert compare(old, new) == expected, sentence
    assert compare(old, new).is_empty() == (expected == ConfigChanges())
    assert compare(new, new).is_empty()


def test_open_incidents_show_who_was_notified_and_where_the_new_routes_lead() -> None:
    by_probe = NotificationRoutingTable(RECEIVERS, (NotificationRoute(("chat",), ProbeMatcher(probe="api")),))
    old, new = snapshot(API, SHOP, probe("gone"), routes=TO_CHAT), snapshot(API, SHOP, routes=by_probe)
    incidents = [
        OpenIncidentWithNotifiedDestinations(f"of-{id}", id, "http.503", ("chat/slack",))
        for id in ("api", "shop", "gone", "watchdog")
    ]
    changes = compare(old, new, *incidents)
    assert changes.rerouted_incidents == (RoutingChange("shop", "of-shop", ("chat/slack",), ()),)


def test_an_open_incident_that_notified_no_one_is_sent_and_another_stays() -> None:
    without_route = NotificationRoutingTable(RECEIVERS, (NotificationRoute(("chat",), ProbeMatcher(group="none")),))
    incidents = [
        OpenIncidentWithNotifiedDestinations(f"of-{id}", id, "http.503", notified)
        for id, notified in (("api", ()), ("shop", ("mail/email",)))
    ]
    changes = compare(snapshot(API, SHOP, routes=without_route), snapshot(API, SHOP, routes=TO_CHAT), *incidents)
    assert [line for line in format_config_changes(changes, str) if "incident" in line] == [
        "~ open incident of-api of probe api: no one was notified; it is sent to chat/slack, chat/email when the new "
        "routes are in force",
        "~ open incident of-shop of probe shop: notified: mail/email; the new routes lead to chat/slack, chat/email",
    ]


@pytest.mark.parametrize(
    ("path", "is_required"),
    [("server.listen", True), ("storage.url", True), ("storage.keep_results", True), ("server.public_url", False)],
)
def test_fields_that_need_a_restart(path: str, is_required: bool) -> None:
    section = path.partition(".")[0]
    old, new = (snapshot(API, sections={section: ConfigSectionSnapshot(value, {path: value})}) for value in "12")
    assert compare(old, new).restart_required_fields == ((path,) if is_required else ())


@pytest.mark.parametrize(("new_value", "is_required"), [("started", False), ("third", True), (None, True)])
def test_a_field_gets_back_the_value_that_the_process_was_started_with(
    new_value: str | None, is_required: bool
) -> None:
    path, started = "server.listen", {"server.listen": "started"}
    fields = {} if new_value is None else {path: new_value}
    old = snapshot(API, sections={"server": ConfigSectionSnapshot("1", {path: "reloaded"}, started)})
    new = snapshot(API, sections={"server": ConfigSectionSnapshot("2", fields)})
    assert compare(old, new).restart_required_fields == ((path,) if is_required else ())


def test_fields_that_a_running_process_does_not_apply() -> None:
    started = {"server": ConfigSectionSnapshot("1", {"server.listen": "1", "server.public_url": "1"})}
    current = {
        "server": ConfigSectionSnapshot("2", {"server.listen": "2", "server.public_url": "2"}),
        "access": started["server"],
    }
    assert list_restart_required_fields(started, current) == ("server.listen",)
    assert list_restart_required_fields(started, started) == ()


def test_a_log_line_counts_what_there_is() -> None:
    assert compare(snapshot(API, SHOP), snapshot(API, probe("gone"))).count_config_changes_by_kind() == {
        "added": 1,
        "removed": 1,
    }
    assert ConfigChanges().count_config_changes_by_kind() == {}


def test_added_and_changed_probes_that_no_route_matches() -> None:
    """Not those that a route leads to no one on purpose, and none that stays as it is."""
    to_core = NotificationRoute(("chat",), ProbeMatcher(group="Core"))
    routes = NotificationRoutingTable(RECEIVERS, (to_core, NotificationRoute((), ProbeMatcher(group="Silent"))))
    old = snapshot(probe("api", group="Core"), probe("stays"), routes=routes)
    new = snapshot(
        probe("api", content="2"), probe("stays"), probe("new"), probe("core", group="Core"),
        probe("silent", group="Silent"), routes=routes,
    )  # fmt: skip
    assert compare(old, new).unrouted == ("new", "api")
    assert compare(snapshot(), snapshot(SHOP, routes=NotificationRoutingTable({}))).unrouted == ()
