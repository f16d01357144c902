"""Parts of every read: what is selected, in which order, and where a chunk ends."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import SourceError
from modelinscale.core.schema import Schema
from modelinscale.data.arrow import BROKEN, INTERNAL

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data.sources._sql import Database, Native, Relation

ANEW = "move the table's folder away (`mis show lake` says where it lies) and collect again: everything is then read anew"
"""What to do when the rows in the lake are none that a read could go on from."""
MOST_TIES = 1 << 20
"""Rows with one and the same cursor that are held until the next value comes."""
_EXACT = frozenset(("int2", "int4", "int8", "text", "varchar", "bpchar", "name", "uuid", "timestamp", "timestamptz", "date", "float8"))
_EXACT_HERE = _EXACT | frozenset(("tinyint", "smallint", "int", "bigint", "mediumint", "year", "datetime", "double"))


@dataclass(frozen=True)
class Cells:
    """What stands after SELECT: a word of SQL for each column, and what is delivered."""

    sql: list[str]
    kinds: "pa.Schema"


@dataclass(frozen=True)
class Ordered:
    """An order of rows."""

    natives: tuple["Native", ...]
    """Compared from the left."""
    unique: bool
    """Whether no two rows are equal in it."""

    def sql(self, db: "Database") -> str:
        return ", ".join(db.quoted(n.name) for n in self.natives)

    def after(self, db: "Database", at: Sequence[str]) -> str:
        """A condition for rows beyond a position."""
        values = ", ".join(db.value(text, native) for text, native in zip(at, self.natives, strict=True))
        return f"{self.sql(db)} > {values}" if len(self.natives) == 1 else f"({self.sql(db)}) > ({values})"


def selected(db: "Database", relation: "Relation", names: Sequence[str], schema: Schema | None) -> Cells:
    """The columns as they are (without a schema) or as the schema wants them."""
    import pyarrow as pa

    cells = [db.cell(relation.columns[n], schema[n] if schema else None) for n in names]
    return Cells([sql for sql, _ in cells], pa.schema([pa.field(f"c{i}", kind) for i, (_, kind) in enumerate(cells)]))


def ordered(relation: "Relation", cursor: Sequence[str], key: Sequence[str]) -> Ordered:
    """The order by cursor, then by key or else by what is left of the primary key. Raises `SourceError` for columns that have no order."""
    names = [*cursor, *key]
    if not key and not any(one <= set(names) for one in relation.unique):
        names += [n for n in relation.primary if n not in names]
    natives = tuple(relation.columns[n] for n in names)
    wrong = [n for n in natives if n.order is None]
    if wrong:
        raise SourceError(
            f"{relation.label}: rows cannot be put in order by {wrong[0].name!r} ({wrong[0].type}).", fix="Name a column of numbers, moments or text."
        )
    return Ordered(natives, any(one <= set(names) for one in relation.unique))


def refuse_nulls(db: "Database", relation: "Relation", order: Ordered) -> None:
    """Raises `SourceError` when a row has no place in the order: no read would ever come to it."""
    for native in order.natives:
        name = db.quoted(native.name)
        if native.nullable and db.row(f"SELECT count(*) FROM (SELECT 1 FROM {relation.sql} WHERE {name} IS NULL LIMIT 1) AS n")[0]:
            raise SourceError(
                f"{relation.label}: there are rows without {native.name!r}, which puts rows in order: they would never be read.",
                fix=f"Fill it, name another column, or leave them out: `query: SELECT ... WHERE {native.name} IS NOT NULL`.",
            )


@dataclass(frozen=True)
class Part:
    """Some rows of a read, and the position after them."""

    batch: "pa.RecordBatch"
    at: tuple[str, ...] | None
    """None where rows have no order."""


def parts(db: "Database", relation: "Relation", schema: Schema, where: Sequence[str], order: Ordered | None, n_rows: int) -> Iterator[Part]:
    """The rows that fulfil all conditions, in order, in parts of at most ``n_rows`` that end between two values of the order (or, with ties, larger ones)."""
    import pyarrow as pa

    cells = selected(db, relation, schema.names, schema)
    sql, kinds = list(cells.sql), list(cells.kinds)
    broken = db.broken([(relation.columns[n], schema[n]) for n in schema.names])
    if broken:
        sql.append(broken)
        kinds.append(pa.field("broken", pa.string()))
    places: list[int] = []
    for native in order.natives if order else ():
        if native.name in schema.names and native.type.lower() in _EXACT_HERE:
            places.append(schema.names.index(native.name))
            continue
        places.append(len(sql))
        sql.append(db.text(db.quoted(native.name)))
        kinds.append(pa.field(f"at{len(places)}", pa.string()))
    aliased = ", ".join(f"{one} AS {db.quoted(INTERNAL + str(i))}" for i, one in enumerate(sql))
    statement = f"SELECT {aliased} FROM {relation.sql}"
    statement += f" WHERE {' AND '.join(f'({w})' for w in where)}" if where else ""
    statement += f" ORDER BY {order.sql(db)}" if order else ""
    names = [*schema.names, *([BROKEN] if broken else [])]
    for batch in _whole_groups(db.stream(statement, pa.schema(kinds), n_rows), places, order is None or order.unique, n_rows, relation.label):
        found = pa.record_batch(batch.columns[: len(names)], names=names)
        at = tuple(_text(batch.column(i)[len(batch) - 1].as_py()) for i in places) if order else None
        yield Part(_blank(found) if broken else found, at)


def _whole_groups(batches: Iterator["pa.RecordBatch"], places: list[int], unique: bool, n_rows: int, label: str) -> Iterator["pa.RecordBatch"]:
    """Batches of at most ``n_rows``; where the order has ties, rows equal in it stay together."""
    import pyarrow as pa
    import pyarrow.compute as pc

    held: pa.RecordBatch | None = None
    for batch in batches:
        for start in range(0, len(batch), n_rows):
            rows = batch.slice(start, n_rows)
            if unique:
                yield rows
                continue
            if held is not None:
                rows = pa.Table.from_batches([held, rows]).combine_chunks().to_batches()[0]
            same = pa.repeat(True, len(rows))
            for i in places:
                same = pc.and_(same, pc.equal(rows.column(i), rows.column(i)[len(rows) - 1]))
            n_done = len(rows) - int(pc.sum(same).as_py())
            held = rows.slice(n_done)
            if len(held) > MOST_TIES:
                raise SourceError(f"{label}: more than {MOST_TIES:,} rows have the same cursor.", fix="Name a `key` that tells them apart, such as an id.")
            if n_done:
                yield rows.slice(0, n_done)
    if held is not None:
        yield held


def _blank(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """A batch whose broken rows have no cells; without the column that says so if none is broken."""
    import pyarrow as pa
    import pyarrow.compute as pc

    why = batch.column(BROKEN)
    if why.null_count == len(why):
        return batch.select([n for n in batch.schema.names if n != BROKEN])
    good = pc.is_null(why)
    columns = [c if n == BROKEN else pc.if_else(good, c, pa.scalar(None, c.type)) for n, c in zip(batch.schema.names, batch.columns, strict=True)]
    return pa.record_batch(columns, names=batch.schema.names)


def _text(value: Any) -> str:
    """A value of the order as text that `Database.value` takes.

    >>> _text(4182), _text(0.1)
    ('4182', '0.1')
    """
    return str(value) if not hasattr(value, "isoformat") else value.isoformat(sep=" ") if hasattr(value, "hour") else value.isoformat()
