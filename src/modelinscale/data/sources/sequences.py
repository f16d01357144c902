"""Long tables as sequences: rows of another source grouped by key and ordered by time; or windows of such series, to forecast what comes next."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import SourceError, SpecError, did_you_mean
from modelinscale.core.logs import log
from modelinscale.core.schema import Column, Schema
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._join_rules import Any_
from modelinscale.data.sources._messages import Stream

if TYPE_CHECKING:
    import polars as pl

HISTORY, FUTURE, SERIES = "history", "future", "series"
_NEW, _AT = "_mis_new", "_mis_at"


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
        """Raises `SourceError` for rows without key or moment, two rows of one moment, rows that came late (windows), keys of too many rows."""
        if after is not None and "done" in after:
            yield from self._between(after["since"], after["read"], after["done"], schema)
            after = {"read": after["read"]}
        yield from self._between(after["read"] if after else None, None, 0, schema)

    def _between(self, since: Cursor | None, until: Cursor | None, done: int, schema: Schema) -> Iterator[Chunk]:
        """What rows of the other source after ``since`` up to ``until`` bring, without the first ``done`` rows of it."""
        frame, end = self._held(since, until)
        if frame is None:
            return
        parts = self._gathered(frame) if self.history is None else self._windows(frame)
        chunks = [part.slice(a, self.rows) for part in parts for a in range(0, len(part), self.rows)]
        at = 0
        for i, chunk in enumerate(chunks):
            at += len(chunk)
            if at <= done:
                continue
            batch = chunk.slice(max(0, done - (at - len(chunk)))).select(schema.names).to_arrow().combine_chunks()
            cursor = {"read": end} if i == len(chunks) - 1 else {"read": end, "since": since, "done": at}
            yield Chunk(batch.to_batches()[0], cursor, f"{self.source.type}, sequence {at - len(chunk) + 1} and on")

    def _held(self, since: Cursor | None, until: Cursor | None) -> "tuple[pl.DataFrame | None, Cursor | None]":
        """All rows up to ``until``, sorted by key and moment, those after ``since`` marked; None where there are none of these."""
        import polars as pl
        import pyarrow as pa

        from modelinscale.data.arrow import arrow_schema
        from modelinscale.data.clean import clean

        theirs = self.source.columns().only(self._used)

        def rows(after: Cursor | None) -> "tuple[list[pa.RecordBatch], Cursor | None]":
            found, end = [], after
            for chunk in self.source.read(after, theirs):
                cleaned = clean(chunk.batch, theirs)
                if len(cleaned.faults):
                    raise SourceError(
                        f"{chunk.where}: {len(cleaned.faults):,} cells cannot be read.", fix="Give their types, or mend them: a sequence needs all."
                    )
                found.append(cleaned.batch)
                end = chunk.cursor
            return found, end

        news = rows(since)
        n_new = sum(batch.num_rows for batch in news[0])
        held = news if since is None else rows(None)
        n_after = 0 if until is None else sum(batch.num_rows for batch in rows(until)[0])
        if not n_new - n_after:
            return None, None
        frame = pl.from_arrow(pa.Table.from_batches(held[0], arrow_schema(theirs)))
        assert isinstance(frame, pl.DataFrame)
        n_old = len(frame) - n_new
        frame = frame.head(len(frame) - n_after).with_row_index(_AT).with_columns((pl.col(_AT) >= n_old).alias(_NEW))
        for name in (*self.by, self.order_by):
            if n_missing := frame[name].null_count():
                raise SourceError(f"{n_missing:,} rows have no {name!r}, so they belong to no place in a sequence.", fix="Leave them out where they are read.")
        frame = frame.sort([*self.by, self.order_by, _AT])
        same = frame.select(pl.all_horizontal(pl.col(n) == pl.col(n).shift(1) for n in (*self.by, self.order_by)).sum()).item()
        if same:
            raise SourceError(
                f"{same:,} rows have the same {' and '.join((*self.by, self.order_by))} as another: their order is not known.",
                fix="Add a column to `by`, or order by one that differs.",
            )
        return frame, until or held[1]

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
        """The windows that new rows complete, key by key, value by value."""
        import numpy as np
        import polars as pl

        assert self.history is not None
        assert self.horizon is not None
        n_gaps = 0
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
        if n_gaps:
            log(__name__).warning("windows with gaps in what is to be forecast are left out", extra={"windows": n_gaps})

    @property
    def _used(self) -> tuple[str, ...]:
        return (*self.by, self.order_by, *self.keep, *self.values)

    def within(self, n_bytes: int, schema: Schema) -> Self:
        smaller = super().within(n_bytes, schema)
        return smaller.model_copy(update={"source": self.source.within(n_bytes, self.source.columns())})

    def feed(self) -> Any:
        return {**self.plain(), "source": self.source.feed(), "rows": None}

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
