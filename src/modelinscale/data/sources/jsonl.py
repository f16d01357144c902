"""JSON: one object a line, or one array of objects in a file; streamed, whatever the size."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from modelinscale.core.errors import SourceError
from modelinscale.core.schema import Schema
from modelinscale.core.units import Size, show_bytes
from modelinscale.data.arrow import BROKEN
from modelinscale.data.sources import Chunk, Cursor
from modelinscale.data.sources._content import Content
from modelinscale.data.sources._files import Files, Place, Places, check_left_out
from modelinscale.data.sources._json import SHOWN_CHARS, Row, column, decode, decode_lines, elements, refuse_names, separators

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_BYTES = 4 << 20
"""How much of the data tells the columns and their types."""
HEAD_BYTES, MOST_ROWS = 1 << 16, 1000
"""At least so much of a file tells its fields, and so many of its rows the types of those that it alone brings."""
N_FILES = 8
"""Files that the sample is taken from."""


class Jsonl(Files):
    """JSON objects, one a line or all in one array, compressed or not.

    A field whose values differ in kind from row to row becomes text; so do objects and lists, as compact JSON (lists of numbers of one length become
    vectors). A field that some rows lack is missing there. A line that is no object is kept as a broken row that names it.
    """

    block: Annotated[Size, Field(ge=64)] = 8 << 20
    """Bytes parsed at a time; a row must fit into one block."""

    def columns(self) -> Schema:
        """The fields of a sample, with `sparse` of the start of every file, as they first occur. Raises `SourceError` when there is no row."""
        from modelinscale.data.infer import infer

        return infer(self.sample())

    def sample(self) -> "pa.Table":
        """The rows at the start of some files, about 4 MiB, without the columns left out."""
        import pyarrow as pa

        files = self.found()
        chosen = files[:: max(1, len(files) // N_FILES)][:N_FILES]
        there = self.union(files) if self.sparse else {}
        brought: dict[Path, set[str]] = {}
        for name, path in there.items():
            brought.setdefault(path, set()).add(name)
        rows: list[Row] = []
        n_broken, why = 0, ""
        looked_at = {*chosen, *brought}
        for path in [path for path in files if path in looked_at]:
            some, broken = _start(path, SAMPLE_BYTES // len(chosen)) if path in chosen else ([], {})
            own = brought.get(path, set())
            if own and not own <= {name for row in some for name in row}:
                some += [row for row in _start(path, _head_bytes(len(files)))[0] if not own.isdisjoint(row)][:MOST_ROWS]
            rows += some
            n_broken += len(broken)
            why = why or next(iter(broken.values()), "")
        if not rows:
            words = f"none of the first {n_broken} rows is a JSON object: {why}" if n_broken else "there is no row in it"
            raise SourceError(f"{files[0]}: {words}.", fix="Give one JSON object a line, or one array of objects.")
        names = list(dict.fromkeys([*there, *(name for row in rows for name in row)]))
        refuse_names(names, str(files[0]))
        if not self.sparse:
            check_left_out(self.without, names, files[0])
        return pa.table({n: column(rows, n, None) for n in names if n not in self.without})

    def names_of(self, files: Sequence[Path]) -> Iterator[tuple[Path, tuple[str, ...]]]:
        for path in files:
            yield path, tuple(dict.fromkeys(name for row in _start(path, _head_bytes(len(files)))[0] for name in row))

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """Chunks of about ``block`` bytes each. See the contract."""
        import pyarrow as pa

        places = Places(after)
        for opened in places.unread(self.found()):
            for found in _cut(opened.content, opened.place, self.block, opened.path):
                rows, broken = _rows(found)
                cursor = places.cursor(opened.path, found.place)
                if not rows:
                    continue
                arrays = [column(rows, c.name, c) for c in schema.columns]
                names = list(schema.names)
                more = tuple(sorted(self.more(schema, set[str]().union(*rows))))
                if broken:
                    arrays.append(pa.array([broken.get(i) for i in range(len(rows))], pa.string()))
                    names.append(BROKEN)
                yield Chunk(pa.record_batch(arrays, names=names), cursor, f"{opened.path}, from {found.word} {found.line}", more)


def _head_bytes(n_files: int) -> int:
    """How much of a file tells its fields: as much as of the only one, less of each where there are many."""
    return max(HEAD_BYTES, min(SAMPLE_BYTES, 2 * SAMPLE_BYTES // n_files))


def _start(path: Path, size: int) -> tuple[list[Row], dict[int, str]]:
    """The rows at the start of a file without broken ones, and why those are broken."""
    content = Content(path)
    try:
        found = next(_cut(content, Place(), size, path), None)
    finally:
        content.close()
    if found is None:
        return [], {}
    rows, broken = _rows(found)
    return [row for i, row in enumerate(rows) if i not in broken], broken


class _Block(NamedTuple):
    """Some whole rows as text, and where the reader stands after them."""

    data: bytes
    commas: list[int] | None
    """Where the elements of an array are cut; None for lines."""
    line: int
    place: Place

    @property
    def word(self) -> str:
        return "line" if self.commas is None else "element"


def _rows(block: _Block) -> tuple[list[Row], dict[int, str]]:
    """The rows of a block, {} for broken ones, and why those are broken, each naming its line or element."""
    if block.commas is None:
        rows = decode_lines(block.data)
        if rows is not None:
            return rows, {}
        lines = [(block.line + i, line) for i, line in enumerate(block.data.split(b"\n")) if line.strip()]
    else:
        lines = [(block.line + i, part) for i, part in enumerate(elements(block.data, block.commas)) if part.strip()]
    good, why = decode([line for _, line in lines])
    shown = {i: lines[i][1][:SHOWN_CHARS].decode("utf-8", "replace").strip() for i in why}
    return good, {i: f"{reason}: {block.word} {lines[i][0]}: {shown[i]}" for i, reason in why.items()}


def _cut(content: Content, place: Place, size: int, path: Path) -> Iterator[_Block]:
    """The rest of a file in blocks of whole rows, about ``size`` bytes each."""
    form = place.form or {}
    shape = form.get("shape")
    if shape is None:
        head = content.peek(4096)
        start = 3 if content.marked else 0
        shape = "array" if head[start:].lstrip()[:1] == b"[" else "lines"
        begin = head.index(b"[") + 1 if shape == "array" else start
        place = _moved(place, content.read(begin), 0, done=False)
        place = replace(place, form={"shape": shape, "encoding": content.wide or "utf-8"})
    yield from (_elements if shape == "array" else _lines)(content, place, size, path)


def _lines(content: Content, place: Place, size: int, path: Path) -> Iterator[_Block]:
    rest, over = b"", False
    while True:
        if not over and len(rest) < size:
            wanted = size - len(rest)
            rest += (more := content.read(wanted))
            over = len(more) < wanted
        if not rest:
            return
        end = len(rest) if over else rest.rfind(b"\n") + 1
        if end == 0:
            raise _too_long(path, "line", place.line, size)
        data, rest, line = rest[:end], rest[end:], place.line
        place = replace(_moved(place, data, data.count(b"\n"), done=over and not rest), ended=data.endswith(b"\n"))
        yield _Block(data, None, line, place)


def _elements(content: Content, place: Place, size: int, path: Path) -> Iterator[_Block]:
    rest, over = b"", False
    while True:
        if not over and len(rest) < size:
            wanted = size - len(rest)
            rest += (more := content.read(wanted))
            over = len(more) < wanted
        if not rest:
            return
        # An array that grew goes on with a comma after the element that was its last.
        gap = len(rest) - len(rest.lstrip(b" \t\r\n,"))
        commas, closed = separators(rest[gap:])
        if closed is not None:
            data = rest[gap : gap + closed].rstrip()
            trailing = rest[gap + closed + 1 :].strip()
            line = place.line
            if not data:
                return
            commas = [c for c in commas if c < len(data)]
            place = _moved(place, rest[: gap + len(data)], len(commas) + 1, done=True)
            yield _Block(data, commas, line, place)
            if trailing:
                raise SourceError(f"{path}: something follows the array: {trailing[:60]!r}.", fix="Give one array a file, or one object a line.")
            return
        if over:
            raise SourceError(f"{path}: the array is not closed: the file ends within or after element {place.line + len(commas)}.", fix="Is it complete?")
        if not commas:
            raise _too_long(path, "element", place.line, size)
        end, line = gap + commas[-1], place.line
        place = _moved(place, rest[:end], len(commas), done=False)
        data, rest = rest[gap:end], rest[end:]
        yield _Block(data, commas[:-1], line, place)


def _moved(place: Place, data: bytes, lines: int, *, done: bool) -> Place:
    return replace(place, at=place.at + len(data), crc=zlib.crc32(data, place.crc), line=place.line + lines, done=done)


def _too_long(path: Path, word: str, line: int, size: int) -> SourceError:
    return SourceError(f"{path}: {word} {line} is longer than a block of {show_bytes(size)}.", fix="Is this JSON, one object a line? If so, raise `block`.")
