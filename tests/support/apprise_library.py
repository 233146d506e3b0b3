"""The library Apprise, loaded before a test needs it."""

from __future__ import annotations

import warnings


def load_apprise() -> None:
    """Loading takes longer than a delivery may on a busy machine, and some modules of the library are deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from apprise import Apprise

        assert Apprise.instantiate("json://localhost") is not None
