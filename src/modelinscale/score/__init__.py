"""Scoring: every row of a source through a package, into a file, row for row, in constant memory."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelinscale.compute.local import Local
from modelinscale.core.clock import Stopwatch
from modelinscale.core.errors import SourceError, UsageError, did_you_mean
from modelinscale.core.memory import block, check, guarded
from modelinscale.core.schema import Schema
from modelinscale.score._answer import Predictor, columns_of
from modelinscale.score._write import writer

if TYPE_CHECKING:
    from modelinscale.compute import Compute
    from modelinscale.data.sources import Chunk, Source
    from modelinscale.package import Package

__all__ = ["Scored", "score"]

MAX_THREADS = 8
"""Parts in work at once; each holds its own memory, and reading hardly keeps up with more."""


@dataclass(frozen=True)
class Scored:
    """A file of answers."""

    out: Path
    n_rows: int
    n_faults: int
    """Cells that could not be read, were missing where a value must be, or rows that could not be taken apart: each answered as if missing."""
    seconds: float


def score(
    package: "Package",
    source: "Source",
    out: Path,
    *,
    compute: "Compute | None" = None,
    progress: Callable[[int, str], None] = lambda n_rows, note: None,
    strict: bool = False,
) -> Scored:
    """Answers all rows of ``source`` and writes ``out`` (csv, jsonl, parquet, by suffix), whole or not at all; a file already there is replaced at the end.

    Columns: ``prediction`` (the class or the number), and for classes ``probability_<class>`` in the order of the task's labels; one line for each
    row, in the order of the source. Cells are read with the habits found in training. ``progress`` gets the rows done and a few words.
    With ``strict`` the first cell that cannot be read stops everything. Memory does not grow with the rows, and stays within
    that of ``compute`` (`DataError` where it cannot). Parts are read here and answered where ``compute`` runs them (left out: on threads of this
    process, one a processor); the graph is sent there.

    Raises `UsageError` for an unknown suffix or when ``out`` is one of the files read, `SourceError` when columns are missing, `DataError` for a bad
    cell under ``strict``, `StoreError` when the file cannot be written.
    """
    watch = Stopwatch()
    _refuse_own_input(source, out)
    begin = writer(out)
    schema = _columns(package, source)
    predictor = Predictor(package, strict=strict)
    n_rows = n_faults = 0
    place = compute or Local(workers=min(os.cpu_count() or 1, MAX_THREADS))
    parts = _parts(source.within(block(place.memory), schema), schema)
    with begin(predictor.schema) as write, guarded(place.memory):
        for answered in place.map(predictor.answer, parts):
            check(f"answering after {n_rows:,} rows")
            write(answered.table)
            n_rows += answered.table.num_rows
            n_faults += answered.n_faults
            progress(n_rows, f"at {n_rows / max(watch.seconds(), 1e-9):,.0f} a second")
    return Scored(out, n_rows, n_faults, watch.seconds())


@dataclass(frozen=True)
class Part:
    """A chunk that names its place rather than its rows when an error mentions it."""

    chunk: "Chunk"

    def __str__(self) -> str:
        return self.chunk.where


def _parts(source: "Source", schema: Schema) -> Iterator[Part]:
    for chunk in source.read(None, schema):
        yield Part(chunk)


def _columns(package: "Package", source: "Source") -> Schema:
    """The package's input columns, as they were in training. Raises `SourceError` listing all that the source lacks."""
    there = source.columns().names
    wanted = columns_of(package)
    missing = [name for name in wanted.names if name not in there]
    if missing:
        words = ", ".join(f"{name!r}{did_you_mean(name, there)}" for name in missing[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise SourceError(
            f"the rows lack {len(missing)} of the model's {len(wanted.names)} columns: {words}{more}.", fix=f"Columns there: {', '.join(there[:30])}."
        )
    return wanted


def _refuse_own_input(source: "Source", out: Path) -> None:
    """The answers must not replace the rows."""
    for pattern in getattr(source, "path", ()):
        path = Path(pattern)
        found = [path] if path.exists() else sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []
        if out.exists() and any(one.exists() and one.samefile(out) for one in found):
            raise UsageError(f"{out} is one of the files to read: the answers would replace the rows.", fix="Give another --out.")
