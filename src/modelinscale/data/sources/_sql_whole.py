"""Reads without a cursor: every row once, in one snapshot; later collects only make sure that nothing changed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from modelinscale.core.errors import SourceError
from modelinscale.core.schema import Schema
from modelinscale.data.sources import Chunk, Cursor
from modelinscale.data.sources._sql_new import refuse_changed
from modelinscale.data.sources._sql_read import ANEW, Ordered, ordered, parts, refuse_nulls

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data.sources._sql import Database, Relation
    from modelinscale.data.sources.sql import Sql

SET_CURSOR = "Name a `cursor` column whose value grows with every new row: the next collect then reads everything once more, into a table of its own."


def whole(source: "Sql", db: "Database", relation: "Relation", after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
    """All rows; the rest of them after a read that was broken off; none when all were read and are still the same.

    Raises `SourceError` when they changed, or when a read was broken off and rows have no order to go on in.
    """
    if after and ("whole" not in after or after.get("form") != 1):
        raise SourceError("the rows collected so far were read with a `cursor`.", fix=f"Put it back, or {ANEW}.")
    order = ordered(relation, (), source.key) if source.key or relation.primary else None
    if order and not order.unique and not source.key:
        order = None
    types = {n: relation.columns[n].type for n in schema.names}
    refuse_changed(after["types"] if after else types, types, relation.label)
    if order:
        refuse_nulls(db, relation, order)
    if after and after["done"]:
        _refuse_other_rows(source, db, relation, schema, order, after)
        return
    where, n, total = [], 0, 0
    if after:
        if order is None or after["at"] is None:
            raise SourceError(
                f"{relation.label}: the last collect was broken off after {after['whole']:,} rows, and rows have no order in which to go on.",
                fix=f"Name a `key` that tells rows apart, then {ANEW}. Or: {SET_CURSOR}",
            )
        where, n, total = [order.after(db, after["at"])], after["whole"], after["hash"]
    held: Chunk | None = None
    for part in parts(db, relation, schema, where, order, source.rows):
        if held is not None:
            yield held
        first, n, total = n + 1, n + part.batch.num_rows, (total + _sum_of_hashes(part.batch, schema)) % (1 << 63)
        cursor = {"form": 1, "types": types, "whole": n, "hash": total, "done": False, "at": None if part.at is None else list(part.at)}
        held = Chunk(part.batch, cursor, f"{relation.label}, from row {first:,}")
    if held is not None:
        yield held._replace(cursor={**held.cursor, "done": True})


def _refuse_other_rows(source: "Sql", db: "Database", relation: "Relation", schema: Schema, order: Ordered | None, after: Cursor) -> None:
    n = total = 0
    for part in parts(db, relation, schema, [], order, source.rows):
        n, total = n + part.batch.num_rows, (total + _sum_of_hashes(part.batch, schema)) % (1 << 63)
    if (n, total) != (after["whole"], after["hash"]):
        raise SourceError(
            f"{relation.label} changed since it was read: {n:,} rows now, {after['whole']:,} then. Without a cursor it cannot be told which are new.",
            fix=SET_CURSOR,
        )


def _sum_of_hashes(batch: "pa.RecordBatch", schema: Schema) -> int:
    """A number that stays when the same rows come in another order."""
    from modelinscale.data._hash import hash_rows
    from modelinscale.data.clean import clean

    typed = clean(batch, schema).batch
    return int(np.sum(hash_rows(typed.columns, typed.num_rows) >> np.uint64(1), dtype=np.uint64) & np.uint64((1 << 63) - 1))
