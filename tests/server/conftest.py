from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Runs each test on the event loop of `watchdog run`, uvloop, and on that of Python."""
    return "asyncio", {"use_uvloop": request.param}
