"""Registries: the classes that a configuration chooses from by kind (`http`, `slack`, `bullmq`)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, TypeVar, Union

from pydantic import BaseModel, Field, GetCoreSchemaHandler, create_model

from watchdog.config_types import require_exactly_one_of


class _HasKindAndExample(Protocol):
    kind: ClassVar[str]
    example: ClassVar[str]


KindT = TypeVar("KindT", bound=_HasKindAndExample)
SectionT = TypeVar("SectionT", bound=BaseModel)


class KindRegistry(Mapping[str, type[KindT]]):
    """Configuration models by their `kind`, in the order in which they are listed in messages and documentation.

    A new kind is one class and one name in its family's registry. The registry gives the section that chooses a kind
    its fields, so that validation, JSON Schema and reference documentation follow from the list of classes.

    As metadata of an annotation (`Annotated[Probe, PROBE_KINDS]`) it stands for the union of its classes.
    """

    def __init__(self, *classes: type[KindT]) -> None:
        self._classes = {model.kind: model for model in classes}
        if len(self._classes) < len(classes):
            raise TypeError(f"two classes have the same kind: {', '.join(model.kind for model in classes)}")

    def __getitem__(self, kind: str) -> type[KindT]:
        return self._classes[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def add_optional_field_per_kind_to_model(self, section: type[SectionT]) -> type[SectionT]:
        """A class decorator: adds one optional field per kind, named like the kind, after the section's own fields."""
        fields: dict[str, Any] = {
            kind: (model | None, Field(default=None, description=_extract_docstring_first_sentence(model)))
            for kind, model in self.items()
        }
        return create_model(
            section.__name__, __base__=section, __doc__=section.__doc__, __module__=section.__module__, **fields
        )

    def find_configured_values_by_kind(self, section: BaseModel) -> dict[str, KindT]:
        """The kinds that a section with a field per kind gives, with their values."""
        return {kind: value for kind in self if (value := getattr(section, kind)) is not None}

    def require_one_kind_and_get_its_settings(self, section: BaseModel) -> KindT:
        """The value of the only kind that a section gives. Raises ValueError unless it gives exactly one."""
        value: KindT = require_exactly_one_of(section, self)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return handler.generate_schema(Union[tuple(self.values())])  # noqa: UP007 - built at run time


def _extract_docstring_first_sentence(model: type) -> str:
    """The first sentence of a class's docstring, which describes the field for its kind."""
    return re.split(r"(?<=\.)\s", inspect.cleandoc(model.__doc__ or ""))[0].replace("\n", " ")
