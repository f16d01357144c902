"""Numbers or moments with one bound."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from modelinscale.core.schema import Column
from modelinscale.data.checks import Check
from modelinscale.data.checks._bounds import Bound, bound_objection, has_order, known, show

if TYPE_CHECKING:
    import polars as pl


class AtLeast(Check):
    """Refuses numbers or moments below the bound, which is allowed itself: ``at_least: 0``."""

    bound: Bound
    """The smallest value allowed."""

    @classmethod
    def short(cls, value: object) -> Self:
        return super().short(value if isinstance(value, Mapping) else {"bound": value})

    @classmethod
    def suits(cls, column: Column) -> bool:
        return has_order(column)

    def objection(self, column: Column) -> str:
        return bound_objection(column, self.bound)

    def failing(self, values: "pl.Series") -> "pl.Series":
        return known(values < self.bound)

    def demand(self) -> str:
        return f"at least {show(self.bound)}"
