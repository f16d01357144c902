"""Cleaners: what is done to a column's cells before the contract, at collection and again to every row that is asked about."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from modelinscale.core.kinds import Kind
from modelinscale.core.schema import Column
from modelinscale.data.by_column import fields

if TYPE_CHECKING:
    import polars as pl


class Cleaner(Kind):
    """One step on one column."""

    folder: ClassVar[str] = "data.cleaners"

    reads_text: ClassVar[bool] = False
    """Whether it must see the cells as they were written: its column is then read as text where the source has text."""
    across_rows: ClassVar[bool] = False
    """Whether it looks at other rows: it then takes rows away and leaves cells as they are (see `dedupe`)."""
    repeats: ClassVar[bool] = True
    """Whether what it gave stays as it is when it is cleaned again."""

    @classmethod
    def short(cls, value: object) -> Self:
        """The cleaner from what stands behind its name in model.yaml: ``trim: true``, ``units: kg``. Raises `SpecError`."""
        return fields(cls, value)

    @property
    def beside(self) -> tuple[str, ...]:
        """Other columns of the row that it looks at. The one cleaner that does is `fill`; then `apply` alone changes nothing."""
        return ()

    def objection(self, column: Column) -> str:
        """Why cells of this column cannot be cleaned so, in words; empty if they can."""
        return ""

    def gives(self, column: Column) -> Column:
        """The column after it."""
        return column

    @abstractmethod
    def apply(self, values: "pl.Series", column: Column) -> "tuple[pl.Series, pl.Series | None]":
        """The cells after it, in the type of `gives`, and for each row why its cell could not be cleaned (null where it could; None: all could).

        Vectorised. A cell is treated exactly as the rule of `package._clean` says, which is what a served row meets.
        """

    def step(self) -> dict[str, Any]:
        """Its settings as the package keeps them."""
        return self.plain()
