"""The five real tables with their recommended splits written down as a column, so that both sides learn from the same rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

HOME = Path(__file__).parent.parent.parent / "shared" / "data"
"""Where the sets lie beside the project; they are not part of it (see CONTRIBUTING.md)."""


@dataclass(frozen=True)
class Set:
    """One table and what to predict."""

    name: str
    target: str
    task: str
    file: str = "data.parquet"
    leaks: tuple[str, ...] = ()
    """Columns a plain script has to know about and leave out; `mis init` has to find them itself."""


SETS = (
    Set("adult", "income", "binary"),
    Set("covertype", "cover_type", "multiclass"),
    Set("california-housing", "median_house_value", "regression"),
    Set("bike-sharing", "cnt", "regression", file="hour.parquet", leaks=("casual", "registered", "instant")),
    Set("sms-spam", "label", "binary"),
)


def write(one: Set, folder: Path, home: Path = HOME) -> Path:
    """Writes ``<name>.parquet`` with a column ``split`` of ``train`` / ``test`` into ``folder``; returns its path.

    adult: the official split · bike-sharing: test from 2012-09-01 · covertype, sms-spam: stratified 80/20, seed 42 ·
    california-housing: random 80/20, seed 42.
    """
    table = pl.read_parquet(home / one.name / one.file)
    if one.name == "bike-sharing":
        table = table.with_columns(split=pl.when(pl.col("dteday") < pl.datetime(2012, 9, 1)).then(pl.lit("train")).otherwise(pl.lit("test")))
    elif "split" not in table.columns:
        strata = table[one.target].to_numpy() if one.task != "regression" else np.zeros(len(table))
        table = table.with_columns(split=pl.Series(np.where(_held_out(strata), "test", "train")))
    path = folder / f"{one.name}.parquet"
    table.write_parquet(path)
    return path


def _held_out(strata: NDArray[np.generic]) -> NDArray[np.bool_]:
    """True for a fifth of each stratum, by a fixed shuffle."""
    chosen = np.zeros(len(strata), dtype=bool)
    generator = np.random.default_rng(42)
    for value in np.unique(strata):
        rows = generator.permutation(np.flatnonzero(strata == value))
        chosen[rows[: round(len(rows) / 5)]] = True
    return chosen
