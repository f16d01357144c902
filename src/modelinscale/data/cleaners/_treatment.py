"""All cleaners of a model.yaml as one treatment, and what must be known before the first row: how columns are read, and bounds that are frozen."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.schema import Column, Schema
from modelinscale.data.by_column import parse, tell
from modelinscale.data.clean import SHOWN_CHARS, Cleaned, Faults
from modelinscale.data.cleaners import Cleaner
from modelinscale.data.cleaners.fill import Fill

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
    mistakes += _misfills(found)
    tell(mistakes)
    return found


def _misfills(cleaners: Mapping[str, tuple[Cleaner, ...]]) -> list[SpecError]:
    """What is wrong with fills from other columns. A row that is clean must stay as it is when it is cleaned again: golden rows rely on it."""
    mistakes = []
    sources = {name: one.beside for name, steps in cleaners.items() for one in steps if one.beside}
    for name, others in sources.items():
        steps = [c for c in cleaners[name] if not c.across_rows]
        at = next(i for i, one in enumerate(steps) if one.beside)
        told = partial(_misfill, name)
        if name == EVERY:
            mistakes.append(told("one column cannot fill all others", "Name the column that is filled."))
        if name in others:
            mistakes.append(told("it cannot fill itself", "Name another column."))
        if any(one.beside for one in steps[at + 1 :]):
            mistakes.append(told("it is filled twice", "Name all columns in one step: `fill: {column: [a, b]}`, the first that has a value counts."))
        if any(one.type == "fill" for one in steps[:at]):
            mistakes.append(told("no cell is missing any more when it is filled from another column", "Put the value behind the column."))
        for one in steps[at + 1 :]:
            if not one.beside and (one.type not in ("fill", "outliers") or getattr(one, "to", None) == "null" or getattr(one, "spread", None) is not None):
                why = f"`{one.type}` behind a fill from another column would take values away or change them again"
                mistakes.append(told(why, "Put it before the fill; a fill with a value and `outliers: [low, high]` may stand behind."))
        for other in others:
            more = [n for n in sources.get(other, ()) if n not in (name, *others)]
            if more:
                mistakes.append(told(f"{other!r}, from which it is filled, is itself filled from {more[0]!r}", f"Name {more[0]!r} here too, or not there."))
            steps = [c for c in cleaners.get(other, ()) if not c.across_rows]
            if other in sources and not steps[-1].beside:
                mistakes.append(
                    told(f"{other!r}, from which it is filled, is changed after it was filled itself", f"End the steps of {other!r} with that fill.")
                )
    return mistakes


def _misfill(name: str, what: str, fix: str) -> SpecError:
    return SpecError(f"{name}: {what}.", fix=fix)


def _unsettled(cleaners: tuple[Cleaner, ...]) -> tuple[object, object, str] | None:
    """A value that a step gives and the steps together would change again, what they make of it, and the step."""
    from modelinscale.package._cell_words import Unreadable
    from modelinscale.package._clean import rule_of

    steps = [c for c in cleaners if not c.across_rows and getattr(c, "spread", None) is None]
    given: list[tuple[Any, int]] = []
    for i, cleaner in enumerate(steps):
        plain = cleaner.plain()
        found = [plain.get("value")] if cleaner.type == "fill" else [new for _, new in plain["values"]] if cleaner.type == "replace" else []
        given += [(value, i) for value in found if value is not None]
    rules = [rule_of(c.step()) for c in steps]
    for value, at in given:
        try:
            once = _through(rules[at + 1 :], value)
            twice = _through(rules, once)
        except (Unreadable, TypeError):
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

    def own(self, column: Column) -> tuple[Cleaner, ...]:
        """Of these, the ones before a fill from other columns: what they leave is what fills others."""
        steps = self.of(column)
        return steps[: next((i for i, one in enumerate(steps) if one.beside), len(steps))]

    def schema(self, schema: Schema) -> Schema:
        mistakes = [f"there is no column {name!r}.{did_you_mean(name, schema.names)}" for name in self.cleaners if name != EVERY and name not in schema]
        columns = []
        for column in schema.columns:
            raw = column
            for cleaner in self.of(column):
                objection = cleaner.objection(column) or self._misfit(raw, column, cleaner, schema)
                if objection:
                    mistakes.append(f"{column.name}: {objection}.")
                    break
                column = cleaner.gives(column)
            columns.append(column)
        if mistakes:
            raise SpecError("`data.clean`: " + "\n  ".join(mistakes), fix="Change the steps, or the column's type under `columns: {...}`.")
        return Schema(columns=tuple(columns))

    def _misfit(self, raw: Column, column: Column, cleaner: Cleaner, schema: Schema) -> str:
        """Why the columns it looks at do not fit."""
        units = _unit_of(self.own(raw))
        for name in cleaner.beside:
            if name not in schema:
                return f"`{cleaner.type}` names {name!r}, which is not a column.{did_you_mean(name, schema.names)}"
            other, theirs = _after(schema[name], self.own(schema[name])), _unit_of(self.own(schema[name]))
            if other.type != column.type and (other.type, column.type) != ("int", "float"):
                return f"{name!r} is {other.type} once it is cleaned, and this column {column.type}: `cast` one of them"
            if units != theirs and (theirs is not None or schema[name].affixes):
                return f"{name!r} is not in {units or 'a plain number'} as this column is: give both the same `units`"
        return ""

    def apply(self, rows: Cleaned) -> Cleaned:
        import polars as pl
        import pyarrow as pa

        from modelinscale.data.arrow import arrow_type, column_of

        found: dict[str, pl.Series] = {}
        faults: list[Faults] = [rows.faults]
        raws = {field.name: column_of(field.name, field.type) for field in rows.batch.schema}

        def through(name: str, column: Column, steps: Iterable[Cleaner]) -> Column:
            for cleaner in steps:
                given = found[name]
                found[name], why = cleaner.apply(given, column)
                if why is not None:
                    faults.append(_faults(given, why))
                column = cleaner.gives(column)
            return column

        before = {name: pl.Series(name, array) for name, array in zip(raws, rows.batch.columns, strict=True)}
        found |= before
        columns = {name: through(name, raw, self.own(raw)) for name, raw in raws.items()}
        own = dict(found)
        for name, raw in raws.items():
            for cleaner in self.of(raw)[len(self.own(raw)) :]:
                if cleaner.beside:
                    assert isinstance(cleaner, Fill)
                    others = [own[other] for other in cleaner.beside if other in own]
                    found[name] = cleaner.from_beside(found[name], others, self.own(raw), columns[name])
                else:
                    columns[name] = through(name, columns[name], (cleaner,))
        arrays, fields, changed = [], [], dict[str, int]()
        for field, array in zip(rows.batch.schema, rows.batch.columns, strict=True):
            name = field.name
            if not self.of(raws[name]):
                arrays.append(array)
                fields.append(field)
                continue
            changed[name] = _n_changed(before[name], found[name])
            kind = arrow_type(columns[name])
            arrays.append(found[name].to_arrow().cast(kind))
            fields.append(pa.field(name, kind, columns[name].nullable))
        batch = pa.record_batch(arrays, schema=pa.schema(fields)) if arrays else rows.batch
        return Cleaned(batch, _joined(faults), {name: n for name, n in changed.items() if n})

    def steps(self, column: Column, schema: Schema) -> list[dict[str, Any]]:
        """A column's steps as the package keeps them: where other columns fill it, with how those come and are cleaned."""
        return [{**one.step(), **({"beside": [self._beside(schema[name]) for name in one.beside]} if one.beside else {})} for one in self.of(column)]

    def _beside(self, raw: Column) -> dict[str, Any]:
        own = self.own(raw)
        return {"raw": raw.plain(), "steps": [one.step() for one in own], "column": _after(raw, own).plain()}

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


def _after(column: Column, steps: Iterable[Cleaner]) -> Column:
    for one in steps:
        column = one.gives(column)
    return column


def _unit_of(steps: Iterable[Cleaner]) -> str | None:
    """The unit that the last `units` gives."""
    found = [str(one.plain()["to"]) for one in steps if one.type == "units"]
    return found[-1] if found else None


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


def served_cleaning(inputs: Sequence["InputColumn"]) -> Cleaning | None:
    """The cleaning of a package's input columns, for rows that are answered many at a time; None where nothing is cleaned."""
    found: dict[str, tuple[Cleaner, ...]] = {}
    for column in inputs:
        for other in (one for step in column.clean for one in step.get("beside", ())):
            if other["steps"]:
                found.setdefault(other["column"]["name"], tuple(Cleaner.parse(step) for step in other["steps"]))
    for column in inputs:
        if column.clean:
            found[column.name] = tuple(Cleaner.parse({k: v for k, v in step.items() if k != "beside"}) for step in column.clean)
    # A row to be answered is not put into quarantine, here as with the server.
    found = {name: tuple(c for c in steps if getattr(c, "to", None) != "quarantine") for name, steps in found.items()}
    return Cleaning(found) if found else None
