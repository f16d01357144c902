"""How a file of separated values is written: encoding, separator, quote, line ends, header. Declared or told from a sample."""

import codecs
import csv
import io
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from modelinscale.core.errors import SourceError
from modelinscale.data.arrow import INTERNAL

SEPARATORS = (",", ";", "\t", "|")
"""What is looked for; anything else has to be declared."""
N_ROWS = 200
"""Rows of the sample that decide."""

_VALUE = re.compile(
    r"\s*[+-]?[$€£]?\s?(\d[\d.,' _]*|\.\d+)([eE][+-]?\d+)?\s?%?\s*|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?"
    r"|true|false|[?-]|NA|N/A|NaN|nan|null|NULL"
)


_CONTROL = re.compile("[\x01-\x08\x0e-\x1f\x7f]")

MOST_COLUMNS = 20_000
"""Each is looked at by itself, a few milliseconds and kilobytes."""

LONGEST_NAMES = 1 << 18
"""So many bytes of a file are looked at to find its columns."""


@dataclass(frozen=True)
class Dialect:
    """How one file is written."""

    separator: str
    quote: str | None
    encoding: str
    header: bool
    """Whether the first record holds the names."""
    line_end: int
    """10, or 13 for files of old Macs."""
    names: tuple[str, ...]
    """The names of the cells of a record, unique."""
    skip: int
    """Bytes before the first record: a byte order mark, a ``sep=;`` line."""


@dataclass(frozen=True)
class Declared:
    """What the user says about all files; None and empty: to be found."""

    separator: str | None = None
    quote: str | None = None
    """ "" for none."""
    encoding: str | None = None
    header: bool | None = None
    names: tuple[str, ...] = ()


def find_dialect(head: bytes, samples: list[bytes], declared: Declared, path: Path, *, wide: bool) -> Dialect:
    """The dialect of a file from its first bytes and, for the encoding, from parts further on. Raises `SourceError` when there is nothing in it."""
    encoding = "utf-8" if wide else declared.encoding or find_encoding([head, *samples])
    skip = 3 if head.startswith(codecs.BOM_UTF8) else 0
    text = head[skip:].decode(encoding, "replace")
    if not text.strip("\r\n\0 \t"):
        raise SourceError(f"{path} is empty.", fix="Give a file with at least a line of column names.")
    _refuse_foreign(text, path)
    separator, quote = declared.separator, declared.quote
    hint = re.match(r"sep=(.)\r?\n", text)
    if hint:
        separator = separator or hint[1]
        skip += len(hint[0].encode(encoding))
        text = text[hint.end() :]
    line_end = 13 if "\r" in text and "\n" not in text else 10
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if quote is None:
        quote = _find_quote(text)
    if separator is None:
        separator = _find_separator(text, quote)
    rows = _rows(text, separator, quote)
    header = declared.header if declared.header is not None else bool(declared.names) is False and _has_header(rows)
    names = declared.names or (unique_names(rows[0]) if header else tuple(f"column_{i + 1}" for i in range(_usual_width(rows))))
    if not declared.names and "\n" not in text and len(head) >= LONGEST_NAMES and len(names) <= MOST_COLUMNS:
        raise SourceError(
            f"{path}: the first line is longer than {LONGEST_NAMES >> 10} KiB, so its columns cannot be told.",
            fix="Are lines ended? Or name them: `names: [...]`.",
        )
    if len(names) > MOST_COLUMNS:
        raise SourceError(
            f"{path} has more than {MOST_COLUMNS:,} columns, too many to be held apart.",
            fix="Is `separator` right? A table on its side must be turned; many numbers of one kind belong into one column, as a list.",
        )
    reserved = [n for n in names if n.startswith(INTERNAL)]
    if reserved:
        raise SourceError(f"{path}: column names must not start with {INTERNAL!r}: {', '.join(reserved)}.", fix="Rename them in the file.")
    return Dialect(separator, quote or None, encoding, header, line_end, names, skip)


def _refuse_foreign(text: str, path: Path) -> None:
    """Raises `SourceError` for what is surely no table of separated values."""
    start = text[:4096].lstrip()
    if start[:14].lower().startswith(("<!doctype html", "<html")):
        raise SourceError(f"{path} is an HTML page, not a table.", fix="Was it downloaded through a login page? Open it in a browser to see.")
    if start[:1] in ("{", "["):
        try:
            found = json.loads(start.splitlines()[0])
        except ValueError:
            found = None
        if isinstance(found, (dict, list)):
            raise SourceError(f"{path} holds JSON.", fix="Write `source: {type: jsonl, path: ...}`.")
    if len(_CONTROL.findall(text)) > 0.05 * len(text):
        raise SourceError(f"{path} is no text: more than 5% of it are control characters.", fix="Which program wrote it? Export the table as CSV or Parquet.")


def find_encoding(samples: list[bytes]) -> str:
    """utf-8 if all samples are (cut characters at their ends aside); else cp1252, the usual one of Western European files; latin-1 if bytes that
    cp1252 does not define occur.
    """
    if all(_is_utf8(sample) for sample in samples):
        return "utf-8"
    undefined = set(b"\x81\x8d\x8f\x90\x9d")
    return "latin-1" if any(undefined.intersection(sample) for sample in samples) else "cp1252"


def _is_utf8(sample: bytes) -> bool:
    start = 0
    while start < min(3, len(sample)) and 0x80 <= sample[start] < 0xC0:
        start += 1
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample[start:], final=False)
    except UnicodeDecodeError:
        return False
    return True


def unique_names(cells: list[str]) -> tuple[str, ...]:
    """Trimmed names; an empty one becomes ``column_3`` by its place, a repeated one gets ``_2``, ``_3``.

    >>> unique_names(["id", " x ", "x", ""])
    ('id', 'x', 'x_2', 'column_4')
    """
    names: dict[str, None] = {}
    wanted = [" ".join(c.replace("\0", "").split()) or f"column_{i + 1}" for i, c in enumerate(cells)]
    all_wanted, last = set(wanted), dict[str, int]()
    for name in wanted:
        n, one = last.get(name, 1), name
        while one in names or (n > 1 and one in all_wanted):
            n += 1
            one = f"{name}_{n}"
        last[name] = n
        names[one] = None
    return tuple(names)


def _find_quote(text: str) -> str:
    if '"' not in text and len(re.findall(r"(?:^|[,;\t|])'[^'\n]*'(?=[,;\t|\n]|$)", text[:50_000])) >= 2:
        return "'"
    return '"'


def _find_separator(text: str, quote: str) -> str:
    """The separator that cuts most records into the same number of cells, cells that hold no other separator first, then more cells."""
    best, chosen = (0.0, 0.0, 0), ","
    for separator in SEPARATORS:
        if separator not in text:
            continue
        rows = _rows(text, separator, quote)
        width = _usual_width(rows)
        if width < 2:
            continue
        usual = [r for r in rows if len(r) == width]
        cells = [c for r in usual for c in r]
        clean = sum(not any(s in c for s in SEPARATORS) or re.fullmatch(r"\s*[+-]?\d+,\d+\s*", c) is not None for c in cells) / len(cells)
        score = (round(len(usual) / len(rows), 2), round(clean, 2), width)
        if score > best:
            best, chosen = score, separator
    return chosen


def _rows(text: str, separator: str, quote: str) -> list[list[str]]:
    """The first records of the text; the last one, which may be cut, only if there is no other."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, **({"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}))
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) > N_ROWS:
                break
    except csv.Error:  # a cell beyond the module's limit: what was read so far decides
        pass
    cut = len(rows) > N_ROWS or not text.endswith("\n")
    return rows[:-1] if cut and len(rows) > 2 else rows or [[""]]


def _usual_width(rows: list[list[str]]) -> int:
    counts = Counter(len(r) for r in rows)
    return max(counts, key=lambda w: (counts[w], w))


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first record names the columns: no cell of it is a value (a number, a date, a flag, a word for missing), unless all are
    different numbers over other values (years as names); and where all columns are text, no name stands again below itself.
    """
    first, below = rows[0], rows[1:]
    filled = [c for c in first if c.strip()]
    if not filled:
        return False
    values = [c for c in filled if _VALUE.fullmatch(c)]
    if values:
        years = len(values) == len(filled) - 1 or len(values) == len(filled)
        numbers = years and all(re.fullmatch(r"\s*\d{4}\s*", c) for c in values) and len(set(values)) == len(values) > 1 and bool(below)
        return numbers and not any(re.fullmatch(r"\s*\d{4}\s*", c) for r in below for c in r[1:])
    if len(set(filled)) < len(filled) and any(_VALUE.fullmatch(c) for r in below for c in r) is False:
        return False
    repeated = sum(any(i < len(r) and r[i].strip() == c.strip() for r in below) for i, c in enumerate(first) if c.strip())
    return repeated * 2 <= len(filled)
