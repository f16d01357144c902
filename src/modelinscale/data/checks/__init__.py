"""Checks: what a contract demands of a column; rows that fail go to quarantine with the reason."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from modelinscale.core.errors import SpecError
from modelinscale.core.kinds import Kind
from modelinscale.core.schema import Column

if TYPE_CHECKING:
    import polars as pl


class Check(Kind):
    """One demand on one column."""

    folder: ClassVar[str] = "data.checks"

    across_rows: ClassVar[bool] = False
    """Whether the verdict on a row depends on the rows before it, in the lake and in this batch: the contract then keeps an index of the column."""

    @classmethod
    def short(cls, value: object) -> Self:
        """The check from what stands behind its name in model.yaml: ``present: true``, ``{between: {low: 0}}``. Raises `SpecError`."""
        if value is True or value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise SpecError(
                f"`{cls.type}` cannot be {value!r}.", fix=f"Write `{cls.type}: true`." if not cls.model_fields else f"Fields: {', '.join(cls.model_fields)}."
            )
        return cls.model_validate(dict(value))

    @classmethod
    @abstractmethod
    def suits(cls, column: Column) -> bool:
        """Whether the demand makes sense for a column of this type."""

    def objection(self, column: Column) -> str:
        """Why these settings cannot be held against this column, in words; empty if they can. Asked only when the check suits."""
        return ""

    @abstractmethod
    def failing(self, values: "pl.Series") -> "pl.Series":
        """A boolean for each row, never null: true where the demand is broken. A missing cell breaks only `present`. Vectorised."""

    @abstractmethod
    def demand(self) -> str:
        """The demand in words, for reasons: ``between 0 and 120``."""
