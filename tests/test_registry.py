"""Registries of kinds: the fields that they add to a section, and the kinds that a section can choose."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pytest
from pydantic import ValidationError

from watchdog.config_types import ConfigModel
from watchdog.registry import KindRegistry


class Animal(ConfigModel):
    kind: ClassVar[str]
    example: ClassVar[str] = ""


class Cat(Animal):
    """A cat."""

    kind: ClassVar[str] = "cat"

    lives: int = 9


class Dog(Animal):
    """A dog."""

    kind: ClassVar[str] = "dog"


ANIMALS: KindRegistry[Animal] = KindRegistry(Cat, Dog)


@ANIMALS.add_optional_field_per_kind_to_model
class Household(ConfigModel):
    """A household."""

    address: str = ""
    """Its address."""


class Zoo(ConfigModel):
    animals: tuple[Annotated[Animal, ANIMALS], ...]


def test_classes_are_indexed_by_kind_in_the_given_order() -> None:
    assert list(ANIMALS.items()) == [("cat", Cat), ("dog", Dog)]


def test_two_classes_of_one_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="two classes have the same kind: cat, cat"):
        KindRegistry(Cat, Cat)


def test_a_section_gets_one_optional_field_per_kind() -> None:
    assert list(Household.model_fields) == ["address", "cat", "dog"]
    assert Household.__name__ == "Household"
    assert Household.__module__ == __name__
    schema = Household.model_json_schema()
    assert schema["description"] == "A household."
    assert schema["properties"]["address"]["description"] == "Its address."
    assert schema["properties"]["cat"]["anyOf"] == [{"$ref": "#/$defs/Cat"}, {"type": "null"}]


def test_the_kinds_of_a_section() -> None:
    household = Household.model_validate({"cat": {}, "dog": {}})
    assert ANIMALS.find_configured_values_by_kind(household) == {"cat": Cat(), "dog": Dog()}
    assert ANIMALS.require_one_kind_and_get_its_settings(Household.model_validate({"cat": {"lives": 1}})) == Cat(
        lives=1
    )


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({}, "expected exactly one of cat, dog, found none"),
        ({"cat": {}, "dog": {}}, "expected exactly one of cat, dog, found cat and dog"),
    ],
)
def test_exactly_one_kind(kinds: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        ANIMALS.require_one_kind_and_get_its_settings(Household.model_validate(kinds))


def test_as_metadata_it_is_the_union_of_its_classes() -> None:
    assert Zoo.model_validate({"animals": [Cat(lives=3), Dog()]}).animals == (Cat(lives=3), Dog())
    assert Zoo.model_json_schema()["properties"]["animals"]["items"] == {
        "anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]
    }
    with pytest.raises(ValidationError):
        Zoo.model_validate({"animals": [{"lives": "many"}]})
