"""Only listed values."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column
from modelinscale.data.checks import RowCheck

if TYPE_CHECKING:
    import polars as pl

Value = bool | int | float | str


class OneOf(RowCheck):
    """Refuses values that are not in the list: ``one_of: [EUR, USD]``."""

    values: tuple[Value, ...] = Field(min_length=1)
    """The values allowed, as they are in the column."""

    @classmethod
    def short(cls, value: object) -> Self:
        if isinstance(value, list | tuple | set):
            value = {"values": tuple(value)}
        if not isinstance(value, Mapping):
            raise SpecError(f"`one_of` needs a list, found {value!r}.", fix=f"Write `one_of: [{value}, ...]`.")
        return super().short(value)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        doubled = [v for i, v in enumerate(self.values) if any(v == w and type(v) is type(w) for w in self.values[:i])]
        if doubled:
            raise SpecError(f"`one_of` lists {doubled[0]!r} twice.", fix="Remove one of them.")
        return self

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type in ("int", "float", "bool", "string")

    def objection(self, column: Column) -> str:
        fitting: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "string": (str,)}
        for value in self.values:
            if not isinstance(value, fitting[column.type]) or (isinstance(value, bool) and column.type != "bool"):
                quoted = f" Quote it: {str(value)!r}." if column.type == "string" else ""
                return f"{value!r} cannot be in a column of type {column.type}.{quoted}".removesuffix(".")
        return ""

    def failing(self, values: "pl.Series") -> "pl.Series":
        import polars as pl

        allowed = pl.Series(list(self.values), dtype=values.dtype, strict=False)
        return ~values.is_in(allowed.implode()) & values.is_not_null()

    def demand(self) -> str:
        shown = ", ".join(map(str, self.values[:10]))
        return f"one of {shown}" + (f" and {len(self.values) - 10} more" if len(self.values) > 10 else "")
