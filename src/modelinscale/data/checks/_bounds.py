"""What bounds of numbers and moments share."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, WithJsonSchema

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column
from modelinscale.data.checks import RowCheck

if TYPE_CHECKING:
    import polars as pl


def _bound(value: Any) -> Any:
    if isinstance(value, bool):
        raise SpecError(f"a bound is a number or a date, found {value!r}.", fix="Quote dates as ISO 8601: '2024-01-31'.")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise SpecError(f"a bound is a number or a date, found {value!r}.", fix="Write a number, or a date as ISO 8601: '2024-01-31'.") from None
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return float(value)
    return datetime(value.year, value.month, value.day) if isinstance(value, date) else value


Bound = Annotated[int | float | datetime, BeforeValidator(_bound), WithJsonSchema({"type": ["number", "string"], "examples": [0, 120, "2024-01-31"]})]
"""A number, or a moment in UTC."""


def has_order(column: Column) -> bool:
    """Whether cells of this column can be compared with a bound."""
    return column.type in ("int", "float", "time")


def bound_objection(column: Column, *bounds: int | float | datetime) -> str:
    """In words, when a bound is a moment and the column is not, or the other way round."""
    for bound in bounds:
        if isinstance(bound, datetime) != (column.type == "time"):
            return f"{show(bound)} cannot bound a column of type {column.type}"
    return ""


def show(bound: int | float | datetime) -> str:
    """A bound as it would be written: ``0.5``, ``2024-01-31``.

    >>> show(0.5), show(datetime(2024, 1, 31))
    ('0.5', '2024-01-31')
    """
    if isinstance(bound, datetime):
        return bound.isoformat(sep=" ").removesuffix(" 00:00:00")
    return f"{bound:g}" if isinstance(bound, float) and abs(bound) < 1e6 else str(bound)


def known(failing: "pl.Series") -> "pl.Series":
    """A comparison's result with missing cells counted as not failing."""
    return failing.fill_null(False)


class OneBound(RowCheck):
    """A demand with one bound, which is allowed itself."""

    bound: Bound
    """The last value allowed."""

    @classmethod
    def short(cls, value: object) -> Self:
        return super().short(value if isinstance(value, Mapping) else {"bound": value})

    @classmethod
    def suits(cls, column: Column) -> bool:
        return has_order(column)

    def objection(self, column: Column) -> str:
        return bound_objection(column, self.bound)
