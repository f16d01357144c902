"""The contract: what rows must be to enter the lake. Rows that break it go to quarantine with every reason; nothing else is lost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.schema import NESTED, Schema
from modelinscale.data.by_column import parse, tell
from modelinscale.data.checks import N_EXAMPLES, Check, RowCheck, Severity, TableCheck

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data._keys import KeyIndex, Keys
    from modelinscale.data.lake import Table

EVERY = "*"
"""The name that stands for the table, and for every column that a check suits."""
SHOWN_CHARS = 200
"""How much of a value an entry keeps."""


def parse_checks(value: Mapping[str, Any]) -> dict[str, tuple[Check, ...]]:
    """The ``checks`` of model.yaml: for each column a check's name (``present``), a mapping (``{between: [0, 10]}``), or a list of these.

    Raises `SpecError` that lists every mistake in it.
    """
    return parse(Check, value, twice=False)  # type: ignore[type-abstract]


@dataclass(frozen=True)
class Finding:
    """Rows that break a demand and are not put into quarantine for it."""

    column: str
    """Empty: it is about the table."""
    reason: str
    n: int
    examples: tuple[str, ...]
    """Up to three values, masked where they are personal."""
    severity: Severity

    def words(self) -> str:
        """As a sentence's end: ``3 × amount: not between 0 and 5 (7, 9)``."""
        shown = f" ({', '.join(self.examples)})" if self.examples else ""
        return f"{self.n:,} × {self.column or 'the table'}: {self.reason}{shown}"


@dataclass(frozen=True)
class Judged:
    """What became of N rows."""

    good: "pa.Table"
    """Rows that fulfil everything, in order."""
    rows: NDArray[np.int64]
    """Positions of the good rows among the N."""
    entries: "pa.Table"
    """One line for each fault, by row, then column: row (position), column, reason, value. A row may have several."""
    n_bad: int
    """Rows with at least one fault; with ``len(rows)`` and ``n_dropped`` it makes N."""
    n_dropped: int = 0
    """Rows taken away because they say what an earlier row says (see `Contract.drops`)."""
    findings: tuple[Finding, ...] = ()
    """What is told of rows that stay, and what must stop the collect."""


class Distinct(NamedTuple):
    """A column set whose values occur once."""

    columns: tuple[str, ...]
    drops: bool = False
    """Whether a row with a value that is there is taken away, rather than sent to quarantine; missing equals missing then."""


@dataclass(frozen=True)
class Contract:
    """Types, missing cells, checks by column, and the key. Use `contract` to make one: it finds mistakes."""

    schema: Schema
    checks: Mapping[str, tuple[RowCheck | TableCheck, ...]]
    key: tuple[str, ...] = ()
    drops: tuple[tuple[str, ...], ...] = ()
    """Column sets in which a row that equals an earlier one is taken away without a word; missing equals missing there."""
    of_table: tuple[TableCheck, ...] = ()
    """Checks of all rows together that are about no column."""
    replaces: bool = False
    """Whether a row takes the place of the one with its key, so that a key that comes again is no fault."""

    @property
    def row_checks(self) -> tuple[tuple[str, RowCheck], ...]:
        """Checks of each row, with their column."""
        return tuple((name, c) for name, checks in self.checks.items() for c in checks if isinstance(c, RowCheck))

    @property
    def table_checks(self) -> tuple[tuple[str, TableCheck], ...]:
        """Checks of the rows of a collect together, with their column ("" for those about none)."""
        return (*(("", c) for c in self.of_table), *((name, c) for name, checks in self.checks.items() for c in checks if isinstance(c, TableCheck)))

    @property
    def hidden(self) -> frozenset[str]:
        """Columns whose values must not be shown."""
        return frozenset(name for name, checks in self.checks.items() if any(c.hides for c in checks))

    @property
    def unique(self) -> tuple["Distinct", ...]:
        """The column sets whose values must not occur twice: those that take rows away, the key, the others."""
        sets = [Distinct(columns, drops=True) for columns in self.drops]
        sets += [Distinct(self.key)] if self.key and not self.replaces else []
        sets += [Distinct((name,)) for name in dict.fromkeys(n for n, c in self.row_checks if c.across_rows) if (name,) != self.key]
        return tuple(sets)

    def apply(self, rows: "pa.Table", faults: "pa.Table", seen: "Mapping[Distinct, KeyIndex] | None" = None) -> Judged:
        """Judges rows in lake types, as `data.clean` leaves them with its faults (row, column, reason, value).

        A row counts as taken only when it is good: a key seen first in a row that breaks something else is still free. What rows come
        together in one call makes no difference. ``seen``: for each set in `unique` the keys of the table; those of good rows are claimed in it.
        """
        found = _Entries(rows, _masked(faults, self.hidden), self.hidden)
        for column in self.schema.columns:
            values = rows.column(column.name)
            if not column.nullable and values.null_count and not self._asks_presence(column.name):
                found.add_missing(column.name, "missing")
        for name in self.key:
            if rows.column(name).null_count and not self._asks_presence(name):
                found.add_missing(name, "missing, but part of the key" if len(self.key) > 1 else "missing, but it is the key")
        for name, check in self.row_checks:
            if not check.across_rows:
                found.add_failing(name, check)
        self._find_repeated(found, seen or {})
        return found.judged()

    def _asks_presence(self, name: str) -> bool:
        return any(c.type == "present" for c in self.checks.get(name, ()))

    def _find_repeated(self, found: "_Entries", seen: "Mapping[Distinct, KeyIndex]") -> None:
        """Faults for keys that are taken. Rows with another fault neither take a key nor are told of it."""
        from modelinscale.data._keys import keys_of, repeated

        free = ~found.bad
        keys: list[Keys] = []  # of each set, those of its rows that may still be good
        taken: list[NDArray[np.bool_]] = []  # (N,) by row: the table has it
        again: list[NDArray[np.bool_]] = []  # (N,) by row: an earlier row here has it
        for one in self.unique:
            whole = free.copy()
            for name in () if one.drops else one.columns:
                if found.rows.column(name).null_count:
                    whole &= found.rows.column(name).is_valid().to_numpy()
            at = np.flatnonzero(whole)
            part = found.rows.select(list(one.columns))
            made = keys_of(part if len(at) == len(free) else part.take(at), [self.schema[n] for n in one.columns], nulls=one.drops)
            made = made._replace(rows=at[made.rows])
            keys.append(made)
            taken.append(_rows(made, seen[one].find(made) if one in seen else None, len(free)))
            again.append(_rows(made, repeated(made), len(free)))
        if len(keys) > 1 and any(a.any() for a in again):
            _settle(keys, taken, again)
        for i, (columns, drops) in enumerate(self.unique):
            if drops:
                found.dropped |= taken[i] | again[i]
                continue
            # The same words whether the earlier row is in the table or in these rows: what arrives together must not matter.
            at = np.flatnonzero((taken[i] | again[i]) & ~found.dropped)
            found.add_rows(at, columns, f"an earlier row has the same {'key' if columns == self.key else 'value'}")
        for one, made in zip(self.unique, keys, strict=True):
            if one in seen:
                good = ~(found.bad | found.dropped)[made.rows]
                seen[one].claim(made if good.all() else made.where(good))


def _rows(keys: "Keys", found: "NDArray[np.bool_] | None", n_rows: int) -> NDArray[np.bool_]:
    """A verdict by place as one by row."""
    rows = np.zeros(n_rows, np.bool_)
    if found is not None:
        rows[keys.rows[found]] = True
    return rows


def _settle(keys: "list[Keys]", taken: list[NDArray[np.bool_]], again: list[NDArray[np.bool_]]) -> None:
    """With several sets: a row refused for one of them takes no value of another. Row by row, but only over rows that share a value with another one."""
    shared: dict[int, list[tuple[int, int, int]]] = {}
    for i, made in enumerate(keys):
        same = made.one[1:] == made.one[:-1]
        for place in np.flatnonzero(np.append(same, False) | np.append(False, same)):
            two = 0 if made.two is None else int(made.two[place])
            shared.setdefault(int(made.rows[place]), []).append((i, int(made.one[place]), two))
    refused = np.logical_or.reduce(taken)
    used: set[tuple[int, int, int]] = set()
    for mask in again:
        mask[:] = False
    for row in sorted(shared):
        if refused[row]:
            continue
        clashes = [value for value in shared[row] if value in used]
        for i, _, _ in clashes:
            again[i][row] = True
        if not clashes:
            used.update(shared[row])


class _Entries:
    """Faults of N rows while they are gathered."""

    def __init__(self, rows: "pa.Table", faults: "pa.Table", hidden: frozenset[str] = frozenset()) -> None:
        self.rows, self._hidden = rows, hidden
        self._findings: list[Finding] = []
        self.bad = np.zeros(rows.num_rows, dtype=np.bool_)
        self.dropped = np.zeros(rows.num_rows, dtype=np.bool_)
        self._parts: list[pa.Table] = []
        self._unread: dict[str, NDArray[np.int64]] = {}  # column → rows whose cell could not be read and became null: not missing as well
        self._broken = np.zeros(0, dtype=np.int64)
        if faults.num_rows:
            self._start(faults)

    def _start(self, faults: "pa.Table") -> None:
        places = faults.column("row").to_numpy()
        names = faults.column("column").combine_chunks().dictionary_encode()
        codes = names.indices.to_numpy()
        for code, name in enumerate(names.dictionary.to_pylist()):
            self._unread[name] = places[codes == code]
        self._broken = self._unread.pop("", self._broken)
        self.bad[places] = True
        self._parts.append(faults)

    def add_missing(self, name: str, reason: str) -> None:
        self._add(self.rows.column(name).is_null().to_numpy(), name, reason)

    def add_failing(self, name: str, check: RowCheck) -> None:
        import polars as pl

        values = pl.Series(name, self.rows.column(name))
        mask = check.failing(values)
        if not mask.any():
            return
        reason = "missing" if check.type == "present" else f"not {check.demand()}"
        if check.weighs == "quarantine":
            self._add(mask.to_numpy(), name, reason)
        else:
            at = np.flatnonzero(self._seen(mask.to_numpy(), name))
            if len(at):
                self._findings.append(Finding(name, reason, len(at), self._examples(name, at), check.weighs))

    def _examples(self, name: str, at: NDArray[np.int64]) -> tuple[str, ...]:
        import pyarrow as pa
        import pyarrow.compute as pc

        some = self._cells(name, at[: N_EXAMPLES * 20])
        return (
            tuple(str(v) for v in pc.utf8_slice_codeunits(some, 0, SHOWN_CHARS).unique().drop_null().to_pylist()[:N_EXAMPLES])
            if isinstance(some, pa.ChunkedArray)
            else ()
        )

    def _cells(self, name: str, at: NDArray[np.int64]) -> "pa.ChunkedArray":
        """Values as they may be shown."""
        import pyarrow as pa

        cells = _text(self.rows.column(name).take(pa.array(at)))
        return _hide(cells, name) if name in self._hidden else cells

    def _add(self, mask: NDArray[np.bool_], name: str, reason: str) -> None:
        self.add_rows(np.flatnonzero(self._seen(mask, name)), (name,), reason)

    def _seen(self, mask: NDArray[np.bool_], name: str) -> NDArray[np.bool_]:
        """Without rows whose cell could not be read: that was told."""
        mask = mask.copy()
        mask[self._broken] = False
        mask[self._unread.get(name, self._broken)] = False
        return mask

    def add_rows(self, at: NDArray[np.int64], names: tuple[str, ...], reason: str) -> None:
        """One entry for each row, named after the columns."""
        if not len(at):
            return
        import pyarrow as pa
        import pyarrow.compute as pc

        self.bad[at] = True
        cells = [self._cells(name, at) for name in names]
        value = cells[0] if len(cells) == 1 else pc.binary_join_element_wise(*cells, ", ", null_handling="replace")
        self._parts.append(
            pa.table(
                {
                    "row": pa.array(at),
                    "column": pa.repeat(pa.scalar(", ".join(names), pa.string()), len(at)),
                    "reason": pa.repeat(pa.scalar(reason, pa.string()), len(at)),
                    "value": pc.fill_null(pc.utf8_slice_codeunits(value, 0, SHOWN_CHARS), ""),
                }
            )
        )

    def judged(self) -> Judged:
        import pyarrow as pa

        empty = pa.table(
            {"row": pa.array([], pa.int64()), "column": pa.array([], pa.string()), "reason": pa.array([], pa.string()), "value": pa.array([], pa.string())}
        )
        left = ~(self.bad | self.dropped)
        good = np.flatnonzero(left)
        entries = pa.concat_tables([empty, *(p.select(empty.column_names).cast(empty.schema) for p in self._parts)])
        if entries.num_rows:
            entries = entries.sort_by([("row", "ascending"), ("column", "ascending"), ("reason", "ascending")])
        rows = self.rows if len(good) == self.rows.num_rows else self.rows.filter(pa.array(left))
        return Judged(rows, good, entries, int(self.bad.sum()), int(self.dropped.sum()), tuple(self._findings))


def _text(values: "pa.ChunkedArray") -> "pa.ChunkedArray":
    import pyarrow as pa
    import pyarrow.types as t

    if t.is_nested(values.type):
        return pa.chunked_array([pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string())])
    return values.cast(pa.string())


def _hide(cells: "pa.ChunkedArray", name: str) -> "pa.ChunkedArray":
    """Text with its personal cells masked."""
    import polars as pl
    import pyarrow as pa

    from modelinscale.data._personal import column_hint, masked

    found = masked(pl.Series(name, cells.cast(pa.string())), column_hint(name)).to_arrow().cast(pa.string())
    return pa.chunked_array([found]) if isinstance(found, pa.Array) else found


def _masked(faults: "pa.Table", hidden: frozenset[str]) -> "pa.Table":
    """The faults without what is personal in columns that must not be shown, and in broken lines, which may hold cells of theirs."""
    if not hidden or not faults.num_rows:
        return faults
    import pyarrow as pa
    import pyarrow.compute as pc

    unsafe = pc.is_in(faults.column("column"), value_set=pa.array([*hidden, ""], pa.string()))
    values = pc.if_else(unsafe, _hide(faults.column("value"), "value"), faults.column("value"))
    return faults.set_column(faults.column_names.index("value"), "value", values)


def contract(
    schema: Schema, checks: Mapping[str, Iterable[Check]] | None = None, key: tuple[str, ...] = (), drops: tuple[tuple[str, ...], ...] = ()
) -> Contract:
    """A contract whose every part fits the columns. Raises `SpecError` that lists every mistake."""
    mistakes: list[SpecError] = []

    def known(name: str, where: str) -> bool:
        if name not in schema:
            mistakes.append(SpecError(f"{where} names {name!r}, which is not a column.{did_you_mean(name, schema.names)}"))
        return name in schema

    for name in key:
        if known(name, "`key`") and schema[name].type in NESTED:
            words = "raw bytes" if schema[name].type == "binary" else f"a {schema[name].type}"
            mistakes.append(SpecError(f"`key` names {name!r}, {words}.", fix="Name a column of numbers, text, flags or moments."))
    if len(set(key)) != len(key):
        mistakes.append(SpecError(f"`key` names a column twice: {', '.join(key)}."))
    of_table, by_column = _spread(schema, checks or {}, mistakes)
    for name, wanted in by_column.items():
        for check in wanted if known(name, "`checks`") else ():
            column = schema[name]
            objection = check.objection(column) if check.suits(column) else f"`{check.type}` cannot be held against a column of type {column.type}"
            if isinstance(check, RowCheck) and check.across_rows and check.weighs != "quarantine":
                objection = f"`{check.type}` takes no severity: a second row would have no place"
            if isinstance(check, TableCheck) and check.columnless:
                objection = f"`{check.type}` is about the table: write it under `{EVERY}`"
            if objection:
                mistakes.append(SpecError(f"`checks`: {name}: {objection}.", fix=f"Change the check, or the column's type under `columns: {{{name}: ...}}`."))
    tell(mistakes)
    return Contract(schema, by_column, key, drops, of_table)


def _spread(
    schema: Schema, checks: Mapping[str, Iterable[Check]], mistakes: list[SpecError]
) -> tuple[tuple[TableCheck, ...], dict[str, tuple[RowCheck | TableCheck, ...]]]:
    """The checks about no column, and those of each column: what is said of every column goes to those it suits and that do not have it themselves."""
    every = [check.settled() for check in checks.get(EVERY, ())]
    found = {name: tuple(check.settled() for check in wanted) for name, wanted in checks.items() if name != EVERY}
    of_table: list[TableCheck] = []
    for check in every:
        if isinstance(check, TableCheck) and check.columnless:
            of_table.append(check)
            continue
        fitting = [c.name for c in schema.columns if check.suits(c) and not check.objection(c)]
        if not fitting:
            mistakes.append(SpecError(f"`checks`: `{EVERY}`: there is no column for `{check.type}`."))
        for name in fitting:
            if all(c.type != check.type for c in found.get(name, ())):
                found[name] = (*found.get(name, ()), check)
    return tuple(of_table), found


def open_indexes(contract: Contract, folder: Path, table: "Table | None") -> "dict[Distinct, KeyIndex]":
    """For each column set that must be unique, the keys the table has."""
    from modelinscale.core.identity import identity
    from modelinscale.data._keys import open_index

    return {
        one: open_index(folder / identity(one.columns, *(["nulls"] if one.drops else [])), contract.schema.only(one.columns).columns, table, nulls=one.drops)
        for one in contract.unique
    }
