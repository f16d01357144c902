"""A value in place of missing ones: always the same, or what another column of the row says."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, model_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import NESTED, Column
from modelinscale.core.settings import Also
from modelinscale.data.cleaners import Cleaner

if TYPE_CHECKING:
    import polars as pl

_LEARNED = ("by", "with", "mean", "median", "most_frequent", "strategy")


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Fill(Cleaner):
    """Puts a value into missing cells (``fill: 0``), or the first that other columns of the row have (``fill: {column: [mobile, phone]}``).

    Another column is taken as it is once its own steps are done; the steps before this one then do to it what they do to this column's cells.
    Means, medians and the like are learned from training rows only: that is the features' business.
    """

    takes_false: ClassVar[bool] = True
    """``fill: false`` puts that in, rather than switching it off."""

    value: bool | int | float | str | None = None
    """What stands for missing."""
    column: Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Also({"type": "string"})] = ()
    """The column (or columns, the first that has a value counts) a missing cell is taken from."""

    @classmethod
    def short(cls, value: object) -> Self:
        if isinstance(value, Mapping) and (asked := [name for name in _LEARNED if name in value]):
            raise SpecError(
                f"`fill` learns nothing, so there is no `{asked[0]}`: cleaning is done before rows are split, and would look at rows to test on.",
                fix="Leave the cells missing: features fill them from training rows. Or give a value, or a `column`.",
            )
        if value is True or value is None:
            raise SpecError("`fill` needs the value to put in.", fix="Write `fill: 0`, `fill: {value: true}` or `fill: {column: NAME}`.")
        return super().short(value if isinstance(value, Mapping) else {"value": value})

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.value is None) == (not self.column):
            raise SpecError("`fill` needs a value or a column, and not both.", fix="For both, write two steps: `[{fill: {column: NAME}}, {fill: 0}]`.")
        return self

    @property
    def beside(self) -> tuple[str, ...]:
        return self.column

    def plain(self) -> dict[str, Any]:
        found = super().plain()
        return {name: kept for name, kept in found.items() if name == "type" or (name == "column") == bool(self.column)}

    def objection(self, column: Column) -> str:
        if self.column:
            return "" if column.type not in NESTED else f"`fill` cannot be used on a column of type {column.type}"
        fitting: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "string": (str,)}
        if column.type not in fitting:
            return f"`fill` with a value cannot be used on a column of type {column.type}"
        if not isinstance(self.value, fitting[column.type]) or (isinstance(self.value, bool) and column.type != "bool") or self.value == "":
            return f"{self.value!r} cannot be in a column of type {column.type}"
        return ""

    def apply(self, values: "pl.Series", column: Column) -> "tuple[pl.Series, pl.Series | None]":
        if self.column:
            return values, None  # see `from_beside`, which is given the other columns
        return (values.fill_null(self.value) if values.null_count() else values), None

    def from_beside(self, values: "pl.Series", others: "Sequence[pl.Series]", before: Sequence[Cleaner], column: Column) -> "pl.Series":
        """The cells, a missing one taken from the first of the others that has one; each goes through the steps ``before`` this one."""
        from modelinscale.data.cleaners._rule import by_distinct, one_zero
        from modelinscale.package._clean import again

        for other in others:
            missing = values.is_null()
            if not missing.any():
                break
            found = other.cast(values.dtype).set(~missing, None)
            if found.dtype.is_float():
                found = one_zero(found)
            if before and column.type != "time":
                found = by_distinct(found, again([c.step() for c in before]), values.dtype)[0]
            values = values.zip_with(~missing, found.rename(values.name))
        return values
