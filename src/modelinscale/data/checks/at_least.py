"""Numbers or moments with one bound."""

from typing import TYPE_CHECKING

from modelinscale.data.checks._bounds import OneBound, known, show

if TYPE_CHECKING:
    import polars as pl


class AtLeast(OneBound):
    """Refuses numbers or moments below the bound, which is allowed itself: ``at_least: 0``."""

    def failing(self, values: "pl.Series") -> "pl.Series":
        return known(values < self.bound)

    def demand(self) -> str:
        return f"at least {show(self.bound)}"
