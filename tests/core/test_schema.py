"""Columns and schemas."""

import pytest
from pydantic import ValidationError

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column, Schema

SCHEMA = Schema(columns=(Column(name="age", type="int"), Column(name="city", type="string"), Column(name="face", type="vector", width=3)))


def test_columns_are_found_by_name_and_keep_their_order() -> None:
    assert SCHEMA.names == ("age", "city", "face")
    assert SCHEMA["city"].type == "string"
    assert "city" in SCHEMA
    assert "town" not in SCHEMA
    assert SCHEMA.only(["face", "age"]).names == ("face", "age")


def test_a_missing_column_names_the_nearest_and_those_there_are() -> None:
    with pytest.raises(SpecError, match=r"no column 'citty'\. Did you mean 'city'\?") as caught:
        SCHEMA["citty"]
    assert caught.value.fix == "Columns: age, city, face."
    with pytest.raises(SpecError, match="no column 'x'"):
        SCHEMA.only(("age", "x"))


def test_names_must_differ() -> None:
    with pytest.raises(ValidationError, match="column names occur twice: a"):
        Schema(columns=(Column(name="a", type="int"), Column(name="a", type="float")))


@pytest.mark.parametrize("column", [{"name": "v", "type": "vector"}, {"name": "v", "type": "int", "width": 2}, {"name": "v", "type": "vector", "width": 0}])
def test_every_vector_has_a_width_and_nothing_else_has_one(column: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"`width` is for vectors|greater than 0"):
        Column.model_validate(column)


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_column_has_a_name(name: object) -> None:
    with pytest.raises(ValidationError):
        Column.model_validate({"name": name, "type": "int"})


def test_habits_of_text_survive_plain_data() -> None:
    column = Column(name="Preis (€)", type="float", nulls=("NA", "?"), decimal=",", thousands=".", affixes=("€",))
    assert Column.model_validate(column.plain()) == column
