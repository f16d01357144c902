"""Several sources as one: each row of the first gets the columns that the others know of it, as of its own moment where that is asked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from modelinscale.core.clock import now
from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.logs import log
from modelinscale.core.schema import Column, Schema
from modelinscale.core.settings import Also, Settings
from modelinscale.core.units import Duration, Size
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._late import Place, begin_again, kept_places, microseconds, newest_of, touched
from modelinscale.data.sources._messages import Stream

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data.join import Right

UNIT_ROWS = 1 << 20
"""Rows joined at a time when a side lies on disk, which is read once for them."""


def _pairs(value: Any) -> Any:
    """``customer_id``, ``[a, b]`` or ``{left: right}`` as a mapping from left to right."""
    if isinstance(value, str):
        return {value: value}
    if isinstance(value, list | tuple):
        return {str(name): str(name) for name in value}
    return value


Pairs = Annotated[dict[str, str], BeforeValidator(_pairs), Also({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})]
Any_ = Annotated[
    Any,
    PlainValidator(Source.parse),
    PlainSerializer(lambda source: source.plain(), return_type=dict),
    # Not the contract's own schema: it would hold this one again.
    WithJsonSchema({"type": "object", "required": ["type"]}),
]
"""Any source."""


class Join(Settings):
    """How rows of another source belong to those of the first."""

    on: Pairs = Field(min_length=1)
    """The column (or columns) that both have, or ``{name in the first: name in this one}``."""
    as_of: Annotated[Pairs | None, Field(max_length=1)] = None
    """The moment: of the rows with the same key the newest that is not later than the first source's. Left out: a key names one row."""
    columns: tuple[str, ...] = ()
    """What to take. Left out: all but the key and the moment."""
    prefix: str = ""
    """Put before the names of the columns taken."""
    within: Duration | None = Field(None, gt=0)
    """Rows older than this by then count as unknown."""
    allow_exact: bool = True
    """Whether a row of the very same moment was known by then."""
    wait: Duration = Field(0.0, ge=0)
    """Rows of the first source younger than this are left for a later collect: so late may what was known of them arrive."""
    correct: Duration = Field(0.0, ge=0)
    """Rows of the first source up to this old are joined again when a late row of this one changes what was known of them (needs ``write: upsert``)."""

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_word(cls, value: Any) -> Any:
        """YAML 1.1 readers other than that of model.yaml take ``on`` for true, and write it so."""
        return {"on" if k in (True, "true") else k: v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _needs_a_moment(self) -> Self:
        if self.as_of is None and (self.within is not None or self.wait or self.correct or not self.allow_exact):
            raise SpecError("`within`, `wait`, `correct` and `allow_exact` are about moments.", fix="Name them: `as_of: COLUMN`.")
        return self


class Other(Settings):
    """A further source."""

    source: Any_
    """Where its rows are."""
    join: Join
    """How they belong to those of the first."""

    @property
    def label(self) -> str:
        """What it is called in messages."""
        settings = self.source.plain()
        path = settings.get("path")
        files = ", ".join(Path(str(p)).name for p in ([path] if isinstance(path, str) else path or ())[:3])
        return str(settings.get("table") or settings.get("topic") or files or settings["type"])


class _Taken(NamedTuple):
    """What is taken from another source."""

    other: Other
    theirs: Schema
    """All of its columns."""
    columns: dict[str, Column]
    """Its own name of a column, and the column as it is called and held here."""


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
                    for chunk in _with(unit, taken, sides(), main, schema):
                        yield (last := chunk._replace(cursor=after))
                if last is not None:  # rows that came again are in, and what brought them is done with
                    yield last._replace(batch=last.batch.slice(0, 0), cursor={**after, "others": read_to})
            chunks = self.main.read(after["main"] if after else None, reads)
            first = next(chunks, None)
            if first is None:  # nothing new: the others need not be read
                return
            sides()
            places = _places(after)
            for unit in _units(first, chunks, UNIT_ROWS if any(r.on_disk for r in rights) else 1):
                ready = self._ready(unit, main)
                for chunk, own in zip(_with(ready, taken, rights, main, schema), ready, strict=True):
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
        late: dict[str, _Taken],
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
                news.append((right, _lookups(join), next(iter(join.as_of)), join.correct))
        if not news:
            return
        waits = {name: o.join.wait for o in self.others if o.join.wait for name in o.join.as_of or ()}
        begin = begin_again(_places(after), _oldest(late, at))
        chunks = touched(self.main.read(begin, reads), news, waits, main, after["main"], at)
        first = next(chunks, None)
        if first is not None:
            yield from _units(first, chunks, UNIT_ROWS if any(r.on_disk for r in sides()) else 1)

    def within(self, n_bytes: int, schema: Schema) -> Self:
        """Each of them is."""
        others = tuple(one.model_copy(update={"source": one.source.within(n_bytes, schema)}) for one in self.others)
        return self.model_copy(update={"main": self.main.within(n_bytes, schema), "others": others})

    def feed(self) -> Any:
        return {"type": self.type, "main": self.main.feed(), "others": [{"source": o.source.feed(), "join": _without(o.join.plain())} for o in self.others]}

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

    def _taken(self, main: Schema, schema: Schema | None = None) -> list[_Taken]:
        """What is taken from each other source; only columns of ``schema``, as it holds them, if there is one."""
        found: list[_Taken] = []
        mistakes: list[str] = []
        names = set(main.names)
        for other in self.others:
            theirs, join = other.source.columns(), other.join
            mistakes += _misfits(other, main, theirs)
            rest = [n for n in theirs.names if n not in {*join.on.values(), *(join.as_of or {}).values()}]
            columns = {}
            for name in [n for n in join.columns or rest if n in theirs]:
                called = join.prefix + name
                if called in names:
                    mistakes.append(f"{other.label}: a column {called!r} is there already: give these a `prefix`.")
                names.add(called)
                if schema is None or called in schema:
                    columns[name] = schema[called] if schema else theirs[name].but(name=called)
            found.append(_Taken(other, theirs, columns))
        if mistakes:
            raise SpecError("data.source: these do not fit together:\n  " + "\n  ".join(mistakes))
        return found

    def _right(self, taken: _Taken, main: Schema, after: Cursor | None = None, *, news: bool = False) -> "tuple[Right, Cursor | None]":
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


def _with(unit: list[Chunk], taken: list[_Taken], rights: "list[Right]", main: Schema, schema: Schema) -> Iterator[Chunk]:
    """The chunks with the others' columns, in the order of the schema."""
    import pyarrow as pa

    from modelinscale.data.arrow import BROKEN
    from modelinscale.data.clean import clean

    found: dict[str, pa.ChunkedArray] = {}
    for (other, _, columns), right in zip(taken, rights, strict=True):
        join = other.join
        numbers = _lookups(join)
        typed = main.only(tuple(dict.fromkeys(numbers.values())))
        left = pa.Table.from_batches([clean(c.batch, typed).batch for c in unit]) if unit else None
        if left is not None:
            looked = right.lookup(pa.table({name: left.column(of) for name, of in numbers.items()}))
            found |= {column.name: looked.column(i) for i, column in enumerate(columns.values())}
    start = 0
    for chunk in unit:
        n, own = chunk.batch.num_rows, chunk.batch.schema.names
        cells = {
            name: _joined(found[name].slice(start, n)) if name in found else chunk.batch.column(name) for name in schema.names if name in found or name in own
        }
        if BROKEN in own:
            cells[BROKEN] = chunk.batch.column(BROKEN)
        yield Chunk(pa.record_batch(cells), {"main": chunk.cursor}, chunk.where, tuple(n for n in chunk.more if n not in main), chunk.again)
        start += n


def _places(after: Cursor | None) -> list[Place]:
    return [(cursor, newest) for cursor, newest in (after or {}).get("places", ())]


def _oldest(late: dict[str, _Taken], at: datetime) -> int:
    """The moment (µs since 1970) of the oldest row that is still corrected."""
    return microseconds(at) - round(1e6 * max(one.other.join.correct for one in late.values()))


def _lookups(join: Join) -> dict[str, str]:
    """The columns of the first source by which another is looked up, by their names there."""
    return dict(zip((*(f"k{i}" for i in range(len(join.on))), "moment"), (*join.on, *(join.as_of or {})), strict=False))


def _without(join: dict[str, Any]) -> dict[str, Any]:
    """Without what changes no row that is read: a table goes on when it is switched on."""
    return {name: value for name, value in join.items() if name != "correct"}


def _joined(parts: "pa.ChunkedArray") -> "pa.Array":
    import pyarrow as pa

    return pa.concat_arrays(parts.chunks) if parts.num_chunks != 1 else parts.chunk(0)


def _misfits(other: Other, main: Schema, theirs: Schema) -> list[str]:
    """Columns that are not there, and keys and moments of different types."""
    join, found = other.join, []
    for left, right in [*join.on.items(), *(join.as_of or {}).items()]:
        if left not in main:
            found.append(f"the first source has no column {left!r}.{did_you_mean(left, main.names)}")
        if right not in theirs:
            found.append(f"{other.label} has no column {right!r}.{did_you_mean(right, theirs.names)}")
        if left in main and right in theirs and main[left].type != theirs[right].type:
            what = f"{left!r} is {main[left].type} in the first source, {right!r} is {theirs[right].type} in {other.label}"
            found.append(f"{what}: cast one of them where it is read, so that equal values are equal.")
    for left in join.as_of or {}:
        if left in main and main[left].type not in ("time", "int", "float"):
            found.append(f"{left!r} holds no moments ({main[left].type}).")
        if join.correct and left in main and main[left].type != "time":
            found.append(f"`correct` needs moments in time, and {left!r} is {main[left].type}.")
    found += [f"{other.label} has no column {n!r}.{did_you_mean(n, theirs.names)}" for n in join.columns if n not in theirs]
    return found


def _units(first: Chunk, rest: Iterator[Chunk], n_rows: int) -> Iterator[list[Chunk]]:
    """Chunks gathered up to a number of rows."""
    unit, n = [first], first.batch.num_rows
    for chunk in rest:
        if n >= n_rows:
            yield unit
            unit, n = [], 0
        unit.append(chunk)
        n += chunk.batch.num_rows
    yield unit
