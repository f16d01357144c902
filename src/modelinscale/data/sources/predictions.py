"""A model's own prediction log as rows: what servers were asked and what they answered, also while they write on."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from modelinscale.core.errors import NothingYet, SourceError
from modelinscale.core.predictions import FORMAT, OWN, Head, folder_of, lines, read_head, segments, upgraded
from modelinscale.core.schema import Column, Schema
from modelinscale.core.units import Size
from modelinscale.data.arrow import BROKEN
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._json import SHOWN_CHARS, Row, column, decode, decode_lines

if TYPE_CHECKING:
    import pyarrow as pa

_CLASS = "probability_"
_TAKEN = re.compile(rf"(?:input_)*(?:{'|'.join(OWN)}|{_CLASS}.*)", re.DOTALL)


class Predictions(Source):
    """What `mis serve` logged of a model: ``id`` (request id and row), ``time``, ``version``, the inputs, ``prediction`` and ``probability_CLASS``.

    An input named like one of the others comes as ``input_NAME``; a personal one comes as the model treats it. Of versions that differ in their inputs all
    columns come, missing where a version has none. Rows of a forgotten person come no more.
    """

    typed: ClassVar[bool] = True

    model: Annotated[str, Field(min_length=1)]
    """The model's name."""
    path: Path = Path(".mis/predictions")
    """The folder of prediction logs, in which each model has one: ``predictions`` in the store, or what ``serve.log.folder`` or ``--log`` named."""
    block: Annotated[Size, Field(ge=64)] = 8 << 20
    """Bytes read at a time."""

    @property
    def place(self) -> Path:
        """The folder of the segments."""
        return folder_of(self.path, self.model)

    def columns(self) -> Schema:
        """The columns of every version logged. Raises `SourceError` when nothing was logged yet."""
        heads = [about[0] for segment in segments(self.place) if (about := read_head(segment)) is not None]
        if not heads:
            raise NothingYet(
                f"{self.place}: nothing was logged of the model {self.model!r} yet.",
                fix="Serve it with `mis serve` and ask it something, or check `path`: it is the folder of all logs.",
            )
        found: dict[str, Column] = {}
        for head in heads:
            for one in _columns(head):
                found[one.name] = _joined(found.get(one.name, one), one)
        order = [*OWN[:3], *(n for n in found if n not in OWN and not n.startswith(_CLASS)), OWN[3], *(n for n in found if n.startswith(_CLASS))]
        return Schema(columns=tuple(found[name] for name in order))

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """The whole lines of each segment, about ``block`` bytes at a time. See the contract."""
        import pyarrow as pa

        if after is not None and (after.get("form") != 1 or not isinstance(after.get("segments"), dict)):
            raise SourceError("this cursor is not one of a prediction log, or of a newer version.", fix="Collect into a new table.")
        found = segments(self.place)
        known = {s.name: int(after["segments"][s.name]) for s in found if s.name in after["segments"]} if after else {}
        for segment in found:
            head = read_head(segment)
            if head is None:
                continue
            start = known.get(segment.name, head[1])
            if (size := _size(segment)) is not None and size < start:
                raise SourceError(f"{segment} shrank: {start:,} bytes of it were read before, now it has {size:,}.", fix="Put back the segment as it was.")
            for at, block in lines(segment, start, self.block):
                known[segment.name] = at + len(block)
                rows, broken = _rows(block, at, head[0])
                if not rows:
                    continue
                arrays = [_cells(rows, one) for one in schema.columns]
                names = list(schema.names)
                if broken:
                    arrays.append(pa.array([broken.get(i) for i in range(len(rows))], pa.string()))
                    names.append(BROKEN)
                yield Chunk(pa.record_batch(arrays, names=names), {"form": 1, "segments": dict(known)}, f"{segment}, from byte {at}")

    def feed(self) -> Any:
        return {k: v for k, v in self.plain().items() if k != "block"}

    def content(self, cursor: Cursor) -> Any:
        """How far each segment was read: its name is its own, and what was written in it stays."""
        return cursor["segments"]

    def fingerprint(self) -> Any:
        """Name and size of every segment."""
        return [[s.name, _size(s)] for s in segments(self.place)]


def _size(segment: Path) -> int | None:
    """Bytes of a segment; None for one whose time was over a moment ago."""
    try:
        return segment.stat().st_size
    except FileNotFoundError:
        return None


def _columns(head: Head) -> Iterator[Column]:
    yield Column(name="id", type="string")
    yield Column(name="time", type="time")
    yield Column(name="version", type="string")
    for one in head.columns:
        yield Column(**{**one, "name": _input(one["name"])})
    yield Column.model_validate({"name": "prediction", "type": head.prediction, "width": head.width})
    for name in head.classes:
        yield Column(name=f"{_CLASS}{name}", type="float")


def _input(name: str) -> str:
    """What an input's column is called: its name, unless the log has one of that name."""
    return f"input_{name}" if _TAKEN.fullmatch(name) else name


def _joined(one: Column, other: Column) -> Column:
    """A column of two versions: a float where one was int, else text where they differ."""
    if (one.type, one.width) == (other.type, other.width):
        return one
    numbers = {one.type, other.type} == {"int", "float"}
    return Column(name=one.name, type="float" if numbers else "string")


def _rows(block: bytes, at: int, head: Head) -> tuple[list[Row], dict[int, str]]:
    """The rows of a block, {} for broken ones, and why those are broken. Lines that were overwritten hold spaces only and are no rows."""
    rows, broken = decode_lines(block), {}
    if rows is None:
        parts = [line for line in block.split(b"\n") if line.strip()]
        rows, why = decode(parts)
        broken = {i: f"{reason}: after byte {at}: {parts[i][:SHOWN_CHARS].decode('utf-8', 'replace').strip()}" for i, reason in why.items()}
    return [upgraded(row, head.format) for row in rows] if head.format < FORMAT else rows, broken


def _cells(rows: list[Row], wanted: Column) -> "pa.Array":
    name = wanted.name
    if name in OWN:
        return column(rows, name, wanted)
    if name.startswith(_CLASS):
        return column([row.get("probabilities") or {} for row in rows], name.removeprefix(_CLASS), wanted)
    raw = name.removeprefix("input_") if name.startswith("input_") and _TAKEN.fullmatch(name.removeprefix("input_")) else name
    return column([row.get("inputs") or {} for row in rows], raw, wanted)
