"""No cell may be missing."""

from typing import TYPE_CHECKING

from modelinscale.core.schema import Column
from modelinscale.data.checks import RowCheck

if TYPE_CHECKING:
    import polars as pl


class Present(RowCheck):
    """Refuses missing cells (empty, a null word of the column, NaN)."""

    @classmethod
    def suits(cls, column: Column) -> bool:
        return True

    def failing(self, values: "pl.Series") -> "pl.Series":
        return values.is_null()

    def demand(self) -> str:
        return "present"
