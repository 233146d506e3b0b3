"""Errors that routes raise, and that routes/errors.py turns into responses."""


class PageNotFoundError(Exception):
    """There is no such probe or incident. The message is for people."""


class StatusPageUnavailableError(Exception):
    """The database is unavailable, and no earlier status page can be shown instead."""
