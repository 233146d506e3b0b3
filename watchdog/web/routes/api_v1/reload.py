"""Reading the configuration again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import APIRouter, Query
from starlette.requests import Request

from watchdog.api.examples import RELOAD_EXAMPLE
from watchdog.api.serializers.reload import ConfigReloadJson, serialize_config_reload
from watchdog.service.config_reload import ConfigReloadOutcome
from watchdog.web.auth.acts import get_actor_name
from watchdog.web.errors import HttpErrorResponseError
from watchdog.web.routes.api_v1.operations import declare_act_operation
from watchdog.web.routes.api_v1.parameters import NoQueryParameters

log = structlog.get_logger()


def add_reload_route(router: APIRouter, reload_config: Callable[[], Awaitable[ConfigReloadOutcome]] | None) -> None:
    @declare_act_operation(
        router,
        "/reload",
        summary="Read the files of the configuration again, and apply them if they are valid",
        shape=ConfigReloadJson,
        example=RELOAD_EXAMPLE,
    )
    async def reload(request: Request, _: Annotated[NoQueryParameters, Query()]) -> ConfigReloadJson:
        if reload_config is None:
            raise HttpErrorResponseError(409, "This process does not reload its configuration. Restart it.")
        log.info("reload_requested", by=get_actor_name(request))
        return serialize_config_reload(await reload_config())
