"""The lake: every accepted row once, in the order it came, each commit a version that stays readable. The only module that knows Lance."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core import files
from modelinscale.core.errors import LakeError, StoreError, UsageError, did_you_mean
from modelinscale.core.schema import Schema
from modelinscale.data.arrow import INTERNAL, arrow_schema
from modelinscale.data.sources import Cursor

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

FORMAT = 1
"""Of what we add to the table: schema metadata, commit record, commit numbers."""
SEQ = INTERNAL + "seq"
"""The hidden column with the number of the commit that brought the row; never decreases from row to row."""

_STORAGE = "2.2"  # of Lance's files; written out because the library's default moves
_FORMAT_KEY, _SCHEMA_KEY, _READ_KEY, _COMMIT_KEY = "mis.format", "mis.schema", "mis.read", "mis.commit"
_FILE_ROWS, _FILE_BYTES = 1 << 20, 1 << 30
_SMALL_BYTES = 8 << 20  # a data file below this is worth joining with others
_BLOCK_ROWS = 65_536
_CHANGED = "Another program changed it: restore an older version."
_IO_BYTES = 64 << 20  # read ahead; the library's default buffers gigabytes on wide tables


@dataclass(frozen=True)
class Commit:
    """What a commit says of itself, kept in the very transaction that brings its rows."""

    seq: int
    """Its number: 1 for the first."""
    batch: str
    """A name that the same rows get again when a writer is killed and comes back."""
    cursor: Cursor | None = None
    """Where the source stands after these rows."""
    run: str = ""
    """The run that wrote them."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain data of the writer's, such as running counts."""
    rows_version: int | None = None
    """The version that last changed rows, where this commit itself brought none."""


@dataclass(frozen=True)
class Version:
    """One state of the table that can still be read."""

    number: int
    time: datetime
    """When it was committed, in UTC."""
    n_rows: int
    """Rows in the table as of then."""
    n_added: int
    """Rows more than in the version before (the oldest one still readable counts from 0)."""


class Table:
    """One version of a lake table. Reading never blocks a writer and never sees part of a commit."""

    def __init__(self, dataset: "lance.LanceDataset", uri: str) -> None:
        """Use `open_table` or `create_table`."""
        self._dataset = dataset
        self.uri = uri

    @cached_property
    def version(self) -> int:
        return int(self._dataset.version)

    @cached_property
    def n_rows(self) -> int:
        return int(self._dataset.count_rows())

    @cached_property
    def schema(self) -> Schema:
        """The user's columns, habits of their text included."""
        try:
            return Schema.model_validate_json(self._dataset.schema.metadata[_SCHEMA_KEY.encode()])
        except ValueError as error:
            raise LakeError(
                f"{self.uri}: the description of its columns cannot be read.", fix="Another program changed it: restore an older version."
            ) from error

    @cached_property
    def read_schema(self) -> Schema:
        """The columns as the source gives them, before treatments: how cells were read once is how they are read again."""
        found = self._dataset.schema.metadata.get(_READ_KEY.encode())
        return self.schema if found is None else Schema.model_validate_json(found)

    @cached_property
    def last(self) -> Commit:
        """The newest commit up to this version. Raises `LakeError` when a clean-up by another program removed its record."""
        n = 1
        with _told(self.uri, "read"):
            while True:
                found = self._dataset.get_transactions(n)
                for transaction in found:
                    record = transaction and (transaction.transaction_properties or {}).get(_COMMIT_KEY)
                    if record:
                        return Commit(**json.loads(record))
                if len(found) < n or n > 1 << 20:
                    break
                n *= 16
        raise LakeError(
            f"{self.uri}: the record of its last commit is gone, and with it the place in the source.",
            fix="Another program cleaned this table up. Move the table away and collect again.",
        )

    @property
    def cursor(self) -> Cursor | None:
        """Where the source stood after the last commit."""
        return self.last.cursor

    @property
    def rows_version(self) -> int:
        """The oldest version with exactly these rows in this order: this one, or an earlier one when later commits only moved the cursor or files."""
        return self.last.rows_version or self.version

    def at(self, version: int) -> "Table":
        """The table as of a version. Raises `LakeError` when there is no such version (any more)."""
        return open_table(self.uri, version)

    def versions(self) -> tuple[Version, ...]:
        """Every version that can still be read, oldest first."""
        found, before = [], 0
        with _told(self.uri, "read"):
            for one in self._dataset.versions():
                n_rows, time = int(one["metadata"]["total_rows"]), one["timestamp"]
                assert isinstance(time, datetime), "the library gives local time"
                found.append(Version(int(one["version"]), time.astimezone(UTC), n_rows, n_rows - before))
                before = n_rows
        return tuple(v for v in found if v.number <= self.version)

    def blocks(self, columns: Sequence[str] | None = None, *, n_rows: int = _BLOCK_ROWS, since: int | None = None) -> "Iterator[pa.RecordBatch]":
        """Rows in the order they came, the same at every reading, in batches of at most ``n_rows``; memory does not grow with the table.

        ``columns``: all of the user's, or those named, in that order. ``since``: only rows that came after that version.
        Raises `UsageError` for an unknown column, `LakeError` when the table is damaged.
        """
        names = list(self.schema.names) if columns is None else list(columns)
        unknown = [name for name in names if name not in self.schema]
        if unknown:
            raise UsageError(f"{self.uri} has no column {unknown[0]!r}.{did_you_mean(unknown[0], self.schema.names)}")
        return self._scan(names, f"{SEQ} > {self.at(since).seq}" if since else None, n_rows)

    def slice(self, start: int, n_rows: int, columns: Sequence[str]) -> "pa.Table":
        """``n_rows`` rows from the ``start``-th on (fewer where the table ends), in the order of `blocks`; memory grows with them alone."""
        with _told(self.uri, "read"):
            scanner = self._dataset.scanner(
                columns=list(columns),
                offset=start,
                limit=n_rows,
                batch_size=_BLOCK_ROWS,
                scan_in_order=True,
                io_buffer_size=_IO_BYTES,
                batch_readahead=2,
                fragment_readahead=1,
            )
            return scanner.to_table()

    def blocks_after(self, seq: int, columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        """As `blocks`, for rows of commits numbered higher than ``seq``."""
        return self._scan(list(columns), f"{SEQ} > {seq}" if seq else None, _BLOCK_ROWS)

    def blocks_up_to(self, seq: int) -> "Iterator[pa.RecordBatch]":
        """As `blocks`, for rows of commits numbered ``seq`` or lower."""
        return self._scan(list(self.schema.names), None if self.seq <= seq else f"{SEQ} <= {seq}", _BLOCK_ROWS)

    @cached_property
    def seq(self) -> int:
        """The number of the newest commit that brought rows still here, at least; 0 for an empty table."""
        if self.n_rows == 0:
            return 0
        with _told(self.uri, "read"):
            return int(self._dataset.take([self.n_rows - 1], columns=[SEQ])[SEQ][0].as_py())

    def append(
        self, rows: "pa.Table", *, batch: str, cursor: Cursor | None = None, run: str = "", facts: Mapping[str, Any] | None = None, seq: int | None = None
    ) -> "Table":
        """Adds rows (may be none) and the cursor after them in one step; gives the table with them in.

        If ``batch`` is in the table already (a writer came back after a kill), nothing is added twice. ``rows`` must have exactly the table's
        columns. Without a cursor the last one stays. With one, the table must not have changed since it was opened: `LakeError`.
        ``seq`` numbers the commit (default: one more than the last). Raises `StoreError` when the disk refuses.
        """
        wanted = arrow_schema(self.schema)
        if not rows.schema.equals(wanted):
            raise LakeError(f"{self.uri}: rows of other columns than the table's.\nrows: {_words(rows.schema)}\ntable: {_words(wanted)}")
        with _writing(self.uri):
            now = open_table(self.uri)
            if now.has(batch, since=self.version):
                return now
            last = now.last
            if cursor is not None and last.seq != self.last.seq:
                raise LakeError(
                    f"{self.uri} was changed by another writer while this one was reading.", fix="Run again: it goes on from where the other one ended."
                )
            commit = Commit(
                seq=last.seq + 1 if seq is None else seq,
                batch=batch,
                cursor=last.cursor if cursor is None else cursor,
                run=run,
                facts=dict(last.facts if facts is None else facts),
                rows_version=None if rows.num_rows else now.rows_version,
            )
            return now._commit(rows, commit)

    def has(self, batch: str, *, since: int = 0) -> bool:
        """Whether the last commit, or one after version ``since``, is this batch."""
        with _told(self.uri, "read"):
            recent = self._dataset.get_transactions(max(1, self.version - since))
        records = [(t.transaction_properties or {}).get(_COMMIT_KEY) for t in recent if t]
        return batch in {self.last.batch, *(json.loads(r)["batch"] for r in records if r)}

    def drop_after(self, seq: int) -> "Table":
        """The table without the rows of commits numbered higher than ``seq``: undoes what a killed writer left here but not elsewhere."""
        if self.last.seq <= seq or (not self.last.batch and self.seq <= seq):
            return self
        with _writing(self.uri):
            if self.seq > seq:
                with _told(self.uri, "write"):
                    self._dataset.delete(f"{SEQ} > {seq}")
            # Without its batch's name, or the writer who comes back with the same batch would be told that it is in already.
            now = open_table(self.uri)
            return now._commit(None, replace(now.last, batch="", rows_version=None))

    def tag(self, name: str, version: int | None = None) -> None:
        """Names a version, so that clean-up keeps it (a model was trained on it). A name that exists moves."""
        number = self.version if version is None else self.at(version).version
        with _told(self.uri, "write"):
            if name in self._dataset.tags.list():
                self._dataset.tags.update(name, number)
            else:
                self._dataset.tags.create(name, number)

    def untag(self, name: str) -> None:
        """Takes a name back; no error if it is not there."""
        with _told(self.uri, "write"):
            if name in self._dataset.tags.list():
                self._dataset.tags.delete(name)

    @property
    def tags(self) -> dict[str, int]:
        """Named versions."""
        with _told(self.uri, "read"):
            return {name: int(found["version"]) for name, found in sorted(self._dataset.tags.list().items())}

    def compact(self, *, n_files: int = 64) -> "Table":
        """Joins small files once there are more than ``n_files``; rows, their order, the cursor and old versions stay. Gives the table as it is then."""
        sizes = [sum(file.file_size_bytes or 0 for file in f.metadata.files) for f in self._dataset.get_fragments()]
        if sum(size < _SMALL_BYTES for size in sizes) <= n_files:
            return self
        with _writing(self.uri):
            now = open_table(self.uri)
            last = now.last  # before the rewrite, whose transaction carries no record
            rows_version = now.rows_version
            with _told(self.uri, "write"):
                now._dataset.optimize.compact_files(target_rows_per_fragment=_FILE_ROWS, num_threads=2)
            return open_table(self.uri)._commit(None, replace(last, rows_version=rows_version))

    def clean_up(self, *, older_than: timedelta) -> int:
        """Removes versions older than that, except tagged ones and the newest, and files of killed writers older than 7 days; gives the bytes freed."""
        with _writing(self.uri):
            # The newest transaction must carry our record: those of removed versions go with them.
            now = open_table(self.uri)
            now = now._commit(None, replace(now.last, rows_version=now.rows_version))
            with _told(self.uri, "write"):
                return int(now._dataset.cleanup_old_versions(older_than=older_than, error_if_tagged_old_versions=False).bytes_removed)

    def sweep(self) -> int:
        """Removes files that no version names: what killed writers left. Gives the bytes freed. No writer may be at work outside this program's lock."""
        with _writing(self.uri), _told(self.uri, "write"):
            return int(
                self._dataset.cleanup_old_versions(older_than=timedelta(days=36_500), delete_unverified=True, error_if_tagged_old_versions=False).bytes_removed
            )

    def _commit(self, rows: "pa.Table | None", commit: Commit) -> "Table":
        import lance

        with _told(self.uri, "write"):
            fragments = [] if rows is None or not rows.num_rows else _write(rows, self._dataset, self._dataset.schema, commit.seq, "append")
            step = lance.Transaction(self.version, lance.LanceOperation.Append(fragments), transaction_properties=_record(commit))
            return Table(lance.LanceDataset.commit(self._dataset, step), self.uri)

    def _scan(self, names: list[str], where: str | None, n_rows: int) -> "Iterator[pa.RecordBatch]":
        with _told(self.uri, "read"):
            scanner = self._dataset.scanner(
                columns=names,
                filter=where,
                batch_size=n_rows,
                scan_in_order=True,
                io_buffer_size=_IO_BYTES,
                batch_readahead=2,
                fragment_readahead=2,
            )
            yield from (batch for batch in scanner.to_batches() if batch.num_rows)


def table_exists(uri: str) -> bool:
    """Whether a table lies there. Imports nothing heavy; a damaged table exists."""
    versions = Path(uri) / "_versions"
    return versions.is_dir() and any(versions.iterdir())


def open_table(uri: str, version: int | None = None) -> Table:
    """The table as of a version (default: the newest). Raises `LakeError` when there is none, it is damaged, or it is not one of ours."""
    if not table_exists(uri):
        raise LakeError(f"there is no table at {uri}.", fix="Collect rows first: `mis collect`.")
    import lance

    with _told(uri, "open"):
        try:
            dataset = lance.dataset(uri, version=version)
        except ValueError as error:
            if version is None:
                raise
            newest = open_table(uri)
            known = [v.number for v in newest.versions()]
            if version in known:
                raise
            raise LakeError(f"{uri} has no version {version}.", fix=f"There are {len(known)}: {known[0]} to {known[-1]}.") from error
    table = Table(dataset, uri)
    _check(table)
    return table


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
) -> Table:
    """Makes a table, its first rows and the cursor after them in it: version 1 has all or there is no table. The arguments are those of `Table.append`.

    ``read_schema``: the columns as the source gives them, where treatments make others of them.
    Raises `LakeError` when a table is there already, `StoreError` when the disk refuses.
    """
    import lance
    import pyarrow as pa

    ours = [name for name in schema.names if name.startswith(INTERNAL)]
    if ours:
        raise LakeError(f"a column cannot be called {ours[0]!r}: names with {INTERNAL} are the table's own.", fix="Rename it in the source.")
    plain = arrow_schema(schema)
    metadata = {_FORMAT_KEY: str(FORMAT), _SCHEMA_KEY: _compact(schema.plain())}
    if read_schema is not None and read_schema != schema:
        metadata[_READ_KEY] = _compact(read_schema.plain())
    filled = plain.append(pa.field(SEQ, pa.int64())).with_metadata(metadata)
    first = plain.empty_table() if rows is None else rows
    if not first.schema.equals(plain):
        raise LakeError(f"{uri}: rows of other columns than the schema's.\nrows: {_words(first.schema)}\nschema: {_words(plain)}")
    with _writing(uri):
        if table_exists(uri):
            raise LakeError(f"there is a table at {uri} already.", fix="Open it, or name another place.")
        commit = Commit(seq=int(bool(batch)) if seq is None else seq, batch=batch, cursor=cursor, run=run, facts=dict(facts or {}))
        with _told(uri, "write"):
            fragments = _write(first, uri, filled, commit.seq, "create") if first.num_rows else []
            # On top of version 0, which never exists: fails when another writer made the table meanwhile.
            step = lance.Transaction(0, lance.LanceOperation.Overwrite(filled, fragments), transaction_properties=_record(commit))
            return Table(lance.LanceDataset.commit(uri, step, enable_stable_row_ids=True), uri)


def _write(rows: "pa.Table", into: Any, schema: "pa.Schema", seq: int, mode: str) -> list[Any]:
    """Data files that no version names yet."""
    import pyarrow as pa
    from lance.fragment import write_fragments

    numbered = rows.append_column(SEQ, pa.repeat(pa.scalar(seq, pa.int64()), rows.num_rows)).cast(schema)
    found = write_fragments(
        pa.RecordBatchReader.from_batches(schema, numbered.to_batches(max_chunksize=_BLOCK_ROWS)),
        into,
        schema=schema,
        mode=mode,
        max_rows_per_file=_FILE_ROWS,
        max_bytes_per_file=_FILE_BYTES,
        data_storage_version=_STORAGE,
        enable_stable_row_ids=True,
    )
    return list(found)


def _record(commit: Commit) -> dict[str, str]:
    return {_COMMIT_KEY: _compact(vars(commit))}


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _check(table: Table) -> None:
    """Refuses what we did not write, or cannot read rightly."""
    import pyarrow as pa

    dataset = table._dataset
    metadata = dataset.schema.metadata or {}
    if _FORMAT_KEY.encode() not in metadata or _SCHEMA_KEY.encode() not in metadata:
        raise LakeError(f"{table.uri} is a Lance table, but not one of ours.", fix="Name another store, or read it as a source.")
    found = int(metadata[_FORMAT_KEY.encode()])
    if found > FORMAT:
        raise LakeError(f"{table.uri} has format {found}; this version reads up to {FORMAT}.", fix="Upgrade: pip install --upgrade modelinscale.")
    if not dataset.has_stable_row_ids:
        raise LakeError(f"{table.uri} has no stable row ids, so rows since a version cannot be told.", fix="Copy it into a new table.")
    declared = [*arrow_schema(table.schema), pa.field(SEQ, pa.int64())]
    if [(f.name, f.type) for f in dataset.schema] != [(f.name, f.type) for f in declared]:
        raise LakeError(f"{table.uri}: its columns are not those it declares: {_words(dataset.schema)}.", fix=_CHANGED)


@contextmanager
def _writing(uri: str) -> Iterator[None]:
    """One writer at a time. Lance itself lets appends pass each other, which would break the order of commit numbers and the cursor."""
    with files.held(Path(uri) / f"{INTERNAL}lock", wait_s=60.0, what=f"the table {uri}"):
        yield


_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def _told(uri: str, doing: str) -> Iterator[None]:
    """Lance's errors as ours: the disk's refusals as `StoreError`, anything else as a `LakeError`. It tells the system's error number only in words."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, (LakeError, StoreError, UsageError)):
            raise
        found = _OS_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) and error.errno else int(found[1]) if found else 0
        refused = files.refusal(number, Path(uri), doing)
        if refused:
            raise refused from error
        raise LakeError(
            f"Cannot {doing} the table {uri}: {_short(error)}.",
            fix="It is damaged, or another program changed it. Restore it, or move it away and collect again.",
        ) from error


def _short(error: Exception) -> str:
    """The first line of a message without the library's own source paths."""
    return re.sub(r",? */[^ ,]*\.rs:\d+:\d+", "", str(error).split("\n")[0]).rstrip(" .")[:300]


def _words(schema: "pa.Schema") -> str:
    return ", ".join(f"{f.name} {f.type}" for f in schema)
