"""Reading the configuration again, and checking one before it is written to the main file."""

from __future__ import annotations

import asyncio
from typing import Annotated, ClassVar

from fastapi import Body, Query
from pydantic import ConfigDict, Field
from starlette.requests import Request

from watchdog.api.config_changes import serialize_config_changes
from watchdog.api.examples import CONFIG_CHANGES_EXAMPLE, CONFIG_CHECK_EXAMPLE, RELOAD_EXAMPLE
from watchdog.api.serializers.config import ConfigChangesJson, ConfigCheckJson, serialize_config_check
from watchdog.api.serializers.reload import ConfigReloadJson, serialize_config_reload
from watchdog.config.definitions import parse_yaml_values_by_field_path
from watchdog.domain.acts import OperatorInterfaceKind
from watchdog.domain.config_changes import ConfigChanges, compare_configs
from watchdog.service.config_acts import reload_and_record
from watchdog.service.config_check import ConfigCheckOutcome, RunningConfigActions
from watchdog.service.process_configuration import build_loaded_config_snapshot
from watchdog.store.read.running_config import load_open_incidents_with_destinations, load_snapshot_of_running_config
from watchdog.web.auth.acts import get_actor
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.routes.api_v1.operations import ApiV1Router, declare_act_operation
from watchdog.web.routes.api_v1.parameters import NO_COMMENT, ActBody, NoQueryParameters
from watchdog.web.routes.operators import OperatorRouteContext
from watchdog.web.routes.service import RELOAD_UNAVAILABLE_TEXT

CONFIG_ROUTES_PATH = "/api/v1/config/"
MAX_POSTED_CONFIG_BODY_BYTES = 1024 * 1024
"""Of a request to these routes."""


class ConfigBody(NoQueryParameters):
    """A configuration."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"examples": [{"yaml": "probes:\n  - name: API\n    http: https://api.example.org/health\n"}]}
    )

    yaml: Annotated[str, Field(max_length=MAX_POSTED_CONFIG_BODY_BYTES)]
    """The text of the main file. Variables, included files and files of secrets are those of the running process."""


def add_config_routes(
    router: ApiV1Router, context: OperatorRouteContext, config_actions: RunningConfigActions | None
) -> None:
    """`config_actions`: None if this process has none."""
    add_reload_route(router, context, config_actions)

    async def check_posted_config(body: ConfigBody) -> ConfigCheckOutcome:
        if config_actions is None:
            message = "This process does not check configurations. Run `watchdog validate` or `watchdog diff`."
            raise HttpErrorResponseError(409, message)
        return await config_actions.check(body.yaml)

    @declare_act_operation(
        router,
        "/config/validate",
        summary="Check whether a configuration is valid, without applying it",
        shape=ConfigCheckJson,
        example=CONFIG_CHECK_EXAMPLE,
    )
    async def validate_posted_config(
        body: Annotated[ConfigBody, Body()], _: Annotated[NoQueryParameters, Query()]
    ) -> ConfigCheckJson:
        return serialize_config_check(await check_posted_config(body))

    @declare_act_operation(
        router,
        "/config/diff",
        summary="List what a reload with a configuration would change, without applying it",
        shape=ConfigChangesJson,
        example=CONFIG_CHANGES_EXAMPLE,
    )
    async def compare_posted_config_with_running_config(
        body: Annotated[ConfigBody, Body()], _: Annotated[NoQueryParameters, Query()]
    ) -> ConfigChangesJson:
        outcome = await check_posted_config(body)
        loaded, now = outcome.loaded_config, context.clock()
        if loaded is None:
            details = "POST it to /api/v1/config/validate for every problem."
            raise HttpErrorResponseError(422, f"The configuration is not valid: {outcome.problems[0]}. {details}")
        running, incidents = await context.run_query(
            lambda c: (load_snapshot_of_running_config(c, now), load_open_incidents_with_destinations(c))
        )
        if running is None:
            raise HttpErrorResponseError(409, "No process has run with this database in the last day.")

        def compare_running_with_posted_config() -> ConfigChanges:
            new = build_loaded_config_snapshot(loaded)
            return compare_configs(running, new, parse_yaml_values_by_field_path, incidents)

        return serialize_config_changes(await asyncio.to_thread(compare_running_with_posted_config), loaded.mask)


def add_reload_route(
    router: ApiV1Router, context: OperatorRouteContext, config_actions: RunningConfigActions | None
) -> None:
    @declare_act_operation(
        router,
        "/reload",
        summary="Read the files of the configuration again, and apply them if they are valid",
        shape=ConfigReloadJson,
        example=RELOAD_EXAMPLE,
    )
    async def reload(
        request: Request, _: Annotated[NoQueryParameters, Query()], body: Annotated[ActBody, Body()] = NO_COMMENT
    ) -> ConfigReloadJson:
        if config_actions is None:
            raise HttpErrorResponseError(409, RELOAD_UNAVAILABLE_TEXT)
        actor = get_actor(request, OperatorInterfaceKind.API, body.on_behalf_of)
        outcome = await reload_and_record(config_actions.reload, context.run_act, actor, body.comment)
        return serialize_config_reload(outcome)
