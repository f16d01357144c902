"""Blocks of whole records to batches: typed at once where every cell fits, text for the columns where one does not."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelinscale.core.errors import SourceError, did_you_mean
from modelinscale.core.schema import Column, Schema
from modelinscale.data._cells import FALSE_WORDS, FIRST_MOMENT, NULL_WORDS, TRUE_WORDS
from modelinscale.data.arrow import BROKEN, arrow_type
from modelinscale.data.sources._dialect import Dialect
from modelinscale.data.sources._files import MAY_LACK
from modelinscale.data.sources._records import all_ends

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

SHOWN_CHARS = 160
"""How much of a broken record its message keeps."""


def text_schema(names: tuple[str, ...]) -> Schema:
    """All columns as text."""
    return Schema(columns=tuple(Column(name=n, type="string") for n in names))


def whole_rows(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """Without the broken rows and the column that names them."""
    if BROKEN not in batch.schema.names:
        return batch
    good = batch.column(BROKEN).is_null()
    return batch.filter(good).drop_columns([BROKEN])


class Parser:
    """Parses blocks of one file, from several threads at once. A column with a cell that did not fit its type once is read as text from then on."""

    def __init__(self, dialect: Dialect, schema: Schema, path: Path) -> None:
        """Raises `SourceError` when the file lacks columns of the schema."""
        lacking = [n for n in schema.names if n not in dialect.names]
        if lacking:
            near = did_you_mean(lacking[0], dialect.names)
            raise SourceError(
                f"{path} has no column {', '.join(map(repr, lacking[:10]))}.{near}",
                fix=f"It has {len(dialect.names)}: {', '.join(dialect.names[:20])}. Are separator and header right? {MAY_LACK}",
            )
        self._dialect, self._schema, self._path = dialect, schema, path
        self._types = _fast_types(schema)
        self._options = _flag_words(schema)

    def parse(self, data: bytes, line: int, broken: str = "") -> "pa.RecordBatch":
        """The rows of a block that starts at ``line``, broken ones in their places. ``broken`` makes one broken row of all of it."""
        if broken:
            return self._placed(self._empty(), {0: broken}, {0}, data, line)
        if self._dialect.encoding in UTF8:
            return self._parsed(data, line, {})
        return self._parsed(*self._decoded(data, line))

    def _parsed(self, data: bytes, line: int, undecoded: dict[int, str]) -> "pa.RecordBatch":
        import pyarrow as pa

        while True:
            types, ragged = dict(self._types), dict[int, str]()
            try:
                batch = self._read(data, types, ragged)
            except pa.ArrowInvalid as error:
                name = self._culprit(str(error))
                if name is not None and not self._is_text(types[name]):
                    self._types[name] = pa.string()
                elif "UTF8" in str(error) and not undecoded:
                    data, line, undecoded = self._decoded(data, line)
                else:
                    raise SourceError(f"{self._path}, from line {line}: {error}", fix="Declare `separator`, `quote` or `encoding`.") from error
                continue
            odd = [n for n, cells in zip(batch.schema.names, batch.columns, strict=True) if _out_of_range(cells)]
            if not odd:
                break
            self._types.update(dict.fromkeys(odd, pa.string()))  # once more as text, so that the fault shows what was written
        if not ragged and not undecoded:
            return batch
        return self._placed(batch, undecoded | ragged, set(ragged), data, line)

    def _read(self, data: bytes, types: "dict[str, pa.DataType]", ragged: dict[int, str]) -> "pa.RecordBatch":
        import pyarrow as pa
        import pyarrow.csv as pc

        dialect = self._dialect
        expected = f"expected {len(dialect.names)}"

        def keep(row: pc.InvalidRow) -> str:
            ragged[row.number - 1] = f"{row.actual_columns} cell{'s' * (row.actual_columns != 1)}, {expected}"
            return "skip"

        if data[:1] in (b"", b"\r", b"\n") and not data.strip(b"\r\n"):
            return self._empty()
        table = pc.read_csv(
            pa.BufferReader(data),
            read_options=pc.ReadOptions(column_names=dialect.names, use_threads=False, block_size=len(data) + 1),
            parse_options=pc.ParseOptions(
                delimiter=dialect.separator, quote_char=dialect.quote or False, newlines_in_values=bool(dialect.quote), invalid_row_handler=keep
            ),
            convert_options=pc.ConvertOptions(
                column_types=types, include_columns=self._schema.names, null_values=["", *NULL_WORDS], strings_can_be_null=False, **self._options
            ),
        )
        arrays = [_trimmed(c.combine_chunks()) if self._is_text(c.type) else c.combine_chunks() for c in table.columns]
        return pa.record_batch(arrays, names=table.column_names)

    def _is_text(self, kind: "pa.DataType") -> bool:
        import pyarrow as pa

        return bool(kind == pa.string())

    def _culprit(self, message: str) -> str | None:
        """The column that an error of Arrow's reader is about."""
        found = re.match(r"In CSV column #(\d+): .*conversion error", message, re.DOTALL)
        return self._dialect.names[int(found[1])] if found and "invalid UTF8" not in message else None

    def _decoded(self, data: bytes, line: int) -> tuple[bytes, int, dict[int, str]]:
        """The block as UTF-8, and the records that hold bytes which are no text in the file's encoding."""
        dialect = self._dialect
        text = data.decode(dialect.encoding, "surrogateescape")
        try:
            return text.encode(), line, {}
        except UnicodeEncodeError:
            pass
        # Such a byte became a lone surrogate: three bytes that no UTF-8 text holds, as many as those of the replacement character.
        marked = text.encode("utf-8", "surrogatepass")
        places = [m.start() for m in _UNDECODED.finditer(marked)]
        starts, numbers = _records(marked, dialect)
        undecoded: dict[int, str] = {}
        for place, record in zip(places, (np.searchsorted(starts, places, side="right") - 1).tolist(), strict=True):
            byte = ord(marked[place : place + 3].decode("utf-8", "surrogatepass")) - 0xDC00
            undecoded.setdefault(int(numbers[record]), f"bytes that are not {dialect.encoding} (0x{byte:02x})")
        return _UNDECODED.sub("\ufffd".encode(), marked), line, undecoded

    def _placed(self, batch: "pa.RecordBatch", broken: dict[int, str], absent: set[int], data: bytes, line: int) -> "pa.RecordBatch":
        """The batch with broken rows in their places, all null but for the reason; those of ``absent`` are not in the batch yet."""
        import pyarrow as pa

        starts, numbers = _records(data, self._dialect)
        n_rows = batch.num_rows + len(absent)
        index = np.full(n_rows, -1, np.int64)
        here = np.ones(n_rows, bool)
        here[list(absent)] = False
        index[here] = np.arange(batch.num_rows)
        index[list(broken)] = -1
        reasons: list[str | None] = [None] * n_rows
        at = dict(zip(numbers.tolist(), starts.tolist(), strict=True))
        newline = bytes((self._dialect.line_end,))
        for number, reason in broken.items():
            start = at.get(number, 0)
            shown = data[start : start + SHOWN_CHARS].decode("utf-8", "replace").splitlines() or [""]
            reasons[number] = f"{reason}: line {line + data.count(newline, 0, start)}: {shown[0]}"
        rows = pa.array(index, mask=index < 0)
        return pa.record_batch([*(c.take(rows) for c in batch.columns), pa.array(reasons, pa.string())], names=[*batch.schema.names, BROKEN])

    def _empty(self) -> "pa.RecordBatch":
        import pyarrow as pa

        return pa.record_batch([pa.array([], self._types[n]) for n in self._schema.names], names=list(self._schema.names))


UTF8 = ("utf-8", "utf8", "utf-8-sig", "utf_8", "ascii")
_UNDECODED = re.compile(rb"\xed[\xb2\xb3][\x80-\xbf]")


def _records(data: bytes, dialect: Dialect) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Where the records of a block start, and which of the records that are not blank each is (a blank one: as the one that follows)."""
    ends = all_ends(data, dialect.quote, dialect.separator, dialect.line_end)
    if not len(ends) or ends[-1] < len(data):
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    text = np.frombuffer(data, np.uint8)
    blank = (ends - starts == 1) & (text[starts] == dialect.line_end) | (ends - starts == 2) & (text[starts] == 13)
    return starts[~blank], np.arange(int((~blank).sum()))


def _fast_types(schema: Schema) -> "dict[str, pa.DataType]":
    """The type each column is read as at once; text where its habits are not ones that Arrow's reader has."""
    import pyarrow as pa

    flags = {(c.true_words, c.false_words) for c in schema.columns if c.type == "bool"}

    def fast(c: Column) -> bool:
        usual = not c.affixes and not c.thousands and c.decimal == "." and set(c.nulls) <= set(NULL_WORDS)
        return usual and c.type not in ("vector", "sequence") and (c.type != "time" or c.format in (None, "iso")) and (c.type != "bool" or len(flags) == 1)

    return {c.name: arrow_type(c) if fast(c) else pa.string() for c in schema.columns}


def _flag_words(schema: Schema) -> dict[str, Any]:
    """How flags are written, for Arrow's reader, which knows one way for all columns."""
    column = next((c for c in schema.columns if c.type == "bool"), None)
    if column is None:
        return {}
    return {
        "true_values": [v for w in column.true_words or TRUE_WORDS for v in {w, w.title(), w.upper()}],
        "false_values": [v for w in column.false_words or FALSE_WORDS for v in {w, w.title(), w.upper()}],
    }


def _out_of_range(cells: "pa.Array") -> bool:
    """Whether Arrow read something that the lake does not hold: an infinite number, the year 0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if cells.type == pa.float64():
        ends = pc.min_max(cells).as_py()
        return bool(ends["min"] == float("-inf") or ends["max"] == float("inf"))
    if cells.type == pa.timestamp("us"):
        first = pc.min(cells.cast(pa.int64())).as_py()
        return bool(first is not None and first < FIRST_MOMENT)
    return False


def _trimmed(cells: "pa.StringArray") -> "pa.StringArray":
    """Without white space around the cells. Looks at first and last bytes first: most columns have none."""
    import pyarrow.compute as pc

    _, offsets, data = cells.buffers()
    if data is None or not len(cells):
        return cells
    edges = np.frombuffer(offsets, np.int32)[cells.offset : cells.offset + len(cells) + 1]
    text = np.frombuffer(data, np.uint8)
    if not len(text):
        return cells
    # An empty cell shows the edge of its neighbour, which is looked at anyway.
    first, last = text[np.minimum(edges[:-1], len(text) - 1)], text[np.maximum(edges[1:] - 1, 0)]
    printable = np.uint8(127 - 33)  # "!" to "~": neither white space nor a part of a longer character
    odd = (first - np.uint8(33)).max() > printable or (last - np.uint8(33)).max() > printable
    return pc.utf8_trim_whitespace(cells) if odd else cells
