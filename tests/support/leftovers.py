"""What a run leaves behind: descriptors, tasks and processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.polling import wait_until_async
from tests.support.processes import child_pids
from tests.support.scripted_servers import OPEN_DESCRIPTORS, count_open_descriptors


@asynccontextmanager
async def requiring_no_leftovers() -> AsyncIterator[None]:
    """Fails unless what is open and in progress afterwards is what was before. Servers that end a connection need a
    moment for that. Without /proc nothing is counted."""
    if not OPEN_DESCRIPTORS.exists():
        yield
        return
    tasks, descriptors, children = asyncio.all_tasks(), count_open_descriptors(), child_pids()
    yield
    await wait_until_async(lambda: asyncio.all_tasks() <= tasks and count_open_descriptors() <= descriptors)
    assert child_pids() <= children
