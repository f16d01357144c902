"""A bounded look at the data: enough of it, cleaned, to say what the columns are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelinscale.core.errors import SourceError, SpecError, did_you_mean
from modelinscale.core.schema import NESTED, Column, ColumnType, Schema
from modelinscale.core.task import Targets
from modelinscale.data.sources import Source

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.data.infer import Profile
    from modelinscale.data.treatment import Treatment
    from modelinscale.spec import ModelSpec

LOOK_ROWS = 200_000
"""Rows looked at before a model.yaml is written; small files whole."""
LOOK_BYTES = 64 << 20
"""And never more than this much of them in memory."""


@dataclass(frozen=True)
class Look:
    """What was seen."""

    schema: Schema
    frame: pl.DataFrame
    """The rows looked at, typed; N rows."""
    profiles: dict[str, Profile]
    exact: bool
    """Whether these rows are all there are."""

    @property
    def n_rows(self) -> int:
        return len(self.frame)


def look(source: Source, force: Mapping[str, ColumnType], target: Targets, treatments: Sequence[Treatment] = (), text: Collection[str] = ()) -> Look:
    """The first rows of a source, typed, treated and profiled; the types as `schema_of` says. Raises `SourceError` when there are no rows."""
    import polars as pl
    import pyarrow as pa

    from modelinscale.data.clean import clean
    from modelinscale.data.infer import profile
    from modelinscale.data.treatment import treat, treated_schema

    schema = schema_of(source, force, target, text)
    treated = treated_schema(schema, treatments)
    batches, n_rows, n_bytes, exact = [], 0, 0, True
    for chunk in source.read(None, schema):
        batch = treat(clean(chunk.batch, schema), treatments).batch
        batches.append(batch)
        n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + batch.nbytes
        if n_rows >= LOOK_ROWS or n_bytes >= LOOK_BYTES:
            exact = False
            break
    if not n_rows:
        raise SourceError("the source has no rows.", fix="Check the path; a header alone is not enough.")
    table = pa.Table.from_batches(batches).slice(0, LOOK_ROWS)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return Look(treated, frame, profile(table), exact)


def schema_of(source: Source, force: Mapping[str, ColumnType], target: Targets, text: Collection[str] = ()) -> Schema:
    """The columns of a source, some types held by force. Raises `SpecError` for forced columns that are not there.

    ``text``: columns whose cells are cleaned as they were written, so they are read as text wherever the source has text.
    A target written in two words (``yes`` / ``no``) stays text: answers are given in the words they were learned from. Several targets are flags then.
    """
    from modelinscale.data.arrow import is_text
    from modelinscale.data.infer import infer

    schema = source.columns()
    unknown = [name for name in force if name not in schema]
    if unknown:
        raise SpecError(_unknown("data.columns", unknown, schema), fix=_all(schema))
    held = dict(force)
    if isinstance(target, str) and target in schema and target not in force and schema[target].type == "bool" and set(schema[target].true_words) - {"true"}:
        held[target] = "string"
    both = [f"{name} ({force[name]})" for name in text if force.get(name, "string") != "string"]
    if both:
        raise SpecError(f"`data.columns` names a type for what `data.clean` reads as text: {', '.join(both)}.", fix="Let `cast: {to: ...}` name the type.")
    if not held and not text:
        return schema
    sample = source.sample()
    if sample is not None:
        held |= {name: "string" for name in text if name in schema and is_text(sample.schema.field(name).type)}
    if sample is not None:
        return infer(sample, force=held, typed=source.typed)
    return Schema(columns=tuple(_as(column, held.get(column.name, column.type)) for column in schema.columns))


def _as(column: Column, type: ColumnType) -> Column:
    if column.type == type:
        return column
    if {type, column.type} & set(NESTED):
        raise SpecError(f"`data.columns`: {column.name!r} is {column.type} and cannot be held as {type}.", fix="Leave it out of `data.columns`.")
    return Column(name=column.name, type=type, nulls=column.nulls)


def named(spec: ModelSpec, schema: Schema) -> None:
    """Refuses, all at once, columns that model.yaml names and the data does not have."""
    places: list[tuple[str, list[str]]] = [
        ("target", list(spec.targets)),
        ("data.key", list(spec.data.key)),
        ("data.time", [spec.data.time] if spec.data.time else []),
        ("data.person", [spec.data.person] if spec.data.person else []),
        ("data.checks", [name for name in spec.data.checks if name != "*"]),
        ("data.leave_out", list(spec.data.leave_out)),
        ("data.split", [*spec.data.split.group, *([spec.data.split.column] if spec.data.split.column else [])]),
        ("features", list(spec.features)),
        ("evaluate.slices", list(spec.evaluate.slices)),
        ("evaluate.cost", list(spec.evaluate.cost_columns)),
        ("train.weight", [spec.train.weight] if spec.train.weight else []),
    ]
    _refuse_unknown([*places, *_of_roles(spec)], schema)


def named_by_roles(spec: ModelSpec, schema: Schema) -> None:
    """Refuses columns that a role's rules name and the table does not have: they would protect nothing."""
    _refuse_unknown(_of_roles(spec), schema)


def _of_roles(spec: ModelSpec) -> list[tuple[str, list[str]]]:
    # What is dropped may be denied as well: the rule holds where the personal one is taken back.
    return [(f"access.roles.{role}", [n for n in names if n not in spec.data.personal]) for role, names in spec.access.named().items()]


def _refuse_unknown(places: Sequence[tuple[str, list[str]]], schema: Schema) -> None:
    wrong = [_unknown(place, missing, schema) for place, names in places if (missing := [n for n in names if n not in schema])]
    if wrong:
        raise SpecError("columns are named that the data does not have:\n  " + "\n  ".join(wrong), fix=_all(schema))


def _unknown(place: str, names: list[str], schema: Schema) -> str:
    return f"{place}: " + ", ".join(f"{n!r}{did_you_mean(n, schema.names).rstrip('?') + '?' if did_you_mean(n, schema.names) else ''}" for n in names)


def _all(schema: Schema) -> str:
    more = f" and {len(schema.names) - 30} more" if len(schema.names) > 30 else ""
    return f"Columns: {', '.join(schema.names[:30])}{more}."
