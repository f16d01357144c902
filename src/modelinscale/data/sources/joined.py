"""Several sources as one: each row of the first gets the columns that the others know of it, as of its own moment where that is asked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from modelinscale.core.clock import now
from modelinscale.core.errors import SpecError
from modelinscale.core.logs import log
from modelinscale.core.schema import Schema
from modelinscale.core.units import Size
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._join_rules import Any_, Join, Other, lookups, misfits, unread
from modelinscale.data.sources._joining import Taken, units, with_others
from modelinscale.data.sources._late import Place, begin_again, kept_places, microseconds, newest_of, touched
from modelinscale.data.sources._messages import Stream

if TYPE_CHECKING:
    from modelinscale.data.join import Right


__all__ = ["Join", "Joined", "Other"]

UNIT_ROWS = 1 << 20
"""Rows joined at a time when a side lies on disk, which is read once for them."""
_BLOCKS = 16
"""What is read at a time is a small share of the memory there is (`core.memory.block`); the others may take so many times that."""


class Joined(Source):
    """Several sources as one: each row of the first gets the columns that the others know of it. Written as a list, see docs/joins.md.

    The first is read as it would be alone, resumed by its own cursor. The others are read anew by every collect that finds new rows of the first.
    Where late rows of another correct (`Join.correct`), only its new rows are read at first: they tell which rows of the first are joined again.
    These come before the new ones, under the cursor that was there: a kill repeats them, and replacing by key makes that harmless.
    """

    main: Any_
    """The first source: its rows are the examples."""
    others: tuple[Other, ...] = Field(min_length=1)
    """The others, joined in this order."""
    memory: Size = Field(512 << 20, ge=1 << 16)
    """What the others may take in memory together; what is more goes to temporary files. `compute.memory` bounds it as well."""

    @model_validator(mode="after")
    def _can_be_read_again(self) -> Self:
        streams = [one.type for one in (self.main, *(o.source for o in self.others)) if isinstance(one, Stream)]
        if streams and any(o.join.correct for o in self.others):
            raise SpecError(
                f"`correct` reads rows again, and what was read of a stream ({streams[0]}) may be gone.",
                fix="Let `wait` hold rows back until what is known of them is there, or collect the stream into a table and join that.",
            )
        return self

    def columns(self) -> Schema:
        """Those of the first source, then those taken from the others. Raises `SpecError` where they do not fit together, all at once."""
        main = self.main.columns()
        return Schema(columns=(*main.columns, *(c for taken in self._taken(main) for c in taken.columns.values())))

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """As the first source reads, with the others' columns. Raises `DataError` when a key names several rows, and what the sources raise."""
        main = self.main.columns()
        taken = self._taken(main, schema)
        keys = {left for other in self.others for left in (*other.join.on, *(other.join.as_of or {}))}
        held = {c.name: c for c in schema.columns}
        reads = Schema(columns=tuple(held.get(c.name, c) for c in main.columns if c.name in held or c.name in keys))
        with ExitStack() as stack:
            late = {str(i): one for i, one in enumerate(taken) if one.other.join.correct}
            read_to: dict[str, Cursor | None] = dict((after or {}).get("others", {}))
            rights: list[Right] = []

            def sides() -> "list[Right]":
                """All others, read to their ends the first time they are needed."""
                if not rights:
                    for i, one in enumerate(taken):
                        right, end = self._right(one, main)
                        rights.append(stack.enter_context(right))
                        if after is None and str(i) in late:
                            read_to[str(i)] = end
                return rights

            last: Chunk | None = None
            if late and after is not None:
                for unit in self._touched(late, read_to, after, reads, main, sides, stack):
                    for chunk in with_others(unit, taken, sides(), main, schema):
                        yield (last := chunk._replace(cursor=after))
                if last is not None:  # rows that came again are in, and what brought them is done with
                    yield last._replace(batch=last.batch.slice(0, 0), cursor={**after, "others": read_to})
            chunks = self.main.read(after["main"] if after else None, reads)
            first = next(chunks, None)
            if first is None:  # nothing new: the others need not be read
                return
            sides()
            places = _places(after)
            for unit in units(first, chunks, UNIT_ROWS if any(r.on_disk for r in rights) else 1):
                ready = self._ready(unit, main)
                for chunk, own in zip(with_others(ready, taken, rights, main, schema), ready, strict=True):
                    if late:
                        newest, at = newest_of(own, main, [name for one in late.values() for name in one.other.join.as_of or ()]), now().replace(tzinfo=None)
                        # Rows that were read before this was asked for may be of any moment up to now.
                        before = places[-1][1] if places else newest if after is None else microseconds(at)
                        places.append((own.cursor, max(newest, before)))
                        places = kept_places(places, _oldest(late, at))
                        chunk = chunk._replace(cursor={**chunk.cursor, "others": dict(read_to), "places": [list(place) for place in places]})
                    yield chunk
                if len(ready) < len(unit):
                    log(__name__).info("rows are left for a later collect (`wait`)", extra={"chunks": len(unit) - len(ready)})
                    return

    def _touched(
        self,
        late: dict[str, Taken],
        read_to: dict[str, Cursor | None],
        after: Cursor,
        reads: Schema,
        main: Schema,
        sides: Callable[[], "list[Right]"],
        stack: ExitStack,
    ) -> Iterator[list[Chunk]]:
        """Rows of before that late rows may change; ``read_to`` is moved to where the late ones end."""
        at = now().replace(tzinfo=None)
        news = []
        for name, one in late.items():
            right, end = self._right(one, main, read_to.get(name), news=True)
            stack.enter_context(right)
            if end is not None:
                read_to[name] = end
                join = one.other.join
                assert join.as_of
                news.append((right, lookups(join), next(iter(join.as_of)), join.correct))
        if not news:
            return
        waits = {name: o.join.wait for o in self.others if o.join.wait for name in o.join.as_of or ()}
        begin = begin_again(_places(after), _oldest(late, at))
        chunks = touched(self.main.read(begin, reads), news, waits, main, after["main"], at)
        first = next(chunks, None)
        if first is not None:
            yield from units(first, chunks, UNIT_ROWS if any(r.on_disk for r in sides()) else 1)

    def within(self, n_bytes: int, schema: Schema) -> Self:
        """Each of them is, and what the others take together is bounded as well."""
        others = tuple(one.model_copy(update={"source": one.source.within(n_bytes, schema)}) for one in self.others)
        memory = min(self.memory, max(1 << 16, _BLOCKS * n_bytes))
        return self.model_copy(update={"main": self.main.within(n_bytes, schema), "others": others, "memory": memory})

    def feed(self) -> Any:
        return {"type": self.type, "main": self.main.feed(), "others": [{"source": o.source.feed(), "join": unread(o.join.plain())} for o in self.others]}

    def remembers(self) -> tuple[str, ...]:
        found: tuple[str, ...] = self.main.remembers()
        return (*found, *(form for o in self.others if o.join.correct for name in o.source.remembers() for form in (name, o.join.prefix + name)))

    def content(self, cursor: Cursor) -> Any:
        content = self.main.content(cursor["main"])
        return [content, cursor["others"]] if cursor.get("others") else content

    def committed(self, cursor: Cursor) -> None:
        self.main.committed(cursor["main"])

    def fingerprint(self) -> Any:
        return [self.main.fingerprint(), *(other.source.fingerprint() for other in self.others)]

    def _taken(self, main: Schema, schema: Schema | None = None) -> list[Taken]:
        """What is taken from each other source; only columns of ``schema``, as it holds them, if there is one."""
        found: list[Taken] = []
        mistakes: list[str] = []
        names = set(main.names)
        for other in self.others:
            theirs, join = other.source.columns(), other.join
            mistakes += misfits(other, main, theirs)
            rest = [n for n in theirs.names if n not in {*join.on.values(), *(join.as_of or {}).values()}]
            columns = {}
            for name in [n for n in join.columns or rest if n in theirs]:
                called = join.prefix + name
                if called in names:
                    mistakes.append(f"{other.label}: a column {called!r} is there already: give these a `prefix`.")
                names.add(called)
                if schema is None or called in schema:
                    columns[name] = schema[called] if schema else theirs[name].but(name=called)
            found.append(Taken(other, theirs, columns))
        if mistakes:
            raise SpecError("data.source: these do not fit together:\n  " + "\n  ".join(mistakes))
        return found

    def _right(self, taken: Taken, main: Schema, after: Cursor | None = None, *, news: bool = False) -> "tuple[Right, Cursor | None]":
        """The other source read to its end, and its cursor there; ``news``: from a cursor on, and only that there are such rows."""
        import pyarrow as pa

        from modelinscale.data.arrow import BROKEN, arrow_type
        from modelinscale.data.clean import clean
        from modelinscale.data.join import Right, Rule

        other, theirs, columns = taken
        join = other.join
        sides = {**{right: f"k{i}" for i, right in enumerate(join.on.values())}, **(dict.fromkeys((join.as_of or {}).values(), "moment"))}
        columns = {} if news else columns
        raw = {n: c.but(name=n) for n, c in columns.items()} | {n: theirs[n] for n in sides}
        reads = Schema(columns=tuple(raw.values()))
        moment = next(iter(join.as_of), None) if join.as_of else None
        within = None if join.within is None else round(join.within * (1e6 if moment and main[moment].type == "time" else 1))
        rule = Rule(tuple(f"k{i}" for i in range(len(join.on))), "moment" if moment else None, join.allow_exact, within, other.label)
        kinds = [*((name, arrow_type(theirs[n])) for n, name in sides.items()), *((f"c{i}", arrow_type(c)) for i, c in enumerate(columns.values()))]
        kinds += [("there", pa.bool_())] if news else []
        found, n_faults, end = Right(rule, pa.schema(kinds), self.memory // len(self.others)), 0, None
        try:
            for chunk in other.source.read(after, reads):
                end = chunk.cursor
                cleaned = clean(chunk.batch, reads)
                batch, n_faults = cleaned.batch, n_faults + len(cleaned.faults)
                if BROKEN in chunk.batch.schema.names:
                    batch = batch.filter(chunk.batch.column(BROKEN).is_null())
                arrays = [batch.column(n) for n in (*sides, *columns)] + ([pa.repeat(True, batch.num_rows)] if news else [])
                found.add(pa.record_batch(arrays, schema=pa.schema(kinds)))
        except BaseException:
            found.close()
            raise
        if n_faults:
            log(__name__).warning("cells of a joined source cannot be read and count as missing", extra={"source": other.label, "cells": n_faults})
        return found, end

    def _ready(self, unit: list[Chunk], main: Schema) -> list[Chunk]:
        """The chunks up to the first that holds a row too young to be joined."""
        import pyarrow.compute as pc

        from modelinscale.data.clean import clean

        limits = [(next(iter(o.join.as_of)), o.join.wait) for o in self.others if o.join.as_of and o.join.wait]
        present = now().replace(tzinfo=None)
        for i, chunk in enumerate(unit):
            for name, wait in limits:
                newest = pc.max(clean(chunk.batch, main.only((name,))).batch.column(0)).as_py()
                if newest is not None and (present - newest).total_seconds() < wait:
                    return unit[:i]
        return unit


def _places(after: Cursor | None) -> list[Place]:
    return [(cursor, newest) for cursor, newest in (after or {}).get("places", ())]


def _oldest(late: dict[str, Taken], at: datetime) -> int:
    """The moment (µs since 1970) of the oldest row that is still corrected."""
    return microseconds(at) - round(1e6 * max(one.other.join.correct for one in late.values()))
