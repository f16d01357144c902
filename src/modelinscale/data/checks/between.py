"""Numbers or moments inside two bounds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column
from modelinscale.data.checks import RowCheck
from modelinscale.data.checks._bounds import Bound, bound_objection, has_order, known, show

if TYPE_CHECKING:
    import polars as pl


class Between(RowCheck):
    """Refuses numbers or moments outside ``low`` to ``high``, both ends allowed: ``between: [0, 120]``."""

    low: Bound
    """The smallest value allowed."""
    high: Bound
    """The largest value allowed."""

    @classmethod
    def short(cls, value: object) -> Self:
        if isinstance(value, list | tuple) and len(value) == 2:
            value = {"low": value[0], "high": value[1]}
        if not isinstance(value, Mapping):
            raise SpecError(f"`between` needs two bounds, found {value!r}.", fix="Write `between: [low, high]`; for one bound `at_least: 0` or `at_most: 120`.")
        return super().short(value)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        try:
            empty = self.low > self.high  # type: ignore[operator]
        except TypeError:
            raise SpecError(f"`between` mixes a number and a date: {show(self.low)}, {show(self.high)}.", fix="Give two of one kind.") from None
        if empty:
            raise SpecError(
                f"`between` leaves nothing: {show(self.low)} is above {show(self.high)}.", fix=f"Write `between: [{show(self.high)}, {show(self.low)}]`."
            )
        return self

    @classmethod
    def suits(cls, column: Column) -> bool:
        return has_order(column)

    def objection(self, column: Column) -> str:
        return bound_objection(column, self.low, self.high)

    def failing(self, values: "pl.Series") -> "pl.Series":
        return known((values < self.low) | (values > self.high))

    def demand(self) -> str:
        return f"between {show(self.low)} and {show(self.high)}"
