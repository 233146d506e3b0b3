"""Probes: their states, and one with its configuration."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import PROBE_DETAIL_JSON_EXAMPLE, PROBE_JSON_EXAMPLE, build_list_page_json_example
from watchdog.api.serializers.lists import ListPageJson
from watchdog.api.serializers.probes import (
    ProbeDetailJson,
    ProbeJson,
    serialize_probe_detail,
    serialize_probe_status,
)
from watchdog.domain.model import HealthState, ProbeInfo
from watchdog.store.read import status
from watchdog.store.read.running_config import load_probe_config_yaml_text
from watchdog.store.read.status import Connection, ProbeStatus
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.routes.api_v1.cursors import CursorPosition
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_read_operation
from watchdog.web.routes.api_v1.parameters import MAX_FILTER_CHARS, FilterText, ListPageParameters, NoQueryParameters
from watchdog.web.routes.api_v1.responses import (
    CursorPaginatedListEndpoint,
    ListPage,
    cut_list_page,
    respond_with_object,
    split_into_chunks,
)
from watchdog.web.routes.operators import OperatorRouteContext

ProbeId = Annotated[str, Path(max_length=MAX_FILTER_CHARS, description="The id of a probe.", examples=["api"])]


class ProbeListParameters(ListPageParameters):
    """Only the probes that match every filter."""

    group: FilterText = ""
    tag: FilterText = ""
    kind: FilterText = ""
    state: HealthState | None = None
    q: FilterText = ""
    """Words that must all occur in the id, the name, the group or a tag, in any case."""

    def matches_all_but_state(self, probe: ProbeInfo) -> bool:
        """By every filter but the state."""
        text = "\n".join((probe.id, probe.name, probe.group, *probe.tags)).lower()
        return (
            self.group in ("", probe.group)
            and self.kind in ("", probe.kind)
            and (not self.tag or self.tag in probe.tags)
            and all(word in text for word in self.q.lower().split())
        )


PROBE_LIST_ENDPOINT: CursorPaginatedListEndpoint[ProbeStatus] = CursorPaginatedListEndpoint(
    "/api/v1/probes", (str, int), lambda status: get_probe_list_position(status.probe), serialize_probe_status
)


def add_probe_routes(router: ApiV1Router, context: OperatorRouteContext) -> None:
    @declare_read_operation(
        router,
        "/probes",
        summary="List probes, by name",
        shape=ListPageJson[ProbeJson],
        example=build_list_page_json_example(PROBE_LIST_ENDPOINT.path, PROBE_JSON_EXAMPLE),
    )
    async def list_probes(request: Request, parameters: Annotated[ProbeListParameters, Query()]) -> Response:
        after, now = PROBE_LIST_ENDPOINT.decode_cursor_position(parameters), context.clock()
        page = await context.run_query(lambda c: load_probe_list_page(c, parameters, after, now))
        return await PROBE_LIST_ENDPOINT.respond_with_loaded_page(request, parameters, page)

    @declare_read_operation(
        router,
        "/probes/{probe_id}",
        summary="Show a probe with its configuration",
        shape=ProbeDetailJson,
        example=PROBE_DETAIL_JSON_EXAMPLE,
    )
    async def get_probe(request: Request, probe_id: ProbeId, _: Annotated[NoQueryParameters, Query()]) -> Response:
        now = context.clock()
        probe_status, text = await context.run_query(lambda c: load_probe_with_configuration(c, probe_id, now))
        return await respond_with_object(request, lambda: serialize_probe_detail(probe_status, text))


def get_probe_list_position(probe: ProbeInfo) -> CursorPosition:
    """In the order of `list_probe_infos`."""
    return probe.name, probe.database_id


def load_probe_list_page(
    connection: Connection,
    parameters: ProbeListParameters,
    after: CursorPosition | None,
    now: int | None = None,
) -> ListPage[ProbeStatus]:
    """Loads the states of no more probes than it has to."""
    infos = status.list_probe_infos(connection, None if after is None else (str(after[0]), int(after[1])))
    ids = [probe.database_id for probe in infos if parameters.matches_all_but_state(probe)]
    rows: list[ProbeStatus] = []
    for chunk in split_into_chunks(ids, parameters.limit + 1):
        statuses = status.list_probe_statuses(connection, database_ids=chunk, now=now)
        rows += [row for row in statuses if parameters.state in (None, row.state)]
        if len(rows) > parameters.limit:
            break
    return cut_list_page(rows, parameters.limit)


def load_probe_status(connection: Connection, probe_id: str, now: int | None = None) -> ProbeStatus:
    """Raises HttpErrorResponseError."""
    statuses = status.list_probe_statuses(connection, probe_id, now=now)
    if not statuses:
        raise HttpErrorResponseError(404, "There is no probe with this id. /api/v1/probes lists the ids.")
    return statuses[0]


def load_probe_with_configuration(connection: Connection, probe_id: str, now: int) -> tuple[ProbeStatus, str]:
    """The configuration is masked YAML. Raises HttpErrorResponseError."""
    probe_status = load_probe_status(connection, probe_id, now)
    return probe_status, load_probe_config_yaml_text(connection, probe_status.probe.database_id)
