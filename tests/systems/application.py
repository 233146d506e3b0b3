"""An application on Node.js whose work goes through BullMQ, and the workers that do it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.mcp_peers import Peers, free_port, listening
from tests.queues.runs import node
from tests.redis_server import Redis, Worker, working

SERVER = Path(__file__).parents[1] / "mcp_servers/exporter.cjs"
QUEUE = "exports"


class Application:
    """`url`: where it serves MCP, and /health."""

    def __init__(self, broker: Redis, peers: Peers):
        self.broker, self.peers = broker, peers
        self.redis: Any = redis.Redis.from_url(broker.url, decode_responses=True)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        env = {"REDIS": self.broker.url, "QUEUE": QUEUE, "NODE_PATH": str(self.peers.modules), "PORT": str(self._port)}
        with listening([self.peers.node, str(SERVER)], self._port, env):
            yield

    def worker(self, does: str, script: str = "bullmq.cjs", **env: str) -> AbstractContextManager[Worker]:
        """One of those in tests/queues/workers; `does`: what it does with each job."""
        given = {"REDIS": self.broker.url, "QUEUE": QUEUE, "DOES": does, **env}
        return working(*node(self.peers, script, **given))

    @property
    def idle(self) -> bool:
        """No job waits or is under way."""
        return not self.redis.exists(f"bull:{QUEUE}:wait", f"bull:{QUEUE}:active")

    def forget(self, *patterns: str) -> None:
        """What stands in Redis under these."""
        for pattern in patterns:
            for key in self.redis.keys(pattern):
                self.redis.delete(key)

    def record(self, **tasks: dict[str, Any]) -> None:
        """How the last run of each scheduled task went."""
        self.redis.delete(f"{QUEUE}:tasks")
        for name, told in tasks.items():
            self.redis.hset(f"{QUEUE}:tasks", name, json.dumps({"name": name, **told}))
