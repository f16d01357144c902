"""Separated values: streamed in blocks of whole records, parsed side by side, in order."""

import os
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

import numpy as np
from pydantic import Field, field_validator

from modelinscale.core.errors import SourceError, SpecError
from modelinscale.core.schema import Schema
from modelinscale.core.units import Size, show_bytes
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.sources import Chunk, Cursor
from modelinscale.data.sources._content import Content
from modelinscale.data.sources._dialect import SEPARATORS, Declared, Dialect, find_dialect
from modelinscale.data.sources._files import Files, Names, Opened, Place, Places, check_left_out
from modelinscale.data.sources._parse import Parser, text_schema, whole_rows
from modelinscale.data.sources._records import first_end, last_end

if TYPE_CHECKING:
    import pyarrow as pa

HEAD_BYTES = 1 << 18
"""How much of a file tells how it is written."""
SAMPLE_BYTES = 1 << 21
"""How much of the data tells the types of the columns."""
LEAST_BYTES, MOST_HEADS = 1 << 14, 64
"""Of each file, where many bring columns of their own; different lines of names that are remembered."""
N_PARTS = 12
"""Places of a large file that the sample is taken from, so that what starts later is seen."""


class Csv(Files):
    """Separated values in text files, compressed or not; separator, quote, encoding and header are found unless declared.

    Blank lines are skipped. A record with too many or too few cells, or with bytes that are no text, is kept as a broken row that names its line.
    A last line without line end counts as whole; if the file later grows within that line, reading stops with an error rather than with half a row.
    """

    separator: str | None = Field(None, min_length=1, max_length=1)
    """One character between cells. Left out: comma, semicolon, tab or bar, whichever cuts the records evenly."""
    quote: str | None = Field(None, max_length=1)
    """The character around cells that hold separators or line ends, doubled inside. Left out: ``"`` (or ``'`` where only that is used); ``""`` for none."""
    encoding: str | None = None
    """``utf-8``, ``cp1252``, ``utf-16``, ... Left out: told by a byte order mark or by the bytes: UTF-8 if all of a sample is, else cp1252."""
    header: bool | None = None
    """Whether the first record holds the column names. Left out: told by whether it looks like the records below it."""
    names: Names = ()
    """Column names, in place of a header's (``header: true``) or where there is none. Left out without a header: ``column_1``, ..."""
    block: Annotated[Size, Field(ge=64)] = 8 << 20
    """Bytes parsed at a time; a record must fit into one block."""

    @field_validator("separator", "quote")
    @classmethod
    def _one_byte(cls, value: str | None) -> str | None:
        if value and not value.isascii():
            raise SpecError(f"{value!r} cannot separate or quote cells: it must be an ASCII character.")
        return value

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        import codecs

        if value is not None:
            try:
                codecs.lookup(value)
            except LookupError as error:
                raise SpecError(f"unknown encoding {value!r}.", fix="For example utf-8, cp1252, latin-1, utf-16, shift_jis.") from error
        return value

    def columns(self) -> Schema:
        """The columns of the first file (with `sparse`: of all), types and habits from a sample spread over all. Raises `SourceError` when there is none."""
        from modelinscale.data.infer import infer

        return infer(self.sample())

    def sample(self) -> "pa.Table":
        """About 2 MiB of rows as text: the start of some files, with `sparse` of each that brings a column, and parts further on."""
        import pyarrow as pa

        files = self.found()
        step = max(1, len(files) // N_PARTS)
        there = self.union(files) if self.sparse else {}
        wanted = {*files[::step][:N_PARTS], *there.values()}
        tables: list[pa.Table] = []
        names: tuple[str, ...] = tuple(there)
        for path in [path for path in files if path in wanted]:
            content = Content(path, self.encoding)
            try:
                if content.peek(1) == b"":
                    continue
                dialect = self._dialect(content)
                names = names or dialect.names
                batches = self._sampled(content, dialect, max(LEAST_BYTES, SAMPLE_BYTES // len(wanted)))
                tables.append(pa.Table.from_batches(batches, schema=arrow_schema(text_schema(dialect.names))))
            finally:
                content.close()
        if not tables:
            raise SourceError(f"{files[0]} is empty.", fix="Give a file with at least a line of column names.")
        if not self.sparse:
            check_left_out(self.without, list(names), files[0])
        kept = [n for n in names if n not in self.without]
        own = [set(t.column_names) for t in tables]
        return pa.concat_tables([t.select([n for n in kept if n in has]) for t, has in zip(tables, own, strict=True)], promote_options="default").select(kept)

    def names_of(self, files: Sequence[Path]) -> Iterator[tuple[Path, tuple[str, ...]]]:
        heads: dict[bytes, tuple[str, ...]] = {}  # files that begin with the same line have the same names: 30 times as fast as finding how each is written
        for path in files:
            content = Content(path, self.encoding)
            try:
                start = content.peek(LEAST_BYTES)
                known = next((head for head in heads if start.startswith(head)), None)
                if known is not None or not start:
                    yield path, heads[known] if known is not None else ()
                    continue
                dialect = self._dialect(content, spread=False)
                head = start[: first_end(start, dialect.skip, dialect.quote, dialect.separator, dialect.line_end)] if dialect.header else b""
                if len(heads) < MOST_HEADS and _is_plain(head):
                    heads[head] = dialect.names
                yield path, dialect.names
            finally:
                content.close()

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """Chunks of about ``block`` bytes each. See the contract."""
        files = self.found()
        places = Places(after)
        n_workers = max(1, min(4, os.cpu_count() or 1))
        with ThreadPoolExecutor(n_workers, thread_name_prefix="csv") as pool:
            waiting: deque[_Parsing] = deque()
            for opened, parser, block, more in self._blocks(places.unread(files), schema):
                waiting.append(_Parsing(opened.path, pool.submit(parser.parse, block.data, block.line, block.broken), block.place, block.line, more))
                if len(waiting) > n_workers:
                    yield from self._next(waiting.popleft(), places)
            while waiting:
                yield from self._next(waiting.popleft(), places)

    def _next(self, one: "_Parsing", places: Places) -> Iterator[Chunk]:
        batch = one.batch.result()
        cursor = places.cursor(one.path, one.place)
        if batch.num_rows:
            yield Chunk(batch, cursor, f"{one.path}, from line {one.line}", one.more)

    def _blocks(self, files: Generator[Opened, None, None], schema: Schema) -> "Iterator[tuple[Opened, Parser, _Block, tuple[str, ...]]]":
        with closing(files):  # whatever goes wrong, no file stays open
            for opened in files:
                dialect = self._dialect_at(opened)
                if dialect is None:
                    continue
                parser = Parser(dialect, self.present(schema, dialect.names), opened.path)
                more = self.more(schema, dialect.names)
                start = replace(opened.place, form=_form(dialect, opened.content))
                for block in _cut(opened.content, start, dialect, self.block, opened.path):
                    yield opened, parser, block, more

    def _dialect_at(self, opened: Opened) -> Dialect | None:
        """How the file is written: as found when it was first read, with the names read again; None for an empty file."""
        if opened.place.at == 0:
            return self._dialect(opened.content) if opened.content.peek(1) else None
        known = opened.place.form or {}
        start = Content(opened.path, known.get("encoding"))
        try:
            said = Declared(known["separator"], known["quote"] or "", known["encoding"], known["header"], self.names)
            return find_dialect(start.peek(HEAD_BYTES), [], said, opened.path, wide=start.wide is not None)
        finally:
            start.close()

    def _dialect(self, content: Content, *, spread: bool = True) -> Dialect:
        """``spread``: parts further on tell the encoding as well, which names at the start do not need."""
        said = Declared(self.separator, self.quote, self.encoding, self.header, self.names)
        parts = _parts(content, HEAD_BYTES) if spread and content.seekable and self.encoding is None else []
        return find_dialect(content.peek(HEAD_BYTES), parts, said, content.path, wide=content.wide is not None)

    def _sampled(self, content: Content, dialect: Dialect, size: int) -> "list[pa.RecordBatch]":
        """Rows from the start and, where the file can be entered in the middle, from places further on; broken rows left out."""
        parser = Parser(dialect, text_schema(dialect.names), content.path)
        first = size // 3 if content.seekable else size
        head = content.peek(first)
        if len(head) == first:
            head = head[: last_end(head, dialect.quote, dialect.separator, dialect.line_end)]
        blocks = [b.data for b in _cut(BytesIO(head), Place(), dialect, len(head) + 1, content.path) if not b.broken]
        if len(head) < content.size_bytes and content.seekable:
            for part in _parts(content, (size - first) // N_PARTS, after=first):
                # It begins within some record; after the next line end there is usually a new one. Where not, the rows are broken and left out.
                part = part[part.find(bytes((dialect.line_end,))) + 1 :]
                blocks.append(part[: last_end(part, dialect.quote, dialect.separator, dialect.line_end)])
        return [whole_rows(parser.parse(block, 0)) for block in blocks]


@dataclass(frozen=True)
class _Block:
    """Some whole records, and where the reader stands after them."""

    data: bytes
    line: int
    place: Place
    broken: str = ""
    """Why the data are one broken row."""


class _Parsing(NamedTuple):
    """A block that is being parsed, and where it was."""

    path: Path
    batch: "Future[pa.RecordBatch]"
    place: Place
    line: int
    more: tuple[str, ...]


class _Reads(Protocol):
    def read(self, n: int, /) -> bytes: ...


def _cut(content: _Reads, place: Place, dialect: Dialect, size: int, path: Path) -> Iterator[_Block]:
    """The rest of a file in blocks of whole records, about ``size`` bytes each."""
    newline = bytes((dialect.line_end,))
    marks = (dialect.quote, dialect.separator, dialect.line_end)
    rest, over = b"", False
    if place.at == 0:
        rest = content.read(size)
        over = len(rest) < size
        start = dialect.skip
        while dialect.header and not (first := first_end(rest, dialect.skip, *marks)) and not over:
            rest += (more := content.read(size))
            over = len(more) < size
        if dialect.header:
            start = first or len(rest)
        place = _moved(place, rest[:start], newline, done=False)
        rest = rest[place.at :]
    while True:
        if not over and len(rest) < size:
            wanted = size - len(rest)
            rest += (more := content.read(wanted))
            over = len(more) < wanted
        if not rest:
            return
        end, broken = last_end(rest, *marks), ""
        if over and end < len(rest) and last_end(rest + newline, *marks) == len(rest) + 1:
            end = len(rest)  # the last line has no line end
        if end == 0:
            end, broken = rest.find(newline) + 1 or len(rest), "a quote is opened and not closed"
            if not over and not rest[:end].endswith(newline):
                raise SourceError(
                    f"{path}: line {place.line} is longer than a block of {show_bytes(size)}.", fix="Is this a text file with line ends? If so, raise `block`."
                )
        line, data, rest = place.line, rest[:end], rest[end:]
        place = _moved(place, data, newline, done=over and not rest)
        yield _Block(data, line, place, broken)


def _moved(place: Place, data: bytes, newline: bytes, *, done: bool) -> Place:
    return replace(
        place, at=place.at + len(data), crc=zlib.crc32(data, place.crc), line=place.line + _count(data, newline), done=done, ended=data.endswith(newline)
    )


def _is_plain(head: bytes) -> bool:
    """Whether a line of names reads the same whatever follows it."""
    return bool(head) and head.isascii() and not any(q in head for q in b"\"'") and sum(s.encode() in head for s in SEPARATORS) < 2


def _count(data: bytes, byte: bytes) -> int:
    """``data.count``, twice as fast where there are many."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == byte[0]))


def _form(dialect: Dialect, content: Content) -> dict[str, Any]:
    """What of a dialect must not change when rows are added; the names are read again from the header."""
    encoding = content.wide or dialect.encoding
    return {"separator": dialect.separator, "quote": dialect.quote, "encoding": encoding, "header": dialect.header}


def _parts(content: Content, size: int, after: int = 0) -> list[bytes]:
    """Parts of ``size`` bytes from evenly spread places of a plain file after a place; all the rest, if it is not more."""
    total = content.size_bytes - after
    if total <= 0:
        return []
    with content.path.open("rb") as file:
        if total <= size * N_PARTS:
            file.seek(after)
            return [file.read(total)]
        parts = []
        for i in range(N_PARTS):
            file.seek(after + (total - size) * (i + 1) // N_PARTS)
            parts.append(file.read(size))
        return parts
