"""Files of answers: filled at the side, put in place in one step when whole."""

import json
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from modelinscale.core.errors import UsageError, did_you_mean
from modelinscale.core.files import told

if TYPE_CHECKING:
    import pyarrow as pa

Write = Callable[["pa.Table"], None]
"""Appends a table."""

STALE_S = 3600.0
"""A part file that nobody wrote to for so long was left by a killed run."""


def writer(out: Path) -> "Callable[[pa.Schema], AbstractContextManager[Write]]":
    """What writes a file of this suffix: called with the columns, it gives a block in which tables are appended.

    When the block ends well the file appears at ``out``; otherwise nothing does. Raises `UsageError` for a suffix not known, and for a folder.
    """
    form = _FORMS.get(out.suffix.lower())
    if form is None:
        known = tuple(_FORMS)
        raise UsageError(f"answers cannot be written as {out.suffix or out.name!r}.{did_you_mean(out.suffix, known)}", fix=f"Known: {', '.join(known)}.")
    if out.is_dir():
        raise UsageError(f"{out} is a folder.", fix="Give --out the name of a file.")

    @contextmanager
    def begin(schema: "pa.Schema") -> Iterator[Write]:
        with told(out, "write"):
            out.parent.mkdir(parents=True, exist_ok=True)
            _sweep(out)
            handle, name = tempfile.mkstemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent)
        side = Path(name)
        try:
            file = os.fdopen(handle, "wb")
            try:
                with told(out, "write"):
                    lines = form(file, schema)

                def write(table: "pa.Table") -> None:
                    with told(out, "write"):
                        lines.append(table)

                try:
                    yield write
                    with told(out, "write"):
                        lines.end()
                        file.close()
                finally:
                    lines.drop()
            finally:
                _close(file)
            with told(out, "write"):
                side.chmod(0o666 & ~_umask())
                side.replace(out)
        except BaseException:
            side.unlink(missing_ok=True)
            raise

    return begin


class _Lines(ABC):
    """A file of one format, being filled."""

    @abstractmethod
    def __init__(self, file: IO[bytes], schema: "pa.Schema") -> None:
        """Begins the file."""

    @abstractmethod
    def append(self, table: "pa.Table") -> None:
        """Adds rows."""

    @abstractmethod
    def end(self) -> None:
        """Adds what stands behind the last row."""

    def drop(self) -> None:
        """Lets go of the file without touching it, whether it was ended or not."""
        return


class _Csv(_Lines):
    def __init__(self, file: IO[bytes], schema: "pa.Schema") -> None:
        import pyarrow as pa
        import pyarrow.csv as csv

        self._schema = pa.schema([pa.field(one.name, pa.string()) if pa.types.is_nested(one.type) else one for one in schema])
        self._writer = csv.CSVWriter(file, self._schema)

    def append(self, table: "pa.Table") -> None:
        """Lists as JSON has them."""
        import pyarrow as pa

        columns = [
            column if column.type == one.type else pa.array(map(json.dumps, column.to_pylist())) for column, one in zip(table, self._schema, strict=True)
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def end(self) -> None:
        self._writer.close()


class _Parquet(_Lines):
    def __init__(self, file: IO[bytes], schema: "pa.Schema") -> None:
        import pyarrow.parquet as parquet

        self._writer = parquet.ParquetWriter(file, schema, compression="zstd")

    def append(self, table: "pa.Table") -> None:
        self._writer.write_table(table)

    def end(self) -> None:
        self._writer.close()

    def drop(self) -> None:
        # Otherwise it writes its last bytes when it is collected, into a file that is closed by then.
        self._writer.is_open = False


class _Jsonl(_Lines):
    def __init__(self, file: IO[bytes], schema: "pa.Schema") -> None:
        self._file = file

    def append(self, table: "pa.Table") -> None:
        import polars as pl

        if table.num_rows:
            # Through memory: Polars tells of a full disk in words of its own, the file with an error number.
            lines = BytesIO()
            pl.DataFrame(table).write_ndjson(lines)
            self._file.write(lines.getbuffer())

    def end(self) -> None:
        return


_FORMS: dict[str, type[_Lines]] = {".csv": _Csv, ".jsonl": _Jsonl, ".ndjson": _Jsonl, ".parquet": _Parquet, ".pq": _Parquet}


def _close(file: IO[bytes]) -> None:
    """Closes a file whose failing to take its last bytes was told already."""
    try:
        file.close()
    except OSError:
        return


def _sweep(out: Path) -> None:
    """Removes what killed runs left of this very file."""
    for part in out.parent.glob(f".{out.name}.*.part"):
        try:
            if time.time() - part.stat().st_mtime > STALE_S:
                part.unlink()
        except FileNotFoundError:
            continue


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
