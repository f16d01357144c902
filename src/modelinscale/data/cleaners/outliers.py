"""Numbers too far out to be believed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column
from modelinscale.data.cleaners import Cleaner

if TYPE_CHECKING:
    import polars as pl

SPREAD = 1.4826
"""Standard deviations in a median absolute deviation of normal numbers. Source: Rousseeuw and Croux 1993."""


class Outliers(Cleaner):
    """Judges numbers by bounds: given (``outliers: [0, 1000]``), or so many robust standard deviations from the median of the first rows ever collected."""

    low: float | None = None
    """The smallest number that is believed."""
    high: float | None = None
    """The largest."""
    spread: float | None = Field(None, gt=0)
    """Bounds at the median ± this many times 1.4826 × the median absolute deviation, found at the first collect and kept with the table."""
    to: Literal["clip", "null", "quarantine"] = "clip"
    """What becomes of a number beyond: it is moved to the bound, counts as missing, or its row goes to quarantine (a row asked about is answered as it is)."""

    @classmethod
    def short(cls, value: object) -> Self:
        if isinstance(value, list | tuple) and len(value) == 2:
            value = {"low": value[0], "high": value[1]}
        if not isinstance(value, Mapping):
            raise SpecError(f"`outliers` needs bounds, found {value!r}.", fix="Write `outliers: [low, high]` or `outliers: {spread: 6}`.")
        return super().short(value)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.spread is None and self.low is None and self.high is None:
            raise SpecError("`outliers` has no bound.", fix="Write `outliers: [low, high]` or `outliers: {spread: 6}`.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise SpecError(f"`outliers` leaves nothing: {self.low:g} is above {self.high:g}.", fix="Swap the bounds.")
        return self

    def objection(self, column: Column) -> str:
        if column.type not in ("int", "float"):
            return f"`outliers` is for numbers, and the column is {column.type} (put `cast` or `units` before it)"
        if column.type == "int" and self.low is not None and self.high is not None and -(-self.low // 1) > self.high // 1:
            return f"no whole number lies between {self.low:g} and {self.high:g}"
        return ""

    def frozen(self, values: "pl.Series") -> "Outliers":
        """With the bounds that ``spread`` means for these values (given bounds stay); itself where there is no spread, or nothing to tell it from."""
        if self.spread is None:
            return self
        present = values.drop_nulls().cast(float)
        median = present.median()
        around = None if median is None else (present - median).abs().median()
        if not isinstance(median, float) or not isinstance(around, float) or around <= 0:
            return self.but(spread=None, low=-1.7e308 if self.low is None else self.low)
        reach = self.spread * SPREAD * around
        return self.but(spread=None, low=median - reach if self.low is None else self.low, high=median + reach if self.high is None else self.high)

    def apply(self, values: "pl.Series", column: Column) -> "tuple[pl.Series, pl.Series | None]":
        import math

        import polars as pl

        low, high = self.low, self.high
        if values.dtype.is_integer():
            low, high = (None if low is None else math.ceil(max(low, -(2.0**62)))), (None if high is None else math.floor(min(high, 2.0**62)))
        below = values < low if low is not None else None
        above = values > high if high is not None else None
        out = below if above is None else above if below is None else below | above
        if out is None or not out.fill_null(False).any():
            return values, None
        if self.to == "clip":
            return values.clip(low, high), None
        out = out.fill_null(False)
        if self.to == "null":
            return values.set(out, None), None
        words = f"not between {'-∞' if low is None else f'{low:g}'} and {'∞' if high is None else f'{high:g}'}: an outlier"
        return values, pl.select(pl.when(pl.lit(out)).then(pl.lit(words)).otherwise(None)).to_series()
