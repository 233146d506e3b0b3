"""Creating, changing and deleting probes of the managed file."""

from __future__ import annotations

from typing import Annotated, ClassVar

from fastapi import Body, Header, Query
from pydantic import ConfigDict, Field, StrictBool
from starlette.requests import Request
from starlette.responses import Response

from watchdog.api.examples import (
    MANAGED_PROBE_CHANGE_EXAMPLE,
    MANAGED_PROBE_EXAMPLE,
    MANAGED_PROBES_EXAMPLE,
    TRIED_PROBE_EXAMPLE,
)
from watchdog.api.serializers.managed_probes import (
    ManagedProbeChangeJson,
    ManagedProbeJson,
    ManagedProbesJson,
    TriedProbeJson,
    serialize_checked_probe_edit,
    serialize_managed_probe,
    serialize_managed_probes,
    serialize_saved_probe_edit,
    serialize_tried_probe,
)
from watchdog.config.managed_entry import MAX_PROBE_YAML_CHARS
from watchdog.domain.acts import OperatorInterfaceKind
from watchdog.service.config_check import RunningConfigActions
from watchdog.service.managed_edits import ManagedProbes, ProbeEdit
from watchdog.service.managed_probes import ManagedProbeEditor, save_and_record_probe_edit
from watchdog.web.auth.acts import get_actor
from watchdog.web.errors import HttpErrorResponseError, PageNotFoundError
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation
from watchdog.web.routes.api_v1.parameters import (
    MAX_FILTER_CHARS,
    ActOnBehalfOfParameters,
    ActorName,
    NoQueryParameters,
)
from watchdog.web.routes.api_v1.probes import ProbeId
from watchdog.web.routes.operators import OperatorRouteContext

ProbeYaml = Annotated[str, Field(min_length=1, max_length=MAX_PROBE_YAML_CHARS)]
CopiedProbeId = Annotated[str, Field(max_length=MAX_FILTER_CHARS)]
IfMatch = Annotated[
    str,
    Header(
        max_length=MAX_FILTER_CHARS,
        description="The `version` of the managed file that the change is made for, in quotes; `*`: any.",
        examples=['"3f6c2d0a9be14875a1c0f5de90b7a412"'],
    ),
]
MANAGED_PROBE_CHANGE_PROBLEM_STATUSES = (412,)


class ProbeBody(NoQueryParameters):
    """A probe."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "examples": [
                {"yaml": 'name: Warm the cache\nschedule: "*/5 * * * *"\nhttp: https://api.example.org/warm\n'}
            ]
        }
    )

    yaml: ProbeYaml
    """Its fields, as under `probes` in the configuration. Where it holds a masked secret, the stored secret stays."""


class ProbeChangeBody(ProbeBody):
    """A probe as it is to be stored."""

    dry_run: StrictBool = False
    """Check it and show the change, without storing it."""
    on_behalf_of: ActorName = ""
    """The person who acts through a program. The key acts as well: "ops for Ana"."""


class NewProbeBody(ProbeChangeBody):
    """A probe that is to be added."""

    copy_of: CopiedProbeId = ""
    """The id of the stored probe that is copied: its secrets replace masked ones in `yaml`; empty: it is no copy."""


class TriedProbeBody(ProbeBody):
    """A probe to run once."""

    id: Annotated[str, Field(max_length=MAX_FILTER_CHARS)] = ""
    """The stored probe that it would replace; empty: it would be another one."""
    copy_of: CopiedProbeId = ""
    """A stored probe whose secrets it keeps where `yaml` holds masked ones, if it would be another one."""


class ProbeDeletionParameters(ActOnBehalfOfParameters):
    """The query of a deletion."""

    dry_run: bool = False
    """Check it and show the change, without storing it."""


def add_managed_probe_routes(
    router: ApiV1Router, context: OperatorRouteContext, config_actions: RunningConfigActions | None
) -> None:
    """`config_actions`: None if this process has none."""
    editor = None if config_actions is None else config_actions.managed_probes
    add_managed_probe_read_routes(router, editor)
    add_probe_creation_and_try_routes(router, context, editor)
    add_probe_change_routes(router, context, editor)


def require_editor(editor: ManagedProbeEditor | None) -> ManagedProbeEditor:
    """Raises HttpErrorResponseError."""
    if editor is None:
        raise HttpErrorResponseError(409, "This process does not change its configuration. Edit its files.")
    return editor


def add_managed_probe_read_routes(router: ApiV1Router, editor: ManagedProbeEditor | None) -> None:
    async def read_managed_probes_and_set_etag(response: Response) -> ManagedProbes:
        managed = ManagedProbes("", "") if editor is None else await editor.read()
        response.headers["ETag"] = f'"{managed.version}"'
        return managed

    @declare_act_operation(
        router,
        "/config/probes",
        method="GET",
        summary="List the probes of the managed file",
        shape=ManagedProbesJson,
        example=MANAGED_PROBES_EXAMPLE,
    )
    async def list_managed_probes(response: Response, _: Annotated[NoQueryParameters, Query()]) -> ManagedProbesJson:
        return serialize_managed_probes(await read_managed_probes_and_set_etag(response))

    @declare_act_operation(
        router,
        "/config/probes/{probe_id}",
        method="GET",
        summary="Show a probe of the managed file as it is written there",
        shape=ManagedProbeJson,
        example=MANAGED_PROBE_EXAMPLE,
    )
    async def get_managed_probe(
        response: Response, probe_id: ProbeId, _: Annotated[NoQueryParameters, Query()]
    ) -> ManagedProbeJson:
        for probe in (await read_managed_probes_and_set_etag(response)).probes:
            if probe.id == probe_id:
                return serialize_managed_probe(probe)
        raise build_unknown_probe_error(probe_id)


async def require_copied_probe_exists(editor: ManagedProbeEditor, edit: ProbeEdit) -> None:
    """Raises PageNotFoundError if it is a copy of no probe of the file."""
    if edit.copy_of and edit.copy_of not in {probe.id for probe in (await editor.read()).probes}:
        raise build_unknown_probe_error(edit.copy_of)


def build_unknown_probe_error(probe_id: str) -> PageNotFoundError:
    message = f"No probe in the managed file has the id {probe_id}. /api/v1/config/probes lists those that have one."
    return PageNotFoundError(message)


async def change_managed_probe(
    request: Request,
    context: OperatorRouteContext,
    editor: ManagedProbeEditor | None,
    edit: ProbeEdit,
    body: ProbeChangeBody | ProbeDeletionParameters,
) -> ManagedProbeChangeJson:
    actor, editor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of), require_editor(editor)
    await require_copied_probe_exists(editor, edit)
    if body.dry_run:
        return serialize_checked_probe_edit(await editor.check(edit))
    return serialize_saved_probe_edit(await save_and_record_probe_edit(editor, edit, context.run_act, actor))


def add_probe_creation_and_try_routes(
    router: ApiV1Router, context: OperatorRouteContext, editor: ManagedProbeEditor | None
) -> None:
    @declare_act_operation(
        router,
        "/config/probes",
        summary="Add a probe to the managed file, and reload",
        shape=ManagedProbeChangeJson,
        example=MANAGED_PROBE_CHANGE_EXAMPLE,
        problems=MANAGED_PROBE_CHANGE_PROBLEM_STATUSES,
    )
    async def create_managed_probe(
        request: Request, body: Annotated[NewProbeBody, Body()], _: Annotated[NoQueryParameters, Query()]
    ) -> ManagedProbeChangeJson:
        edit = ProbeEdit(body.yaml, copy_of=body.copy_of)
        return await change_managed_probe(request, context, editor, edit, body)

    @declare_act_operation(
        router,
        "/config/try",
        summary="Run the probe of the request once, without storing anything",
        shape=TriedProbeJson,
        example=TRIED_PROBE_EXAMPLE,
    )
    async def try_probe(
        request: Request, body: Annotated[TriedProbeBody, Body()], _: Annotated[NoQueryParameters, Query()]
    ) -> TriedProbeJson:
        edit, running_editor = ProbeEdit(body.yaml, body.id, copy_of=body.copy_of), require_editor(editor)
        await require_copied_probe_exists(running_editor, edit)
        actor = get_actor(request, OperatorInterfaceKind.API)
        return serialize_tried_probe(await running_editor.try_once(edit, actor))


def add_probe_change_routes(
    router: ApiV1Router, context: OperatorRouteContext, editor: ManagedProbeEditor | None
) -> None:
    @declare_act_operation(
        router,
        "/config/probes/{probe_id}",
        method="PUT",
        summary="Replace a probe of the managed file, and reload",
        shape=ManagedProbeChangeJson,
        example=MANAGED_PROBE_CHANGE_EXAMPLE,
        problems=MANAGED_PROBE_CHANGE_PROBLEM_STATUSES,
    )
    async def replace_probe(
        request: Request,
        probe_id: ProbeId,
        body: Annotated[ProbeChangeBody, Body()],
        if_match: IfMatch,
        _: Annotated[NoQueryParameters, Query()],
    ) -> ManagedProbeChangeJson:
        edit = ProbeEdit(body.yaml, probe_id, version=parse_version_from_if_match_header(if_match))
        return await change_managed_probe(request, context, editor, edit, body)

    @declare_act_operation(
        router,
        "/config/probes/{probe_id}",
        method="DELETE",
        summary="Remove a probe from the managed file, and reload",
        shape=ManagedProbeChangeJson,
        example=MANAGED_PROBE_CHANGE_EXAMPLE,
        problems=MANAGED_PROBE_CHANGE_PROBLEM_STATUSES,
    )
    async def delete_probe(
        request: Request, probe_id: ProbeId, if_match: IfMatch, parameters: Annotated[ProbeDeletionParameters, Query()]
    ) -> ManagedProbeChangeJson:
        edit = ProbeEdit(id=probe_id, is_deletion=True, version=parse_version_from_if_match_header(if_match))
        return await change_managed_probe(request, context, editor, edit, parameters)


def parse_version_from_if_match_header(header: str) -> str:
    """The version; empty: any."""
    return "" if header.strip() == "*" else header.strip().removeprefix("W/").strip('"') or "-"
