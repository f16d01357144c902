"""Where a collect, or a follower, stands: units are judged, then written with the cursor after them in one transaction."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import DataError, LakeError, NotSupportedYet
from modelinscale.core.identity import identity
from modelinscale.core.logs import log
from modelinscale.core.schema import Schema
from modelinscale.data._bad_share import BadShare
from modelinscale.data._brought import Brought, most_frequent, reasons_of
from modelinscale.data._lake_base import Where
from modelinscale.data._quarantined import of_new, quarantine
from modelinscale.data._units import Unit
from modelinscale.data._watch import Stretch, Watch
from modelinscale.data.arrow import INTERNAL
from modelinscale.data.contract import EVERY, Contract, Distinct, Judged, contract, open_indexes
from modelinscale.data.lake import Table, create_table, open_table, table_exists
from modelinscale.data.sources import Chunk, Cursor

if TYPE_CHECKING:
    from modelinscale.data._keys import KeyIndex

KEPT_NAMES, SHOWN_NAMES, SHOWN_CHARS = 100, 20, 60
"""Columns of the source that the table does not have: so many are counted, so many named, so much of a name."""
SHOWN_REASONS = 5
"""Why rows that came again break the contract: so many reasons are told."""


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


@dataclass(frozen=True)
class Target:
    """Where rows go, and what they must be there; the fields are explained at `collect`."""

    lake: str
    quarantine: str
    contract: Contract
    run: str = ""
    max_quarantined: float = 0.5
    reads: Schema | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Collecting:
    """One collect, or one follower, at work."""

    def __init__(self, target: Target, *, report: bool, stretch: Stretch = "collect") -> None:
        """Reads where the table stands; changes nothing but its columns, where the source has more (see `Target.reads`)."""
        rules, reads, table = target.contract, target.reads, open_table(target.lake) if table_exists(target.lake) else None
        if rules.replaces and rules.unique:
            raise NotSupportedYet(
                "rows are replaced by key, and values must differ or equal rows are dropped: what a replaced row had would still count.",
                fix="Take `unique` and `dedupe` out, or `write: upsert`.",
            )
        if table is not None and reads is not None and reads != table.read_schema:
            table = table.evolve(rules.schema, reads, run=target.run)
        self.table, self._target = table, target
        self.raw = (reads or rules.schema) if table is None else table.read_schema
        """The columns as the source gives them."""
        self._rules = rules if table is None else _on(rules, table)
        last = table.last if table else None
        self._facts: Mapping[str, Any] = dict(last.facts if last else target.facts)
        self._seq = last.seq if last else 0
        self.cursor: Cursor | None = last.cursor if last else None
        self.n_good = 0
        """Rows added so far."""
        self.brought = Brought(self._rules, columns=report)
        self.share = BadShare(target.max_quarantined, is_new=table is None)
        self.watch = Watch.first(self._rules, self._facts, stretch)
        self._indexes: dict[Distinct, KeyIndex] = {}
        self._known, self._unknown = frozenset(self.raw.names), dict[str, str]()
        self._n_again_bad, self._again_reasons = 0, Counter[tuple[str, str]]()
        self._started = False

    def note_columns(self, chunk: Chunk) -> None:
        """Remembers columns of the source that the table does not have, and which rows had them first."""
        for name in (*chunk.batch.schema.names, *chunk.more):
            if len(self._unknown) == KEPT_NAMES:
                return
            if name not in self._known and not name.startswith(INTERNAL):
                self._unknown.setdefault(name, chunk.where)

    def _start(self) -> None:
        """What a killed collect left is undone, and the indexes are opened; put off until there is something to do."""
        self._started = True
        if table_exists(self._target.quarantine):
            open_table(self._target.quarantine).drop_after(self._seq)
        if self.table is not None:
            self.table.sweep()
        if self._rules.unique:
            self._indexes = open_indexes(self._rules, Where(self._target.lake).beside / f"{INTERNAL}keys", self.table)

    def judge(self, unit: Unit) -> Judged:
        """The contract's verdict on a unit."""
        if not self._started:
            self._start()
        rows = unit.rows()
        judged = self._rules.apply(rows, unit.faults(), self._indexes)
        again = unit.again()
        n_known, n_again = 0, int(again.sum())
        if n_again:
            judged, known = of_new(judged, again)
            n_known = known.n_bad
            self._n_again_bad += n_known
            self._again_reasons.update(reasons_of(known))
        changed: dict[str, int] = {}
        for piece in unit.pieces:
            for name, n in piece.cleaned.changed.items():
                changed[name] = changed.get(name, 0) + n
        self.brought.see(judged, rows.num_rows - n_known, changed)
        self.share.see(judged, rows.num_rows - n_again)
        self.watch.see(judged)
        unit.facts = self.watch.facts()
        return judged

    def refuse(self, *, final: bool) -> None:
        """Raises `DataError` when too much is bad or a check must stop it. Not while a unit is written: what is kept would not be known."""
        self.share.refuse(self.kept)
        self.watch.refuse(self.kept, final=final)

    def next_stretch(self, stretch: Stretch, *, counts: bool) -> None:
        """Begins to watch another stretch of rows (see `Watch.next`), with checks that look anew at what lies elsewhere."""
        self.watch = self.watch.next(stretch, counts=counts)
        for _, check in self._rules.row_checks:
            check.renew()

    @property
    def kept(self) -> str:
        """What of this collect is in the lake, in words."""
        return f"{self.n_good:,} good rows before these are in the lake and stay" if self.n_good else "nothing of these rows was kept"

    def write(self, unit: Unit, judged: Judged) -> None:
        """Quarantine first, then rows and cursor in one transaction. Runs beside `judge` of the next unit."""
        to, rules, cursor = self._target, self._rules, unit.pieces[-1].cursor
        seq, before, read = self._seq + 1, self.cursor, int(self._facts.get("n_read", 0))
        batch = f"{seq}-{identity(before)}"
        quarantine(to.quarantine, unit, judged, n_before=read, batch=batch, run=to.run, seq=seq)
        facts = {**self._facts, **unit.facts, "n_read": read + unit.n_rows - int(unit.again().sum()), "n_quarantined": self._n_quarantined + judged.n_bad}
        commit: dict[str, Any] = {"batch": batch, "cursor": cursor, "run": to.run, "facts": facts}
        if rules.replaces:
            table = self.table or create_table(to.lake, rules.schema, run=to.run, facts=self._facts, read_schema=self.raw)
            self.table = table.upsert(judged.good, rules.key, **commit)
        elif self.table is None:
            self.table = create_table(to.lake, rules.schema, judged.good, read_schema=self.raw, **commit)
        else:
            self.table = self.table.append(judged.good, **commit)
        self._seq, self.cursor, self._facts = seq, cursor, facts
        self.n_good += judged.good.num_rows
        log(__name__).info("rows added", extra={"version": self.table.version, "added": judged.good.num_rows, "quarantined": judged.n_bad})

    def keep(self, writing: "Future[None]") -> None:
        """Waits until a unit is written, then writes its keys down: last, because they can be built again from the table."""
        writing.result()
        assert self.table is not None, "a unit was written"
        for index in self._indexes.values():
            index.keep(self._seq, self.table.n_rows)

    @property
    def _n_quarantined(self) -> int:
        return int(self._facts.get("n_quarantined", 0))

    def compact(self) -> None:
        """Joins small files of both tables, where this collect added some."""
        if self.table is not None and self.n_good:
            self.table = self.table.compact()
        if self.brought.n_bad and table_exists(self._target.quarantine):
            open_table(self._target.quarantine).compact()

    def reopen(self) -> None:
        """Takes the table as it stands, after it was changed without its rows."""
        self.table = open_table(self._target.lake)

    def collected(self, notes: list[str]) -> Collected:
        """What stands by now. Raises `DataError` when there is no table."""
        if self.table is None:
            raise DataError("the source has no rows.", fix="Check `source`: a header only, an empty table or stream, or rows all younger than `lag` or `wait`?")
        left = [f"the source has columns that the table does not have, left out: {_left_out(self._unknown)}."] if self._unknown else []
        if self._n_again_bad:
            why = "; ".join(f"{n:,} × {column or 'whole row'}: {reason}" for column, reason, n in most_frequent(self._again_reasons, SHOWN_REASONS))
            rows = "1 row that came again breaks" if self._n_again_bad == 1 else f"{self._n_again_bad:,} rows that came again break"
            left.append(f"{rows} the contract, in quarantine or in the table as before: {why}.")
        return Collected(
            version=self.table.rows_version,
            n_rows=self.table.n_rows,
            n_added=self.n_good,
            n_quarantined=self._n_quarantined,
            n_quarantined_now=self.brought.n_bad,
            n_dropped=self.brought.n_dropped,
            reasons=tuple(self.brought.top()),
            notes=(*notes, *left),
        )


def _left_out(unknown: Mapping[str, str]) -> str:
    """The columns, by the rows that had them first. A name that is itself an e-mail address, a card number, ... is told by its kind."""
    import polars as pl

    from modelinscale.data._personal import masked

    plain = [name if name.isprintable() else ascii(name)[1:-1] for name in unknown]  # a field of JSON may be called anything
    shown = [name if len(name) <= SHOWN_CHARS else f"{name[:SHOWN_CHARS]}..." for name in masked(pl.Series(plain))]
    places: dict[str, dict[str, None]] = {}
    for name, where in list(zip(shown, unknown.values(), strict=True))[:SHOWN_NAMES]:
        places.setdefault(where, {})[name] = None
    words = "; ".join(f"{', '.join(names)} (first in {where})" for where, names in places.items())
    over = len(unknown) - SHOWN_NAMES
    return words if over <= 0 else f"{words}; and {over}{' or more' if len(unknown) >= KEPT_NAMES else ''} others"


def _on(wanted: Contract, table: Table) -> Contract:
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
