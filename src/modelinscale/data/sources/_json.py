"""JSON rows: elements of an array cut apart without parsing it whole, and values turned into columns."""

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelinscale.core.errors import SourceError
from modelinscale.core.schema import Column
from modelinscale.data.arrow import INTERNAL, arrow_type

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
SHOWN_CHARS = 160
"""How much of a broken row its message keeps."""

_CLASS = np.zeros(256, np.int8)
for _letter, _kind in ((b"[{", 1), (b"]}", 2), (b",", 3), (b'"', 4)):
    _CLASS[list(_letter)] = _kind
_DECODER = msgspec.json.Decoder()


def separators(block: bytes) -> tuple[list[int], int | None]:
    """Of a block that starts between two elements of an array: the places of the commas between elements, and of the array's closing bracket."""
    text = np.frombuffer(block, np.uint8)
    at = np.flatnonzero(_CLASS[text])
    kind = _CLASS[text[at]]
    quotes = at[kind == 4]
    if b"\\" in block:
        quotes = quotes[~_escaped(text, quotes)]
    outside = np.searchsorted(quotes, at, side="left") % 2 == 0
    keep = outside & (kind != 4)
    at, kind = at[keep], kind[keep]
    depth = np.cumsum(np.where(kind == 1, 1, np.where(kind == 2, -1, 0)))
    ends = np.flatnonzero(depth < 0)
    if len(ends):
        at_end = int(at[ends[0]])
        at, kind, depth = at[: ends[0]], kind[: ends[0]], depth[: ends[0]]
        return at[(kind == 3) & (depth == 0)].tolist(), at_end
    return at[(kind == 3) & (depth == 0)].tolist(), None


def _escaped(text: "np.ndarray[Any, np.dtype[np.uint8]]", quotes: "np.ndarray[Any, np.dtype[np.int64]]") -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which quotes follow an odd number of backslashes."""
    slashes = np.flatnonzero(text == 0x5C)
    first = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
    length = np.diff(first, append=len(slashes))
    ends = slashes[first] + length  # the place after each run
    return np.isin(quotes, ends[length % 2 == 1])


def elements(block: bytes, commas: list[int]) -> list[bytes]:
    """The text of each element between the commas."""
    edges = [-1, *commas, len(block)]
    return [block[a + 1 : b] for a, b in itertools.pairwise(edges)]


def decode(parts: list[bytes]) -> tuple[list[Row], dict[int, str]]:
    """The rows of some JSON texts, {} for a broken one, and why those are broken, by position."""
    rows: list[Row] = []
    broken: dict[int, str] = {}
    for i, part in enumerate(parts):
        value = _decoded(part)
        if isinstance(value, dict):
            rows.append(value)
            continue
        rows.append({})
        broken[i] = str(value) if isinstance(value, _NoJson) else f"{_WORDS.get(type(value), 'something')} where an object with named values was expected"
    return rows, broken


def decode_lines(block: bytes) -> list[Row] | None:
    """The rows of a block of lines, blank ones skipped; None if not every line is an object of usual JSON."""
    try:
        rows = _DECODER.decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return rows if all(type(r) is dict for r in rows) else None


class _NoJson(str):
    """Why a text is not JSON."""


_WORDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a flag", type(None): "null"}


def _decoded(part: bytes) -> Any:
    try:
        return _DECODER.decode(part)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refused = error
    try:
        return json.loads(part)  # slower, and knows NaN, Infinity and numbers beyond a double
    except UnicodeDecodeError as error:
        return _NoJson(f"bytes that are not utf-8 (0x{part[error.start]:02x})")
    except (ValueError, RecursionError):
        return _NoJson(f"not JSON ({str(refused).removeprefix('JSON is malformed: ').replace(': ', ', ')})")


def refuse_names(names: list[str], where: str) -> None:
    """Raises `SourceError` for names of fields that no column can have."""
    reserved = [n for n in names if not n or n.startswith(INTERNAL)]
    if reserved:
        raise SourceError(f"{where}: field names must not be empty or start with {INTERNAL!r}: {', '.join(map(repr, reserved))}.", fix="Rename them.")
    halves = [n for n in names if n.encode("utf-8", "replace").decode() != n]
    if halves:
        raise SourceError(f"{where}: the field name {halves[0]!r} holds half of a pair of UTF-16 surrogates, which is no text.", fix="Rename the field.")


def column(rows: list[Row], name: str, wanted: Column | None) -> "pa.Array":
    """One field of all rows: typed where its values are of one kind, text where they differ or the column is text; absent fields are null."""
    import pyarrow as pa

    values = [row.get(name) for row in rows]
    kinds = {type(v) for v in values} - {type(None)}
    if kinds == {str}:
        try:
            return pa.array(values, pa.string())
        except UnicodeEncodeError:  # half of a pair of UTF-16 surrogates, which is no text
            pass
    elif (wanted is None or wanted.type != "string") and (kinds <= {int, float} or len(kinds) == 1):
        try:
            array = pa.array(values, arrow_type(wanted) if wanted and wanted.type == "float" and kinds <= {int, float} else None)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            pass
        else:
            if (
                not pa.types.is_nested(array.type)
                or _is_list_of_numbers(array.type)
                or (_is_list_of_steps(array.type) and (wanted is not None or _equally_wide(values)))
            ):
                return array
    return pa.array([_text(v) for v in values], pa.string())


def _is_list_of_numbers(kind: "pa.DataType") -> bool:
    import pyarrow.types as t

    return bool(t.is_list(kind) and (t.is_integer(kind.value_type) or t.is_floating(kind.value_type)))


def _is_list_of_steps(kind: "pa.DataType") -> bool:
    import pyarrow.types as t

    return bool(t.is_list(kind) and _is_list_of_numbers(kind.value_type))


def _equally_wide(lists: list[Any]) -> bool:
    return len({len(step) for v in lists if v is not None for step in v if step is not None}) == 1


def _text(value: Any) -> str | None:
    """A value as text: numbers as Python writes them, lists and objects as compact JSON."""
    if value is None or isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if value else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return None if math.isnan(value) else repr(value)
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
