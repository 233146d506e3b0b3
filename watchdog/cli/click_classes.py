"""Typer's commands and groups, without pydantic as long as no value is used.

Typer coerces values with pydantic. Its import would double the time that `--help` and shell completion take.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


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
        try:
            remaining: list[str] = super().parse_args(ctx, args)  # type: ignore[misc] # a mixin
            return remaining
        except typer.BadParameter as e:
            e.message = e.message.removeprefix("Value error, ")  # pydantic's
            raise


class CommandWithoutPydantic(_UncoercedClickParametersMixin, TyperCommand):
    pass


class CommandGroupWithoutPydantic(_UncoercedClickParametersMixin, TyperGroup):
    pass
