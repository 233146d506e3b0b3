"""Runs the demo: its history, the inbox, the service with its pages, and the play that breaks the sample targets."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import httpx

from watchdog.app import RunningWatchdogService, create_asgi_app, start_watchdog_service_and_stop_on_exit
from watchdog.demo.acts import DEMO_PLAY_ACTS, DEMO_QUEUE_PROBE_IDS, DemoPlayAct
from watchdog.demo.configuration import DEMO_PAGE_NOTICE_PREFIX, DemoAddresses, load_demo_config
from watchdog.demo.faults import DemoFault
from watchdog.demo.history import record_demo_history
from watchdog.demo.inbox import DemoSlackChannelAndMailbox, create_demo_inbox_app
from watchdog.demo.play import DemoPace, DemoPlay, print_demo_announcement
from watchdog.demo.processes import DemoTargetsProcess
from watchdog.server import WebServer, open_listen_socket
from watchdog.service.clock import read_wall_clock_ms
from watchdog.signals import install_shutdown_event
from watchdog.store.read.status import Connection, IncidentRecord, list_incidents

DEMO_BACKUP_INTERVAL_S = 10.0
DEMO_RUN_INTERVAL, DEMO_HISTORY_RUN_INTERVAL = "2s", "10m"
"""How often most probes run, and ran in the past."""


async def run_demo(targets: DemoTargetsProcess, pace: DemoPace | None = None) -> None:
    """Run the demo until a shutdown signal. The folder of `targets` holds Watchdog's database as well."""
    shutdown = install_shutdown_event()
    inbox = DemoSlackChannelAndMailbox()
    pages_socket, inbox_socket = _listen_on_port_or_free(8080), _listen_on_port_or_free(8081)
    smtp_server = await asyncio.start_server(inbox.handle_smtp_connection, "127.0.0.1", 0, limit=2**22)
    addresses = DemoAddresses(
        folder=targets.folder,
        pages_port=_get_socket_port(pages_socket),
        inbox_port=_get_socket_port(inbox_socket),
        smtp_port=_get_socket_port(smtp_server.sockets[0]),
        targets_port=targets.port,
        queue_port=targets.queue_port,
        token=secrets.token_hex(20),
        slack_token=f"xoxb-{secrets.token_hex(20)}",
        signing_secret=secrets.token_hex(20),
    )
    past_config = load_demo_config(addresses, DEMO_HISTORY_RUN_INTERVAL)
    print("Recording a made-up history of 90 days ...", flush=True)
    await asyncio.to_thread(record_demo_history, past_config, read_wall_clock_ms(), shutdown.is_set)
    if shutdown.is_set():
        smtp_server.close()
        return
    loaded_config = load_demo_config(addresses, DEMO_RUN_INTERVAL)
    status_url = loaded_config.config.server.public_url + "/"
    for port in filter(None, (targets.port, targets.queue_port)):
        await _wait_until_port_open(port)
    async with (
        smtp_server,
        WebServer(
            create_demo_inbox_app(inbox, status_url, addresses.signing_secret, addresses.slack_token), inbox_socket
        ),
        start_watchdog_service_and_stop_on_exit(loaded_config) as app,
        WebServer(create_asgi_app(app), pages_socket),
    ):
        backup_job = DemoBackupJob(f"{status_url}in/{addresses.token}")
        play = build_demo_play(app, targets, backup_job, addresses, pace or DemoPace())
        _print_demo_welcome(status_url, addresses)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in (backup_job.run_forever(), play.run_forever())]
            await shutdown.wait()
            for task in tasks:
                task.cancel()


class DemoBackupJob:
    """A job that succeeds and checks in every DEMO_BACKUP_INTERVAL_S, unless it is broken."""

    def __init__(self, check_in_url: str):
        self.check_in_url = check_in_url
        self.is_broken = False

    async def run_forever(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                if not self.is_broken:
                    with suppress(httpx.HTTPError):  # the next check-in may succeed
                        await client.post(self.check_in_url, content="412 files saved")
                await asyncio.sleep(DEMO_BACKUP_INTERVAL_S)


def build_demo_play(
    app: RunningWatchdogService,
    targets: DemoTargetsProcess,
    backup_job: DemoBackupJob,
    addresses: DemoAddresses,
    pace: DemoPace,
) -> DemoPlay:
    def set_broken(act: DemoPlayAct, *, is_broken: bool) -> None:
        if act.fault is DemoFault.BACKUP:
            backup_job.is_broken = is_broken
        elif is_broken:
            targets.break_target(act.fault)
        else:
            targets.repair_target(act.fault)

    async def load_open_incidents_of_probe(probe_id: str) -> Sequence[IncidentRecord]:
        def list_open_incidents_of_probe(connection: Connection) -> list[IncidentRecord]:
            return [record for record in list_incidents(connection, is_open=True) if record.probe.id == probe_id]

        return await app.store_executor.run_read_query(list_open_incidents_of_probe)

    def set_demo_page_notice(text: str) -> None:
        app.notice = f"{DEMO_PAGE_NOTICE_PREFIX} {text}"

    return DemoPlay(
        acts=[act for act in DEMO_PLAY_ACTS if addresses.queue_port or act.probe_id not in DEMO_QUEUE_PROBE_IDS],
        pace=pace,
        break_target=partial(set_broken, is_broken=True),
        repair_target=partial(set_broken, is_broken=False),
        list_open_incidents=load_open_incidents_of_probe,
        show_notice=set_demo_page_notice,
        announce=print_demo_announcement,
        incidents_url=f"{app.loaded_config.config.server.public_url}/incidents/",
    )


def _listen_on_port_or_free(preferred_port: int) -> socket.socket:
    """Listen on the preferred port, or on any free port if it is in use."""
    try:
        return open_listen_socket("127.0.0.1", preferred_port)
    except OSError:
        return open_listen_socket("127.0.0.1", 0)


def _get_socket_port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


async def _wait_until_port_open(port: int) -> None:
    """Wait for the targets, so that the first results are not "connection refused"."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def _print_demo_welcome(status_url: str, addresses: DemoAddresses) -> None:
    queues = "two queues, " if addresses.queue_port else ""
    print(
        f"""Watchdog monitors two services, an MCP server, {queues}a job table, and a backup job that checks in.

  Status page     {status_url}
  Operator pages  {status_url}probes      no sign-in is needed on this machine
  Inbox           http://127.0.0.1:{addresses.inbox_port}/      the Slack messages and emails that it sends

While something is broken, acknowledge or silence its incident: on the operator pages, or with the buttons of its Slack
message in the inbox.
Something breaks in about 20 seconds, and is announced here. All times are UTC. Press Ctrl-C to stop; all data is then
deleted.
""",
        flush=True,
    )
    if not addresses.queue_port:
        print("Without the packages fakeredis and rq, the queues are left out.", flush=True)
