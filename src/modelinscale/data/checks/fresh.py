"""Rows that are new enough."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field

from modelinscale.core.schema import Column
from modelinscale.core.units import Duration, show_seconds
from modelinscale.data.checks import Past, State, TableCheck, Verdict

if TYPE_CHECKING:
    import polars as pl


class Fresh(TableCheck):
    """Refuses a collect after which the newest moment of the column, in the lake or among the new rows, is too long ago: ``paid_at: {fresh: 2d}``."""

    within: Annotated[Duration, Field(gt=0)]
    """How old the newest may be when it is collected; moments count as UTC."""

    @classmethod
    def short(cls, value: object) -> Self:
        return super().short(value if isinstance(value, Mapping) or value is True else {"within": value})

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type == "time"

    def demand(self) -> str:
        return f"at most {show_seconds(self.within)} old"

    def observe(self, values: "pl.Series") -> State:
        newest = values.dt.timestamp("us").max()
        return {"n": len(values), "newest": newest}

    def merge(self, one: State, other: State) -> State:
        return {"n": one["n"] + other["n"], "newest": max((s["newest"] for s in (one, other) if s["newest"] is not None), default=None)}

    def verdict(self, state: State, past: Past) -> Verdict | None:
        from datetime import datetime

        newest = self.merge(state, past.kept)["newest"] if past.kept else state["newest"]
        if not past.final or past.catching_up:
            return None
        if newest is None:
            return Verdict("no row says when it happened", state["n"])
        moment = datetime(1970, 1, 1) + timedelta(microseconds=newest)
        age = (past.now - moment).total_seconds()
        return Verdict(f"the newest is {show_seconds(age)} old, allowed {show_seconds(self.within)}", state["n"], (str(moment),)) if age > self.within else None

    def keeps(self, state: State, kept: State | None) -> State | None:
        return {"n": 0, "newest": (self.merge(state, kept) if kept else state)["newest"]}
