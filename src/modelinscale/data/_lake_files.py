"""Data files of a lake table: text that repeats is kept as codes and read back as text; no file counts until a commit names it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.data._lake_base import BLOCK_ROWS, SEQ, Where

if TYPE_CHECKING:
    import lance
    import pyarrow as pa


FILE_ROWS, FILE_BYTES = 1 << 20, 1 << 30
_STORAGE = "2.2"  # of Lance's files; written out because the library's default moves


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
