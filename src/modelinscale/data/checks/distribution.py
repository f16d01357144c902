"""Values spread as they were."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.bins import Bins
from modelinscale.core.schema import Column
from modelinscale.data.checks import Past, State, TableCheck, Verdict

if TYPE_CHECKING:
    import polars as pl

N_BINS = 20
N_CELLS = 256
"""Cells that different texts fall into, by a hash of theirs."""
EXPECTED = 5.0
"""Fewest expected counts for which the chi-squared distribution holds (Cochran 1954); smaller cells are joined."""


class Distribution(TableCheck):
    """Refuses a collect whose values are spread otherwise than those before: only if chance would hardly do it (a chi-squared test of two samples) and
    the difference is large enough to matter (the share of rows that moved)."""

    against: Literal["first", "previous"] = "first"
    """What it is held against: the first rows of the table, or the collect before."""
    rows: int = Field(1000, ge=50)
    """Rows that make a reference; a collect with fewer than a tenth of them is not judged."""
    moved: float = Field(0.1, gt=0, lt=1)
    """The share of rows that would have to move for both to be alike, above which it matters (total variation distance)."""
    chance: float = Field(0.001, gt=0, lt=0.5)
    """How often a collect that is spread as before may be refused by chance."""

    @classmethod
    def short(cls, value: object) -> Self:
        return super().short(value if isinstance(value, Mapping) or value is True else {"against": value})

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type in ("int", "float", "bool", "string")

    def demand(self) -> str:
        return f"spread as {'at first' if self.against == 'first' else 'in the collect before'}"

    def observe(self, values: "pl.Series") -> State:
        import polars as pl

        n_missing = values.null_count()
        present = values.drop_nulls()
        found: State = {"n": len(values), "missing": n_missing}
        if values.dtype == pl.String or values.dtype == pl.Boolean:
            return found | {"cells": _cells(present.cast(pl.String)).tolist()}
        return found | {"bins": Bins.of(present.cast(pl.Float64).to_numpy()).plain()}

    def merge(self, one: State, other: State) -> State:
        found: State = {"n": one["n"] + other["n"], "missing": one["missing"] + other["missing"]}
        if "cells" in one:
            return found | {"cells": [a + b for a, b in zip(one["cells"], other["cells"], strict=True)]}
        return found | {"bins": Bins.load(one["bins"]).merged(Bins.load(other["bins"])).plain()}

    def verdict(self, state: State, past: Past) -> Verdict | None:
        if past.kept is None or past.kept["n"] < self.rows or state["n"] < self.rows / 10:
            return None
        before, now = _counts(past.kept, state)
        moved = 0.5 * float(np.abs(now / now.sum() - before / before.sum()).sum())
        statistic, freedom = chi2(before, now)
        if moved <= self.moved or freedom < 1 or statistic <= _critical(self.chance, freedom):
            return None
        return Verdict(
            f"{moved:.0%} of the rows lie elsewhere than before ({past.kept['n']:,} rows), allowed {self.moved:.0%}", state["n"], _where(past.kept, state)
        )

    def keeps(self, state: State, kept: State | None) -> State | None:
        if self.against == "previous":
            return state if kept is None or state["n"] >= self.rows else kept
        return state if kept is None else self.merge(kept, state) if kept["n"] < self.rows else kept


def _cells(texts: "pl.Series") -> NDArray[np.int64]:
    """(N_CELLS,) how many texts fall into each cell, the same on every machine."""
    import pyarrow as pa

    from modelinscale.data._hash import hash_rows

    counts = texts.value_counts(name="n")
    words = counts.get_column(counts.columns[0]).to_arrow().cast(pa.large_string())
    places = (hash_rows([words], len(words)) % np.uint64(N_CELLS)).astype(np.int64)
    return np.bincount(places, weights=counts["n"].to_numpy(), minlength=N_CELLS).astype(np.int64)


def _counts(before: State, now: State) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both on the same cells, missing as the last: (C,), (C,)."""
    if "cells" in before:
        one, two = (np.array(s["cells"], np.float64) for s in (before, now))
    else:
        a, b = Bins.load(before["bins"]), Bins.load(now["bins"])
        edges = np.unique([a.quantile(k / N_BINS) for k in range(1, N_BINS)])
        one, two = (
            np.bincount(np.searchsorted(edges, s.middles(), side="left"), weights=s.counts, minlength=len(edges) + 1).astype(np.float64) for s in (a, b)
        )
    return np.append(one, before["missing"]).astype(np.float64), np.append(two, now["missing"]).astype(np.float64)


def chi2(one: NDArray[np.float64], two: NDArray[np.float64]) -> tuple[float, int]:
    """The statistic for two samples having one distribution, and its degrees of freedom; cells too thin to be tested are joined.

    Source: Pearson's test of homogeneity on a 2 × C table.
    """
    share = min(one.sum(), two.sum()) / (one.sum() + two.sum())
    thin = (one + two) * share < EXPECTED
    if thin.any():
        one, two = (np.append(c[~thin], c[thin].sum()) for c in (one, two))
    both = one + two
    one, two, both = one[both > 0], two[both > 0], both[both > 0]
    n_one, n_two = one.sum(), two.sum()
    if len(both) < 2 or not n_one or not n_two:
        return 0.0, 0
    expected = both * n_one / (n_one + n_two)
    difference = one - expected
    return float((difference**2 / expected).sum() + (difference**2 / (both - expected)).sum()), len(both) - 1


def _critical(chance: float, freedom: int) -> float:
    from scipy.special import chdtri

    return float(chdtri(freedom, chance))


def _where(before: State, now: State) -> tuple[str, ...]:
    words = (
        [f"missing {before['missing'] / before['n']:.0%}, now {now['missing'] / now['n']:.0%}"]
        if before["missing"] * now["n"] != now["missing"] * before["n"]
        else []
    )
    if "bins" in before:
        a, b = Bins.load(before["bins"]), Bins.load(now["bins"])
        words.insert(0, f"median {_shown(a.quantile(0.5))}, now {_shown(b.quantile(0.5))}")
    return tuple(words)


def _shown(value: Any) -> str:
    return f"{value:.4g}"
