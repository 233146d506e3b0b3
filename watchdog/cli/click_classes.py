"""Typer's commands and groups, without pydantic as long as no value is used.

Typer coerces values with pydantic. Its import would double the time that `--help` and shell completion take.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

MAX_LISTED_COMMANDS = 5
"""With more commands, a message names only those that were probably meant."""
_UsageError: type[typer.BadParameter] = typer.BadParameter.__mro__[1]
"""The base class of all usage errors, which Typer does not export."""


def _return_click_value_uncoerced(_ctx: Any, value: Any) -> Any:
    return value


class _UncoercedClickParametersMixin:
    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc] # a mixin
        for param in params:
            if getattr(param, "is_flag", False) and param.default is None:
                param.default = False  # coerced as well if it is None
            if ctx.resilient_parsing:
                param.process_value = _return_click_value_uncoerced
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [*args]  # the parser takes them away
        try:
            remaining: list[str] = super().parse_args(ctx, args)  # type: ignore[misc] # a mixin
            return remaining
        except typer.BadParameter as e:
            e.message = e.message.removeprefix("Value error, ")  # pydantic's
            raise
        except _UsageError as e:
            e.message += self._describe_misplaced_argument(e.message, words)
            raise

    def _describe_misplaced_argument(self, message: str, words: list[str]) -> str:
        """Which option was probably meant, if an error is about an argument that the command does not have."""
        if not message.startswith("Got unexpected extra argument"):
            return ""
        options = {option for param in self.params for option in param.opts}  # type: ignore[attr-defined] # a mixin
        if "-c" in options and any(word.endswith((".yaml", ".yml")) for word in words):
            return "; name the configuration file with -c"
        return "; name a probe with --id" if "--id" in options else ""


class CommandWithoutPydantic(_UncoercedClickParametersMixin, TyperCommand):
    pass


class CommandGroupWithoutPydantic(_UncoercedClickParametersMixin, TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as e:
            if "Did you mean" not in e.message and len(self.commands) <= MAX_LISTED_COMMANDS:
                e.message += f" The commands are {', '.join(self.commands)}."
            raise
