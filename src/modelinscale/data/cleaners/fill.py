"""A value where there is none."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from modelinscale.core.errors import NotSupportedYet, SpecError
from modelinscale.core.schema import Column
from modelinscale.data.cleaners import Cleaner

if TYPE_CHECKING:
    import polars as pl


class Fill(Cleaner):
    """Puts one value into missing cells: ``fill: 0``. Means, medians and the like are learned from training rows only: that is the features' business."""

    value: bool | int | float | str
    """What stands for missing."""

    @classmethod
    def short(cls, value: object) -> Self:
        if isinstance(value, Mapping) and "column" in value:
            raise NotSupportedYet("`fill` from another column is planned and not supported yet.", fix="Give a value, or let the feature treat missing cells.")
        if value is True or value is None:
            raise SpecError("`fill` needs the value to put in.", fix="Write `fill: 0` or `fill: {value: true}`.")
        return super().short(value if isinstance(value, Mapping) else {"value": value})

    def objection(self, column: Column) -> str:
        fitting: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "string": (str,)}
        if column.type not in fitting:
            return f"`fill` cannot be used on a column of type {column.type}"
        if not isinstance(self.value, fitting[column.type]) or (isinstance(self.value, bool) and column.type != "bool") or self.value == "":
            return f"{self.value!r} cannot be in a column of type {column.type}"
        return ""

    def apply(self, values: "pl.Series", column: Column) -> "tuple[pl.Series, pl.Series | None]":
        return (values.fill_null(self.value) if values.null_count() else values), None
