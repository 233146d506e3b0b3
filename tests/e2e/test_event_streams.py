"""Streams of a whole service: across processes, a reload and its shutdown."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from tests.support.event_streams import EVENTS, EventFollower
from tests.support.polling import HANG_S
from watchdog.app import RunningWatchdogService, create_web_server, start_watchdog_service_and_stop_on_exit
from watchdog.config.load import LoadedConfig, load_config
from watchdog.server import open_listen_socket

KEY, OTHER_KEY = "0123456789abcdef-first", "0123456789abcdef-second"


def load(folder: Path, database_url: str, key: str, interval: str) -> LoadedConfig:
    text = f"""
        storage: {{url: "{database_url}", check_in_log: "{folder / "check-ins"}"}}
        access: {{api_keys: [{{name: ops, role: operator, key: "{key}"}}]}}
        probes: [{{name: API, every: {interval}, http: "http://127.0.0.1:9/"}}]
    """
    return load_config(folder / "watchdog.yaml", text, {})


async def test_a_reload_and_the_end_of_a_process(tmp_path: Path, database_url: str) -> None:
    """A reload ends the streams, which continue with the keys of the new configuration. The end of the process does not
    cut them off. Another process delivers what this one stored."""
    first, second = load(tmp_path, database_url, KEY, "1h"), load(tmp_path, database_url, OTHER_KEY, "2h")
    (tmp_path / "other").mkdir()
    other = load(tmp_path / "other", database_url, OTHER_KEY, "2h")
    async with AsyncExitStack() as clients, AsyncExitStack() as other_process, AsyncExitStack() as process:
        client = await clients.enter_async_context(httpx.AsyncClient(timeout=HANG_S))
        _, other_url = await start(other_process, other)
        app, url = await start(process, first)

        async def follow(address: str, key: str, last_event_id: int | None = None) -> EventFollower:
            headers = {"Authorization": f"Bearer {key}"}
            headers |= {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
            response = await clients.enter_async_context(client.stream("GET", address, headers=headers))
            assert response.status_code == 200
            return EventFollower(response)

        follower = await follow(url, KEY)
        begin = await follower.read_event()
        assert begin is not None
        await app.apply_config(second)
        while await follower.read_event():
            pass
        assert (await client.get(url, headers={"Authorization": f"Bearer {KEY}"})).status_code == 401
        followers = [await follow(address, OTHER_KEY, begin.id) for address in (url, other_url)]
        for each in followers:
            assert await each.read_event() == begin
            assert await each.read_kinds(1) == [(begin.id + 1, "reloaded")]
        await process.aclose()
        assert await followers[0].read_event() is None
        await other_process.aclose()
        assert await followers[1].read_event() is None


async def start(process: AsyncExitStack, loaded_config: LoadedConfig) -> tuple[RunningWatchdogService, str]:
    """Returns the service and the address of its events."""
    listen_socket = process.enter_context(open_listen_socket("127.0.0.1", 0))
    app = await process.enter_async_context(start_watchdog_service_and_stop_on_exit(loaded_config))
    await process.enter_async_context(create_web_server(app, listen_socket))
    return app, f"http://127.0.0.1:{listen_socket.getsockname()[1]}{EVENTS}"
