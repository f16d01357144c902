"""All cleaners of a model.yaml as one treatment, and what must be known before the first row: how columns are read, and bounds that are frozen."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.schema import Column, Schema
from modelinscale.data.by_column import parse, tell
from modelinscale.data.clean import SHOWN_CHARS, Cleaned, Faults
from modelinscale.data.cleaners import Cleaner

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from modelinscale.package.manifest import InputColumn

EVERY = "*"
"""The name that stands for all text columns without cleaners of their own."""


def parse_cleaners(value: Mapping[str, Any]) -> dict[str, tuple[Cleaner, ...]]:
    """The ``clean`` of model.yaml. Raises `SpecError` that lists every mistake in it, steps that undo one another among them."""
    found: dict[str, tuple[Cleaner, ...]] = parse(Cleaner, value, twice=True)  # type: ignore[type-abstract]
    mistakes = []
    for name, cleaners in found.items():
        changed = _unsettled(cleaners)
        if changed is not None:
            old, new, by = changed
            what = f"{old!r} that `{by}` gives would be {new!r} once the row is cleaned again"
            mistakes.append(SpecError(f"{name}: {what}.", fix="Change the value, or the order: what is clean must stay as it is."))
        if name == EVERY and any(c.reads_text for c in cleaners):
            mistakes.append(SpecError(f"`{EVERY}` cannot hold `{next(c.type for c in cleaners if c.reads_text)}`.", fix="Name the column."))
    tell(mistakes)
    return found


def _unsettled(cleaners: tuple[Cleaner, ...]) -> tuple[object, object, str] | None:
    """A value that a step gives and the steps together would change again, what they make of it, and the step."""
    from modelinscale.package._cells import _Unreadable
    from modelinscale.package._clean import rule_of

    steps = [c for c in cleaners if not c.across_rows and getattr(c, "spread", None) is None]
    given: list[tuple[Any, int]] = []
    for i, cleaner in enumerate(steps):
        plain = cleaner.plain()
        found = [plain["value"]] if cleaner.type == "fill" else [new for _, new in plain["values"]] if cleaner.type == "replace" else []
        given += [(value, i) for value in found if value is not None]
    rules = [rule_of(c.step()) for c in steps]
    for value, at in given:
        try:
            once = _through(rules[at + 1 :], value)
            twice = _through(rules, once)
        except (_Unreadable, TypeError):
            continue  # told when the column's type is known, or at the first row
        if once is not None and twice != once:
            return once, twice, steps[at].type
    return None


def _through(rules: "Iterable[Any]", value: Any) -> Any:
    for rule in rules:
        value = rule(value)
    return value


def as_text(cleaners: Mapping[str, tuple[Cleaner, ...]]) -> tuple[str, ...]:
    """The columns whose cells must be seen as they were written."""
    return tuple(name for name, wanted in cleaners.items() if any(c.reads_text for c in wanted))


class Cleaning:
    """A treatment: the cleaners of some columns, in order."""

    def __init__(self, cleaners: Mapping[str, tuple[Cleaner, ...]]) -> None:
        self.cleaners = dict(cleaners)

    def of(self, column: Column) -> tuple[Cleaner, ...]:
        """The cleaners that change cells of this column."""
        default = self.cleaners.get(EVERY, ()) if column.type == "string" else ()
        return tuple(c for c in self.cleaners.get(column.name, default) if not c.across_rows)

    def schema(self, schema: Schema) -> Schema:
        mistakes = [f"there is no column {name!r}.{did_you_mean(name, schema.names)}" for name in self.cleaners if name != EVERY and name not in schema]
        columns = []
        for column in schema.columns:
            for cleaner in self.of(column):
                objection = cleaner.objection(column)
                if objection:
                    mistakes.append(f"{column.name}: {objection}.")
                    break
                column = cleaner.gives(column)
            columns.append(column)
        if mistakes:
            raise SpecError("`data.clean`: " + "\n  ".join(mistakes), fix="Change the steps, or the column's type under `columns: {...}`.")
        return Schema(columns=tuple(columns))

    def apply(self, rows: Cleaned) -> Cleaned:
        import polars as pl
        import pyarrow as pa

        from modelinscale.data.arrow import arrow_type, column_of

        arrays, fields, changed = [], [], dict[str, int]()
        faults: list[Faults] = [rows.faults]
        for field, array in zip(rows.batch.schema, rows.batch.columns, strict=True):
            column = column_of(field.name, field.type)
            values = before = pl.Series(field.name, array)
            steps = self.of(column)
            for cleaner in steps:
                given = values
                values, why = cleaner.apply(values, column)
                if why is not None:
                    faults.append(_faults(given, why))
                column = cleaner.gives(column)
            if not steps:
                arrays.append(array)
                fields.append(field)
                continue
            changed[field.name] = _n_changed(before, values)
            kind = arrow_type(column)
            arrays.append(values.to_arrow().cast(kind))
            fields.append(pa.field(field.name, kind, column.nullable))
        batch = pa.record_batch(arrays, schema=pa.schema(fields)) if arrays else rows.batch
        return Cleaned(batch, _joined(faults), {name: n for name, n in changed.items() if n})

    def dropping(self, schema: Schema) -> tuple[tuple[str, ...], ...]:
        """Sets of columns in which a row that equals an earlier one is taken away. Raises `SpecError` for columns that are not there."""
        found: list[tuple[str, ...]] = []
        for name, wanted in self.cleaners.items():
            for cleaner in wanted:
                if cleaner.across_rows:
                    more = tuple(getattr(cleaner, "columns", ()))
                    one = schema.names if name == EVERY and not more else tuple(dict.fromkeys((*(() if name == EVERY else (name,)), *more)))
                    missing = [n for n in one if n not in schema]
                    if missing:
                        raise SpecError(f"`data.clean`: `dedupe` names {missing[0]!r}, which is not a column.{did_you_mean(missing[0], schema.names)}")
                    found.append(one)
        return tuple(dict.fromkeys(found))


def _n_changed(before: "pl.Series", after: "pl.Series") -> int:
    """Cells that are others now. Where the type changed: cells whose number is not what the text says as it stands."""
    import polars as pl

    if before.dtype != after.dtype:
        if before.dtype != pl.String or not after.dtype.is_numeric():
            return int((before.is_null() != after.is_null()).sum())
        before = before.cast(after.dtype, strict=False)
    return int(before.ne_missing(after).sum())


def _faults(given: "pl.Series", why: "pl.Series") -> Faults:
    import polars as pl
    import pyarrow as pa

    at = why.is_not_null().arg_true()
    shown = given.gather(at).cast(pl.String).str.slice(0, SHOWN_CHARS)
    names = pa.repeat(pa.scalar(given.name, pa.string()), len(at))
    return Faults(pa.array(at.to_numpy().astype("int64")), names, _text(why.gather(at)), _text(shown))


def _text(values: "pl.Series") -> "pa.Array":
    import pyarrow as pa

    found = values.to_arrow().cast(pa.string())
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _joined(faults: list[Faults]) -> Faults:
    import pyarrow as pa

    if len(faults) == 1:
        return faults[0]
    return Faults(*(pa.concat_arrays([getattr(f, name) for f in faults]) for name in ("row", "column", "reason", "value")))


def frozen(cleaners: Mapping[str, tuple[Cleaner, ...]], rows: Iterable[Cleaned]) -> dict[str, tuple[Cleaner, ...]]:
    """The cleaners with bounds that are learned from rows (see `Outliers.spread`) found in these, each after the steps before it."""
    import polars as pl

    from modelinscale.data.arrow import column_of

    if not unfrozen(cleaners):
        return dict(cleaners)
    parts = [r.batch for r in rows]
    settled = dict(cleaners)
    for name, wanted in cleaners.items():
        if not any(getattr(c, "spread", None) is not None for c in wanted):
            continue
        values = pl.concat([pl.Series(name, p.column(name)) for p in parts]) if parts else pl.Series(name, [], pl.Float64)
        column, made = column_of(name, parts[0].schema.field(name).type) if parts else Column(name=name, type="float"), []
        for cleaner in wanted:
            freeze = getattr(cleaner, "frozen", None)
            one: Cleaner = freeze(values) if freeze else cleaner
            made.append(one)
            values, column = one.apply(values, column)[0], one.gives(column)
        settled[name] = tuple(made)
    return settled


def unfrozen(cleaners: Mapping[str, tuple[Cleaner, ...]]) -> bool:
    """Whether any bound is still to be learned."""
    return any(getattr(c, "spread", None) is not None for wanted in cleaners.values() for c in wanted)


def served_cleaning(inputs: Iterable["InputColumn"]) -> Cleaning | None:
    """The cleaning of a package's input columns, for rows that are answered many at a time; None where nothing is cleaned."""
    found = {column.name: tuple(Cleaner.parse(step) for step in column.clean) for column in inputs if column.clean}
    # A row to be answered is not put into quarantine, here as with the server.
    found = {name: tuple(c for c in steps if getattr(c, "to", None) != "quarantine") for name, steps in found.items()}
    return Cleaning(found) if found else None
