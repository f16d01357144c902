"""Collect: from a source through cleaning and contract into the lake, so that a kill at any moment loses and doubles nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from modelinscale.compute import Compute
from modelinscale.compute.local import Local
from modelinscale.core.memory import block, room
from modelinscale.core.schema import Schema
from modelinscale.data._brought import Brought
from modelinscale.data._collecting import Collected, Collecting, Target
from modelinscale.data._units import piece_of, units_of, with_last
from modelinscale.data.contract import Contract
from modelinscale.data.lake import open_table, table_exists
from modelinscale.data.sources import Chunk, Source
from modelinscale.data.treatment import Treatment

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COMMIT_BYTES", "COMMIT_ROWS", "Brought", "Collected", "Progress", "collect", "open_quarantine", "standing"]

COMMIT_ROWS = 1 << 20
COMMIT_BYTES = 96 << 20
"""A commit closes with the first chunk to reach one of these: what a kill can cost, and half the memory it takes (one is written while the next is read)."""

Progress = Callable[[float | None, str], None]
"""Called with the share done (None: not known) and a few words."""


def collect(
    source: Source,
    *,
    lake: str,
    quarantine: str,
    contract: Contract,
    run: str = "",
    max_quarantined: float = 0.5,
    commit_rows: int = COMMIT_ROWS,
    commit_bytes: int | None = None,
    compute: Compute | None = None,
    progress: Progress = lambda share, note: None,
    reads: Schema | None = None,
    treatments: Sequence[Treatment] = (),
    facts: Mapping[str, Any] | None = None,
    report: Callable[[Collected, Brought], None] | None = None,
) -> Collected:
    """Reads what is new since the lake's cursor and adds it, a bounded number of rows a commit.

    The rows, and the cursor after them, are one transaction; a killed collect goes on from its last commit. The quarantine is written before the
    rows it belongs to and put right at the next start, so it never holds a row twice. The caller holds the project's lock.

    ``run``: who brings the rows, for the record of each commit. ``reads``: the columns as the source gives them (left out: the contract's);
    ``treatments`` make of them those of the contract. Where it has more than the table knows of, or a float for an int, the table gets those columns.
    ``facts``: what a new table keeps. ``report`` is called with what was brought, once it is in.
    The contract is for the columns the table has; its own (habits of text included) are used when there is a table. ``max_quarantined``: the share
    of bad rows above which it stops with `DataError` (the share is taken over this collect; a table that exists bears up to 100 rows read).
    Raises `DataError` when a source never gave a row, `LakeError` when the columns differ from the table's, and what the source raises.
    """
    state = Collecting(Target(lake, quarantine, contract, run, max_quarantined, reads, facts or {}), report=report is not None)
    memory = compute.memory if compute else None
    pieces = (compute or Local()).map(partial(piece_of, state.raw, tuple(treatments)), _chunks(source.within(block(memory), state.raw), state))
    if commit_bytes is None:  # two commits at once: raw, cleaned and as written
        commit_bytes = min(COMMIT_BYTES, room(memory) // 6)
    units = units_of(pieces, commit_rows, commit_bytes, pin=state.table is None)
    # One unit is written while the next is read, cleaned and judged.
    with ThreadPoolExecutor(1, thread_name_prefix="lake") as writer, closing(units):
        writing: Future[None] | None = None
        for unit, last in with_last(units, wait=state.watch.needs_end):
            judged = state.judge(unit)
            _kept(state, writing, progress)
            writing = None
            state.refuse(final=last)
            writing = writer.submit(state.write, unit, judged)
            del unit, judged
        _kept(state, writing, progress)
    if not state.brought.n_read:
        state.refuse(final=True)
    state.compact()
    found = state.collected([*state.watch.warnings()])
    if report is not None:
        report(found, state.brought)
    if state.cursor is not None:
        source.committed(state.cursor)
    return found


def _kept(state: Collecting, writing: "Future[None] | None", progress: Progress) -> None:
    """Waits until a unit is written, and tells how many rows there are."""
    if writing is not None:
        state.keep(writing)
        progress(None, f"{state.n_good:,} rows")


def _chunks(source: Source, state: Collecting) -> Iterator[Chunk]:
    """What is new, chunk by chunk, in order; it is read here, and all else runs beside it and everything after."""
    for chunk in source.read(state.cursor, state.raw):
        state.note_columns(chunk)
        yield chunk


def standing(lake: str) -> Collected:
    """What stands in the lake now, nothing collected. Raises `LakeError` when there is no table."""
    table = open_table(lake)
    n_quarantined = int(table.last.facts.get("n_quarantined", 0))
    return Collected(version=table.rows_version, n_rows=table.n_rows, n_added=0, n_quarantined=n_quarantined, n_quarantined_now=0)


def open_quarantine(quarantine: str, lake: str) -> "Iterator[pa.RecordBatch]":
    """The quarantine's lines in order, without those of rows that a killed collect did not get into the lake."""
    if not table_exists(quarantine) or not table_exists(lake):
        return
    committed = open_table(lake).last.seq
    yield from open_table(quarantine).blocks_up_to(committed)
