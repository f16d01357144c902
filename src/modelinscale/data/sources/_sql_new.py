"""Incremental reads: rows that are new since a cursor, each once, also those that become visible late.

Two ways. Where rows tell which transaction wrote them (tables of PostgreSQL), a read takes a window of transactions that are all decided: no value of the
cursor column is trusted, it only puts rows in order. Elsewhere a read goes up to a value below which nothing can become visible any more: ``lag`` below
the greatest.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from modelinscale.core.errors import SourceError
from modelinscale.core.logs import log
from modelinscale.core.schema import Schema
from modelinscale.core.units import seconds
from modelinscale.data.sources import Chunk, Cursor
from modelinscale.data.sources._sql_read import ANEW, Ordered, ordered, parts, refuse_nulls

if TYPE_CHECKING:
    from modelinscale.data.sources._sql import Database, Native, Relation
    from modelinscale.data.sources._sql_postgres import Postgres
    from modelinscale.data.sources.sql import Sql

_WIDER = {
    ("int2", "int4"),
    ("int2", "int8"),
    ("int4", "int8"),
    ("varchar", "text"),
    ("bpchar", "text"),
    ("bpchar", "varchar"),
    ("float4", "float8"),
    ("tinyint", "smallint"),
}
_WIDER |= {
    ("tinyint", "int"),
    ("smallint", "int"),
    ("int", "bigint"),
    ("smallint", "bigint"),
    ("tinyint", "bigint"),
    ("float", "double"),
    ("INT", "INTEGER"),
    ("INTEGER", "BIGINT"),
}


@dataclass(frozen=True)
class _State:
    """Where reading stands; the cursor is this as plain data."""

    types: dict[str, str]
    """The database's types of the columns read."""
    at: tuple[str, ...] | None = None
    """The position in the order; with windows: in the window being read, None between two."""
    top: str | None = None
    """The greatest value of the (first) cursor column so far."""
    n: int = 0
    """Rows read so far."""
    seen: int | None = None
    """Rows of transactions before this one were read."""
    upto: int | None = None
    """The end of the window being read."""
    form: int = 1

    @classmethod
    def of(cls, cursor: Cursor) -> "_State":
        if cursor.get("form") != 1 or "whole" in cursor:
            raise SourceError("the rows collected so far were read without `cursor`.", fix="Move the lake's table away and collect again.")
        return cls(**{**cursor, "at": None if cursor["at"] is None else tuple(cursor["at"])})

    def plain(self) -> Cursor:
        return {**asdict(self), "at": None if self.at is None else list(self.at)}


def new_rows(source: "Sql", db: "Database", relation: "Relation", after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
    """Chunks of the rows after a cursor. See the module."""
    order = ordered(relation, source.cursor, source.key)
    types = {n: relation.columns[n].type for n in schema.names}
    state = _State.of(after) if after else _State(types)
    refuse_changed(state.types, types, relation.label)
    refuse_nulls(db, relation, order)
    if relation.windows:
        yield from _by_window(source, db, relation, order, state, schema)  # type: ignore[arg-type]
    else:
        yield from _up_to_bound(source, db, relation, order, state, schema)


def refuse_changed(before: dict[str, str], now: dict[str, str], label: str) -> None:
    """Raises `SourceError` when a column's type in the database is another than the rows read so far had, and not merely wider."""
    changed = [f"{n} was {before[n]} and is {now[n]} now" for n in now if n in before and before[n] != now[n] and (before[n], now[n]) not in _WIDER]
    if changed:
        raise SourceError(
            f"{label}: the type of a column changed since the last collect: {'; '.join(changed)}. Nothing was read.",
            fix=f"Change it back or cast it in a `query`; or {ANEW}.",
        )


def newest(source: "Sql", db: "Database", relation: "Relation") -> str | None:
    """The value up to which rows can be read now, as text; None when there are no rows."""
    sql, _ = _bound(source, db, relation)
    found = db.row(f"SELECT {db.text(sql)} FROM {relation.sql}")[0]
    return None if found is None else str(found.decode() if isinstance(found, bytes) else found)


def _up_to_bound(source: "Sql", db: "Database", relation: "Relation", order: Ordered, state: _State, schema: Schema) -> Iterator[Chunk]:
    _, sign = _bound(source, db, relation)
    bound, first = newest(source, db, relation), order.natives[0]
    if bound is None:
        return
    where = [f"{db.quoted(first.name)} {sign} {db.value(bound, first)}"]
    if state.at is not None:
        where.append(order.after(db, state.at))
    for part in parts(db, relation, schema, where, order, source.rows):
        assert part.at is not None, "rows are in order"
        before = state
        state = replace(state, at=part.at, top=part.at[0], n=state.n + part.batch.num_rows)
        yield Chunk(part.batch, state.plain(), _where(relation, order, before))


def _bound(source: "Sql", db: "Database", relation: "Relation") -> tuple[str, str]:
    """SQL for the value up to which rows can be read, and whether it is itself included (``<=``) or not (``<``)."""
    column = relation.columns[source.cursor[0]]
    greatest = f"max({db.quoted(column.name)})"
    if source.lag is None:
        if not db.in_order:
            raise SourceError(
                f"{relation.label}: a row may become visible after others with a greater {column.name!r}, when its transaction takes longer; "
                "it cannot be seen here how long that may be.",
                fix="Say how far rows may come late: `lag: 10m` for moments, `lag: 1000` for numbers; `lag: 0` if they never do.",
            )
        alone = any(one <= {column.name} for one in relation.unique)
        return greatest, "<=" if alone else "<"  # more rows with the greatest value may follow
    lag = _lag(source.lag, column)
    if not lag:
        return greatest, "<="
    if column.order == "zoned":
        return f"least({greatest}, {db.less(db.now(), lag, column)})", "<="
    return db.less(greatest, lag, column), "<="


def _lag(lag: str | float, column: "Native") -> float:
    """In the column's unit. Raises `SourceError` when it means nothing for it."""
    if column.order == "text" and lag not in (0, "0"):
        raise SourceError(f"{column.name!r} is text, from which no lag can be taken.", fix="Name a cursor of numbers or moments, or `lag: 0`.")
    if column.order == "number" and isinstance(lag, str):
        try:
            return float(lag)
        except ValueError:
            raise SourceError(
                f"`lag` {lag!r} is a duration, and {column.name!r} holds numbers.", fix="Write how many numbers a row may come late: `lag: 1000`."
            ) from None
    return seconds(lag)


def _by_window(source: "Sql", db: "Postgres", relation: "Relation", order: Ordered, state: _State, schema: Schema) -> Iterator[Chunk]:
    """The window that was being read to its end, then the next one, both in this snapshot."""
    if state.seen is not None and source.lag is None and db.turned:
        raise SourceError(
            f"{db.place} has given transaction numbers twice (more than 4 billion transactions): old rows cannot be told from new ones by them alone.",
            fix="Say how far below the greatest cursor rows may still come: `lag: 1d` for moments, `lag: 100000` for numbers.",
        )
    while True:
        upto, window = db.window(state.seen, state.upto)
        if state.upto is None and upto == state.seen:
            _log_waiting(db, state)
            return
        where = [window, *_late(source, db, relation, order, state)]
        if state.upto is not None and state.at is not None:
            where.append(order.after(db, state.at))
        was_open, top = state.upto is not None, state.top
        state = replace(state, upto=upto)
        held: Chunk | None = None  # until it is known whether it is the window's last
        for part in parts(db, relation, schema, where, order, source.rows):
            if held is not None:
                yield held
            assert part.at is not None, "rows are in order"
            before = state
            top = _greater(top, part.at[0], order.natives[0])
            state = replace(state, at=part.at, top=top, n=state.n + part.batch.num_rows)
            held = Chunk(part.batch, state.plain(), _where(relation, order, before))
        state = replace(state, at=None, seen=upto, upto=None)
        if held is not None:
            yield held._replace(cursor=state.plain())
        if not was_open:
            return


def _late(source: "Sql", db: "Postgres", relation: "Relation", order: Ordered, state: _State) -> list[str]:
    """How far below the greatest value so far rows are looked for, so that an index can be used and changes of older rows are not seen."""
    if state.seen is None or state.top is None:
        return []
    first = order.natives[0]
    name = db.quoted(first.name)
    if not db.kept(relation, state.seen):
        # ALTER TABLE and pg_repack write every row anew, and its transaction is a new one: nothing tells the old rows any more.
        if source.lag is None:
            n = int(db.row(f"SELECT count(*) FROM (SELECT 1 FROM {relation.sql} WHERE {name} <= {db.value(state.top, first)} LIMIT {state.n}) AS n")[0])
            if n * 2 >= state.n:
                raise SourceError(
                    f"{relation.label} was written anew since the last collect (ALTER TABLE, pg_repack): {n:,} rows that are in the lake look new.",
                    fix=f"Set `lag`: rows that far below the greatest cursor are looked at. Or {ANEW}.",
                )
            return []
        log(__name__).warning("the table was written anew: rows that came late meanwhile are not seen", extra={"table": relation.label})
        return [f"{name} > {db.value(state.top, first)}"]
    if source.lag is None:
        return []
    return [f"{name} > {db.less(db.value(state.top, first), _lag(source.lag, first), first)}"]


def _greater(one: str | None, other: str, native: "Native") -> str:
    if one is None:
        return other
    if native.order == "number":
        return max(one, other, key=lambda text: (float(text), len(text), text))
    return max(one, other)


def _log_waiting(db: "Postgres", state: _State) -> None:
    oldest = db.oldest()
    if oldest:
        log(__name__).info("rows written since then wait for a transaction that is still open", extra={"since": state.seen, "by": oldest})


def _where(relation: "Relation", order: Ordered, before: _State) -> str:
    """For messages. Only numbers and moments are told: text may name a person."""
    first = order.natives[0]
    if before.at is None or first.order == "text":
        return relation.label
    return f"{relation.label}, after {first.name} {before.at[0]}"
