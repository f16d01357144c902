"""Checkpoints: where a training stands as one file, whole or not there, written beside the next steps; and taken up again."""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Sparse
from modelinscale.core.errors import StoreError
from modelinscale.core.files import replaced
from modelinscale.models import Examples

Arrays = dict[str, NDArray[Any]]
_FORMAT = 2


def fingerprint_of(examples: Examples) -> str:
    """What the rows are, in short: every block with its name, kind and all its cells, the answers and their weights; wherever they lie."""
    found = hashlib.sha256()
    for block in examples.blocks():
        parts: list[tuple[str, NDArray[Any]]] = [("target", block.target)]
        if block.weight is not None:
            parts.append(("weight", block.weight))
        for name, values in block.rows.items():
            cells = (values.starts, values.columns, values.values) if isinstance(values, Sparse) else (values,)
            parts += [(f"{i} of {name}", cell) for i, cell in enumerate(cells)]
        for name, cell in parts:
            found.update(f"{name} {cell.dtype.name} {cell.shape} ".encode())
            found.update(np.ascontiguousarray(cell).data)
    return found.hexdigest()[:32]


@dataclass(frozen=True)
class Counted:
    """What a checkpoint says of the time."""

    of: str = ""
    """Which training it is of; "": there is none."""
    seconds: float = 0.0
    """Of all runs of that training so far."""


def counted(file: Path | None) -> Counted:
    """What the checkpoint in this file says; nothing where there is none. Raises `StoreError` for a file that is damaged."""
    if file is None or not file.is_file():
        return Counted()
    with _read(file) as (_, meta):
        return Counted(meta["of"], meta.get("seconds", 0.0))


@contextmanager
def _read(file: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Its arrays, each read when it is asked for, and what it says of itself."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            yield stored, json.loads(stored["meta"].tobytes().decode())
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise StoreError(f"{file} cannot be read ({error}).", fix="Remove it; training then begins anew.") from error


class Checkpoint:
    """The file of one training, and the thread that writes it."""

    def __init__(self, file: Path, fingerprint: str, tell: Callable[[str], None]) -> None:
        """``fingerprint``: of rows and settings; a checkpoint of another one is not taken up."""
        self.file, self._fingerprint, self._tell = file, fingerprint, tell
        self._saver, self._saving = ThreadPoolExecutor(1, "checkpoint"), Future[None]()
        self._saving.set_result(None)
        self._told = False

    def save(self, kinds: dict[str, Arrays], at: dict[str, Any]) -> None:
        """Begins to write; waits for the one before. The arrays must not change afterwards. A disk that refuses is told of once, and the training goes on."""
        self._done()
        self._saving = self._saver.submit(self._write, kinds, self._meta(at))

    def write(self, arrays: Iterator[tuple[str, NDArray[Any] | None]], at: dict[str, Any], *, writes: bool) -> None:
        """Writes one array after the other, named ``kind/name``, before it returns, and keeps none. All are gone through in any case: other processes wait
        at each. ``writes``: whether it is this process that does."""
        self._done()
        try:
            if writes:
                self._stream(arrays, self._meta(at))
        except StoreError as error:
            self._refused(error)
        for _ in arrays:
            continue

    def load(self, part: Callable[[str, str, NDArray[Any]], NDArray[Any]]) -> tuple[dict[str, Arrays], dict[str, Any]] | None:
        """What was saved last, by kind and name; None where there is nothing of this training. ``part`` says what is kept of an array, by kind and name,
        which come in order, one at a time. Raises `StoreError` for a file that is damaged."""
        if not self.file.is_file():
            return None
        with _read(self.file) as (stored, meta):
            if meta.pop("format") != _FORMAT or meta.pop("of") != self._fingerprint:
                return None  # of other rows or settings, or of an earlier version: begun anew, and overwritten
            kinds: dict[str, Arrays] = {}
            for key in sorted(stored.files):
                kind, _, name = key.partition("/")
                if name:
                    kinds.setdefault(kind, {})[name] = part(kind, name, stored[key])
            return kinds, meta

    def close(self) -> None:
        """Waits for what is being written."""
        self._done()
        self._saver.shutdown()

    def _done(self) -> None:
        try:
            self._saving.result()
        except StoreError as error:
            self._refused(error)

    def _refused(self, error: StoreError) -> None:
        if not self._told:
            self._tell(f"A checkpoint could not be written, and training goes on without: killed now, it would begin at the one before. {error}")
        self._told = True

    def _meta(self, at: dict[str, Any]) -> str:
        return json.dumps({"format": _FORMAT, "of": self._fingerprint, **at})

    def _write(self, kinds: dict[str, Arrays], meta: str) -> None:
        self._stream(((f"{kind}/{name}", array) for kind, arrays in kinds.items() for name, array in arrays.items()), meta)

    def _stream(self, arrays: Iterator[tuple[str, NDArray[Any] | None]], meta: str) -> None:
        with replaced(self.file) as side, ZipFile(side, "w") as stored:
            _put(stored, "meta", np.frombuffer(meta.encode(), np.uint8))
            for key, array in arrays:
                _put(stored, key, np.asarray(array))


def _put(stored: ZipFile, key: str, array: NDArray[Any]) -> None:
    """As `np.savez` would."""
    with stored.open(f"{key}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, array, allow_pickle=False)
