"""How many rows a collect may bring."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column
from modelinscale.data.checks import Past, State, TableCheck, Verdict

if TYPE_CHECKING:
    import polars as pl

ENOUGH = 3
"""Collects before this one that ``change`` needs."""


class Rows(TableCheck):
    """Refuses a collect with too few or too many rows, or with others than usual: ``"*": {rows: {min: 1}}``."""

    columnless: ClassVar[bool] = True

    min: int | None = Field(None, ge=0)
    """The fewest rows."""
    max: int | None = Field(None, ge=0)
    """The most rows."""
    change: float | None = Field(None, gt=0)
    """How far the number may lie from the median of the last ten collects, as a share of it: 0.5 is half as many to one and a half times as many."""

    @classmethod
    def short(cls, value: object) -> Self:
        if isinstance(value, list | tuple) and len(value) == 2:
            value = {"min": value[0], "max": value[1]}
        return super().short(value if isinstance(value, Mapping) or value is True else {"min": value})

    @model_validator(mode="after")
    def _demands(self) -> Self:
        if self.min is None and self.max is None and self.change is None:
            raise SpecError("`rows` demands nothing.", fix="Write `rows: {min: 1}`, `{max: ...}` or `{change: 0.5}`.")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise SpecError(f"`rows` leaves nothing: {self.min} is above {self.max}.", fix="Swap them.")
        return self

    @classmethod
    def suits(cls, column: Column) -> bool:
        return True

    def demand(self) -> str:
        words = [f"at least {self.min:,}"] if self.min is not None else []
        words += [f"at most {self.max:,}"] if self.max is not None else []
        words += [f"within {self.change:.0%} of the usual number"] if self.change is not None else []
        return " and ".join(words) + " rows a collect"

    def observe(self, values: "pl.Series") -> State:
        return {"n": len(values)}

    def merge(self, one: State, other: State) -> State:
        return {"n": one["n"] + other["n"]}

    def verdict(self, state: State, past: Past) -> Verdict | None:
        n = int(state["n"])
        if past.catching_up:
            return None
        if self.max is not None and n > self.max:
            return Verdict(f"{n:,} rows are more than {self.max:,}", n)
        if not past.final:
            return None
        if self.min is not None and n < self.min:
            return Verdict(f"{n:,} rows are fewer than {self.min:,}", n)
        before = sorted(past.n_rows)
        if self.change is not None and len(before) >= ENOUGH:
            usual = before[len(before) // 2]
            if abs(n - usual) > self.change * usual:
                return Verdict(f"{n:,} rows, where {usual:,} are usual (the median of {len(before)} collects)", n)
        return None
