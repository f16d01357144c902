"""Forget a person: their rows go from the lake, from quarantine and from packages with all bytes, and what learned from them is named.

What cannot be taken out of a model is told: those versions are marked to be learned again, and the steps that led to them are done again by the next run.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.clock import now
from modelinscale.core.errors import LakeError, SpecError, UsageError
from modelinscale.core.files import write_bytes
from modelinscale.core.personal import Keys, made_by
from modelinscale.core.secrets import anchored, reveal
from modelinscale.pipeline import _register
from modelinscale.pipeline._collect import quarantine_name
from modelinscale.pipeline._lineage import audit_of
from modelinscale.pipeline._logged import SHORT, erase_logged
from modelinscale.pipeline._place import Place, Result, results

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.core.schema import Column
    from modelinscale.data.lake import Table
    from modelinscale.package.manifest import Manifest
    from modelinscale.track import Version

_NEXT = (("train", "rows"), ("evaluate", "model"), ("export", "evaluated"), ("register", "package"))
"""Each step after prepare, and the input that names the result of the step before."""


@dataclass(frozen=True)
class Seen:
    """A version of the model that learned from the rows, or may have."""

    version: int
    aliases: tuple[str, ...]
    table: str
    table_version: int | None
    sure: bool
    """Whether the rows were in that table version; False: it cannot be read any more."""
    golden_rows: int = 0
    """Rows of the person that its package held as examples; taken out."""
    still_holds: tuple[str, ...] = ()
    """Files of the package in which the value itself stands (it was a feature): only a new model and the removal of this one help."""


@dataclass(frozen=True)
class Forgotten:
    """What was removed, or (``dry_run``) would be."""

    column: str
    dry_run: bool
    rows: dict[str, int] = field(default_factory=dict)
    """Table -> rows in its newest version."""
    versions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Table -> versions that held the rows; they are gone."""
    quarantined: int = 0
    """Lines in quarantine."""
    logged: int = 0
    """Rows of the prediction log."""
    steps: int = 0
    """Results that the next run makes again."""
    models: tuple[Seen, ...] = ()
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def forget(place: Place, persons: Sequence[str], *, dry_run: bool = False, wait_s: float = 600.0) -> Forgotten:
    """Removes every trace of persons, named as the source names them.

    Raises `SpecError` when model.yaml does not say which column names a person, `UsageError` for no person, `StoreError` when others are at work.
    """
    column = _person_column(place)
    if not persons or not all(persons):
        raise UsageError("nobody is named.", fix="Name a person as the source does: `mis forget --key 4111...`; `--key -` reads lines from standard input.")
    with place.store.lock("lock", wait_s=wait_s):
        return _Forgetting(place, column, persons, dry_run).all()


def _person_column(place: Place) -> str:
    data = place.spec.data
    column = data.person or (data.key[0] if len(data.key) == 1 else None)
    if column is None:
        raise SpecError("`data` does not say which column names a person.", fix="Write `person: COLUMN` under `data`.")
    if column in data.personal and data.personal[column].type != "pseudonym":
        raise SpecError(f"{column!r} is not kept (`data.personal`), so nobody can be found by it.", fix="Use `pseudonym` for it, and collect again.")
    return column


class _Forgetting:
    """One call of `forget`."""

    def __init__(self, place: Place, column: str, persons: Sequence[str], dry_run: bool) -> None:
        from modelinscale.data.lake import open_table

        self.place, self.column, self.persons, self.dry_run = place, column, persons, dry_run
        self._secrets = [reveal(one) for one in anchored(place.spec.data.pseudonym_key, place.base)]
        self._tables = [(name, open_table(place.store.uri("lake", name))) for name in tables_of(place)]
        cleaned = [word for _, table in self._tables for word in _cleaned(place, table, column, persons)]
        chains = [Keys(self._secrets[:n]) for n in range(1, len(self._secrets) + 1)]
        named = list(dict.fromkeys([*persons, *cleaned]))
        self.words = list(dict.fromkeys([*named, *(keys.pseudonym(one) for keys in chains for one in named)]))
        """The persons in every form in which they may be stored: raw, cleaned, and as each chain of keys writes them."""
        self._frames: dict[str, pl.DataFrame] = {}

    def all(self) -> Forgotten:
        found = Forgotten(self.column, self.dry_run)
        rows: dict[str, int] = {}
        seen: dict[str, dict[int, int]] = {}
        readable: dict[str, set[int]] = {}
        notes: list[str] = []
        for name, table in self._tables:
            if self.column not in table.schema:
                notes.append(f"table {name} has no column {self.column!r}: nothing was looked for in it.")
                continue
            self._refuse_other_keys(name, table)
            cells = self._cells(table.schema[self.column])
            readable[name] = {v.number for v in table.versions()}
            seen[name] = {version: n for version, n in table.rows_of(self.column, cells).items() if n}
            rows[name] = seen[name].get(table.version, 0)
            self._frames[name] = self._rows(table, cells, seen[name])
        quarantined = sum(self._quarantine(name, dry_run=True) for name, _ in self._tables)
        models = tuple(self._models(seen, readable, dry_run=True))
        steps = steps_on(self.place, seen, readable)
        log = erase_logged(self.place.spec, self.place.base, self.column, self.words, dry_run=True)
        if not self.dry_run:
            # The tables last: they tell what was made from the rows, to a call as well that goes on after this one was killed.
            self._begin(rows, quarantined, models, log.n_rows)
            for step in steps:
                self.place.discard(step)
            if steps or any(seen.values()):
                shutil.rmtree(self.place.store.path("work"), ignore_errors=True)  # encoded rows and checkpoints
            list(self._models(seen, readable, dry_run=False))
            log = erase_logged(self.place.spec, self.place.base, self.column, self.words, dry_run=False)
            for name, table in self._tables:
                self._quarantine(name, dry_run=False)
                table.sweep()  # what killed writers left holds rows that no version has
                if seen.get(name):
                    table.erase(self.column, self._cells(table.schema[self.column]), run="forget")
        if log.names_nobody:
            notes.append(f"{self.column!r} is no input of the model: rows of the prediction log do not say whose they are, unless their request ids do.")
        notes += ["the source still has the rows, unless they were removed there: a table made anew would bring them again."] if any(rows.values()) else []
        return replace(
            found,
            rows=rows,
            versions={name: tuple(sorted(of)) for name, of in seen.items() if of},
            quarantined=quarantined,
            logged=log.n_rows,
            steps=len(steps),
            models=models,
            notes=tuple(notes),
        )

    def _begin(self, rows: Mapping[str, int], quarantined: int, models: Sequence[Seen], logged: int) -> None:
        """The audit line, before anything goes; it names nobody: a keyed hash can be checked by who knows person and key."""
        who = []
        if self._secrets:
            who = [
                blake2b(one.encode(), digest_size=16, key=sha256(self._secrets[0].encode()).digest(), person=b"mis.forget").hexdigest() for one in self.persons
            ]
        refit = [m.version for m in models]
        audit_of(self.place).write(
            "forget", f"{len(self.persons)} of {self.column}", persons=who, rows=dict(rows), quarantined=quarantined, logged=logged, refit=refit
        )

    # -- the lake

    def _refuse_other_keys(self, name: str, table: Table) -> None:
        """Raises `LakeError` when the table's pseudonyms were made by keys that the file does not list: under others nobody would be found."""
        from modelinscale.data.privacy import first_cell

        found = made_by(first_cell(table, [self.column]))
        known = Keys(self._secrets).ids if self._secrets else ()
        if found is None or found in known or all(one.startswith(f"{found}.") for one in self.persons):
            return
        raise LakeError(
            f"the pseudonyms in table {name} were made by other keys ({found}) than `data.pseudonym_key` names now ({', '.join(known) or 'none'}):"
            " nobody can be found among them, and nothing was removed.",
            fix="Name the keys that made them, the oldest first.",
        )

    def _cells(self, column: Column) -> list[Any]:
        """The persons as cells of a column's type; a form that the type cannot hold is not there."""
        if column.type == "string":
            return list(self.words)
        if column.type not in ("int", "float"):
            raise SpecError(f"{column.name!r} is a column of type {column.type}: persons cannot be looked for in it.", fix="Name another `data.person`.")
        kind = int if column.type == "int" else float
        found = []
        for word in self.words:
            try:
                found.append(kind(word))
            except ValueError:
                continue
        return found

    def _rows(self, table: Table, cells: Sequence[Any], seen: Mapping[int, int]) -> pl.DataFrame:
        """The persons' rows of every version."""
        import polars as pl
        import pyarrow as pa

        parts = []
        for version in seen:
            for block in table.at(version).blocks():
                frame = pl.DataFrame(pa.Table.from_batches([block]))
                parts.append(frame.filter(pl.col(self.column).is_in(list(cells))))
        return pl.concat(parts).unique() if parts else pl.DataFrame()

    def _quarantine(self, name: str, *, dry_run: bool) -> int:
        """Lines of rows in which a person's value stands as a word, with the other lines of those rows; short values in the person's own column only."""
        from modelinscale.data.lake import open_table, table_exists

        uri = self.place.store.uri("lake", quarantine_name(name))
        if not table_exists(uri):
            return 0
        table = open_table(uri)
        hit: set[int] = set()
        lines: list[int] = []
        own, as_word = set(self.words), _as_word(self.words)
        for block in table.blocks(["row", "column", "value"]):
            for row, column, value in zip(*(cells.to_pylist() for cells in block.columns), strict=True):
                lines.append(row)
                if value is not None and (as_word(value) or (value in own and self.column in (column or "").split(", "))):
                    hit.add(row)
        if hit and not dry_run:
            table.erase("row", sorted(hit), run="forget")
        return sum(row in hit for row in lines)

    # -- what learned from them

    def _models(self, seen: Mapping[str, Mapping[int, int]], readable: Mapping[str, set[int]], *, dry_run: bool) -> Iterator[Seen]:
        """Versions that saw the rows, or may have: made from a table version that cannot be read any more while the person is, or is still in the package."""
        from modelinscale.package.manifest import read_manifest

        for version in _register.tracker(self.place).versions(self.place.spec.name):
            if not version.folder.is_dir():
                continue
            manifest = read_manifest(version.folder)
            table, number = manifest.lineage.table, manifest.lineage.table_version
            sure = number in seen.get(table, ())
            if not sure and number in readable.get(table, ()):
                continue
            frame = self._frames.get(table)
            golden = self._clean_package(version, manifest, frame, dry_run=True)
            holds = self._holds(version.folder)
            if sure or seen.get(table) or golden or holds:
                if not dry_run:
                    self._clean_package(version, manifest, frame, dry_run=False)
                yield Seen(version.number, version.aliases, table, number, sure, golden, holds)

    def _clean_package(self, version: Version, manifest: Manifest, frame: pl.DataFrame | None, *, dry_run: bool) -> int:
        """Takes the persons' rows out of the golden rows and marks the package; gives how many they were."""
        from modelinscale.export._golden import json_rows
        from modelinscale.package.manifest import FileFacts

        golden = json.loads((version.folder / "golden.json").read_bytes())
        theirs = set()
        if frame is not None and len(frame):
            there = [c for c in manifest.inputs if c.name in frame.columns]
            known = json_rows(frame, [c.column for c in there], {c.name: c.clean for c in there})
            theirs = {json.dumps(row, sort_keys=True) for row in known}
        stay = [i for i, row in enumerate(golden["rows"]) if not row or (json.dumps(row, sort_keys=True) not in theirs and not self._in(json.dumps(row)))]
        n_gone = len(golden["rows"]) - len(stay)
        if dry_run:
            return n_gone
        golden |= {"rows": [golden["rows"][i] for i in stay], "answers": [golden["answers"][i] for i in stay]}
        content = (json.dumps(golden, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode("utf-8", "surrogatepass")
        write_bytes(version.folder / "golden.json", content)
        facts = {**manifest.files, "golden.json": FileFacts(sha256=sha256(content).hexdigest(), size_bytes=len(content))}
        manifest.but(files=facts, refit=f"{now():%Y-%m-%d}: rows it learned from were erased").write(version.folder)
        return n_gone

    def _in(self, text: str) -> bool:
        return any(word in text for word in self.words if len(word) > SHORT)

    def _holds(self, folder: Path) -> tuple[str, ...]:
        """Files in which a person's value itself stands: it was a word of a feature."""
        words = [word.encode() for word in self.words if len(word) > SHORT]
        names = (n for n in ("model.onnx", "reference.json", "card.md", "manifest.json") if (folder / n).is_file())
        return tuple(name for name in names if any(word in (folder / name).read_bytes() for word in words))


def _cleaned(place: Place, table: Table, column: str, persons: Sequence[str]) -> list[str]:
    """The persons as the cells of a table came to be: read and cleaned like the source's. What becomes the same as a missing cell is nobody's."""
    import pyarrow as pa

    from modelinscale.core.personal import text_of
    from modelinscale.data.clean import clean
    from modelinscale.data.cleaners._treatment import EVERY, Cleaning

    reads, steps = table.read_schema, place.spec.data.clean
    if column not in reads:
        return []
    rows = clean(pa.record_batch([pa.array([*persons, None], pa.string())], names=[column]), reads)
    wanted = steps.get(column) or (steps.get(EVERY, ()) if reads[column].type == "string" else ())
    if wanted:
        rows = Cleaning({column: wanted}).apply(rows)
    *cells, nobody = rows.batch.column(column).to_pylist()
    return [text_of(cell) for cell in cells if cell is not None and cell != nobody]


def _as_word(words: Sequence[str]) -> Callable[[str], object]:
    """Says whether one of the longer words stands as a word in a text."""
    longer = sorted((word for word in words if len(word) > SHORT), key=len, reverse=True)
    if not longer:
        return lambda text: None
    return re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in longer)).search


def tables_of(place: Place) -> list[str]:
    """Every table of this model, those of earlier contracts too; the rows of quarantines aside."""
    from modelinscale.data.lake import table_exists

    # Whole names: another model may be called as this one with more behind it.
    own = re.compile(rf"{re.escape(place.spec.name)}-[0-9a-f]{{8}}")
    names = (name for name in place.store.list("lake") if own.fullmatch(name))
    return [name for name in names if table_exists(place.store.uri("lake", name))]


def steps_on(place: Place, versions: Mapping[str, Collection[int] | None], readable: Mapping[str, Collection[int]] | None = None) -> list[Result]:
    """Results made from these versions of tables (None: any), and what was made from those; the last ones first.

    ``readable``: the versions that can be read; then results of others count too, which nobody can say anything of any more.
    """

    def hit(table: object, version: object) -> bool:
        if table not in versions:
            return False
        of = versions[str(table)]
        return of is None or version in of or (readable is not None and version not in readable[str(table)])

    found = [r for r in results(place, "collect") if hit(r.facts.get("table"), r.facts.get("version"))]
    after = [r for r in results(place, "prepare") if hit(r.inputs.get("table"), r.inputs.get("table_version"))]
    for step, name in _NEXT:
        found += after
        before = {r.identity for r in after}
        after = [r for r in results(place, step) if r.inputs.get(name) in before]
    return [*found, *after][::-1]
