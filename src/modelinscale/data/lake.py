"""The lake: every accepted row once, in the order it came, each commit a version that stays readable. The door to the only modules that know Lance."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import LakeError, StoreError
from modelinscale.core.schema import Schema
from modelinscale.data import _lake_change as change
from modelinscale.data import _lake_keep as keeping
from modelinscale.data._lake_base import BLOCK_ROWS, CACHE_BYTES, SEQ, Commit, Where, commit_of, short, words, writer
from modelinscale.data._lake_base import REMEMBERED as _REMEMBERED
from modelinscale.data._lake_change import Changes
from modelinscale.data._lake_errors import told
from modelinscale.data._lake_files import number, repeating, spelled, write
from modelinscale.data._lake_keep import Erased, HistoryEntry, Vacuumed, Version
from modelinscale.data._lake_land import Change, land, rewrite, sync
from modelinscale.data._lake_open import FORMAT, FORMAT_KEY, check, first_version, metadata_of, probe, refuse_ours
from modelinscale.data._lake_read import Reader
from modelinscale.data._lake_turns import at_work, attempts, turn
from modelinscale.data.arrow import arrow_schema, arrow_type
from modelinscale.data.sources import Cursor

if TYPE_CHECKING:
    import pyarrow as pa

REWORD = "rotate"
"""What the record of `Table.reword` says was done."""
_STAGED_ROWS = BLOCK_ROWS  # as many rows are written once, whatever happens to the commit; fewer are written again when another writer was first


@dataclass(frozen=True)
class Staged:
    """Rows that lie in the table's folder, for a commit to make them visible; plain data, to be sent from the task that wrote them."""

    fragments: tuple[str, ...]
    n_rows: int
    columns: str
    """The columns they were written with."""


class Table(Reader):
    """One version of a lake table. Reading never blocks a writer and never sees part of a commit."""

    def at(self, version: int) -> "Table":
        """The table as of a version. Raises `LakeError` when there is no such version (any more)."""
        return open_table(self.uri, version, options=self._where.options)

    def changes_since(self, version: int, key: Sequence[str]) -> Changes:
        """The keys that came, were replaced and went since a version that can still be read. Memory grows with the changes, not with the table."""
        import pyarrow as pa

        names, old = self._known(key), self.at(version)
        schema = pa.schema([pa.field(name, arrow_type(self.schema[name])) for name in names])
        fresh = pa.Table.from_batches(list(self.blocks(names, since=version)), schema=schema)
        return change.changes(old._dataset, self._dataset, fresh, names, self.uri)

    # Writing.

    def append(
        self,
        rows: "pa.Table",
        *,
        batch: str,
        cursor: Cursor | None = None,
        run: str = "",
        facts: Mapping[str, Any] | None = None,
        seq: int | None = None,
        durable: bool = False,
    ) -> "Table":
        """Adds rows (may be none) and the cursor after them in one step; gives the table with them in.

        If ``batch`` is in the table already (a writer came back after a kill), nothing is added twice. ``rows`` must have exactly the table's
        columns. Without a cursor the last one stays, and any number of writers may append at once. With one, no other commit may have come since
        the table was opened: `LakeError`. ``seq`` numbers the commit (default: one more than the last). ``durable`` has the disk keep it through
        a power cut. Raises `StoreError` when the disk refuses.
        """
        self._must_fit(rows.schema)
        if rows.num_rows > _STAGED_ROWS:
            with at_work(self._where):
                staged = [self.stage(rows)]
                return self.append_staged(staged, batch=batch, cursor=cursor, run=run, facts=facts, seq=seq, durable=durable)

        def step(now: Table) -> tuple[Change, Commit]:
            now._must_fit(rows.schema)
            commit = self._next(now.last, batch, cursor, run, facts, seq)
            new = now._write(rows, commit.seq) if rows.num_rows else ()
            return Change(new), replace(commit, n_added=rows.num_rows, rows_version=None if rows.num_rows else now.rows_version)

        return self._change(step, batch=batch, durable=durable)

    def stage(self, rows: "pa.Table") -> Staged:
        """Writes rows that no version shows until `append_staged` commits them, from any process or machine that reaches the table."""
        import json

        self._must_fit(rows.schema)
        with at_work(self._where), told(self.uri, "write"):
            found = write(rows, self._dataset, self._dataset.schema, None, "append", self._where) if rows.num_rows else []
        return Staged(tuple(json.dumps(f.to_json()) for f in found), rows.num_rows, words(rows.schema))

    def append_staged(
        self,
        staged: Sequence[Staged],
        *,
        batch: str,
        cursor: Cursor | None = None,
        run: str = "",
        facts: Mapping[str, Any] | None = None,
        seq: int | None = None,
        durable: bool = False,
    ) -> "Table":
        """Adds what tasks have staged, in this order, in one step. As `append` otherwise; raises `LakeError` when columns changed meanwhile."""
        fragments, n_rows = [f for one in staged for f in one.fragments], sum(one.n_rows for one in staged)

        def step(now: Table) -> tuple[Change, Commit]:
            stale = [one.columns for one in staged if one.columns != words(arrow_schema(now.schema))]
            if stale:
                raise LakeError(f"{self.uri}: rows were staged with other columns than the table has now: {stale[0]}.", fix="Stage them again.")
            commit = self._next(now.last, batch, cursor, run, facts, seq)
            with told(self.uri, "write"):
                new = number(fragments, now._dataset, commit.seq, self._where)
            return Change(new), replace(commit, n_added=n_rows, rows_version=None if n_rows else now.rows_version)

        return self._change(step, batch=batch, durable=durable)

    def upsert(
        self,
        rows: "pa.Table",
        key: Sequence[str],
        *,
        batch: str,
        cursor: Cursor | None = None,
        run: str = "",
        facts: Mapping[str, Any] | None = None,
        seq: int | None = None,
        durable: bool = False,
    ) -> "Table":
        """As `append`, but a row takes the place of those with its key: they leave in the same step, and it stands at the end.

        Of several rows with one key the last counts. Raises `UsageError` for a key that is unknown, missing in a row, or a number with a point.
        """
        self._must_fit(rows.schema)
        names = self._known(key)
        kept = change.last_of_each(rows, names, self.uri)

        def step(now: Table) -> tuple[Change, Commit]:
            now._must_fit(rows.schema)
            commit = self._next(now.last, batch, cursor, run, facts, seq)
            gone, n_gone = change.without(now._dataset, kept.select(names), self.uri)
            new = now._write(kept, commit.seq) if kept.num_rows else ()
            counts = {"what": "upsert", "n_added": kept.num_rows, "n_removed": n_gone}
            return replace(gone, new=new), replace(commit, **counts, rows_version=None if kept.num_rows else now.rows_version)

        return self._change(step, batch=batch, durable=durable)

    def drop_after(self, seq: int) -> "Table":
        """The table without the rows of commits numbered higher than ``seq``: undoes what a killed writer left here but not elsewhere."""
        if self.last.seq <= seq or (not self.last.batch and self.seq <= seq):
            return self

        def step(now: Table) -> tuple[Change, Commit]:
            with told(self.uri, "write"):
                gone, n = change.later_than(now._dataset, seq)
            # Without its batch's name, or the writer who comes back with the same batch would be told that it is in already.
            return gone, replace(now.last, batch="", recent=(), what="drop", n_added=0, n_removed=n, by=writer(), rows_version=None)

        return self._change(step)

    def evolve(self, schema: Schema, read_schema: Schema | None = None, *, run: str = "") -> "Table":
        """Adds the columns of ``schema`` that the table lacks (missing in the rows there are) and makes int columns float where it says so.

        Columns that ``schema`` lacks stay. Nothing else is written again: a new column costs nothing, a widened one its own cells.
        ``read_schema``: the columns as the source gives them from now on. Raises `LakeError` for any other change of a type.
        """

        def step(now: Table) -> tuple[Change, Commit] | None:
            wanted = change.wider(now.schema, schema, self.uri)
            reads = change.wider(now.read_schema, read_schema, self.uri) if read_schema is not None else change.wider(now.read_schema, schema, self.uri)
            if (wanted, reads) == (now.schema, now.read_schema):
                return None
            refuse_ours(wanted)
            with told(self.uri, "write"):
                shape = change.reshaped(now._dataset, now.schema, wanted, metadata_of(wanted, reads), self.uri)
            return shape, replace(now.last, what="evolve", run=run or now.last.run, n_added=0, n_removed=0, by=writer(), rows_version=None)

        return self._change(step)

    # Keeping.

    def tag(self, name: str, version: int | None = None) -> None:
        """Names a version, so that clean-up keeps it (a model was trained on it). A name that exists moves."""
        number = self.version if version is None else self.at(version).version
        with told(self.uri, "write"):
            if name in self._dataset.tags.list():
                self._dataset.tags.update(name, number)
            else:
                self._dataset.tags.create(name, number)

    def untag(self, name: str) -> None:
        """Takes a name back; no error if it is not there."""
        with told(self.uri, "write"):
            if name in self._dataset.tags.list():
                self._dataset.tags.delete(name)

    def compact(self, *, n_files: int = 64) -> "Table":
        """Joins small files once there are more than ``n_files``; rows, their order, the cursor and old versions stay. Gives the table as it is then."""
        if sum(keeping.size(f) < keeping.SMALL_BYTES for f in self._dataset.get_fragments()) <= n_files:
            return self
        return self._joined(lambda fragment: keeping.size(fragment) < keeping.SMALL_BYTES)

    def vacuum(self, *, older_than: timedelta, keep_versions: int = 1, dry_run: bool = False) -> Vacuumed:
        """Removes old versions. Those stay that are named, or among the newest ``keep_versions``, or that hold the rows of the newest version.

        Files that no version names go too once they are 7 days old. ``dry_run`` only says what would be done.
        """
        now = open_table(self.uri, options=self._where.options)

        def sorted_out(known: "Sequence[Version]", *, committed: bool) -> tuple[dict[int, str], tuple[int, ...]]:
            named = {n: [t for t, at in now.tags.items() if at == n] for n in set(now.tags.values())}
            kept = keeping.decide(known, named, [now.rows_version], older_than, keep_versions, datetime.now(UTC))
            if committed:  # the commit of this vacuum is none of the newest that were asked for
                asked = known[-keep_versions - 1 : -1] if keep_versions > 1 else ()
                kept = {v.number: f"one of the newest {keep_versions}" for v in asked} | kept | {known[-1].number: "the newest: it records this vacuum"}
            return dict(sorted(kept.items())), tuple(v.number for v in known if v.number not in kept)

        known = now.versions()
        kept, leaving = sorted_out(known, committed=False)
        if not leaving:
            return Vacuumed(leaving, kept, 0)
        if dry_run:
            own = replace(known[-1], number=now.version + 1, time=datetime.now(UTC), n_added=0)
            kept, leaving = sorted_out((*known, own), committed=True)
            # The library does not say what the newest version would free; it shares its rows with the one that follows.
            return Vacuumed(leaving, kept, keeping.remove(now._dataset, [n for n in leaving if n != now.version], self.uri, dry_run=True))
        # The newest transaction must carry our record: those of removed versions go with them.
        now = self._change(lambda at: (Change(), at._carried("vacuum")))
        kept, leaving = sorted_out(now.versions(), committed=True)
        return Vacuumed(leaving, kept, keeping.remove(now._dataset, leaving, self.uri))

    def sweep(self) -> int:
        """Removes files that no version names: what killed writers left. Gives the bytes freed; 0 while another writer is at work, and for object stores.

        Rows that were staged and not committed yet go with them.
        """
        with at_work(self._where, alone=True, wait_s=0.0) as alone:
            if not alone or self._where.folder is None:
                return 0
            with told(self.uri, "write"):
                old = timedelta(days=36_500)
                return int(self._dataset.cleanup_old_versions(older_than=old, delete_unverified=True, error_if_tagged_old_versions=False).bytes_removed)

    def erase(self, column: str, values: Sequence[Any], *, run: str = "") -> Erased:
        """Removes every row with one of these values for good: from the newest version, and with their bytes from every file.

        Versions whose files hold such a row are removed, named ones too: their names move to the newest. So does the index of keys, which is built
        again. On an object store no other writer may be at work. Raises `StoreError` when one is on this machine.
        """
        import pyarrow as pa

        cells = self._cells(column, values)
        with at_work(self._where, alone=True, wait_s=60.0) as alone:
            if not alone and self._where.folder is not None:
                raise StoreError(f"the table {self.uri} is being written to.", fix="Wait until the other writer ends, then erase again.")
            n_rows = 0

            def step(now: Table) -> tuple[Change, Commit] | None:
                nonlocal n_rows
                gone, n_rows = change.without(now._dataset, pa.table({column: cells.drop_null().unique()}), self.uri)
                commit = replace(now._carried("erase"), seq=now.last.seq + 1, n_removed=n_rows, run=run, rows_version=None)
                return (gone, commit) if n_rows else None

            table = self._change(step, held=True)
            if table._counted(column, values, [table.version], gone=True):
                table = table._change(lambda now: (now._without_deleted(), replace(now._carried("erase"), rows_version=None, run=run)), held=True)
            holding = table._counted(column, values, [v.number for v in table.versions() if v.number != table.version], gone=True)
            moved = {name: (at, table.version) for name, at in table.tags.items() if at in holding}
            for name in moved:
                table.tag(name, table.version)
            keeping.remove(table._dataset, tuple(holding), self.uri, unverified=True)
            if n_rows or holding:
                keeping.forget_keys(self._where)
            return Erased(n_rows, tuple(holding), moved)

    def reword(self, words: Mapping[str, Callable[[str], str]], *, run: str = "") -> "Table":
        """Makes every word of some text columns another, in one commit, then removes all earlier versions with their bytes; rows and cursor stay.

        A kill leaves the table whole, as before or after; `drop_past` does what is left after. On an object store no other writer may be at work.
        """
        with at_work(self._where, alone=True, wait_s=60.0) as alone:
            if not alone and self._where.folder is not None:
                raise StoreError(f"the table {self.uri} is being written to.", fix="Wait until the other writer ends, then try again.")
            table = self._change(
                lambda now: (change.reworded(now._dataset, words, self._where), replace(now._carried(REWORD), run=run, rows_version=None)), held=True
            )
            keeping.forget_keys(self._where)
            table.drop_past()
        return table

    def drop_past(self) -> None:
        """Removes what lies before the newest `reword`, if there is one: versions, and files of writers that were killed before it. Names move on."""
        past = self.history()
        last = max((one.version.number for one in past if one.commit is not None and one.commit.what == REWORD), default=0)
        gone = tuple(one.version.number for one in past if one.version.number < last)
        for name in [name for name, at in self.tags.items() if at in gone]:
            self.tag(name, last)
        keeping.remove(self._dataset, gone, self.uri, unverified=True)

    # Inside.

    def has(self, batch: str, *, since: int = 0) -> bool:
        """Whether the last commit, one of the hundred before, or one after version ``since``, is this batch."""
        if self.last.knows(batch) or 0 < self.version - since <= len(self.last.recent):
            return self.last.knows(batch)
        with told(self.uri, "read"):
            recent = self._dataset.get_transactions(max(1, self.version - since))
        return any(commit is not None and commit.knows(batch) for commit in map(commit_of, recent))

    def _change(self, step: "Callable[[Table], tuple[Change, Commit] | None]", *, batch: str = "", durable: bool = False, held: bool = False) -> "Table":
        """Does a step on the newest version, again on a newer one when another writer was first; nothing when ``batch`` is in already."""
        with nullcontext() if held else at_work(self._where):
            for _ in attempts(self._where):
                with turn(self._where):
                    newest = open_table(self.uri, options=self._where.options)
                    if batch and newest.has(batch, since=self.version):
                        return newest
                    now = newest._upgraded()
                    if now is None:
                        continue
                    made = step(now)
                    if made is None:
                        return now
                    files, commit = made
                    with told(self.uri, "write"):
                        found = land(now._dataset, files, commit, self._where)
                    if found is not None:
                        break
            assert now is not None and found is not None, "attempts end with an error"  # noqa: PT018
            if durable:
                sync(self._where, now._dataset, found)
        table = Table(found, self._where)
        return table._tidied() if commit.what in ("append", "upsert") else table

    def _joined(self, fits: "Callable[[Any], bool]", *, tries: int = 20) -> "Table":
        """Neighbouring fragments that fit written as one. Other writers may be at work; when they change the same files, it is done again."""
        with at_work(self._where):
            for n in attempts(self._where):
                now = open_table(self.uri, options=self._where.options)
                runs = keeping.joinable(now._dataset, fits=fits)
                if not runs or n >= tries:
                    return now
                with told(self.uri, "write"):
                    found = rewrite(now._dataset, [keeping.joined(now._dataset, run, self._where) for run in runs], self._where)
                if found is not None:
                    return Table(found, self._where)
        raise AssertionError("attempts end with an error")

    def _without_deleted(self) -> Change:
        """The files that hold a deleted row, written again without."""
        with told(self.uri, "write"):
            parts = [keeping.joined(self._dataset, [f], self._where) for f in self._dataset.get_fragments() if f.num_deletions]
        return Change(updated=[f for part in parts for f in part.updated])

    def _tidied(self) -> "Table":
        """Small files are joined now and then, so that many small commits do not make reading slow; never a condition."""
        if self.last.seq % keeping.TIER or len(self._dataset.get_fragments()) <= keeping.TIER:
            return self
        return self._joined(keeping.lately(self._dataset), tries=1)

    def _carried(self, what: str) -> Commit:
        """The last record again, for a commit that leaves the rows as they are."""
        return replace(self.last, what=what, n_added=0, n_removed=0, by=writer(), rows_version=self.rows_version)

    def _upgraded(self) -> "Table | None":
        """The table in today's format; None when another writer was first."""
        if int(self._dataset.schema.metadata[FORMAT_KEY.encode()]) == FORMAT:
            return self
        with told(self.uri, "write"):
            # Nothing in the files is other than it was, only records and columns may be from now on.
            shape = change.reshaped(self._dataset, self.schema, self.schema, metadata_of(self.schema, self.read_schema), self.uri)
            found = land(self._dataset, shape, self._carried("upgrade"), self._where)
        return None if found is None else Table(found, self._where)

    def _next(self, last: Commit, batch: str, cursor: Cursor | None, run: str, facts: Mapping[str, Any] | None, seq: int | None) -> Commit:
        """The record of the commit after ``last``. Raises `LakeError` for a cursor on top of rows that this writer has not seen."""
        if cursor is not None and last.seq != self.last.seq:
            raise LakeError(
                f"{self.uri} was changed by another writer while this one was reading.", fix="Run again: it goes on from where the other one ended."
            )
        return Commit(
            seq=last.seq + 1 if seq is None else seq,
            batch=batch,
            cursor=last.cursor if cursor is None else cursor,
            run=run,
            facts=dict(last.facts if facts is None else facts),
            by=writer(),
            recent=[*last.recent, short(batch)][-_REMEMBERED:] if batch else list(last.recent),
        )

    def _write(self, rows: "pa.Table", seq: int) -> list[Any]:
        with told(self.uri, "write"):
            return write(rows, self._dataset, self._dataset.schema, seq, "append", self._where)

    def _must_fit(self, found: "pa.Schema") -> None:
        wanted = arrow_schema(self.schema)
        if not found.equals(wanted):
            raise LakeError(f"{self.uri}: rows of other columns than the table's.\nrows: {words(found)}\ntable: {words(wanted)}")


def model_tag(name: str, number: int) -> str:
    """What the version of a table is called that a version of a model was trained on."""
    return f"model-{name.replace('.', '_')}-{number}"  # the format does not take every name with points


def table_exists(uri: str, *, options: Mapping[str, str] | None = None) -> bool:
    """Whether a table lies there. Imports nothing heavy for a folder; a damaged table exists."""
    where = Where(uri, options)
    if where.folder is not None:
        versions = where.folder / "_versions"
        return versions.is_dir() and any(versions.iterdir())
    import lance

    with told(uri, "reach"):
        try:
            lance.dataset(uri, storage_options=where.storage)
        except ValueError as error:
            if "was not found" not in str(error):
                raise
            return False
    return True


def open_table(uri: str, version: int | None = None, *, options: Mapping[str, str] | None = None) -> Table:
    """The table as of a version (default: the newest). Raises `LakeError` when there is none, it is damaged, or it is not one of ours.

    ``options``: what an object store (``s3://``, ``gs://``, ``az://``) needs, in Lance's words: ``aws_endpoint``, ``aws_region``, credentials.
    """
    where = Where(uri, options)
    none = LakeError(f"there is no table at {uri}.", fix="Collect rows first: `mis collect`.")
    if where.folder is not None and not table_exists(uri):
        raise none
    import lance

    with told(uri, "open"):
        try:
            dataset = lance.dataset(uri, version=version, storage_options=where.storage, metadata_cache_size_bytes=CACHE_BYTES)
        except ValueError as error:
            if version is None:
                if where.folder is None and "was not found" in str(error):
                    raise none from error
                raise
            newest = open_table(uri, options=options)
            known = [v.number for v in newest.versions()]
            if version in known:
                raise
            raise LakeError(f"{uri} has no version {version}.", fix=f"There are {len(known)}: {known[0]} to {known[-1]}.") from error
    check(dataset, uri)
    return Table(dataset, where)


def create_table(
    uri: str,
    schema: Schema,
    rows: "pa.Table | None" = None,
    *,
    batch: str = "",
    cursor: Cursor | None = None,
    run: str = "",
    facts: Mapping[str, Any] | None = None,
    seq: int | None = None,
    read_schema: Schema | None = None,
    options: Mapping[str, str] | None = None,
    durable: bool = False,
) -> Table:
    """Makes a table, its first rows and the cursor after them in it: version 1 has all or there is no table. The arguments are those of `Table.append`.

    ``read_schema``: the columns as the source gives them, where treatments make others of them.
    Raises `LakeError` when a table is there already or the object store would let writers overwrite each other, `StoreError` when the disk refuses.
    """
    import pyarrow as pa

    where = Where(uri, options)
    refuse_ours(schema)
    plain = arrow_schema(schema)
    filled = plain.append(pa.field(SEQ, pa.int64())).with_metadata(metadata_of(schema, read_schema))
    first = plain.empty_table() if rows is None else rows
    if not first.schema.equals(plain):
        raise LakeError(f"{uri}: rows of other columns than the schema's.\nrows: {words(first.schema)}\nschema: {words(plain)}")
    there = LakeError(f"there is a table at {uri} already.", fix="Open it, or name another place.")
    with at_work(where), turn(where):
        if table_exists(uri, options=options):
            raise there
        if where.folder is None:
            probe(where)
        commit = Commit(
            seq=int(bool(batch)) if seq is None else seq,
            batch=batch,
            cursor=cursor,
            run=run,
            facts=dict(facts or {}),
            what="append",
            by=writer(),
            n_added=first.num_rows,
            recent=[short(batch)] if batch else [],
        )
        with told(uri, "write"):
            kept = repeating(filled, first)
            fragments = write(first, uri, kept, commit.seq, "create", where) if first.num_rows else []
            dataset = first_version(kept, fragments, commit, where)
        if dataset is None:
            raise there
        if durable:
            sync(where, None, dataset)
        return Table(dataset, where)


__all__ = [
    "FORMAT",
    "SEQ",
    "Changes",
    "Commit",
    "Erased",
    "HistoryEntry",
    "Staged",
    "Table",
    "Vacuumed",
    "Version",
    "create_table",
    "model_tag",
    "open_table",
    "spelled",
    "table_exists",
]
