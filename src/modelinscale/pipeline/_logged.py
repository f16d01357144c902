"""A model's prediction log: where it lies, and how persons are taken out of it, also while a server writes on."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from modelinscale.core.predictions import FLUSH_S, amend, blank, folder_of, is_open, read_head, segments
from modelinscale.spec import ModelSpec
from modelinscale.store.local import Local

_SURE_S = 2.0
"""How much longer than `FLUSH_S` the second look waits: a server under load may be late."""
SHORT = 3
"""Words up to so many letters are looked for in the person's own column only: they stand in too much else."""


class Erased(NamedTuple):
    """What was found of persons."""

    n_rows: int
    names_nobody: bool
    """Whether there are rows that do not say whose they are: the person's column is no input of the model."""


def log_root(spec: ModelSpec, base: Path) -> Path:
    """Where prediction logs lie: as ``serve.log`` says, else in the store; beside the model.yaml where the store is on no disk of this machine."""
    if spec.serve.log.folder is not None:
        return base / spec.serve.log.folder.expanduser()
    store = spec.store_at(base)
    return store.path("predictions") if isinstance(store, Local) else base / ".mis" / "predictions"


def erase_logged(spec: ModelSpec, base: Path, column: str, words: Sequence[str], *, dry_run: bool) -> Erased:
    """Takes every row of persons out of the log; ``words``: the persons in every form in which they may be stored.

    A row is theirs when its cell of ``column`` is one of the words, or when one of them stands, as a word, in its id or in another text. Servers may go on
    meanwhile: what they held in memory is looked through once more after they must have written it.
    """
    folder = folder_of(log_root(spec, base), spec.name)
    hit = _hit(column, words)
    n, names_nobody, again = 0, False, False
    read: dict[Path, int] = {}
    for round_ in range(2):
        for segment in segments(folder):
            if segment not in read and (head := read_head(segment)) is not None:
                names_nobody |= all(c["name"] != column for c in head[0].columns)
            again |= is_open(segment)
            n_here, read[segment] = blank(segment, hit, start=read.get(segment, 0), dry_run=dry_run)
            n += n_here
        if not again or dry_run or round_:
            break
        time.sleep(FLUSH_S + _SURE_S)
    return Erased(n, names_nobody)


def rewrite_logged(spec: ModelSpec, base: Path, change: Callable[[str], str]) -> int:
    """Changes words within every row of the log into others of the same length; gives how many rows became others."""
    of_line = lambda line: change(line.decode()).encode()  # noqa: E731
    return sum(amend(segment, of_line)[0] for segment in segments(folder_of(log_root(spec, base), spec.name)))


def _hit(column: str, words: Sequence[str]) -> Callable[[bytes], bool]:
    """Whether a line is one of the persons'."""
    cells: set[Any] = set(words)
    for word in words:
        for kind in (int, float):
            try:
                cells.add(kind(word))
            except ValueError:
                continue
    written = {msgspec.json.encode(cell).strip(b'"') for cell in cells}
    # Most lines are nobody's who is looked for: only those in which the bytes stand are taken apart.
    somewhere = re.compile(b"|".join(re.escape(one) for one in sorted(written, key=len, reverse=True)))
    long = sorted((word for word in words if len(word) > SHORT), key=len, reverse=True)
    as_word = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in long)) if long else None

    def hit(line: bytes) -> bool:
        if not somewhere.search(line):
            return False
        row = msgspec.json.decode(line)
        inputs = row.get("inputs", {})
        cell = inputs.get(column)
        if cell is not None and not isinstance(cell, (bool, list)) and cell in cells:
            return True
        texts = [v for v in (row.get("id"), row.get("prediction"), *inputs.values()) if isinstance(v, str)]
        return as_word is not None and any(as_word.search(text) for text in texts)

    return hit
