"""Errors that routes raise, and that routes/errors.py turns into responses."""


class HttpErrorResponseError(Exception):
    """A request cannot be answered. The message states why and what to do, in sentences."""

    def __init__(self, status_code: int, message: str):
        super().__init__(message)
        self.status_code = status_code


class PageNotFoundError(HttpErrorResponseError):
    """There is no such probe or incident."""

    def __init__(self, message: str):
        super().__init__(404, message)


class StatusPageUnavailableError(Exception):
    """The database is unavailable, and no earlier status page can be shown instead."""
