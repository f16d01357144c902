"""No value may occur twice in the whole table."""

from typing import TYPE_CHECKING, ClassVar

from modelinscale.core.schema import NESTED, Column
from modelinscale.data.checks import RowCheck

if TYPE_CHECKING:
    import polars as pl


class Unique(RowCheck):
    """Refuses a value that an earlier accepted row has, in these rows or in the lake. For several columns together use ``data.key``."""

    across_rows: ClassVar[bool] = True

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type not in NESTED

    def failing(self, values: "pl.Series") -> "pl.Series":
        return ~values.is_first_distinct() & values.is_not_null()

    def demand(self) -> str:
        return "unique"
