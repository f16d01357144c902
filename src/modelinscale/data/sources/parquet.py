"""Parquet files: streamed in batches of rows, types as their writer declared them."""

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from modelinscale.core.errors import NotSupportedYet, SourceError, did_you_mean
from modelinscale.core.schema import Schema
from modelinscale.data.arrow import INTERNAL, column_of
from modelinscale.data.sources import Chunk, Cursor
from modelinscale.data.sources._files import AGAIN, MAY_LACK, Files, all_of, check_left_out

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SAMPLE_ROWS = 20_000
"""Rows looked at for moments in text columns and widths of lists."""
LEAST_ROWS = 64
"""Of each file, where many bring columns of their own."""
_BUFFER_BYTES = 1 << 16
"""Read of a column at a time; without, whole columns of a row group are (90 MB groups: 281 MiB held, 173 with, as fast)."""
_PANDAS_INDEX = "__index_level_"


class Parquet(Files):
    """Parquet files. Text columns are text (or moments, where nearly all of their cells are); types are never guessed from digits."""

    rows: int = Field(65_536, ge=1)
    """Rows read at a time."""

    typed: ClassVar[bool] = True

    def columns(self) -> Schema:
        """The columns of the first file, with `sparse` of all, each of the type that it has in the first file that has it.

        Raises `NotSupportedYet` naming every column whose cells no type of ours holds, `SourceError` for one that is of two kinds in two files.
        """
        from modelinscale.data.infer import infer

        return infer(self.sample(), typed=self.typed)

    def sample(self) -> "pa.Table":
        """The first rows of the first file, without the columns left out; with `sparse` of each file that brings columns, those."""
        import pyarrow as pa

        files = self.found()
        if not self.sparse:
            names = _names(_open(files[0]), files[0])
            check_left_out(self.without, names, files[0])
            return _first_rows(files[0], [n for n in names if n not in self.without], SAMPLE_ROWS)
        kinds: dict[str, tuple[pa.DataType, Path]] = {}
        brought: dict[Path, list[str]] = {}
        for path in files:
            file = _open(path)
            for name in _names(file, path):
                kind = file.schema_arrow.field(name).type
                if name not in kinds:
                    kinds[name] = kind, path
                    if name not in self.without:
                        brought.setdefault(path, []).append(name)
                elif name not in self.without:
                    _check_kind(name, kind, path, *kinds[name])
        check_left_out(self.without, list(kinds), all_of(files))
        rows = max(LEAST_ROWS, SAMPLE_ROWS // max(1, len(brought)))
        tables = [_first_rows(path, names, rows) for path, names in brought.items()]
        return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})

    def names_of(self, files: Sequence[Path]) -> Iterator[tuple[Path, tuple[str, ...]]]:
        for path in files:
            yield path, tuple(_names(_open(path), path))

    def _row_bytes(self, schema: Schema) -> float:
        """As the footer of the first file says, where that is more: text as it is before it is compressed."""
        about = _open(self.found()[0]).metadata
        total, wanted = 0, set(schema.names)
        for i in range(about.num_row_groups):
            group = about.row_group(i)
            columns = (group.column(k) for k in range(group.num_columns))
            total += sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] in wanted)
        return max(super()._row_bytes(schema), float(total / max(1, about.num_rows)))

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """Chunks of about ``rows`` rows. See the contract. A file that changed after a part of it was read raises `SourceError`."""
        import pyarrow as pa

        places: dict[str, dict[str, Any]] = dict(after["files"]) if after else {}
        for path in self.found():
            known = places.get(str(path)) or _moved_here(path, places)
            file = _open(path)
            about = {"footer": _footer(path), "rows": file.metadata.num_rows}
            start = 0
            if known:
                if {k: known[k] for k in about} != about:
                    raise SourceError(f"{path} is not the file that was read before: it has {about['rows']:,} rows, then {known['rows']:,}.", fix=AGAIN)
                start = known["read"]
            if start >= file.metadata.num_rows:
                continue
            own = _names(file, path)
            names, more = list(self.present(schema, own).names), self.more(schema, own)
            _check_columns(file, path, schema.only(names))
            try:
                for batch, first in _batches(file, start, self.rows, names):
                    places[str(path)] = {**about, "read": first + batch.num_rows}
                    yield Chunk(batch.select(names), {"form": 1, "files": dict(places)}, f"{path}, from row {first + 1}", more)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from error


def _open(path: Path) -> "pq.ParquetFile":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _first_rows(path: Path, names: list[str], n_rows: int) -> "pa.Table":
    """Some columns of the first rows of a file."""
    import pyarrow as pa

    file = _open(path)
    try:
        first = next(file.iter_batches(batch_size=n_rows, columns=names), None)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    return file.schema_arrow.empty_table().select(names) if first is None else pa.Table.from_batches([first]).select(names)


def _check_kind(name: str, kind: "pa.DataType", path: Path, other: "pa.DataType", first: Path) -> None:
    """Raises `SourceError` for a column none of whose cells in one file can be read as those in another."""
    kinds = {_kind(name, kind), _kind(name, other)}
    if len(kinds) > 1 and "text" not in kinds:
        raise SourceError(
            f"column {name!r} is {kind} in {path} and {other} in {first}.",
            fix=f"Write it alike where the files are written, or leave it out: `without: [{name}]` under the source.",
        )


def _kind(name: str, kind: "pa.DataType") -> str:
    """Within a kind cells of one type can be read as another, or each is a fault of its own; as text all can."""
    try:
        found = column_of(name, kind).type
    except NotSupportedYet:
        return "list"
    return {"int": "number", "float": "number", "bool": "number", "string": "text", "vector": "list", "sequence": "list"}.get(found, found)


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}", fix="Is it complete, and is it Parquet? Copy or write it again.")


def _names(file: "pq.ParquetFile", path: Path) -> list[str]:
    names: list[str] = file.schema_arrow.names
    doubled = sorted({n for n in names if names.count(n) > 1})
    if doubled:
        raise SourceError(f"{path}: column names occur twice: {', '.join(doubled)}.", fix="Rename them where the file is written.")
    reserved = [n for n in names if n.startswith(INTERNAL)]
    if reserved:
        raise SourceError(f"{path}: column names must not start with {INTERNAL!r}: {', '.join(reserved)}.", fix="Rename them where the file is written.")
    return [n for n in names if not n.startswith(_PANDAS_INDEX)]


def _check_columns(file: "pq.ParquetFile", path: Path, schema: Schema) -> None:
    names = _names(file, path)
    lacking = [n for n in schema.names if n not in names]
    if lacking:
        near = did_you_mean(lacking[0], names)
        raise SourceError(f"{path} has no column {', '.join(map(repr, lacking[:10]))}.{near}", fix=f"It has {len(names)}: {', '.join(names[:20])}. {MAY_LACK}")


def _batches(file: "pq.ParquetFile", start: int, size: int, names: list[str]) -> "Iterator[tuple[pa.RecordBatch, int]]":
    """Batches from row ``start`` on, each with the number of its first row; row groups that lie before are not read."""
    groups: list[int] = []
    row = 0
    for i in range(file.metadata.num_row_groups):
        n = file.metadata.row_group(i).num_rows
        if groups or row + n > start:
            groups.append(i)
        else:
            row += n
    for batch in file.iter_batches(batch_size=size, row_groups=groups, columns=names):
        first, row = row, row + batch.num_rows
        if row <= start:
            continue
        if first < start:
            batch, first = batch.slice(start - first), start
        yield batch, first


def _footer(path: Path) -> int:
    """A checksum of the file's footer, which holds where and how large every column chunk is, with its statistics."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(size - 8)
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - 8 - length))
        return zlib.crc32(file.read(length))


def _moved_here(path: Path, places: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The place kept for a file of this name whose own path is gone, if it is this very file."""
    for other, facts in places.items():
        same = os.path.normpath(other) == str(path)  # once kept with its ``..``
        if Path(other).name == path.name and (same or (not Path(other).exists() and facts["footer"] == _footer(path))):
            places[str(path)] = places.pop(other)  # here too where nothing is left to read: the next cursor must know it
            return places[str(path)]
    return None
