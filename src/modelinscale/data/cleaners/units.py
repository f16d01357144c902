"""Quantities written in several units, as numbers in one."""

import re
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import field_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.measures import unit
from modelinscale.core.schema import Column
from modelinscale.data.cleaners import Cleaner
from modelinscale.data.cleaners._rule import by_rule, one_zero

if TYPE_CHECKING:
    import polars as pl

_MONEY = re.compile(r"[$€£¥₹₽]|euros?|dollars?|yen|eur|usd|gbp|jpy|cny|chf|aud|cad|nzd|sek|nok|dkk|pln|czk|huf|inr|brl|mxn|zar|krw|rub", re.IGNORECASE)
_ONE = r"^\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*([^\d\s.,+-]+)?\s*$"


class Units(Cleaner):
    """Turns ``12 kg``, ``3 lb`` or ``5 ft 3 in`` into a number in one unit of mass, length, duration, temperature, area, volume or data size: ``units: kg``."""

    reads_text: ClassVar[bool] = True

    to: str
    """The unit of the numbers."""
    bare: str | None = None
    """The unit of a number that stands alone; left out: ``to``."""
    decimal: Literal[".", ","] = "."
    """The decimal mark."""
    thousands: Literal["", ",", ".", " ", "'", "_"] = ""
    """The mark between thousands."""

    @classmethod
    def short(cls, value: object) -> Self:
        return super().short({"to": value} if isinstance(value, str) else value)

    @field_validator("to", "bare")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and _MONEY.fullmatch(name.strip()):
            raise SpecError(
                f"`units` converts no currency ({name}): rates change, and a row would mean another amount on another day.",
                fix="Read the amount with `cast: float`, keep the currency in a column of its own, and join the rate `as_of` the row's moment.",
            )
        return None if name is None else unit(name).name

    def objection(self, column: Column) -> str:
        if column.type not in ("string", "int", "float"):
            return f"`units` cannot be used on a column of type {column.type}"
        if self.bare is not None and unit(self.bare).dimension != unit(self.to).dimension:
            return f"{self.bare} is a unit of {unit(self.bare).dimension} and {self.to} one of {unit(self.to).dimension}"
        return ""

    def gives(self, column: Column) -> Column:
        return Column(name=column.name, type="float", nullable=column.nullable)

    def apply(self, values: "pl.Series", column: Column) -> "tuple[pl.Series, pl.Series | None]":
        import polars as pl

        from modelinscale.core.measures import find_unit

        to = unit(self.to)
        bare = unit(self.bare) if self.bare else to
        if values.dtype != pl.String:
            if bare == to:
                return one_zero(values.cast(pl.Float64)), None
            return by_rule(values, self, pl.Float64)
        if self.decimal != "." or self.thousands:
            return by_rule(values, self, pl.Float64)
        parts = values.str.extract_groups(_ONE).struct.unnest()
        number, name = (parts.get_column(c) for c in parts.columns)
        # Every spelling is looked up once; a factor does not say it where the unit is its own or has another zero.
        known = {n: of for n in name.unique().drop_nulls().to_list() if (of := find_unit(n, to.dimension)) is not None and not of.offset and not to.offset}
        factors = name.replace_strict(list(known), [of.factor for of in known.values()], default=None, return_dtype=pl.Float64) if known else None
        own = (
            name.is_in([n for n, of in known.items() if of == to])
            if known
            else pl.Series([False]).extend_constant(False, len(values) - 1)
            if len(values)
            else pl.Series([], dtype=pl.Boolean)
        )
        plain = number.cast(pl.Float64, strict=False)
        same = plain.is_not_null() & (own.fill_null(False) | (name.is_null() & (bare == to)))
        found = pl.select(pl.when(pl.lit(same)).then(pl.lit(plain)).otherwise(pl.lit(plain * factors / to.factor) if factors is not None else None)).to_series()
        found = one_zero(found.set(found.is_infinite().fill_null(False), None)).rename(values.name)
        left = values.is_not_null() & found.is_null()
        if not left.any():
            return found, None
        more, why = by_rule(values, self, pl.Float64, left)
        return found.zip_with(~left, more), why
