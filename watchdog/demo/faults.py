"""What the demo breaks."""

from __future__ import annotations

from enum import StrEnum


class DemoFault(StrEnum):
    """A way in which a sample target fails."""

    CHECKOUT = "checkout"
    """The checkout answers 503."""
    TOOLS = "tools"
    """The MCP server answers `tools/list` with an error."""
    REINDEX = "reindex"
    """The MCP server no longer runs its task `reindex`."""
    ORDERS = "orders"
    """The worker of the job table is killed during a job."""
    BACKUP = "backup"
    """The backup job does not check in. The demo itself plays this job."""
    EMAILS = "emails"
    """The worker of the queue `emails` is killed."""
    THUMBNAILS = "thumbnails"
    """The worker of the queue `thumbnails` hangs in a job."""
