"""Numbers or moments with one bound."""

from typing import TYPE_CHECKING

from modelinscale.data.checks._bounds import OneBound, known, show

if TYPE_CHECKING:
    import polars as pl


class AtMost(OneBound):
    """Refuses numbers or moments above the bound, which is allowed itself: ``at_most: 120``."""

    def failing(self, values: "pl.Series") -> "pl.Series":
        return known(values > self.bound)

    def demand(self) -> str:
        return f"at most {show(self.bound)}"
