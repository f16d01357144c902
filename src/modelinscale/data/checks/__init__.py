"""Checks: what a contract demands of a column; rows that fail go to quarantine with the reason."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from modelinscale.core.kinds import Kind
from modelinscale.core.schema import Column

if TYPE_CHECKING:
    import polars as pl


class Check(Kind):
    """One demand on one column."""

    folder: ClassVar[str] = "data.checks"

    @classmethod
    @abstractmethod
    def suits(cls, column: Column) -> bool:
        """Whether the demand makes sense for a column of this type."""

    @abstractmethod
    def failing(self, values: "pl.Series") -> "pl.Series":
        """A boolean for each row: true where the demand is broken. A missing cell breaks only `present`. Vectorised."""

    @abstractmethod
    def demand(self) -> str:
        """The demand in words, for reasons: ``between 0 and 120``."""
