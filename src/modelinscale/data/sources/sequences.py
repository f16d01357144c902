"""Long tables as sequences: rows of another source grouped by key and ordered by time; or windows of such series, to forecast what comes next."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.schema import Column, Schema
from modelinscale.core.units import Duration, Size
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._join_rules import Any_
from modelinscale.data.sources._messages import Stream
from modelinscale.data.sources._sequences import Wanted

if TYPE_CHECKING:
    import polars as pl

HISTORY, FUTURE, SERIES = "history", "future", "series"
_CHUNKS = 32
"""A chunk takes this part of the memory at most."""
_BLOCKS = 16
"""What is read at a time is a small share of the memory there is (`core.memory.block`); the source's rows may take so many times that."""


class Sequences(Source):
    """Rows of another source as sequences: one row a key, with a list for each of ``values``, ordered by time. With ``history`` and ``horizon`` one row for
    each window instead: ``history`` (the last numbers known), ``future`` (those to forecast), the moment between them, and ``series`` where there are
    several values.

    The other source's rows, the columns used here, are sorted within ``memory``, on disk where they do not fit. A later collect that finds new rows reads the
    other source again. Keys with new rows come again, whole, to replace what stands there (``key`` and ``write: upsert`` under ``data``); of windows only
    those come that the new rows complete.
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
    """Columns that are the same in all rows of a key, such as its label, or the size of a station: kept as they are."""
    longest: int = Field(100_000, ge=1)
    """Rows of a key at most; more are an error, since one key then is no single example."""
    history: int | None = Field(None, ge=1, le=100_000)
    """Numbers of a window before its moment."""
    horizon: int | None = Field(None, ge=1, le=100_000)
    """Numbers of a window after its moment."""
    past: tuple[str, ...] = ()
    """Windows: columns of numbers known up to the moment only (a temperature that was measured): lists of ``history`` numbers."""
    ahead: tuple[str, ...] = ()
    """Windows: columns of numbers or flags that are known ahead (holidays, prices that are set, the weekday): lists of ``history + horizon`` numbers, those of
    the steps to be forecast at the end. What is named here must be known at the moment of the forecast, or the model will look better than it is."""
    every: int = Field(1, ge=1)
    """Rows between the moments of two windows."""
    step: Duration | None = Field(None, gt=0)
    """The longest time between two rows that follow each other in a window (a duration for moments, a number for numbers); a window that reaches over more is
    left out. Left out: one and a half times what is usual in the series (the median)."""
    rows: int = Field(4_096, ge=1)
    """Rows of a chunk."""
    memory: Size = Field(512 << 20, ge=1 << 20)
    """What the other source's rows may take in memory; what is more goes to temporary files. `compute.memory` bounds it as well."""

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
        if self.history is None and (self.past or self.ahead):
            raise SpecError("`past` and `ahead` are for windows.", fix="Name the columns under `values`, or write `history` and `horizon`.")
        return self

    def columns(self) -> Schema:
        theirs = self.source.columns()
        mistakes = [f"there is no column {n!r}.{did_you_mean(n, theirs.names)}" for n in self._used if n not in theirs]
        mistakes += [
            f"{n!r} is {theirs[n].type}, and lists are made of numbers." for n in self.values if n in theirs and theirs[n].type not in ("int", "float")
        ]
        mistakes += [
            f"{n!r} is {theirs[n].type}, and lists are made of numbers and flags: make words a column of flags each."
            for n in (*self.past, *self.ahead)
            if n in theirs and theirs[n].type not in ("int", "float", "bool")
        ]
        if self.order_by in theirs and theirs[self.order_by].type not in ("time", "int", "float"):
            mistakes.append(f"`order_by` {self.order_by!r} is {theirs[self.order_by].type}, neither moments nor numbers.")
        if self.history is not None:
            mistakes += [
                f"a column {n!r} is there already, and windows need the name." for n in (HISTORY, FUTURE, SERIES) if n in set(self._used) - set(self.values)
            ]
        if len(set(self._used)) < len(self._used):
            mistakes.append("a column is named twice.")
        if mistakes:
            raise SpecError("data.source: " + "\n  ".join(mistakes))
        first = [theirs[n] for n in (*self.by, self.order_by, *self.keep)]
        if self.history is None:
            return Schema(columns=(*first, *(Column(name=n, type="sequence", width=1) for n in self.values)))
        series = [Column(name=SERIES, type="string")] if len(self.values) > 1 else []
        widths = {HISTORY: self.history, **dict.fromkeys(self.past, self.history), **dict.fromkeys(self.ahead, self.history + (self.horizon or 0))}
        lists = [Column(name=n, type="vector", width=width) for n, width in {**widths, FUTURE: self.horizon}.items()]
        return Schema(columns=(*first, *series, *lists))

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """Raises `SourceError` for rows without key or moment, two rows of one moment, rows that came late (windows), keys of too many rows, and where rows
        that were read before are others now."""
        known = after.get("held") if after else None
        if after is not None and "done" in after:
            yield from self._between(after["since"], after["read"], after["done"], known, schema)
        yield from self._between(after["read"] if after else None, None, 0, known, schema)

    def _between(self, since: Cursor | None, until: Cursor | None, done: int, known: list[int] | None, schema: Schema) -> Iterator[Chunk]:
        """What rows of the other source after ``since`` up to ``until`` bring, without the first ``done`` rows of it. ``known``: what stood there then."""
        from modelinscale.core.files import Scratch
        from modelinscale.data.sources._sequences.held import hold
        from modelinscale.data.sources._sequences.lists import lists
        from modelinscale.data.sources._sequences.windows import windows

        wanted = self._wanted
        with Scratch("sequences") as folder:
            found = hold(self.source, wanted, since, until, known, folder)
            if found is None:
                return
            at, last = 0, None
            end = {"read": found.cursor, "held": found.told}
            for part in self._cut(windows(found.rows, wanted) if self.history else lists(found.rows, wanted)):
                at += len(part)
                if at <= done:
                    continue
                if last is not None:
                    yield last
                batch = part.slice(max(0, done - (at - len(part)))).select(schema.names).to_arrow().combine_chunks()
                last = Chunk(batch.to_batches()[0], {**end, "since": since, "done": at}, f"{self.source.type}, sequence {at - len(part) + 1} and on")
            if last is not None:
                yield last._replace(cursor=end)

    def _cut(self, parts: "Iterator[pl.DataFrame]") -> "Iterator[pl.DataFrame]":
        """In chunks of `rows` at most, fewer where these take more than a small share of the memory."""
        for part in parts:
            most = max(1, min(self.rows, int(self.memory / _CHUNKS * len(part) / max(1, part.estimated_size()))))
            for a in range(0, len(part), most):
                yield part.slice(a, most)

    @property
    def _wanted(self) -> Wanted:
        return Wanted(
            by=self.by,
            order_by=self.order_by,
            keep=self.keep,
            values=self.values,
            past=self.past,
            ahead=self.ahead,
            longest=self.longest,
            history=self.history or 0,
            horizon=self.horizon or 0,
            every=self.every,
            step=self.step,
            memory=self.memory,
            label=self.source.type,
        )

    @property
    def _used(self) -> tuple[str, ...]:
        return tuple(self._wanted.used)

    def within(self, n_bytes: int, schema: Schema) -> Self:
        smaller = super().within(n_bytes, schema)
        memory = min(self.memory, max(1 << 20, _BLOCKS * n_bytes))
        return smaller.model_copy(update={"source": self.source.within(n_bytes, self.source.columns()), "memory": memory})

    def feed(self) -> Any:
        found = {**self.plain(), "source": self.source.feed(), "rows": None}
        del found["memory"]
        for name in ("step", "past", "ahead"):  # tables from before there were these go on
            if not found[name]:
                del found[name]
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
