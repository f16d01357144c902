"""Step 1, collect: new rows of the source into a version of the table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import SpecError
from modelinscale.core.identity import identity
from modelinscale.pipeline._followed import bringing, followed
from modelinscale.pipeline._look import named, schema_of
from modelinscale.pipeline._place import Facts, Place, Result
from modelinscale.pipeline._report import report_before, write_report

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from modelinscale.core.schema import Schema
    from modelinscale.data._brought import Brought
    from modelinscale.data.clean import Cleaned
    from modelinscale.data.cleaners import Cleaner
    from modelinscale.data.cleaners._treatment import Cleaning
    from modelinscale.data.collect import Collected
    from modelinscale.data.sources import Source
    from modelinscale.data.treatment import Treatment
    from modelinscale.pipeline._context import Context


ALONE = 12
"""Up to so many files that have not been read are looked at one by one, more in groups of so many: what a look reads is shared among a group."""
KEPT_CLEAN = "clean"
"""Under this name a table keeps the cleaners whose bounds were found in its first rows."""


def inputs(place: Place, done: dict[str, Result]) -> Facts:
    """The table (which follows from source, types and contract) and what the source says it has now; or what a follower has brought by now."""
    table = table_name(place)
    if followed(place, table):
        return {"table": table, "followed": _stands_at(place.store.uri("lake", table))}
    return {"table": table, "source": place.spec.source_at(place.base).fingerprint()}


def table_name(place: Place) -> str:
    """One table for one source under one contract: rows that came in under another contract are another table.

    The target is part of it: whether its words stay words depends on it (see `schema_of`).
    """
    data = place.spec.data
    more = [part for part in ({name: list(steps) for name, steps in data.clean.items()}, data.personal) if part]
    made_of = identity(data.source.feed(), data.columns, {k: list(v) for k, v in data.checks.items()}, data.key, place.spec.target, *more)
    return f"{place.spec.name}-{made_of[:8]}"


def quarantine_name(table: str) -> str:
    return f"{table}.quarantine"


@dataclass(frozen=True)
class Job:
    """What is to be collected, and how: for `collect` and for a follower."""

    source: Source
    table: str
    schema: Schema
    """Of the table."""
    clean: Facts
    """Cleaned columns: how their cells come, and what is done to them."""
    how: dict[str, Any]
    """The arguments that both take."""


def job(place: Place) -> Job:
    """What model.yaml asks to be collected. Raises `SpecError` where it names columns that are not there, and what the source raises."""
    from modelinscale.data.cleaners._treatment import Cleaning, as_text, unfrozen
    from modelinscale.data.contract import contract
    from modelinscale.data.privacy import refuse_other_keys
    from modelinscale.data.treatment import treated_schema

    spec = place.spec
    source, table = source_of(place), table_name(place)
    _cursor_tells_nobody(place, source)
    lake = place.store.uri("lake", table)
    reads = _reads(place, source, lake, as_text(spec.data.clean))
    cleaning = Cleaning(_settled(spec.data.clean, source, lake, reads))
    treatments = treatments_of(place, cleaning)
    schema = treated_schema(reads, treatments)
    named(spec, schema)
    refuse_other_keys(lake, treatments)
    checks = {name: tuple(check.at(place.base) for check in wanted) for name, wanted in spec.data.checks.items()}
    how = {
        "lake": lake,
        "quarantine": place.store.uri("lake", quarantine_name(table)),
        "contract": replace(contract(schema, checks, spec.data.key, cleaning.dropping(schema)), replaces=spec.data.write == "upsert"),
        "compute": spec.compute,
        "reads": reads,
        "treatments": treatments,
        "facts": {KEPT_CLEAN: {name: [one.plain() for one in steps] for name, steps in cleaning.cleaners.items()}} if unfrozen(spec.data.clean) else {},
    }
    return Job(source, table, schema, _clean_facts(cleaning, reads), how)


def _cursor_tells_nobody(place: Place, source: Source) -> None:
    """Raises `SpecError` where the cursor, which lies in the lake, would hold cells of a personal column."""
    told = [name for name in source.remembers() if name in place.spec.data.personal] if place.spec.data.personal else []
    if told:
        raise SpecError(
            f"the source remembers by {', '.join(map(repr, told))} how far it is read, and `data.personal` names that: its cells would stand in the lake.",
            fix="Put rows in order by a number that names nobody (`cursor`, `key`), or leave the personal column out of what puts them in order.",
        )


def work(context: Context, folder: Path) -> Facts:
    """Reads, cleans, checks and appends. The table is its own truth: a kill here loses nothing, the next run goes on from its cursor."""
    from modelinscale.data.collect import collect, standing

    asked = job(context.place)
    if followed(context.place, asked.table):
        collected = standing(asked.how["lake"])
        collected = replace(collected, notes=(*collected.notes, "taken as it stands: `mis collect --follow` brings rows into this table."))
    else:
        with bringing(context.place, asked.table):
            context.progress("collect", 0.0, "reading")

            def report(found: Collected, brought: Brought) -> None:
                write_report(folder, context.place, asked, found, brought, report_before(context.place, asked.table))

            collected = collect(asked.source, progress=context.report("collect"), report=report, **asked.how)
    content = _content(asked.source, asked.how["lake"], collected.version)
    facts = {"table": asked.table, **asdict(collected), "content": content, "schema": asked.schema.plain()}
    return facts | ({"clean": asked.clean} if asked.clean else {})


def treatments_of(place: Place, cleaning: Cleaning | None = None) -> tuple[Treatment, ...]:
    """What model.yaml asks to be done to rows before the contract, in order: cleaning first, so that what is personal is recognised; privacy last.

    ``cleaning``: with the bounds that the table keeps; left out: as the file has it.
    """
    data = place.spec.data
    found: list[Treatment] = []
    if data.clean:
        from modelinscale.data.cleaners._treatment import Cleaning

        found.append(cleaning or Cleaning(data.clean))
    if data.personal:
        from modelinscale.core.secrets import anchored
        from modelinscale.data.privacy import Privacy

        found.append(Privacy(data.personal, anchored(data.pseudonym_key, place.base)))
    return tuple(found)


def _settled(clean: Mapping[str, tuple[Cleaner, ...]], source: Source, uri: str, reads: Schema) -> Mapping[str, tuple[Cleaner, ...]]:
    """The cleaners with every bound known: those that the table keeps, or found in the first rows there are."""
    from modelinscale.data.clean import clean as typed
    from modelinscale.data.cleaners import Cleaner
    from modelinscale.data.cleaners._treatment import frozen, unfrozen
    from modelinscale.data.lake import open_table, table_exists
    from modelinscale.pipeline._look import LOOK_ROWS

    if not unfrozen(clean):
        return clean
    if table_exists(uri):
        return {name: tuple(Cleaner.parse(step) for step in steps) for name, steps in open_table(uri).last.facts[KEPT_CLEAN].items()}

    def first_rows() -> Iterator[Cleaned]:
        n_rows = 0
        for chunk in source.read(None, reads):
            yield typed(chunk.batch, reads)
            n_rows += chunk.batch.num_rows
            if n_rows >= LOOK_ROWS:
                return

    return frozen(clean, first_rows())


def _clean_facts(cleaning: Cleaning, reads: Schema) -> Facts:
    """How the cells of cleaned columns come, and what is done to them: what the package must do to a row as well."""
    return {column.name: {"raw": column.plain(), "steps": cleaning.steps(column, reads)} for column in reads.columns if cleaning.of(column)}


def _stands_at(uri: str) -> int | None:
    from modelinscale.data.lake import open_table, table_exists

    return open_table(uri).rows_version if table_exists(uri) else None


def stands(place: Place, facts: Facts) -> bool:
    """Whether the table is still there."""
    from modelinscale.data.lake import table_exists

    return table_exists(place.store.uri("lake", facts["table"]))


def _content(source: Source, uri: str, version: int) -> str:
    """What the rows of this version are, in short: a table made again under the same name and number must not pass for the old one."""
    from modelinscale.data.lake import open_table

    cursor = open_table(uri, version).cursor
    return identity(None if cursor is None else source.content(cursor))


def source_of(place: Place) -> Source:
    """The source; where columns may come up, files that are older than they lack them."""
    from modelinscale.data.sources.joined import Joined

    source = place.spec.source_at(place.base)
    if place.spec.data.new_columns != "add":
        return source
    if isinstance(source, Joined):
        others = tuple(other.model_copy(update={"source": _sparse(other.source)}) for other in source.others)
        return source.model_copy(update={"main": _sparse(source.main), "others": others})
    return _sparse(source)


def _sparse(source: Source) -> Source:
    from modelinscale.data.sources._files import Files
    from modelinscale.data.sources.objects import Objects

    if isinstance(source, Objects):
        return source.model_copy(update={"reader": {**source.reader, "sparse": True}})
    return source.but(sparse=True) if isinstance(source, Files) else source


def _reads(place: Place, source: Source, lake: str, as_text: Any) -> Schema:
    """The columns as the source gives them: those that the table knows, and what model.yaml lets it take in of what has come up since.

    For a new table those of the source; files are looked at one by one besides where numbers may get a point.
    """
    from modelinscale.core.schema import Schema

    data = place.spec.data
    known = _known_schema(lake)
    start = schema_of(source, data.columns, place.spec.target, as_text) if known is None else known
    if not data.widen and (known is None or data.new_columns == "leave_out"):
        return start
    columns = {c.name: c for c in start.columns}
    for found in _arrived(place, source, lake, as_text, None if data.widen else start.names):
        for column in found.columns:
            before = columns.get(column.name)
            if before is None:
                if data.new_columns == "add":
                    columns[column.name] = column
            elif data.widen and (before.type, column.type) == ("int", "float") and column.name not in data.columns:
                columns[column.name] = column
    return Schema(columns=tuple(columns.values()))


def _arrived(place: Place, source: Source, lake: str, as_text: Any, known: Collection[str] | None) -> Iterator[Schema]:
    """The columns of a source as it is now; of files only where the table has not all rows yet, and with columns that are not ``known`` if that is given."""
    from modelinscale.data.lake import open_table, table_exists
    from modelinscale.data.sources._files import Files

    spec = place.spec
    if not isinstance(source, Files):
        yield schema_of(source, spec.data.columns, spec.target, as_text)
        return
    read = (open_table(lake).cursor or {}).get("files", {}) if table_exists(lake) else {}
    files = [path for path in source.found() if not _same(read.get(str(path)), path)]
    files = [path for path, names in source.names_of(files) if names and (known is None or not {*known, *source.without}.issuperset(names))]
    step = 1 if source.typed or len(files) <= ALONE else ALONE
    for part in (source.only(files[i : i + step]) for i in range(0, len(files), step)):
        there = part.columns()
        force = {name: kind for name, kind in spec.data.columns.items() if name in there}
        yield schema_of(part, force, spec.target, as_text) if force or as_text else there


def _same(place: Mapping[str, Any] | None, path: Path) -> bool:
    """Whether a file was read, and has not grown since."""
    return place is not None and place.get("size", path.stat().st_size) == path.stat().st_size


def _known_schema(uri: str) -> Schema | None:
    """The columns as the source of the table that is there gives them: how cells were read once is how they are read again."""
    from modelinscale.data.lake import open_table, table_exists

    return open_table(uri).read_schema if table_exists(uri) else None


def words(facts: Facts) -> str:
    quarantined = f", {facts['n_quarantined']:,} in quarantine" if facts["n_quarantined"] else ""
    doubled = f", {facts['n_dropped']:,} equal to earlier ones taken away" if facts.get("n_dropped") else ""
    return f"table version {facts['version']}, {facts['n_rows']:,} rows{doubled}{quarantined}"
