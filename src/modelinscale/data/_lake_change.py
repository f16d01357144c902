"""Changes of a lake table beyond appending: rows replaced or deleted by key, columns added or widened, and what changed since a version."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import LakeError, UsageError
from modelinscale.core.schema import Column, Schema
from modelinscale.data._lake_base import BLOCK_ROWS, IO_BYTES, SEQ, Where
from modelinscale.data._lake_errors import told
from modelinscale.data._lake_files import spelled, spelled_schema, write_batches
from modelinscale.data._lake_land import Change
from modelinscale.data.arrow import arrow_type

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

_WIDE = "_mis_wide_"


@dataclass(frozen=True)
class Changes:
    """What happened to a table's keys since a version. The new and updated rows themselves: `Table.blocks` with ``since``."""

    inserted: "pa.Table"
    """Keys of rows that are there now and were not."""
    updated: "pa.Table"
    """Keys of rows that were replaced."""
    deleted: "pa.Table"
    """Keys of rows that are gone."""


def without(dataset: "lance.LanceDataset", keys: "pa.Table", uri: str) -> tuple[Change, int]:
    """The files without the rows that have one of these keys (columns named as in the table, no cell missing), and how many rows those are."""
    names = keys.schema.names
    if not keys.num_rows or not dataset.get_fragments():
        return Change(), 0
    with told(uri, "read"):
        found = dataset.merge_insert(names).when_matched_delete().execute_uncommitted(keys)
    step: Any = found[0].operation
    n = int(found[1]["num_deleted_rows"])
    before = {f.fragment_id: f for f in dataset.get_fragments()}
    gone = sum(before[i].count_rows() for i in step.removed_fragment_ids)
    gone += sum(f.num_deletions - before[f.id].num_deletions for f in step.updated_fragments)
    if gone != n or step.new_fragments:
        # The one part of the library that has a history of faults: its own count and what it did to the files must agree.
        raise LakeError(f"{uri}: {n} rows were to leave, but {gone} would.", fix="Nothing was changed. Compact the table and try again.")
    return Change(updated=step.updated_fragments, removed=step.removed_fragment_ids), n


def later_than(dataset: "lance.LanceDataset", seq: int) -> tuple[Change, int]:
    """The files without the rows of commits numbered higher than ``seq``, and how many rows those are."""
    updated, removed, n = [], [], 0
    for fragment in dataset.get_fragments():
        left = fragment.delete(f"{SEQ} > {seq}")
        if left is None:
            removed.append(fragment.fragment_id)
            n += fragment.count_rows()
        elif left.num_deletions != fragment.num_deletions:
            updated.append(left)
            n += left.num_deletions - fragment.num_deletions
    return Change(updated=updated, removed=removed), n


def reworded(dataset: "lance.LanceDataset", words: Mapping[str, Callable[[str], str]], where: Where) -> Change:
    """Every file written again, in order, with the words of some text columns made others; each different word of a block once."""
    import pyarrow as pa

    def blocks() -> "Iterator[pa.RecordBatch]":
        names = dataset.schema.names
        for batch in dataset.scanner(columns=names, scan_in_order=True, batch_size=BLOCK_ROWS, io_buffer_size=IO_BYTES, batch_readahead=2).to_batches():
            cells = dict(zip(names, spelled(batch).columns, strict=True))
            for name, function in words.items():
                codes = cells[name].dictionary_encode()
                again = pa.array([None if v is None else function(v) for v in codes.dictionary.to_pylist()], pa.string())
                cells[name] = again.take(codes.indices)
            yield pa.RecordBatch.from_arrays(list(cells.values()), schema=spelled_schema(dataset.schema))

    held = [f.fragment_id for f in dataset.get_fragments()]
    return Change(new=write_batches(blocks(), dataset, dataset.schema, "append", where), removed=held) if held else Change()


def last_of_each(rows: "pa.Table", key: Sequence[str], uri: str) -> "pa.Table":
    """The rows with the last one of every key only, in their order. Raises `UsageError` for a key that is missing or unknown."""
    import numpy as np
    import pyarrow as pa

    if not key:
        raise UsageError(f"{uri}: rows can only be replaced by key.", fix="Name the columns of the key.")
    for name in key:
        if name not in rows.schema.names:
            raise UsageError(f"{uri} has no column {name!r} to be its key.")
        if rows.column(name).null_count:
            raise UsageError(f"{uri}: the key {name!r} is missing in {rows.column(name).null_count} rows.", fix="Give every row its key.")
        if pa.types.is_floating(rows.schema.field(name).type) or pa.types.is_nested(rows.schema.field(name).type):
            raise UsageError(f"{uri}: the key {name!r} is {rows.schema.field(name).type}; equal numbers with a point are chance.", fix="Name another key.")
    numbered = rows.select(list(dict.fromkeys(key))).append_column("_mis_row", pa.array(np.arange(rows.num_rows)))
    kept = numbered.group_by(list(dict.fromkeys(key))).aggregate([("_mis_row", "max")]).column("_mis_row_max")
    return rows if len(kept) == rows.num_rows else rows.take(pa.array(np.sort(kept.to_numpy())))


def changes(old: "lance.LanceDataset", new: "lance.LanceDataset", fresh: "pa.Table", key: Sequence[str], uri: str) -> Changes:
    """Keys of what came, was replaced and went between two versions; ``fresh`` are the keys of the rows that came after the first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone, on = fresh.slice(0, 0), list(key)
    with told(uri, "read"):
        # Rows have ids that stay with them; only files that one of the two versions does not have can tell of a difference.
        before, after = ({_files(f): f for f in one.get_fragments()} for one in (old, new))
        left = [f for name, f in before.items() if name not in after]
        if left:
            others = [f for name, f in after.items() if name not in before]
            here = _rows(new, others, []).column("_rowid") if others else pa.chunked_array([], pa.uint64())
            found = _rows(old, left, on)
            gone = found.filter(pc.invert(pc.is_in(found.column("_rowid"), value_set=here))).select(on).cast(fresh.schema)
    return Changes(
        inserted=fresh.join(gone, on, join_type="left anti"),
        updated=fresh.join(gone, on, join_type="left semi"),
        deleted=gone.join(fresh, on, join_type="left anti"),
    )


def _files(fragment: Any) -> tuple[str, ...]:
    return (*(str(f.path) for f in fragment.metadata.files), str(fragment.deletion_file()))


def _rows(dataset: "lance.LanceDataset", fragments: list[Any], columns: list[str]) -> "pa.Table":
    return dataset.scanner(columns=columns, fragments=fragments, with_row_id=True, batch_size=65_536).to_table()


def wider(stored: Schema, wanted: Schema, uri: str) -> Schema:
    """The stored columns with those of ``wanted`` that are new behind them, and whole numbers made numbers with a point where it asks for that.

    A column that ``wanted`` lacks stays. Raises `LakeError` for any other change of a type.
    """
    wrong, columns = [], []
    for column in stored.columns:
        asked = wanted[column.name] if column.name in wanted else column  # noqa: SIM401 (a Schema is no dict)
        same = (asked.type, asked.width) == (column.type, column.width)
        if not same and (column.type, asked.type) != ("int", "float"):
            wrong.append(f"{column.name} is {column.type} in the table and cannot become {asked.type}")
        columns.append(column if same else asked)
    if wrong:
        raise LakeError(f"{uri}: {'; '.join(wrong)}.", fix="Only int can become float. Move the table away and collect everything again.")
    return Schema(columns=(*columns, *(c for c in wanted.columns if c.name not in stored)))


def reshaped(dataset: "lance.LanceDataset", old: Schema, new: Schema, metadata: dict[str, str], uri: str) -> Change:
    """The files with these columns: a new column is nothing but a line in the schema, a widened one a file of its own beside each; no other file is written.

    A widened column keeps its place and number; in the old files that number is struck out, as the format does for a column replaced.
    Raises `LakeError` when a whole number is too large to be held exactly with a point.
    """
    import pyarrow as pa
    from lance.schema import LanceSchema

    numbers = {f.name(): f.id() for f in dataset.lance_schema.fields()}
    if list(numbers.values()) != list(range(len(numbers))):
        raise LakeError(f"{uri}: its columns are not numbered as we number them.", fix="Another program changed it: restore an older version.")
    widened = [c for c in new.columns if c.name in old and old[c.name].type != c.type]
    _refuse_too_large(dataset, [c.name for c in widened], uri)
    fields = [pa.field(f.name, arrow_type(new[f.name]) if f.name in {c.name for c in widened} else f.type) for f in dataset.schema]
    fields += [pa.field(c.name, arrow_type(c)) for c in new.columns if c.name not in old]
    fragments = [_widened(f, widened, numbers) for f in dataset.get_fragments()]
    return Change(updated=fragments, schema=LanceSchema.from_pyarrow(pa.schema(fields, metadata=metadata)))


def _refuse_too_large(dataset: "lance.LanceDataset", names: list[str], uri: str) -> None:
    import pyarrow.compute as pc

    if not names:
        return
    for batch in dataset.scanner(columns=names, batch_size=65_536, io_buffer_size=IO_BYTES).to_batches():
        for name in names:
            if (pc.max(pc.abs(batch.column(name))).as_py() or 0) > 1 << 53:
                raise LakeError(
                    f"{uri}: {name!r} has a whole number that is too large to be held exactly with a point.",
                    fix="Leave the column as it is, or move the table away and collect everything again.",
                )


def _widened(fragment: Any, columns: list[Column], numbers: dict[str, int]) -> Any:
    import pyarrow as pa
    from lance.fragment import DataFile

    if not columns:
        return fragment.metadata
    names = [c.name for c in columns]

    def cast(batch: "pa.RecordBatch") -> "pa.RecordBatch":
        cells = [batch.column(c.name).cast(arrow_type(c), safe=False) for c in columns]
        return pa.record_batch(cells, names=[_WIDE + name for name in names])

    made, _ = fragment.merge_columns(cast, columns=names)
    beside, struck = made.files.pop(), {numbers[name] for name in names}
    files = [_file(DataFile, f, [-2 if i in struck else i for i in f.fields]) for f in made.files]
    made.files[:] = [*files, _file(DataFile, beside, [numbers[name] for name in names])]
    return made


def _file(make: Any, file: Any, fields: list[int]) -> Any:
    return make(
        path=file.path,
        fields=fields,
        column_indices=file.column_indices,
        file_major_version=file.file_major_version,
        file_minor_version=file.file_minor_version,
        file_size_bytes=file.file_size_bytes,
    )
