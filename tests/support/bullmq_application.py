"""An application on Node.js that queues its work in BullMQ, and its workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.support.ports import find_free_port
from tests.support.probe_runs import node_worker_command
from tests.support.redis_server import RedisServer, WorkerProcess, running_worker
from tests.support.third_party import ThirdPartyServers, listening_process

SERVER_SCRIPT = Path(__file__).parent / "mcp_servers/exporter.cjs"
QUEUE_NAME = "exports"


class BullmqApplication:
    """`url`: of the server, with /mcp and /health."""

    def __init__(self, broker: RedisServer, peers: ThirdPartyServers):
        self.broker, self.peers = broker, peers
        self.redis: Any = redis.Redis.from_url(broker.url, decode_responses=True)
        self._port = find_free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    @contextmanager
    def running_server(self) -> Iterator[None]:
        env = {
            "REDIS": self.broker.url,
            "QUEUE": QUEUE_NAME,
            "NODE_PATH": str(self.peers.node_modules),
            "PORT": str(self._port),
        }
        with listening_process([self.peers.node, str(SERVER_SCRIPT)], self._port, env):
            yield

    def running_worker(
        self, behavior: str, script: str = "bullmq_worker.cjs", **env: str
    ) -> AbstractContextManager[WorkerProcess]:
        """One of those in tests/queues/workers; `does`: what it does with each job."""
        given = {"REDIS": self.broker.url, "QUEUE": QUEUE_NAME, "BEHAVIOR": behavior, **env}
        return running_worker(*node_worker_command(self.peers, script, **given))

    @property
    def is_idle(self) -> bool:
        """No job is waiting or active."""
        return not self.redis.exists(f"bull:{QUEUE_NAME}:wait", f"bull:{QUEUE_NAME}:active")

    def delete_keys(self, *patterns: str) -> None:
        """Delete the keys of Redis that match these patterns."""
        for pattern in patterns:
            for key in self.redis.keys(pattern):
                self.redis.delete(key)

    def set_task_results(self, **tasks: dict[str, Any]) -> None:
        """Set the result of the last run of each scheduled task."""
        self.redis.delete(f"{QUEUE_NAME}:tasks")
        for name, result in tasks.items():
            self.redis.hset(f"{QUEUE_NAME}:tasks", name, json.dumps({"name": name, **result}))
