"""What people do with the files of the configuration. An act takes place outside the database, and is recorded after
it; if the database is away, only the log of the process states who did it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from watchdog.domain.acts import Actor, OperatorActKind
from watchdog.service.act_input import validate_and_clean_act_comment
from watchdog.service.acts import ActRunner, record_config_act
from watchdog.service.config_reload import ConfigReloadOutcome
from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError

log = structlog.get_logger()


async def record_config_act_if_possible(
    run_act: ActRunner, kind: OperatorActKind, actor: Actor, *, probe: str = "", comment: str = ""
) -> None:
    """Note in the audit log who did it. `probe`: its id; empty if the act is not about one."""
    try:
        await run_act(lambda database, now: record_config_act(database, kind, actor, now, probe=probe, comment=comment))
    except (StoreUnavailableError, WatchdogDatabaseSchemaError, TimeoutError) as e:
        subject = {"probe": probe} if probe else {}
        log.error("audit_entry_not_stored", act=kind.value, **subject, by=actor.name, error=str(e))


async def reload_and_record(
    reload: Callable[[], Awaitable[ConfigReloadOutcome]], run_act: ActRunner, actor: Actor, comment: str
) -> ConfigReloadOutcome:
    """Have this process read its configuration again, and note who did it and what it led to. Raises
    OperatorActRefusedError."""
    comment = validate_and_clean_act_comment(comment)
    log.info("reload_requested", by=actor.name, interface=actor.interface.value)
    outcome = await reload()
    text = ": ".join(filter(None, (outcome.result.value, comment)))
    await record_config_act_if_possible(run_act, OperatorActKind.RELOAD, actor, comment=text)
    return outcome
