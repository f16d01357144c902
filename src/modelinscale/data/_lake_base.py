"""What every change of a lake table is made of: where it lies, who is writing, its record, and a commit that counts only on top of what was read."""

import fcntl
import json
import os
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from modelinscale import __version__
from modelinscale.core import files
from modelinscale.core.bucket import reason
from modelinscale.core.errors import LakeError, MisError, StoreError
from modelinscale.core.identity import identity
from modelinscale.core.secrets import reveal
from modelinscale.data.arrow import INTERNAL
from modelinscale.data.sources import Cursor
from modelinscale.store import Located

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

SEQ = INTERNAL + "seq"
"""The hidden column with the number of the commit that brought the row; never decreases from row to row."""
BLOCK_ROWS = 65_536
FILE_ROWS, FILE_BYTES = 1 << 20, 1 << 30
IO_BYTES = 64 << 20
"""Read ahead; the library's default buffers gigabytes on wide tables."""
CACHE_BYTES = 32 << 20
"""What is kept of the descriptions of files that were read; a million rows have 1.6 MB of it, and the library's default keeps a gigabyte."""
REMEMBERED = 100
"""So many of the last batches' names are kept in each record: one that comes back within them is known."""

_STORAGE = "2.2"  # of Lance's files; written out because the library's default moves
_COMMIT_KEY, _NOTE_KEY = "mis.commit", "mis.note"
_PATIENCE_S = 5.0  # of waiting for one's turn; then it goes on without, and the commit itself decides
_LONGEST_S = 600.0


@dataclass(frozen=True)
class Where:
    """Where a table lies: a folder of this machine, or an object store with what is needed to reach it."""

    uri: str
    """A path, or ``s3://``, ``gs://``, ``az://``."""
    options: Mapping[str, str] | None = field(default=None, repr=False)
    """Of the object store: endpoint, region, credentials (never shown)."""

    def __post_init__(self) -> None:
        if self.options is None and isinstance(self.uri, Located):
            object.__setattr__(self, "options", {name: reveal(value) for name, value in self.uri.options.items()})

    @property
    def beside(self) -> Path:
        """A folder of this machine for what belongs to the table and can be made again from it."""
        return self.uri.beside if isinstance(self.uri, Located) else Path(self.uri)

    @property
    def folder(self) -> Path | None:
        """The folder; None for an object store."""
        return None if "://" in self.uri else Path(self.uri)

    @property
    def storage(self) -> dict[str, str] | None:
        return dict(self.options) if self.options else None


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
    what: str = "append"
    """append, upsert, erase, rotate, drop, evolve, compact, vacuum or upgrade."""
    by: str = ""
    """Who: user@host, process, version of this library."""
    n_added: int = 0
    n_removed: int = 0
    """Rows that left: replaced or deleted."""
    recent: Sequence[str] = ()
    """Short forms of the last batches' names, the newest last."""

    def knows(self, batch: str) -> bool:
        """Whether this batch is the commit's own or among the last `REMEMBERED`."""
        return batch == self.batch or short(batch) in self.recent

    @classmethod
    def read(cls, record: str) -> "Commit":
        """From its JSON; fields that a later version added are passed over."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in json.loads(record).items() if name in known})


@dataclass(frozen=True)
class Change:
    """What a commit does to the table's files."""

    new: Sequence[Any] = ()
    """Fragments with rows, their hidden column in them."""
    updated: Sequence[Any] = ()
    """Fragments some of whose rows are gone."""
    removed: Sequence[int] = ()
    """Numbers of fragments all of whose rows are gone."""
    schema: Any = None
    """The Lance schema with its metadata, where columns change; ``updated`` are all fragments then."""


def short(batch: str) -> str:
    return identity(batch)[:16]


@cache
def writer() -> str:
    """Who writes, as records say it."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} process {os.getpid()}, modelinscale {__version__}"


def compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def record(commit: Commit) -> dict[str, str]:
    return {_COMMIT_KEY: compact_json(vars(commit))}


def commit_of(transaction: Any) -> Commit | None:
    """The record in a transaction; None for one that is not ours (a compaction's)."""
    found = transaction and (transaction.transaction_properties or {}).get(_COMMIT_KEY)
    return Commit.read(found) if found else None


def last_commit(dataset: "lance.LanceDataset", uri: str) -> tuple[Commit, int]:
    """The newest record, and the version it made."""
    n = 1
    with told(uri, "read"):
        while True:
            found = dataset.get_transactions(n)
            for age, transaction in enumerate(found):
                commit = commit_of(transaction)
                if commit is not None:
                    return commit, int(dataset.version) - age
            if len(found) < n or n > 1 << 20:
                break
            n *= 16
    raise LakeError(
        f"{uri}: the record of its last commit is gone, and with it the place in the source.",
        fix="Another program cleaned this table up. Move the table away and collect again.",
    )


def write(rows: "pa.Table", into: Any, schema: "pa.Schema", seq: int | None, mode: str, where: Where) -> list[Any]:
    """Data files that no version names yet; without a ``seq`` the hidden column is left out, for `number` to add."""
    import pyarrow as pa

    if seq is None:
        schema = pa.schema([f for f in schema if f.name != SEQ])
    else:
        rows = rows.append_column(SEQ, pa.repeat(pa.scalar(seq, pa.int64()), rows.num_rows))
    ordered = rows.select(schema.names).cast(spelled_schema(schema))
    return write_batches(ordered.to_batches(max_chunksize=BLOCK_ROWS), into, schema, mode, where)


def write_batches(batches: "Iterable[pa.RecordBatch]", into: Any, schema: "pa.Schema", mode: str, where: Where, *, one_file: bool = False) -> list[Any]:
    """As `write`, for rows that come one batch after the other, their repeating text as text or as codes."""
    import pyarrow as pa
    from lance.fragment import write_fragments

    return list(
        write_fragments(
            pa.RecordBatchReader.from_batches(schema, (_as_kept(batch, schema) for batch in batches)),
            into,
            schema=schema,
            mode=mode,
            max_rows_per_file=FILE_ROWS,
            max_bytes_per_file=FILE_BYTES << 10 if one_file else FILE_BYTES,
            data_storage_version=_STORAGE,
            enable_stable_row_ids=True,
            storage_options=where.storage,
        )
    )


def repeating(schema: "pa.Schema", first: "pa.Table") -> "pa.Schema":
    """The schema a new table is kept in: text that repeats in its first rows as codes and a dictionary in each file, which is read several times faster.

    ``first`` has the columns of ``schema``. Which columns those are never changes afterwards; text that stops repeating is kept as rightly, only larger.
    """
    import pyarrow as pa

    words, head = pa.dictionary(pa.int32(), pa.string()), first.slice(0, BLOCK_ROWS)
    for i, field_ in enumerate(schema):
        if pa.types.is_string(field_.type):
            cells = head.column(field_.name).drop_null()
            if len(cells.unique()) * 2 <= len(cells) > 1:
                schema = schema.set(i, field_.with_type(words))
    return schema


def spelled_schema(schema: "pa.Schema") -> "pa.Schema":
    """With text for what is kept as codes."""
    import pyarrow as pa

    return pa.schema([f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema], metadata=schema.metadata)


def spelled(rows: Any) -> Any:
    """A record batch or table with text for what is kept as codes, the rest shared."""
    schema = spelled_schema(rows.schema)
    return rows if schema.equals(rows.schema) else rows.cast(schema)


def _as_kept(batch: "pa.RecordBatch", schema: "pa.Schema") -> "pa.RecordBatch":
    """A batch as a file of this schema holds it. A dictionary is made of the words of these rows alone: one that came along may know words of rows gone."""
    import pyarrow as pa

    columns = []
    for cells, field_ in zip(batch.columns, schema, strict=True):
        if pa.types.is_dictionary(field_.type):
            plain = cells.cast(field_.type.value_type) if pa.types.is_dictionary(cells.type) else cells
            columns.append(plain.dictionary_encode().cast(field_.type))
        else:
            columns.append(cells)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def number(fragments: Sequence[str], dataset: "lance.LanceDataset", seq: int, where: Where) -> list[Any]:
    """Staged fragments (as JSON) with the hidden column: one small file beside each, so that rows need not be written again for another number."""
    import uuid

    import pyarrow as pa
    from lance.file import LanceFileWriter
    from lance.fragment import DataFile, FragmentMetadata

    schema, numbered = pa.schema([(SEQ, pa.int64())]), []
    at = next(f.id() for f in dataset.lance_schema.fields() if f.name() == SEQ)
    major, minor = (int(part) for part in _STORAGE.split("."))
    for text in fragments:
        fragment = FragmentMetadata.from_json(text)
        name = f"{uuid.uuid4().hex}.lance"
        path = f"{where.uri.rstrip('/')}/data/{name}"
        with LanceFileWriter(path, schema=schema, version=_STORAGE, storage_options=where.storage) as file:
            file.write_batch(pa.table([pa.repeat(pa.scalar(seq, pa.int64()), fragment.physical_rows)], schema=schema))
        size = Path(path).stat().st_size if where.folder else None
        fragment.files.append(DataFile(path=name, fields=[at], column_indices=[0], file_major_version=major, file_minor_version=minor, file_size_bytes=size))
        numbered.append(fragment)
    return numbered


def land(dataset: "lance.LanceDataset", change: Change, commit: Commit, where: Where) -> "lance.LanceDataset | None":
    """Commits on top of exactly the version that was read, rewritten files apart; None when another writer was first.

    Lance lets appends pass each other, which would break the order of commit numbers. So every commit of ours also names the newest fragment as touched:
    of two that read the same version, the second then conflicts. A table without fragments is overwritten instead, which Lance only does to the
    very version that was read.
    """
    import lance
    from lance.commit import CommitConflictError

    op = lance.LanceOperation
    held = dataset.get_fragments()
    if change.schema is not None:
        step: Any = op.Merge(list(change.updated), change.schema)
    elif not held:
        step = op.Overwrite(dataset.schema, list(change.new))
    else:
        updated = list(change.updated)
        newest = held[-1]
        if newest.fragment_id not in {*change.removed, *(f.id for f in updated)}:
            updated.append(newest.metadata)
        step = op.Update(removed_fragment_ids=list(change.removed), updated_fragments=updated, new_fragments=list(change.new))
    transaction = lance.Transaction(int(dataset.version), step, transaction_properties=record(commit))
    try:
        return lance.LanceDataset.commit(dataset, transaction, max_retries=0, enable_stable_row_ids=True, storage_options=where.storage)
    except CommitConflictError:
        return None


def rewrite(dataset: "lance.LanceDataset", changes: Sequence[Change], where: Where) -> "lance.LanceDataset | None":
    """Commits files written anew, rows as they were, also past appends of other writers; None when another one changed these very files.

    It carries no record, which would be another writer's place in the source by then; a note says who.
    """
    import lance
    from lance.commit import CommitConflictError

    updated, removed = [f for one in changes for f in one.updated], [i for one in changes for i in one.removed]
    step = lance.LanceOperation.Update(removed_fragment_ids=removed, updated_fragments=updated)
    note = {_NOTE_KEY: compact_json({"what": "compact", "by": writer()})}
    try:
        return lance.LanceDataset.commit(dataset, lance.Transaction(int(dataset.version), step, transaction_properties=note), storage_options=where.storage)
    except CommitConflictError:
        return None


def note_of(transaction: Any) -> dict[str, str]:
    """Who did what, of a transaction of ours without a record."""
    found = transaction and (transaction.transaction_properties or {}).get(_NOTE_KEY)
    return dict(json.loads(found)) if found else {}


@contextmanager
def at_work(where: Where, *, alone: bool = False, wait_s: float = _LONGEST_S) -> Iterator[bool]:
    """Holds a local table as one of its writers, or ``alone``; gives whether it does. The writers of an object store do not see each other."""
    if where.folder is None:
        yield not alone
        return
    with _lock_file(where.folder / f"{INTERNAL}writers") as handle:
        held = _flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, wait_s)
        if not held and not alone:
            raise StoreError(f"the table {where.uri} is held by a sweep or an erasure.", fix="Wait until it ends, or stop it.")
        yield held


@contextmanager
def turn(where: Where) -> Iterator[None]:
    """Writers of one machine take turns, which saves work done twice. Only a courtesy: after a while one goes on without, and `land` decides."""
    if where.folder is None:
        yield
        return
    with _lock_file(where.folder / f"{INTERNAL}lock") as handle:
        _flock(handle, fcntl.LOCK_EX, _PATIENCE_S)
        yield


def attempts(where: Where) -> Iterator[int]:
    """Tries until one succeeds, ever longer apart. Raises `LakeError` when others were first for ten minutes."""
    end, n = time.monotonic() + _LONGEST_S, 0
    while time.monotonic() < end:
        yield n
        n += 1
        time.sleep(random.uniform(0, min(1.0, 0.01 * 2**n)))
    raise LakeError(f"{where.uri}: other writers were first, {n} times in {_LONGEST_S / 60:.0f} minutes.", fix="Run again with fewer writers at once.")


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    with files.told(path, "lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def _flock(handle: int, how: int, wait_s: float) -> bool:
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(random.uniform(0.001, 0.01))  # of different lengths: nobody waits in step with another


_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def told(uri: str, doing: str) -> Iterator[None]:
    """Lance's errors as ours: the disk's refusals as `StoreError`, anything else as a `LakeError`. It tells the system's error number only in words."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, MisError):
            raise
        found = _OS_ERROR.search(str(error))
        code = error.errno if isinstance(error, OSError) and error.errno else int(found[1]) if found else 0
        refused = files.refusal(code, Path(uri), doing)
        if refused:
            raise refused from error
        known = reason(str(error)) if "://" in uri else None
        if known is not None:
            raise LakeError(f"Cannot {doing} the table {uri}: {known[0]}.", fix=known[1]) from error
        if "://" in uri:
            fix = "Check the address, the credentials and the options of the store; then whether another program changed the table."
        else:
            fix = "It is damaged, or another program changed it. Restore it, or move it away and collect again."
        raise LakeError(f"Cannot {doing} the table {uri}: {_short(error)}.", fix=fix) from error


def _short(error: Exception) -> str:
    """The first line of a message without the library's own source paths."""
    return re.sub(r",? */[^ ,]*\.rs:\d+:\d+", "", str(error).split("\n")[0]).rstrip(" .")[:300]


def words(schema: "pa.Schema") -> str:
    return ", ".join(f"{f.name} {f.type}" for f in schema)


def sync(where: Where, before: "lance.LanceDataset | None", after: "lance.LanceDataset") -> None:
    """Has the disk keep a commit through a power cut: its data files, its manifest, and the folders that name them."""
    if where.folder is None:
        return
    known = {path for f in before.get_fragments() for path in _paths(f.metadata)} if before is not None else set()
    new = [path for f in after.get_fragments() for path in _paths(f.metadata) if path not in known]
    folder = where.folder
    wanted = [folder / "data" / path for path in new]
    wanted += [folder / "_versions" / f"{(1 << 64) - 1 - int(after.version):020d}.manifest"]
    wanted += [p for p in (folder / "_deletions").glob("*") if p.stat().st_mtime > time.time() - _LONGEST_S] if (folder / "_deletions").is_dir() else []
    wanted += [p for p in (folder / "data", folder / "_versions", folder / "_transactions", folder / "_deletions", folder, folder.parent) if p.is_dir()]
    with files.told(folder, "write"):
        for path in wanted:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _paths(fragment: Any) -> list[str]:
    return [cast(str, file.path) for file in fragment.files]
