"""The prediction log on disk: a folder a model, in it segments of JSON lines, each begun with a line that says what is in it.

A segment is only ever appended to, by the one process that made it and holds a lock on it; what was written stays at its place for ever, so a reader needs to
remember an offset only. To take a person out, the bytes of a line are overwritten with spaces (see `blank`), which moves nothing.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from modelinscale.core.errors import SourceError
from modelinscale.core.files import told

FORMAT = 1
"""The format this code writes; it rises when the meaning of a line changes."""
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Format number -> what turns one row of that format into a row of the next. Empty while there has been one format only."""
FLUSH_S = 0.2
"""How long a row waits in the server's memory before it is in the file, unless the disk is slow."""
OWN = ("id", "time", "version", "prediction")
"""Columns of the log itself, beside ``probability_CLASS`` for each class."""
_BLOCK = 1 << 20


class Head(NamedTuple):
    """The first line of a segment."""

    format: int
    model: str
    version: str
    identity: str
    """Of the package."""
    columns: tuple[dict[str, Any], ...]
    """``name``, ``type`` and, of vectors, ``width`` of each input."""
    prediction: str
    """The type of the prediction: string, int, bool, float or vector."""
    classes: tuple[str, ...]
    """The classes by name; none for numbers."""
    width: int | None = None
    """Numbers of a prediction, where these are lists."""

    def line(self) -> bytes:
        return json.dumps({"mis_predictions": self.format, **{k: v for k, v in self._asdict().items() if k != "format" and v is not None}}).encode() + b"\n"


def folder_of(root: Path, model: str) -> Path:
    """Where a model's segments lie."""
    name = quote(model, safe="")
    return root / (f"%2E{name[1:]}" if name.startswith(".") else name)


def segment_name(moment: datetime, pid: int, n: int) -> str:
    """A name that sorts by time and is no other process's: ``20261126T020304.123456-4711-000.jsonl``."""
    return f"{moment:%Y%m%dT%H%M%S.%f}-{pid}-{n:03d}.jsonl"


def segments(folder: Path) -> list[Path]:
    """The segments, the oldest first; none where nothing was logged yet."""
    with told(folder, "read"):
        return sorted(p for p in folder.iterdir() if p.suffix == ".jsonl" and not p.name.startswith(".")) if folder.is_dir() else []


def is_open(segment: Path) -> bool:
    """Whether a live server still appends to it."""
    try:
        with segment.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def read_head(segment: Path) -> tuple[Head, int] | None:
    """What the first line says, and where the rows begin; None while that line is not whole, and for a segment whose time was over.

    Raises `SourceError` for a foreign or newer file.
    """
    try:
        with told(segment, "read"), segment.open("rb") as file:
            line = file.readline()
    except FileNotFoundError:
        return None
    if not line.endswith(b"\n"):
        return None
    try:
        said = json.loads(line)
        number = said.pop("mis_predictions")
        if isinstance(number, int) and number > FORMAT:
            raise SourceError(
                f"{segment} has format {number}; this version of modelinscale reads up to {FORMAT}.", fix="Upgrade: pip install --upgrade modelinscale."
            )
        head = Head(number, **{**said, "columns": tuple(said["columns"]), "classes": tuple(said["classes"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{segment} is no segment of a prediction log: its first line does not say what it holds.", fix="Move it elsewhere.") from error
    return head, len(line)


def upgraded(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A row of a segment of an earlier format as the newest one has it."""
    for step in range(number, FORMAT):
        row = UPGRADES[step](row)
    return row


def lines(segment: Path, start: int, most: int = _BLOCK) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines from a place on, each with its own place; what follows the last line end is not whole yet and does not come."""
    with told(segment, "read"), segment.open("rb", buffering=0) as file:
        file.seek(start)
        rest = b""
        while more := file.read(most):
            rest += more
            end = rest.rfind(b"\n") + 1
            if end:
                yield start, rest[:end]
                start, rest = start + end, rest[end:]


def blank(segment: Path, hit: Callable[[bytes], bool], *, start: int = 0, dry_run: bool = False) -> tuple[int, int]:
    """Overwrites every whole line that ``hit`` names with spaces, for good; gives how many, and how far it read. See `amend`."""
    return amend(segment, lambda line: b" " * (len(line) - 1) + b"\n" if hit(line) else line, start=start, dry_run=dry_run)


def amend(segment: Path, change: Callable[[bytes], bytes], *, start: int = 0, dry_run: bool = False) -> tuple[int, int]:
    """Overwrites whole lines with what ``change`` makes of them, of the same length; gives how many became others, and how far it read.

    Offsets stay, so readers and a live writer need not know. The end of a segment that nobody appends to may be half a line, cut off by a kill: it is no
    row, and is overwritten with spaces whatever it says. Done again after a kill it does the rest.
    """
    n, at = 0, start
    try:
        about = segment.stat()
    except FileNotFoundError:
        return 0, start
    was_open = is_open(segment)
    with told(segment, "write"), segment.open("rb" if dry_run else "r+b", buffering=0) as file:
        for place, block in lines(segment, start):
            at = place
            for line in block.splitlines(keepends=True):
                new = change(line) if line.strip() else line
                assert len(new) == len(line), "what comes after a line must not move"
                if new != line:
                    n += 1
                    if not dry_run:
                        _write(file.fileno(), new, at)
                at += len(line)
        if not was_open and not dry_run:
            _write(file.fileno(), b" " * (os.fstat(file.fileno()).st_size - at), at)
        if n and not dry_run:
            os.fsync(file.fileno())
    if not was_open and not dry_run:
        os.utime(segment, ns=(about.st_atime_ns, about.st_mtime_ns))  # its age tells when it may go
    return n, at


def _write(file: int, text: bytes, at: int) -> None:
    while text:
        n = os.pwrite(file, text, at)
        at, text = at + n, text[n:]


__all__ = [
    "FLUSH_S",
    "FORMAT",
    "OWN",
    "UPGRADES",
    "Head",
    "amend",
    "blank",
    "folder_of",
    "is_open",
    "lines",
    "read_head",
    "segment_name",
    "segments",
    "upgraded",
]
