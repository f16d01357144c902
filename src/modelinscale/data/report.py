"""What a collect brought, column by column: counts of every row, and histograms, frequent and different values of a bounded sample.

Summaries merge, so that memory does not grow with the rows. `data._report_words` and `data._report_page` write them for people.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from modelinscale.core.bins import Bins
from modelinscale.core.schema import Schema
from modelinscale.core.seeds import generator

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

FORMAT = 1
SAMPLE_ROWS = 16_384
"""Rows of each commit that are looked at closely, evenly spread over it."""
KEPT_VALUES = 512
"""Frequent values that a summary keeps between commits: beyond that the rarest are forgotten."""
KEPT_HASHES = 1024
"""Smallest hashes from which different values are counted (k minimum values; about 3 % off. Source: Bar-Yossef et al. 2002)."""
SHOWN_CHARS = 60


@dataclass
class Summary:
    """One column of the rows added."""

    n: int = 0
    n_missing: int = 0
    total: float = 0.0
    """Sum of present numbers."""
    low: Any = None
    """The smallest present number or moment (microseconds since 1970)."""
    high: Any = None
    bins: Bins | None = None
    """Of the sample: numbers, moments in microseconds."""
    top: Counter[str] = field(default_factory=Counter)
    """Of the sample: text and flags."""
    hashes: "np.ndarray[Any, np.dtype[np.uint64]]" = field(default_factory=lambda: np.zeros(0, np.uint64))
    """Of the sample: the smallest hashes of different values."""
    n_sample: int = 0

    @classmethod
    def of(cls, values: "pl.Series", sample: "pl.Series") -> "Summary":
        """``sample``: some of the values, looked at closely."""
        import polars as pl

        found = cls(len(values), values.null_count(), n_sample=len(sample))
        kind = values.dtype
        present = sample.drop_nulls()
        if kind.is_nested():
            return found
        if kind.is_temporal():
            values, present = values.dt.timestamp("us"), present.dt.timestamp("us")
        if values.dtype.is_numeric():
            found.low, found.high, found.total = values.min(), values.max(), float(values.cast(pl.Float64).sum())
            found.bins = Bins.of(present.cast(pl.Float64).to_numpy())
        counts = present.alias("value").value_counts(name="n")
        if not values.dtype.is_numeric():
            some = counts.top_k(KEPT_VALUES, by="n") if len(counts) > KEPT_VALUES else counts
            found.top = Counter({str(v).lower() if isinstance(v, bool) else str(v): n for v, n in some.iter_rows()})
        found.hashes = np.sort(counts["value"].hash(seed=0).to_numpy())[:KEPT_HASHES]
        return found

    def merged(self, other: "Summary") -> "Summary":
        """Of both together."""
        top = self.top + other.top
        return Summary(
            self.n + other.n,
            self.n_missing + other.n_missing,
            self.total + other.total,
            min((v for v in (self.low, other.low) if v is not None), default=None),
            max((v for v in (self.high, other.high) if v is not None), default=None),
            self.bins.merged(other.bins) if self.bins and other.bins else self.bins or other.bins,
            Counter(dict(sorted(top.items(), key=lambda item: (-item[1], item[0]))[:KEPT_VALUES])),
            np.unique(np.concatenate([self.hashes, other.hashes]))[:KEPT_HASHES],
            self.n_sample + other.n_sample,
        )

    @property
    def n_distinct(self) -> int:
        """Different present values among the sample, about."""
        k = len(self.hashes)
        return k if k < KEPT_HASHES else int((k - 1) / (float(self.hashes[-1]) / 2.0**64))

    def plain(self, *, hidden: bool, n_top: int = 8, n_bars: int = 24) -> dict[str, Any]:
        """As JSON-ready data; ``hidden``: without any value."""
        n_present = self.n - self.n_missing
        found: dict[str, Any] = {
            "n": self.n,
            "missing_share": self.n_missing / self.n if self.n else 0.0,
            "n_distinct": self.n_distinct,
            "about": len(self.hashes) >= KEPT_HASHES or self.n_sample < self.n,
            "sampled": self.n_sample < self.n,
            "hidden": hidden,
        }
        if hidden:
            return found
        if self.bins is not None and n_present:
            found |= {"low": self.low, "high": self.high, "mean": self.total / n_present, "bars": _bars(self.bins, n_bars)}
        if self.top:
            found["top"] = [[value[:SHOWN_CHARS], n] for value, n in sorted(self.top.items(), key=lambda item: (-item[1], item[0]))[:n_top]]
            found["n_rest"] = max(0, self.n_sample - round(self.n_sample * found["missing_share"]) - sum(n for _, n in found["top"]))
        return found


def _bars(bins: Bins, n_bars: int) -> dict[str, Any]:
    """Counts between the 0.5 and the 99.5 percent point on bars of one width, those beyond on the outer ones."""
    low, high = bins.quantile(0.005), bins.quantile(0.995)
    if not low < high:
        return {"low": low, "high": high, "counts": [int(bins.counts.sum())]}
    places = np.clip(((bins.middles() - low) / (high - low) * n_bars).astype(np.int64), 0, n_bars - 1)
    return {"low": low, "high": high, "counts": np.bincount(places, weights=bins.counts, minlength=n_bars).astype(int).tolist()}


class Columns:
    """Summaries of all columns of the rows that a collect adds."""

    def __init__(self, schema: Schema, hidden: Iterable[str] = ()) -> None:
        self._schema, self._hidden = schema, set(hidden)
        self._found: dict[str, Summary] = {}

    def see(self, rows: "pa.Table") -> None:
        """More rows."""
        import polars as pl

        if not rows.num_rows:
            return
        frame = pl.from_arrow(rows)
        assert isinstance(frame, pl.DataFrame)
        sample = frame[_spread(len(frame))] if len(frame) > SAMPLE_ROWS else frame
        self._look_for_personal(sample)
        for name in self._schema.names:
            one = Summary.of(frame[name], sample[name])
            before = self._found.get(name)
            self._found[name] = one if before is None else before.merged(one)

    def _look_for_personal(self, sample: "pl.DataFrame") -> None:
        """Columns whose name or cells say that they are personal are not shown."""
        from modelinscale.data._personal import column_hint, detect

        for column in self._schema.columns:
            if column.name in self._hidden or column.type not in ("string", "int"):
                continue
            hint = column_hint(column.name)
            if hint is not None or (column.type == "string" and detect(sample[column.name].head(2000)).is_not_null().any()):
                self._hidden.add(column.name)

    def hide(self, names: Iterable[str]) -> None:
        """Shows no value of these."""
        self._hidden.update(names)

    @property
    def hidden(self) -> frozenset[str]:
        """Columns of which no value is shown."""
        return frozenset(self._hidden)

    def plain(self) -> dict[str, dict[str, Any]]:
        """As JSON-ready data, by column."""
        return {c.name: {"type": c.type, **self._found.get(c.name, Summary()).plain(hidden=c.name in self._hidden)} for c in self._schema.columns}


def _spread(n: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """One place by chance in each of `SAMPLE_ROWS` equal stretches: every k-th row would see only some of what comes round in turn."""
    starts = np.arange(SAMPLE_ROWS) * n // SAMPLE_ROWS
    ends = (np.arange(SAMPLE_ROWS) + 1) * n // SAMPLE_ROWS
    return starts + (generator(0, "report", n).random(SAMPLE_ROWS) * (ends - starts)).astype(np.int64)


def report(facts: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The whole report as JSON-ready data. ``facts``: what the collect says of itself."""
    return {"format": FORMAT, **facts, "columns": columns.plain()}
