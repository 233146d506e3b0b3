"""The MCP server over standard input and output, for the client that started it.

It runs beside the service: it reads the same store, and calls the service for what only that process holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from watchdog.config.load import LoadedConfig
from watchdog.mcp_server.context import McpToolContext
from watchdog.mcp_server.remote_service import RemoteBackgroundTaskControl
from watchdog.mcp_server.tool_jobs import WatchdogMcpToolJobRunner
from watchdog.net import NetworkAccess
from watchdog.service.acts import run_act_in_writer_thread_with_timeout
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.receiver_tests import ConfiguredReceiverTestDependencies, ReceiverTester
from watchdog.service.runner import RetryingProbeRunner
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.database import Database
from watchdog.store.read.status import load_watchdog_status


async def serve_mcp_stdio(
    loaded_config: LoadedConfig, stop: asyncio.Event, user: str, read_database_clock: Callable[[Database], int]
) -> bool:
    """Serves until the client closes standard input, or `stop` is set. False: a thread still waits for input. `user`:
    in whose name the client acts."""
    config = loaded_config.config
    database = Database(config.storage.url)
    store_executor = StoreExecutor(database, partial(read_database_clock, database))
    try:
        async with NetworkAccess(config.network.request_routing) as network, EventLoopLagMonitor() as lag_monitor:
            remote_service = RemoteBackgroundTaskControl(
                network,
                f"{loaded_config.service.base_url}/mcp" if loaded_config.service.base_url else "",
                loaded_config.service.api_key,
                lambda: context.run_query(lambda connection: load_watchdog_status(connection).watermark),
                read_wall_clock_ms,
            )
            runner = RetryingProbeRunner(network, loaded_config.mask, read_wall_clock_ms, lag_monitor)
            context = McpToolContext(
                *(store_executor.run_read_query, runner, config.probes, remote_service),
                is_operator=lambda _: True,
                run_act_in_store=partial(run_act_in_writer_thread_with_timeout, store_executor),
                get_actor_name=lambda _: user,
                receiver_tester=ReceiverTester(
                    ConfiguredReceiverTestDependencies(
                        config.build_notifiers_by_destination(), network, loaded_config.mask, read_wall_clock_ms
                    )
                ),
            )
            return await _serve_tools_over_stdio(context, stop)
    finally:
        store_executor.close()


async def _serve_tools_over_stdio(context: McpToolContext, stop: asyncio.Event) -> bool:
    from watchdog.mcp_server.server import create_mcp_server

    async with WatchdogMcpToolJobRunner() as job_runner:
        server = create_mcp_server(context, job_runner)
        server_task = asyncio.create_task(server.run_stdio_async(), name="mcp")
        stop_task = asyncio.create_task(stop.wait())
        await asyncio.wait({server_task, stop_task}, return_when=asyncio.FIRST_COMPLETED)
        stop_task.cancel()
        if server_task.done():
            await server_task
            return True
        return False
