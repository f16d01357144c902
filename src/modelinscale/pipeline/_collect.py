"""Step 1, collect: new rows of the source into a version of the table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from modelinscale.core.identity import identity
from modelinscale.pipeline._look import named, schema_of
from modelinscale.pipeline._place import Facts, Place, Result

if TYPE_CHECKING:
    from modelinscale.core.schema import Schema
    from modelinscale.data.sources import Source
    from modelinscale.data.treatment import Treatment
    from modelinscale.pipeline._context import Context


def inputs(place: Place, done: dict[str, Result]) -> Facts:
    """The table (which follows from source, types and contract) and what the source says it has now."""
    return {"table": table_name(place), "source": place.spec.source_at(place.base).fingerprint()}


def table_name(place: Place) -> str:
    """One table for one source under one contract: rows that came in under another contract are another table.

    The target is part of it: whether its words stay words depends on it (see `schema_of`).
    """
    data = place.spec.data
    personal = [data.personal] if data.personal else []
    made_of = identity(data.source.feed(), data.columns, {k: list(v) for k, v in data.checks.items()}, data.key, place.spec.target, *personal)
    return f"{place.spec.name}-{made_of[:8]}"


def quarantine_name(table: str) -> str:
    return f"{table}.quarantine"


def work(context: Context, folder: Path) -> Facts:
    """Reads, cleans, checks and appends. The table is its own truth: a kill here loses nothing, the next run goes on from its cursor."""
    from modelinscale.data.collect import collect
    from modelinscale.data.contract import contract
    from modelinscale.data.privacy import refuse_other_keys
    from modelinscale.data.treatment import treated_schema

    place, spec = context.place, context.spec
    source, table = spec.source_at(place.base), table_name(place)
    reads = _known_schema(place.store.uri("lake", table)) or schema_of(source, spec.data.columns, spec.target)
    treatments = treatments_of(place)
    schema = treated_schema(reads, treatments)
    named(spec, schema)
    refuse_other_keys(place.store.uri("lake", table), treatments)
    context.progress("collect", 0.0, "reading")
    collected = collect(
        source,
        lake=place.store.uri("lake", table),
        quarantine=place.store.uri("lake", quarantine_name(table)),
        contract=contract(schema, spec.data.checks, spec.data.key),
        compute=spec.compute,
        progress=context.report("collect"),
        reads=reads,
        treatments=treatments,
    )
    return {"table": table, **asdict(collected), "content": _content(source, place.store.uri("lake", table), collected.version), "schema": schema.plain()}


def treatments_of(place: Place) -> tuple[Treatment, ...]:
    """What model.yaml asks to be done to rows before the contract, in order: cleaning first, so that what is personal is recognised; privacy last."""
    data = place.spec.data
    if not data.personal:
        return ()
    from modelinscale.core.secrets import anchored
    from modelinscale.data.privacy import Privacy

    return (Privacy(data.personal, anchored(data.pseudonym_key, place.base)),)


def stands(place: Place, facts: Facts) -> bool:
    """Whether the table is still there."""
    from modelinscale.data.lake import table_exists

    return table_exists(place.store.uri("lake", facts["table"]))


def _content(source: Source, uri: str, version: int) -> str:
    """What the rows of this version are, in short: a table made again under the same name and number must not pass for the old one."""
    from modelinscale.data.lake import open_table

    cursor = open_table(uri, version).cursor
    return identity(None if cursor is None else source.content(cursor))


def _known_schema(uri: str) -> Schema | None:
    """The columns as the source of the table that is there gives them: how cells were read once is how they are read again."""
    from modelinscale.data.lake import open_table, table_exists

    return open_table(uri).read_schema if table_exists(uri) else None


def words(facts: Facts) -> str:
    quarantined = f", {facts['n_quarantined']:,} in quarantine" if facts["n_quarantined"] else ""
    return f"table version {facts['version']}, {facts['n_rows']:,} rows{quarantined}"
