"""Long tables as sequences: rows of another source grouped by key and ordered by time; or windows of such series, to forecast what comes next."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import SourceError, SpecError, did_you_mean
from modelinscale.core.logs import log
from modelinscale.core.schema import Column, Schema
from modelinscale.core.units import Duration
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._join_rules import Any_
from modelinscale.data.sources._messages import Stream

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

HISTORY, FUTURE, SERIES = "history", "future", "series"
_HOLE = 1.5
"""Usual steps; a step that is longer is a hole, since a row lacks there."""
_ROUNDED = 1e-3
"""Of a step, by which decimals may make it longer."""
_NEW, _LATER, _HASH, _AT = "_mis_new", "_mis_later", "_mis_hash", "_mis_at"


class Sequences(Source):
    """Rows of another source as sequences: one row a key, with a list for each of ``values``, ordered by time. With ``history`` and ``horizon`` one row for
    each window instead: ``history`` (the last numbers known), ``future`` (those to forecast), the moment between them, and ``series`` where there are
    several values.

    The other source's rows are held in memory, the columns used here. A later collect that finds new rows reads the other source again. Keys with new rows
    come again, whole, to replace what stands there (``key`` and ``write: upsert`` under ``data``); of windows only those come that the new rows complete.
    """

    source: Any_
    """Where the rows are; no stream."""
    by: tuple[str, ...] = ()
    """The columns that say which rows belong together; for windows left out where the whole table is one series."""
    order_by: str
    """The column of the moment, or of a number that rises. Within a key no two rows may have the same."""
    values: tuple[str, ...] = Field(min_length=1)
    """The columns of numbers that become lists."""
    keep: tuple[str, ...] = ()
    """Columns that are the same in all rows of a key, such as its label: kept as they are."""
    longest: int = Field(100_000, ge=1)
    """Rows of a key at most; more are an error, since one key then is no single example."""
    history: int | None = Field(None, ge=1, le=100_000)
    """Numbers of a window before its moment."""
    horizon: int | None = Field(None, ge=1, le=100_000)
    """Numbers of a window after its moment."""
    every: int = Field(1, ge=1)
    """Rows between the moments of two windows."""
    step: Duration | None = Field(None, gt=0)
    """The longest time between two rows that follow each other in a window (a duration for moments, a number for numbers); a window that reaches over more is
    left out. Left out: one and a half times what is usual in the series (the median)."""
    rows: int = Field(4_096, ge=1)
    """Rows of a chunk."""

    typed: ClassVar[bool] = True

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if isinstance(self.source, Stream):
            raise SpecError(f"sequences are read again when rows come, and a stream ({self.source.type}) cannot be.", fix="Collect it into a table first.")
        if (self.history is None) != (self.horizon is None):
            raise SpecError("a window needs `history` and `horizon`.", fix="Write both, or none for one row a key.")
        if self.history is None and not self.by:
            raise SpecError("rows are grouped `by` nothing.", fix="Name the key (`by: sensor_id`), or `history` and `horizon` for windows of one series.")
        if self.history is None and self.step is not None:
            raise SpecError("`step` is for windows.", fix="Remove `step`, or write `history` and `horizon`.")
        if self.history is not None and self.keep:
            raise SpecError("`keep` is for one row a key; windows have the key's columns alone.", fix="Remove `keep`, or name the columns in `by`.")
        return self

    def columns(self) -> Schema:
        theirs = self.source.columns()
        mistakes = [f"there is no column {n!r}.{did_you_mean(n, theirs.names)}" for n in self._used if n not in theirs]
        mistakes += [
            f"{n!r} is {theirs[n].type}, and lists are made of numbers." for n in self.values if n in theirs and theirs[n].type not in ("int", "float")
        ]
        if self.order_by in theirs and theirs[self.order_by].type not in ("time", "int", "float"):
            mistakes.append(f"`order_by` {self.order_by!r} is {theirs[self.order_by].type}, neither moments nor numbers.")
        if self.history is not None:
            mistakes += [f"a column {n!r} is there already, and windows need the name." for n in (HISTORY, FUTURE, SERIES) if n in (*self.by, self.order_by)]
        if len(set(self._used)) < len(self._used):
            mistakes.append("a column is named twice.")
        if mistakes:
            raise SpecError("data.source: " + "\n  ".join(mistakes))
        first = [theirs[n] for n in (*self.by, self.order_by, *self.keep)]
        if self.history is None:
            return Schema(columns=(*first, *(Column(name=n, type="sequence", width=1) for n in self.values)))
        names = [Column(name=SERIES, type="string")] if len(self.values) > 1 else []
        return Schema(columns=(*first, *names, Column(name=HISTORY, type="vector", width=self.history), Column(name=FUTURE, type="vector", width=self.horizon)))

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """Raises `SourceError` for rows without key or moment, two rows of one moment, rows that came late (windows), keys of too many rows, and where rows
        that were read before are others now."""
        known = after.get("held") if after else None
        if after is not None and "done" in after:
            yield from self._between(after["since"], after["read"], after["done"], known, schema)
        yield from self._between(after["read"] if after else None, None, 0, known, schema)

    def _between(self, since: Cursor | None, until: Cursor | None, done: int, known: list[int] | None, schema: Schema) -> Iterator[Chunk]:
        """What rows of the other source after ``since`` up to ``until`` bring, without the first ``done`` rows of it. ``known``: what stood there then."""
        found = self._held(since, until, known)
        if found is None:
            return
        frame, end = found
        held = _told(frame)
        parts = self._gathered(frame) if self.history is None else self._windows(frame)
        chunks = [part.slice(a, self.rows) for part in parts for a in range(0, len(part), self.rows)]
        at = 0
        for i, chunk in enumerate(chunks):
            at += len(chunk)
            if at <= done:
                continue
            batch = chunk.slice(max(0, done - (at - len(chunk)))).select(schema.names).to_arrow().combine_chunks()
            cursor = {"read": end, "held": held} if i == len(chunks) - 1 else {"read": end, "held": held, "since": since, "done": at}
            yield Chunk(batch.to_batches()[0], cursor, f"{self.source.type}, sequence {at - len(chunk) + 1} and on")

    def _held(self, since: Cursor | None, until: Cursor | None, known: list[int] | None) -> "tuple[pl.DataFrame, Cursor] | None":
        """All rows up to ``until`` (left out: up to the last of those after ``since``), sorted by key and moment, those after ``since`` marked, and the cursor
        there; None where there are none of these."""
        import polars as pl

        new, end = self._read(since)
        resumed = until is not None
        if not len(new) and not resumed:
            return None
        frame = new if since is None else self._read(None)[0]
        frame = self._sorted(frame)
        if since is None and not resumed:
            assert end is not None
            return frame.with_columns(pl.lit(value=True).alias(_NEW)), end
        until = until or end
        assert until is not None
        # Read last: whatever came while the others were read is among these, and is left for the next collect.
        later, _ = self._read(until)
        frame = self._marked(self._marked(frame, new, _NEW), later, _LATER).filter(~pl.col(_LATER))
        n_new = int((~self._marked(new.unique(self._place), later, _LATER)[_LATER]).sum())
        if int(frame[_NEW].sum()) != n_new or (resumed and not n_new):
            raise SourceError(f"{self.source.type}: rows were changed or removed while they were read.", fix="Collect again when nobody writes to it.")
        self._refuse_changed(frame, known, resumed=resumed)
        return (frame, until) if n_new else None

    def _refuse_changed(self, frame: "pl.DataFrame", known: list[int] | None, *, resumed: bool) -> None:
        """Rows that stood there before must stand there still. With one row a key those may differ that came again: their keys come again too."""
        import polars as pl

        if known is None:  # a cursor of a version that did not tell
            return
        there = frame if resumed else frame.filter(~pl.col(_NEW))
        if _told(there) == known:
            return
        came_again = 0 < known[0] - len(there) <= len(frame) - len(there)
        if resumed or self.history is not None or not came_again:
            raise SourceError(
                f"{self.source.type}: rows that were read before have changed: of {known[0]:,} rows then, {len(there):,} are there now, or with other numbers.",
                fix="What was made of them would be wrong: collect anew into another store.",
            )

    def _read(self, after: Cursor | None) -> "tuple[pl.DataFrame, Cursor | None]":
        """The other source's rows after a cursor, each with a hash of what it says, and the cursor behind them."""
        import polars as pl
        import pyarrow as pa

        from modelinscale.data._hash import hash_rows
        from modelinscale.data.arrow import arrow_schema
        from modelinscale.data.clean import clean

        theirs = self.source.columns().only(self._used)
        found, end = [], after
        for chunk in self.source.read(after, theirs):
            cleaned = clean(chunk.batch, theirs)
            if len(cleaned.faults):
                raise SourceError(f"{chunk.where}: {len(cleaned.faults):,} cells cannot be read.", fix="Give their types, or mend them: a sequence needs all.")
            found.append(cleaned.batch)
            end = chunk.cursor
        table = pa.Table.from_batches(found, arrow_schema(theirs))
        # Whole numbers as decimals: a column that had none but these may have decimals once rows have come.
        cells = [table.column(c.name).cast(pa.float64(), safe=False) if c.type == "int" else table.column(c.name) for c in theirs.columns]
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame.with_columns(pl.Series(_HASH, hash_rows(cells, table.num_rows))), end

    def _sorted(self, frame: "pl.DataFrame") -> "pl.DataFrame":
        """By key and moment. Raises `SourceError` where these do not say where a row stands."""
        import polars as pl

        for name in self._place:
            if n_missing := frame[name].null_count():
                raise SourceError(f"{n_missing:,} rows have no {name!r}, so they belong to no place in a sequence.", fix="Leave them out where they are read.")
        frame = frame.sort(self._place)
        same = frame.select(pl.all_horizontal(pl.col(n) == pl.col(n).shift(1) for n in self._place).sum()).item()
        if same:
            raise SourceError(
                f"{same:,} rows have the same {' and '.join(self._place)} as another: their order is not known.",
                fix="Add a column to `by`, or order by one that differs.",
            )
        return frame

    def _marked(self, frame: "pl.DataFrame", others: "pl.DataFrame", mark: str) -> "pl.DataFrame":
        """The same rows in the same order, those marked that stand at the place of one of the others."""
        import polars as pl

        places = others.select(self._place).unique().with_columns(pl.lit(value=True).alias(mark))
        return frame.join(places, on=self._place, how="left", maintain_order="left").with_columns(pl.col(mark).fill_null(value=False))

    def _gathered(self, frame: "pl.DataFrame") -> "list[pl.DataFrame]":
        """One row a key that has new rows."""
        import polars as pl

        lists = [pl.col(n).cast(pl.Float32).fill_null(float("nan")) for n in self.values]
        counts = [pl.col(n).n_unique().alias(f"_mis_n {n}") for n in self.keep]
        found = frame.group_by(list(self.by), maintain_order=True).agg(
            pl.col(self.order_by).last(), *(pl.col(n).first() for n in self.keep), *lists, *counts, pl.len().alias(_AT), pl.col(_NEW).any()
        )
        for n in self.keep:
            if n_several := int((found[f"_mis_n {n}"] > 1).sum()):
                raise SourceError(f"{n_several:,} keys have several {n!r}.", fix="`keep` names columns that are the same in all rows of a key.")
        longest = found[_AT].max()
        if isinstance(longest, int) and longest > self.longest:
            raise SourceError(f"a key has {longest:,} rows, more than `longest` ({self.longest:,}).", fix="Name a finer key in `by`, or raise `longest`.")
        return [found.filter(_NEW)]

    def _windows(self, frame: "pl.DataFrame") -> "Iterator[pl.DataFrame]":
        """The windows that new rows complete and that have no hole in time, key by key, value by value."""
        import numpy as np
        import polars as pl

        assert self.history is not None
        assert self.horizon is not None
        n_gaps = n_holes = n_windows = 0
        for part in frame.partition_by(list(self.by), maintain_order=True) if self.by else [frame]:
            new = part[_NEW].to_numpy()
            n_old = len(new) - int(new.sum())
            if new[:n_old].any():
                raise SourceError(
                    "rows came later than others of their series with a newer moment; windows made before would be wrong.",
                    fix="Collect anew into another store, or wait until rows are complete.",
                )
            starts = np.arange(0, len(part) - self.history - self.horizon + 1, self.every)
            starts = starts[starts + self.history + self.horizon > n_old]
            n_windows += len(starts)
            if len(starts):
                before = _holes_before(part[self.order_by], self.step)
                unbroken = before[starts] == before[starts + self.history + self.horizon - 1]
                n_holes += len(starts) - int(unbroken.sum())
                starts = starts[unbroken]
            for name in self.values if len(starts) else ():
                x = part[name].cast(pl.Float32).fill_null(float("nan")).to_numpy()
                both = np.lib.stride_tricks.sliding_window_view(x, self.history + self.horizon)[starts]
                whole = np.isfinite(both[:, self.history :]).all(axis=1)
                n_gaps += len(whole) - int(whole.sum())
                both, at = both[whole], starts[whole] + self.history - 1
                yield (
                    part[at]
                    .select(*self.by, self.order_by)
                    .with_columns(
                        pl.lit(name).alias(SERIES),
                        pl.Series(HISTORY, np.ascontiguousarray(both[:, : self.history]), dtype=pl.Array(pl.Float32, self.history)),
                        pl.Series(FUTURE, np.ascontiguousarray(both[:, self.history :]), dtype=pl.Array(pl.Float32, self.horizon)),
                    )
                )
        if n_holes:
            log(__name__).warning(
                "windows that reach over a hole in time are left out; where rows are as far apart by nature, `step` says how far they may be",
                extra={"windows": n_holes, "of": n_windows},
            )
        if n_gaps:
            log(__name__).warning("windows with gaps in what is to be forecast are left out", extra={"windows": n_gaps})

    @property
    def _place(self) -> list[str]:
        """The columns that say which row it is."""
        return [*self.by, self.order_by]

    @property
    def _used(self) -> tuple[str, ...]:
        return (*self.by, self.order_by, *self.keep, *self.values)

    def within(self, n_bytes: int, schema: Schema) -> Self:
        smaller = super().within(n_bytes, schema)
        return smaller.model_copy(update={"source": self.source.within(n_bytes, self.source.columns())})

    def feed(self) -> Any:
        found = {**self.plain(), "source": self.source.feed(), "rows": None}
        if self.step is None:  # tables from before there was one go on
            del found["step"]
        return found

    def remembers(self) -> tuple[str, ...]:
        found: tuple[str, ...] = self.source.remembers()
        return found

    def content(self, cursor: Cursor) -> Any:
        return [self.source.content(cursor["read"]), cursor.get("done")]

    def committed(self, cursor: Cursor) -> None:
        if "done" not in cursor:
            self.source.committed(cursor["read"])

    def fingerprint(self) -> Any:
        return self.source.fingerprint()


def _told(frame: "pl.DataFrame") -> list[int]:
    """How many rows, and the sum of their hashes: the same for the same rows in any order."""
    import numpy as np

    return [len(frame), int(np.sum(frame[_HASH].to_numpy() >> np.uint64(1), dtype=np.uint64) & np.uint64((1 << 63) - 1))]


def _holes_before(moments: "pl.Series", step: float | None) -> "NDArray[np.int64]":
    """(n,) how many of the steps that lead to each of the moments of a series, ascending, are longer than ``step``, or than is usual there."""
    import numpy as np
    import polars as pl

    apart = np.diff(moments.to_physical().to_numpy()) / (1e6 if moments.dtype == pl.Datetime else 1.0)  # microseconds
    longest = step if step is not None else _HOLE * float(np.median(apart))
    return np.concatenate([[0], np.cumsum(apart > longest * (1 + _ROUNDED))])
