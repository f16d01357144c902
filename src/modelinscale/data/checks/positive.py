"""Numbers above zero."""

from typing import TYPE_CHECKING

from modelinscale.core.schema import Column
from modelinscale.data.checks import RowCheck
from modelinscale.data.checks._bounds import known

if TYPE_CHECKING:
    import polars as pl


class Positive(RowCheck):
    """Refuses zero and negative numbers; zero allowed: ``at_least: 0``."""

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type in ("int", "float")

    def failing(self, values: "pl.Series") -> "pl.Series":
        return known(values <= 0)

    def demand(self) -> str:
        return "above 0"
