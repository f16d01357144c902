"""Collect: from a source through cleaning and contract into the lake, so that a kill at any moment loses and doubles nothing."""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from modelinscale.compute import Compute
from modelinscale.compute.local import Local
from modelinscale.core.errors import DataError, LakeError, NotSupportedYet
from modelinscale.core.identity import identity
from modelinscale.core.logs import log
from modelinscale.core.memory import room
from modelinscale.core.schema import Column, Schema
from modelinscale.data._lake_base import Where
from modelinscale.data._watch import Watch
from modelinscale.data.arrow import INTERNAL
from modelinscale.data.clean import Cleaned, clean
from modelinscale.data.contract import EVERY, Contract, Distinct, Judged, contract, open_indexes
from modelinscale.data.lake import Table, create_table, open_table, table_exists
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.treatment import Treatment, treat

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data._keys import KeyIndex

COMMIT_ROWS = 1 << 20
COMMIT_BYTES = 96 << 20
"""A commit closes with the first chunk to reach one of these: what a kill can cost, and half the memory it takes (one is written while the next is read)."""

ENOUGH_ROWS = 100
"""Fewer rows than this say nothing about a source that gave good rows before."""

QUARANTINE = Schema(
    columns=(
        Column(name="row", type="int", nullable=False),
        Column(name="place", type="string"),
        Column(name="row_in_place", type="int"),
        Column(name="column", type="string"),
        Column(name="reason", type="string"),
        Column(name="value", type="string"),
    )
)
"""One line for each fault. ``row`` counts the rows ever read, from 1; ``place`` and ``row_in_place`` (from 1) say where to look in the source;
``column`` is empty when the whole row is broken."""

Progress = Callable[[float | None, str], None]
"""Called with the share done (None: not known) and a few words."""


@dataclass(frozen=True)
class Collected:
    """What stands in the lake after a collect."""

    version: int
    """The table's version that last changed its rows: the same as before when nothing came."""
    n_rows: int
    """Rows in the table."""
    n_added: int
    """Rows that this collect added."""
    n_quarantined: int
    """Rows in quarantine, over all collects; a row with several faults counts once."""
    n_quarantined_now: int
    """Rows that this collect sent there."""
    n_dropped: int = 0
    """Rows that this collect took away because an earlier row says the same."""
    reasons: tuple[tuple[str, str, int], ...] = ()
    """Column, reason, faults of this collect, the most frequent first."""
    notes: tuple[str, ...] = ()
    """What the user should know though nothing failed."""


class Piece(NamedTuple):
    """A chunk without its raw cells, which are not needed any more."""

    cleaned: Cleaned
    cursor: Cursor
    where: str


@dataclass
class Unit:
    """The rows of one commit."""

    pieces: list[Piece] = field(default_factory=list)
    n_rows: int = 0
    n_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    """What the table keeps once these rows are in it."""

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.n_rows += piece.cleaned.batch.num_rows
        self.n_bytes += piece.cleaned.batch.nbytes


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
    report: Callable[[Watch], None] | None = None,
) -> Collected:
    """Reads what is new since the lake's cursor and adds it, a bounded number of rows a commit.

    The rows, and the cursor after them, are one transaction; a killed collect goes on from its last commit. The quarantine is written before the
    rows it belongs to and put right at the next start, so it never holds a row twice. The caller holds the project's lock.

    ``reads``: the columns as the source gives them (left out: the contract's), ``treatments`` make of them those of the contract. Where it has more
    than the table knows of, or a float for an int, the table gets those columns.
    The contract is for the columns the table has; its own (habits of text included) are used when there is a table. ``max_quarantined``: the share
    of bad rows above which it stops with `DataError` (the share is taken over this collect; a table that exists bears up to 100 rows read).
    Raises `DataError` when a source never gave a row, `LakeError` when the columns differ from the table's, and what the source raises.
    """
    notes: list[str] = []
    state = begin(source, lake, quarantine, contract, run, max_quarantined, progress, reads, notes, facts, report=report is not None)
    pieces = _pieces(source, state, partial(piece_of, state.raw, tuple(treatments)), compute or Local())
    if commit_bytes is None:  # two commits at once: raw, cleaned and as written
        commit_bytes = min(COMMIT_BYTES, room(compute.memory if compute else None) // 6)
    units = _units(pieces, commit_rows, commit_bytes, pin=state.table is None)
    # One unit is written while the next is read, cleaned and judged.
    with ThreadPoolExecutor(1, thread_name_prefix="lake") as writer, closing(units):
        writing: Future[None] | None = None
        for unit, last in _ended(units, wait=state.watch.needs_end):
            judged = state.judge(unit)
            state.keep(writing)
            writing = None
            state.refuse_if_too_bad()
            state.watch.refuse(state.kept, final=last)
            writing = writer.submit(state.write, unit, judged)
            del unit, judged
        state.keep(writing)
    if not state.watch.n_read:
        state.watch.refuse(state.kept, final=True)
    notes += [f"a check warns: {finding.words()}." for finding in state.watch.warnings()]
    found = state.collected(notes)
    if report is not None:
        report(state.watch)
    if state.cursor is not None:
        source.committed(state.cursor)
    return found


def begin(
    source: Source,
    lake: str,
    quarantine: str,
    contract: Contract,
    run: str,
    max_quarantined: float,
    progress: Progress,
    reads: Schema | None,
    notes: list[str],
    facts: Mapping[str, Any] | None = None,
    *,
    report: bool = False,
) -> "State":
    """Where the collect of a source into a table stands before it reads anything. The arguments are those of `collect`."""
    table = open_table(lake) if table_exists(lake) else None
    if contract.replaces and contract.unique:
        raise NotSupportedYet(
            "rows are replaced by key, and values must differ or equal rows are dropped: what a replaced row had would still count.",
            fix="Take `unique` and `dedupe` out, or `write: upsert`.",
        )
    if table is not None and reads is not None and reads != table.read_schema:
        table = table.evolve(contract.schema, reads, run=run)
    rules = contract if table is None else _on(contract, table, notes)
    raw = (reads or contract.schema) if table is None else table.read_schema
    return State(source, lake, quarantine, rules, run, max_quarantined, table, progress, raw, facts or {}, report=report)


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


class State:
    """Where a collect stands."""

    def __init__(
        self,
        source: Source,
        lake: str,
        quarantine: str,
        rules: Contract,
        run: str,
        max_quarantined: float,
        table: Table | None,
        progress: Progress,
        raw: Schema,
        facts: Mapping[str, Any],
        *,
        report: bool,
    ) -> None:
        self._lake, self._quarantine, self._rules, self._run, self._max, self._progress = lake, quarantine, rules, run, max_quarantined, progress
        self.table, self._is_new, self.raw = table, table is None, raw
        last = table.last if table else None
        self._facts: Mapping[str, Any] = dict(last.facts) if last else dict(facts)
        self._seq = last.seq if last else 0
        self.cursor: Cursor | None = last.cursor if last else None
        self._n_bad = self._n_good = self._n_dropped = 0
        self._n_judged = self._n_judged_bad = 0
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._dropped: dict[str, None] = {}
        self._known = set(raw.names)
        self._started = False
        self._indexes: dict[Distinct, KeyIndex] = {}
        self.watch = Watch(rules, self._facts, report=report)

    @property
    def n_good(self) -> int:
        """Rows added so far."""
        return self._n_good

    @property
    def n_bad(self) -> int:
        """Rows sent to quarantine so far."""
        return self._n_bad

    def note_columns(self, chunk: Chunk) -> None:
        """Remembers columns of the source that the table does not have."""
        self._dropped.update(dict.fromkeys(n for n in chunk.batch.schema.names if n not in self._known and not n.startswith(INTERNAL)))

    def _start(self) -> None:
        """What a killed collect left is undone, and the indexes are opened; put off until there is something to do."""
        self._started = True
        if table_exists(self._quarantine):
            open_table(self._quarantine).drop_after(self._seq)
        if self.table is not None:
            self.table.sweep()
        if self._rules.unique:
            self._indexes = open_indexes(self._rules, Where(self._lake).beside / f"{INTERNAL}keys", self.table)

    def judge(self, unit: Unit) -> Judged:
        """The contract's verdict on a unit."""
        import pyarrow as pa

        if not self._started:
            self._start()
        rows = pa.Table.from_batches([p.cleaned.batch for p in unit.pieces])
        faults, before = [], 0
        for piece in unit.pieces:
            if len(piece.cleaned.faults):
                part = piece.cleaned.faults.table()
                faults.append(part.set_column(0, "row", pa.array(part.column("row").to_numpy() + before)))
            before += piece.cleaned.batch.num_rows
        empty = pa.table({"row": pa.array([], pa.int64()), **{n: pa.array([], pa.string()) for n in ("column", "reason", "value")}})
        judged = self._rules.apply(rows, pa.concat_tables([empty, *faults]), self._indexes)
        self._n_bad += judged.n_bad
        self._n_dropped += judged.n_dropped
        self._n_judged += rows.num_rows
        self._n_judged_bad += judged.n_bad
        if judged.n_bad:
            counts = judged.entries.group_by(["column", "reason"]).aggregate([([], "count_all")])
            for column, reason, n in zip(*(counts.column(c).to_pylist() for c in ("column", "reason", "count_all")), strict=True):
                self._reasons[column, reason] += n
        changed: Counter[str] = Counter()
        for piece in unit.pieces:
            changed.update(piece.cleaned.changed)
        self.watch.see(judged, rows.num_rows, changed)
        unit.facts = self.watch.facts()
        return judged

    def refuse_if_too_bad(self) -> None:
        """Raises `DataError` when too much of what this collect judged is bad. Not while a unit is written: what is kept would not be known."""
        if self._n_judged_bad <= self._max * self._n_judged or (not self._is_new and self._n_judged < ENOUGH_ROWS):
            return
        top = "\n".join(f"  {n:,} × {column or 'whole row'}: {reason}" for column, reason, n in self._top(5))
        raise DataError(
            f"{self._n_judged_bad:,} of {self._n_judged:,} rows read break the contract ({self._n_judged_bad / self._n_judged:.0%}, allowed {self._max:.0%})."
            f"\n{top}\n",
            fix=f"Change `checks`, `key` or the types under `columns`, or mend the source; {self.kept}.",
        )

    @property
    def kept(self) -> str:
        """What of this collect is in the lake, in words."""
        return f"{self._n_good:,} good rows before these are in the lake and stay" if self._n_good else "nothing of these rows was kept"

    def forget_share(self, after_rows: int) -> None:
        """Begins anew to take the share of bad rows once so many were judged: rows of last week say nothing of a source that goes wrong now."""
        if self._n_judged >= after_rows:
            self._is_new = False
            self._n_judged = self._n_judged_bad = 0
            self._reasons.clear()

    def _top(self, n: int | None = None) -> list[tuple[str, str, int]]:
        return [(*key, count) for key, count in sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))][:n]

    def write(self, unit: Unit, judged: Judged) -> None:
        """Quarantine first, then rows and cursor in one transaction. Runs beside `judge` of the next unit."""
        cursor = unit.pieces[-1].cursor
        seq, before = self._seq + 1, self.cursor
        batch = f"{seq}-{identity(before)}"
        read = int(self._facts.get("n_read", 0))
        if judged.n_bad:
            self._write_quarantine(_lines(unit, judged, read), batch, seq)
        facts = {**self._facts, **unit.facts, "n_read": read + unit.n_rows, "n_quarantined": int(self._facts.get("n_quarantined", 0)) + judged.n_bad}
        if self._rules.replaces:
            table = self.table or create_table(self._lake, self._rules.schema, run=self._run, facts=self._facts, read_schema=self.raw)
            self.table = table.upsert(judged.good, self._rules.key, batch=batch, cursor=cursor, run=self._run, facts=facts)
        elif self.table is None:
            self.table = create_table(self._lake, self._rules.schema, judged.good, batch=batch, cursor=cursor, run=self._run, facts=facts, read_schema=self.raw)
        else:
            self.table = self.table.append(judged.good, batch=batch, cursor=cursor, run=self._run, facts=facts)
        self._seq, self.cursor, self._facts = seq, cursor, facts
        self._n_good += judged.good.num_rows
        log(__name__).info("rows added", extra={"version": self.table.version, "added": judged.good.num_rows, "quarantined": judged.n_bad})
        self._progress(None, f"{self._n_good:,} rows")

    def keep(self, writing: "Future[None] | None") -> None:
        """Waits until a unit is written, then writes its keys down: last, because they can be built again from the table."""
        if writing is None:
            return
        writing.result()
        assert self.table is not None, "a unit was written"
        for index in self._indexes.values():
            index.keep(self._seq, self.table.n_rows)

    def _write_quarantine(self, lines: "pa.Table", batch: str, seq: int) -> None:
        if table_exists(self._quarantine):
            open_table(self._quarantine).append(lines, batch=batch, run=self._run, seq=seq)
        else:
            create_table(self._quarantine, QUARANTINE, lines, batch=batch, run=self._run, seq=seq)

    def collected(self, notes: list[str]) -> Collected:
        if self.table is None:
            raise DataError("the source has no rows.", fix="Check `source`: is the file empty, or does it hold a header only?")
        if self._n_good:
            self.table = self.table.compact()
        if self._n_bad:
            open_table(self._quarantine).compact()
        if self._dropped:
            notes.append(f"the source has columns that the table does not have, left out: {', '.join(self._dropped)}.")
        return Collected(
            version=self.table.rows_version,
            n_rows=self.table.n_rows,
            n_added=self._n_good,
            n_quarantined=int(self._facts.get("n_quarantined", 0)),
            n_quarantined_now=self._n_bad,
            n_dropped=self._n_dropped,
            reasons=tuple(self._top()),
            notes=tuple(notes),
        )


def _pieces(source: Source, state: State, work: Callable[[Chunk], Piece], compute: Compute) -> Iterator[Piece]:
    """Chunks read, cleaned and treated, in order; all but the reading runs beside it and everything after."""

    def chunks() -> Iterator[Chunk]:
        for chunk in source.read(state.cursor, state.raw):
            state.note_columns(chunk)
            yield chunk

    return compute.map(work, chunks())


def piece_of(schema: Schema, treatments: tuple[Treatment, ...], chunk: Chunk) -> Piece:
    return Piece(treat(clean(chunk.batch, schema), treatments), chunk.cursor, chunk.where)


def _units(pieces: Iterator[Piece], max_rows: int, max_bytes: int, *, pin: bool) -> Generator[Unit, None, None]:
    """Pieces gathered up to a commit's size. A piece without rows still moves the cursor if rows follow or came before.

    ``pin``: or if there is no table yet. A source that is read from now on says in such a piece where that is.
    """
    unit = Unit()
    for piece in pieces:
        unit.add(piece)
        if unit.n_rows >= max_rows or unit.n_bytes >= max_bytes:
            yield unit
            unit = Unit()
            pin = False
    if unit.n_rows or (pin and unit.pieces):
        yield unit


def _ended(units: Iterator[Unit], *, wait: bool) -> Iterator[tuple[Unit, bool]]:
    """Each unit, and whether it is the last one: to know it takes holding a unit back, so only if somebody waits for it."""
    if not wait:
        yield from ((unit, False) for unit in units)
        return
    held: Unit | None = None
    for unit in units:
        if held is not None:
            yield held, False
        held = unit
    if held is not None:
        yield held, True


def _lines(unit: Unit, judged: Judged, n_before: int) -> "pa.Table":
    """The unit's quarantine lines; ``n_before`` rows were read before it."""
    import numpy as np
    import pyarrow as pa

    rows = judged.entries.column("row").to_numpy()
    starts = np.cumsum([0, *(p.cleaned.batch.num_rows for p in unit.pieces)])
    piece = np.searchsorted(starts, rows, side="right") - 1
    places = pa.array([p.where for p in unit.pieces], pa.string())
    return pa.table(
        {
            "row": pa.array(rows + 1 + n_before),
            "place": places.take(pa.array(piece)),
            "row_in_place": pa.array(rows - starts[piece] + 1),
            "column": judged.entries.column("column"),
            "reason": judged.entries.column("reason"),
            "value": judged.entries.column("value"),
        }
    )


def _on(wanted: Contract, table: Table, notes: list[str]) -> Contract:
    """The contract on the table's own columns. Raises `LakeError` where the two cannot be reconciled."""
    stored, asked = table.schema, wanted.schema
    missing = [c.name for c in asked.columns if c.name not in stored]
    changed = [
        f"{c.name} is {stored[c.name].type} in the table and {c.type} now"
        for c in asked.columns
        if c.name in stored and (stored[c.name].type, stored[c.name].width) != (c.type, c.width)
    ]
    if missing or changed:
        what = "; ".join([*changed, *(f"{name} is not in the table" for name in missing)])
        raise LakeError(
            f"{table.uri} has other columns than asked for: {what}.", fix="Take the change back, or move the table away and collect everything again."
        )
    checks = {**wanted.checks, EVERY: wanted.of_table} if wanted.of_table else wanted.checks
    return replace(contract(stored, checks, wanted.key, wanted.drops), replaces=wanted.replaces)
