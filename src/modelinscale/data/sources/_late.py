"""Rows of a joined source that arrive late: which rows of the first source they change, and from where those are read again.

A cursor of a join that is corrected holds, besides the first source's own, how far each other source was read, and a few earlier places of the first
with the newest moment before each: reading again begins at the last place before which everything is too old to be corrected.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from modelinscale.core.schema import Schema
from modelinscale.data.sources import Chunk, Cursor

if TYPE_CHECKING:
    from modelinscale.data.join import Right

MOST_PLACES = 16
"""Places kept in a cursor; between them more is read again than is needed."""
_EPOCH = datetime(1970, 1, 1)

Place = tuple[Cursor, int]
"""A cursor of the first source, and the newest moment (µs since 1970) of all rows before it."""


def microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def kept_places(places: Sequence[Place], oldest: int) -> list[Place]:
    """The places worth keeping when no row before ``oldest`` is corrected: the last that lies before it, and an even choice of those after.

    >>> kept_places([({"row": 1}, 10), ({"row": 2}, 20), ({"row": 3}, 30)], 25)
    [({'row': 2}, 20), ({'row': 3}, 30)]
    """
    before = [i for i, (_, newest) in enumerate(places) if newest < oldest]
    kept = list(places[before[-1] if before else 0 :])
    while len(kept) > MOST_PLACES:
        # Never the first, which reading begins at; every second of the others makes room for as many again.
        kept = [kept[0], *kept[2::2]]
    return kept


def begin_again(places: Sequence[Place], oldest: int) -> Cursor | None:
    """Where to read from so that no row from ``oldest`` on is left out; None: from the start."""
    before = [cursor for cursor, newest in places if newest < oldest]
    return before[-1] if before else None


def newest_of(chunk: Chunk, main: Schema, columns: Sequence[str]) -> int:
    """The newest moment in some columns of a chunk; very old where there is none."""
    import pyarrow.compute as pc

    from modelinscale.data.clean import clean

    typed = clean(chunk.batch, main.only(tuple(dict.fromkeys(columns)))).batch
    found = [pc.max(column).as_py() for column in typed.columns]
    return max((microseconds(moment) for moment in found if moment is not None), default=-(1 << 62))


def touched(
    chunks: Iterator[Chunk],
    news: "Sequence[tuple[Right, Mapping[str, str], str, float]]",
    waits: Mapping[str, float],
    main: Schema,
    until: Cursor,
    at: datetime,
) -> Iterator[Chunk]:
    """Of rows that were read before, those that late rows may change. Their chunks keep their place and say that these come `again`.

    ``news``: for each source that corrects its late rows, the columns of the first they are looked up by (name there -> name here), the moment's column, and
    how old a row of the first may be (s). ``waits``: columns of moments, and how old a row must be (s) before it is joined at all.
    ``at``: the present, in UTC.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from modelinscale.data.clean import clean

    for chunk in chunks:
        names = {n for _, numbers, moment, _ in news for n in (*numbers.values(), moment)} | set(waits)
        typed = pa.Table.from_batches([clean(chunk.batch, main.only(tuple(n for n in main.names if n in names))).batch])
        wanted = pa.array([False] * len(typed))
        for right, numbers, moment, oldest_s in news:
            hit = right.lookup(pa.table({name: typed.column(of) for name, of in numbers.items()})).column(0).is_valid()
            young = pc.greater_equal(typed.column(moment), pa.scalar(at - timedelta(seconds=oldest_s), pa.timestamp("us")))
            wanted = pc.or_(wanted, pc.and_(hit, pc.fill_null(young, False)).combine_chunks())
        for column, wait_s in waits.items():
            old = pc.less_equal(typed.column(column), pa.scalar(at - timedelta(seconds=wait_s), pa.timestamp("us")))
            wanted = pc.and_(wanted, pc.fill_null(old, True).combine_chunks())
        if pc.any(wanted).as_py():
            yield chunk._replace(batch=chunk.batch.filter(wanted), again=True)
        # What comes after was never joined: it comes as new. Chunks with other borders miss this place; then new rows come here as well, and are the same.
        if chunk.cursor == until:
            return
