"""What is kept of a lake table and for how long: its history, the versions that leave and why others stay, and the removal of a person's bytes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import UsageError
from modelinscale.data._lake_base import BLOCK_ROWS, IO_BYTES, Commit, Where, commit_of, note_of
from modelinscale.data._lake_errors import told
from modelinscale.data._lake_files import FILE_BYTES, FILE_ROWS, spelled, spelled_schema, write_batches
from modelinscale.data._lake_land import Change

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

SMALL_BYTES = 8 << 20
"""A data file below this is worth joining with others."""
_LISTED_AGAIN = 20
TIER = 64
"""Commits of which the small ones join their files, and how many of the newest files say what small is."""


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
    size_bytes: int = 0
    """Of the data files it reads."""


@dataclass(frozen=True)
class HistoryEntry:
    """A version and how it came about."""

    version: Version
    commit: Commit | None
    """Its record; None where files were only rewritten."""
    tags: tuple[str, ...] = ()
    """Its names: the models that were trained on it."""
    note: Mapping[str, str] = field(default_factory=dict)
    """What and who, where there is no record."""

    @property
    def what(self) -> str:
        """append, upsert, erase, rotate, drop, evolve, compact, vacuum or upgrade; another program's change is "unknown"."""
        return self.commit.what if self.commit else self.note.get("what", "unknown")

    @property
    def by(self) -> str:
        """Who made it, where that is known."""
        return self.commit.by if self.commit else self.note.get("by", "")


@dataclass(frozen=True)
class Vacuumed:
    """What a vacuum removed, or would remove."""

    removed: tuple[int, ...]
    kept: Mapping[int, str]
    """Each version that stays, and why."""
    bytes_freed: int


@dataclass(frozen=True)
class Erased:
    """What an erasure removed."""

    n_rows: int
    """Rows that left the newest version."""
    versions_removed: tuple[int, ...]
    """Versions whose files held such a row, even a deleted one."""
    tags_moved: Mapping[str, tuple[int, int]]
    """Names that pointed at those: from which version to which."""


def versions(dataset: "lance.LanceDataset", uri: str) -> tuple[Version, ...]:
    """Every version that can still be read up to this one, oldest first."""
    found, before = [], 0
    with told(uri, "read"):
        for one in _listed(dataset):
            about, time = one["metadata"], one["timestamp"]
            assert isinstance(time, datetime), "the library gives local time"
            n_rows = int(about["total_rows"])
            found.append(Version(int(one["version"]), time.astimezone(UTC), n_rows, n_rows - before, int(about.get("total_files_size", 0))))
            before = n_rows
    return tuple(v for v in found if v.number <= int(dataset.version))


def _listed(dataset: "lance.LanceDataset") -> list[Any]:
    """What the library lists. It reads the record of one version after the other, and fails when another process removes one meanwhile: then anew."""
    for left in range(_LISTED_AGAIN, -1, -1):
        try:
            return list(dataset.versions())
        except ValueError as error:
            if not left or not ("ot found" in str(error) and ".manifest" in str(error)):
                raise
    raise AssertionError("it returned or raised")


def history(dataset: "lance.LanceDataset", uri: str, n: int | None) -> tuple[HistoryEntry, ...]:
    """The last ``n`` versions (None: all) with their records and names, oldest first."""
    known = versions(dataset, uri)
    found = []
    with told(uri, "read"):
        names = _names(dataset)
        for version in known if n is None else known[-n:]:
            transaction = dataset.read_transaction(version.number)
            found.append(HistoryEntry(version, commit_of(transaction), names.get(version.number, ()), note_of(transaction)))
    return tuple(found)


def _names(dataset: "lance.LanceDataset") -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for name, tag in sorted(dataset.tags.list().items()):
        found[int(tag["version"])] = (*found.get(int(tag["version"]), ()), name)
    return found


def decide(
    known: Sequence[Version], named: Mapping[int, Sequence[str]], needed: Iterable[int], older_than: timedelta, keep_versions: int, now: datetime
) -> dict[int, str]:
    """The versions that stay, each with its reason: of the newest, of those in use, named, or young."""
    kept = {v.number: f"younger than {_days(older_than)}" for v in known if now - v.time <= older_than}
    if keep_versions > 1:
        kept |= {v.number: f"one of the newest {keep_versions}" for v in known[-keep_versions:]}
    kept |= {n: "holds the rows that the newest version has" for n in needed if any(v.number == n for v in known)}
    kept[known[-1].number] = "the newest"
    kept |= {n: f"named {', '.join(names)}" for n, names in named.items() if any(v.number == n for v in known)}
    return dict(sorted(kept.items()))


def _days(span: timedelta) -> str:
    from modelinscale.core.units import show_seconds

    return show_seconds(span.total_seconds())


def remove(dataset: "lance.LanceDataset", numbers: Sequence[int], uri: str, *, dry_run: bool = False, unverified: bool = False) -> int:
    """Removes these versions and what only they need; gives the bytes."""
    if not numbers:
        return 0
    with told(uri, "read" if dry_run else "write"):
        if dry_run:
            return int(dataset.explain_cleanup_old_versions(versions=list(numbers), error_if_tagged_old_versions=False).stats.bytes_removed)
        done = dataset.cleanup_old_versions(versions=list(numbers), delete_unverified=unverified, error_if_tagged_old_versions=False)
        return int(done.bytes_removed)


def joinable(dataset: "lance.LanceDataset", *, fits: "Callable[[Any], bool]") -> list[list[Any]]:
    """Runs of neighbouring fragments to be written as one: small ones, and those that lost a tenth of their rows. The newest stays: writers touch it."""
    runs: list[list[Any]] = [[]]
    for fragment in dataset.get_fragments()[:-1]:
        whole = [*runs[-1], fragment]
        if not fits(fragment):
            runs.append([])
        elif sum(f.metadata.physical_rows for f in whole) > FILE_ROWS or sum(map(size, whole)) > FILE_BYTES:
            runs.append([fragment])
        else:
            runs[-1] = whole
    return [run for run in runs if len(run) > 1 or any(10 * f.num_deletions >= f.metadata.physical_rows for f in run)]


def size(fragment: Any) -> int:
    return sum(file.file_size_bytes or 0 for file in fragment.metadata.files)


def lately(dataset: "lance.LanceDataset") -> "Callable[[Any], bool]":
    """Says which fragments are small beside the newest `TIER` together. So a row is written again only when a quarter as many new ones came."""
    most = 4 * sum(int(f.metadata.physical_rows) for f in dataset.get_fragments()[-TIER:])
    return lambda fragment: fragment.metadata.physical_rows <= most


def joined(dataset: "lance.LanceDataset", run: "list[Any]", where: Where) -> Change:
    """The run as one fragment, without its deleted rows, under the first one's number: rows keep their place, their ids and the versions they came in.

    The library's own compaction gives new fragments the highest numbers, which puts old rows behind newer ones.
    """
    import json

    import numpy as np
    import pyarrow as pa
    from lance.fragment import RowDatasetVersionMeta, RowIdSequence

    extra = {"_rowid": [], "_row_created_at_version": [], "_row_last_updated_at_version": []}  # type: dict[str, list[Any]]
    names = dataset.schema.names
    scanner = dataset.scanner(
        columns=[*names, *list(extra)[1:]],
        fragments=run,
        with_row_id=True,
        batch_size=BLOCK_ROWS,
        scan_in_order=True,
        io_buffer_size=IO_BYTES,
        batch_readahead=2,
        fragment_readahead=2,
    )

    def batches() -> "Iterator[pa.RecordBatch]":
        for batch in scanner.to_batches():
            for name, parts in extra.items():
                parts.append(batch.column(name).to_numpy())
            yield pa.RecordBatch.from_arrays([batch.column(n) for n in names], schema=dataset.schema)

    (made,) = write_batches(batches(), dataset, dataset.schema, "append", where, one_file=True)
    ids, created, updated = (np.concatenate(parts) for parts in extra.values())
    made.id = run[0].fragment_id
    made.row_id_meta = RowIdSequence(ids.tolist()).to_inline_metadata()
    made.created_at_version_meta = RowDatasetVersionMeta.from_json(json.dumps({"inline": list(_spans(created))}))
    made.last_updated_at_version_meta = RowDatasetVersionMeta.from_json(json.dumps({"inline": list(_spans(updated))}))
    return Change(updated=[made], removed=[f.fragment_id for f in run[1:]])


def _spans(versions: Any) -> bytes:
    """Versions of rows as the format keeps them: a message for each stretch of equal ones, with its range of rows and the version (Protocol Buffers)."""
    import numpy as np

    starts = np.concatenate([[0], np.flatnonzero(np.diff(versions.astype(np.int64))) + 1, [len(versions)]]).tolist()
    found = b""
    for start, end in pairwise(starts):
        rows = (b"\x08" + _varint(start) if start else b"") + b"\x10" + _varint(end)
        segment = b"\x0a" + _varint(len(rows)) + rows
        span = b"\x0a" + _varint(len(segment)) + segment + b"\x10" + _varint(int(versions[start]))
        found += b"\x0a" + _varint(len(span)) + span
    return found


def _varint(n: int) -> bytes:
    found = bytearray()
    while n > 127:
        found.append(n & 127 | 128)
        n >>= 7
    return bytes([*found, n])


def matcher(values: Sequence[Any], kind: "pa.DataType", column: str, uri: str) -> "pa.Array":
    """The values as cells of the column's type. Raises `UsageError` when they cannot be."""
    import pyarrow as pa

    try:
        return pa.array(list(values), kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"{uri}: a value is no {kind}, which the column {column!r} holds.", fix="Give values of the column's type.") from error


def counted(
    datasets: "Iterator[tuple[int, lance.LanceDataset]]", column: str, cells: "Callable[[pa.DataType], pa.Array]", uri: str, *, gone: bool = False
) -> dict[int, int]:
    """For each version that has such rows: how many; with ``gone``, deleted ones that are still in its files count too. Each file is read once."""
    import pyarrow.compute as pc

    found: dict[int, int] = {}
    seen: dict[tuple[str, ...], int] = {}
    with told(uri, "read"):
        for version, dataset in datasets:
            if column not in dataset.schema.names:
                continue
            n, values = 0, cells(spelled_schema(dataset.schema).field(column).type)
            for fragment in dataset.get_fragments():
                about = fragment.metadata
                name = (*(str(f.path) for f in about.files), "" if gone else repr(fragment.deletion_file()))
                if name not in seen:
                    scan = fragment.scanner(columns=[column], with_row_id=True, include_deleted_rows=gone, batch_size=BLOCK_ROWS)
                    seen[name] = sum(pc.sum(pc.is_in(spelled(batch).column(column), value_set=values)).as_py() or 0 for batch in scan.to_batches())
                n += seen[name]
            if n:
                found[version] = n
    return found


def forget_keys(where: Where) -> None:
    """Removes the key index that lies in a local table, or beside one on a store: it is built again, without what left."""
    import shutil

    if "://" not in str(where.beside):
        shutil.rmtree(where.beside / "_mis_keys", ignore_errors=True)
