"""Rows that say the same again."""

from typing import TYPE_CHECKING, ClassVar, Self

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column
from modelinscale.data.cleaners import Cleaner

if TYPE_CHECKING:
    import polars as pl


class Dedupe(Cleaner):
    """Takes away rows that equal an earlier one, in the lake too: in this column, in these (``dedupe: [customer, day]``), or under ``"*"`` in all.

    They are counted, not quarantined; missing equals missing. For a second row that should not be there use `unique` or ``data.key``.
    """

    across_rows: ClassVar[bool] = True

    columns: tuple[str, ...] = ()
    """Further columns that must be equal too."""

    @classmethod
    def short(cls, value: object) -> Self:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list | tuple):
            if not all(isinstance(name, str) for name in value):
                raise SpecError(f"`dedupe` needs names of columns, found {value!r}.", fix="Write `dedupe: [column, ...]`.")
            value = {"columns": tuple(value)}
        return super().short(value)

    def apply(self, values: "pl.Series", column: Column) -> "tuple[pl.Series, pl.Series | None]":
        return values, None
