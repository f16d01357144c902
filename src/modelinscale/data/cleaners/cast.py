"""Text to numbers, flags or moments."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import NESTED, Column
from modelinscale.data.cleaners import Cleaner

if TYPE_CHECKING:
    import polars as pl


class Cast(Cleaner):
    """Reads cells as another type, written as the fields say: ``cast: {to: float, decimal: ","}``. What cannot be read goes to quarantine."""

    reads_text: ClassVar[bool] = True

    to: Literal["int", "float", "bool", "time", "string"]
    """The type."""
    format: str | None = None
    """How moments are written: a strptime pattern (``%d.%m.%Y``), ``iso``, ``epoch_s`` or ``epoch_ms``; left out: ISO 8601."""
    decimal: Literal[".", ","] = "."
    """The decimal mark."""
    thousands: Literal["", ",", ".", " ", "'", "_"] = ""
    """The mark between thousands."""
    true_words: tuple[str, ...] = ()
    """Words that mean true."""
    false_words: tuple[str, ...] = ()
    """Words that mean false."""
    nulls: tuple[str, ...] = ()
    """Words that mean missing, besides the usual ones."""

    @classmethod
    def short(cls, value: object) -> Self:
        return super().short(value if isinstance(value, Mapping) else {"to": value})

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.format is not None and self.to != "time":
            raise SpecError("`format` is for moments.", fix="Write `to: time`, or leave `format` out.")
        if self.decimal == self.thousands:
            raise SpecError(f"`decimal` and `thousands` are both {self.decimal!r}.", fix="Name two different marks.")
        return self

    def objection(self, column: Column) -> str:
        if column.type in NESTED or (column.type == "time" and self.to != "time"):
            return f"a column of type {column.type} cannot be cast to {self.to}"
        return ""

    def gives(self, column: Column) -> Column:
        from modelinscale.package._clean import cast_column

        lower = {k: tuple(w.lower() for w in v) for k, v in (("true_words", self.true_words), ("false_words", self.false_words))}
        return cast_column(column.name, {**self.plain(), **lower}).but(nullable=column.nullable)

    def apply(self, values: "pl.Series", column: Column) -> "tuple[pl.Series, pl.Series | None]":
        import polars as pl
        import pyarrow as pa

        from modelinscale.data._cells import read_cells
        from modelinscale.data.cleaners._rule import by_rule

        if values.dtype.is_float() and self.to == "string":
            return by_rule(values, self, pl.String)
        array = values.to_arrow()
        found, bad = read_cells(array.cast(pa.string()) if values.dtype == pl.String else array, self.gives(column))
        made = pl.Series(values.name, found)
        if bad is None:
            return made, None
        why = pl.Series([None], dtype=pl.String).extend_constant(None, len(values) - 1) if len(values) else pl.Series([], dtype=pl.String)
        return made, why.scatter(pl.Series(bad.rows), pl.Series(bad.reason).cast(pl.String))
