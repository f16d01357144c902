"""The prediction log's writer: answers go out first, then a thread writes what was asked and answered, in batches, from a queue that is bounded.

Logged is what the graph was fed, so a personal column is logged as the package treats it and a dropped one not at all, whatever road a request came by.
Nothing here may hold an answer up or make it fail: a full queue or disk costs rows of the log, counted in ``/metrics``.
"""

import fcntl
import math
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import repeat, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelinscale.core.clock import Clock, now
from modelinscale.core.encoded import MISSING_MOMENT
from modelinscale.core.logs import log
from modelinscale.core.predictions import FLUSH_S, FORMAT, Head, folder_of, is_open, segment_name, segments

if TYPE_CHECKING:
    from modelinscale.package import Answer, InputColumn, Package
    from modelinscale.serve import Log

QUEUE_BYTES = 16 << 20
"""About how much the rows may hold that wait to be written."""
SLICE_ROWS = 64
"""Rows put into words at a time. Between slices the thread sleeps: while it works, the loop that answers cannot run."""
PAUSE_S = 0.0005
AGAIN_S = 5.0
"""How long after a failure to write the next attempt comes; rows are dropped meanwhile."""
CLOSE_S = 5.0
"""How long a server that stops writes on."""
LONGEST_S = 3600.0
"""A segment is closed after so long: only closed ones can be removed when their time is over."""
_FIXED_BYTES = 160
_EPOCH = datetime(1970, 1, 1)
_FLAGS = {"true": True, "false": False}

_log = log(__name__)


class Asked(NamedTuple):
    """The rows of one request within a batch: its id, where they begin, how many they are."""

    id: str
    start: int
    n_rows: int


class Batch(NamedTuple):
    """What went through the model together, waiting to be written."""

    asked: tuple[Asked, ...]
    tensors: Mapping[str, NDArray[Any]]
    answer: "Answer"
    time: datetime
    n_bytes: int


class _Part(NamedTuple):
    """Rows ``start`` to ``stop`` of a batch, all of one request."""

    batch: Batch
    asked: Asked
    start: int
    stop: int

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self.stop - self.start == len(values) else values[self.start : self.stop]


class _Row(msgspec.Struct, gc=False):
    """One line."""

    id: str
    time: datetime
    version: str
    inputs: Any
    prediction: Any
    probabilities: Any


class PredictionLog:
    """The log of one model. `put` is for the thread of the loop; all else happens in a thread of its own."""

    def __init__(self, root: Path, package: "Package", settings: "Log", clock: Clock = now) -> None:
        self.folder = folder_of(root, package.name)
        self._share = 1.0 if settings.rows is True else float(settings.rows)
        self._keep, self._segment_bytes, self._clock = settings.keep, settings.segment, clock
        self._version = _version(package)
        self._classes = _fields(package.label_keys)
        logged = logged_inputs(package)
        self._inputs = _fields([c.name for c in logged])
        self._texts = [c.name for c in logged if c.input == "string"]
        self._sequences = [c.name for c in logged if c.input == "sequence"]
        self._row_bytes = 8 * sum(c.column.width or 1 for c in logged)
        self._cells = {c.name: _cells_of(c) for c in logged}
        self._head = _head(package, self._version)
        self._given = package.given if package.task.type == "multilabel" else None
        self._encoder = msgspec.json.Encoder()
        self._queue: deque[Batch] = deque()
        self._put_bytes = self._done_bytes = 0  # each is changed by one thread only
        self._full_rows = self._failed_rows = 0
        self.written_rows = 0
        self._warned: set[str] = set()
        self._segment: _Segment | None = None
        self._n_segments = 0
        self._failed_at = -math.inf
        self._swept_at = -math.inf
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log {package.name}", daemon=True)
        self._thread.start()

    @property
    def dropped_rows(self) -> int:
        """Rows that were answered and not logged though they should have been."""
        return self._full_rows + self._failed_rows

    # -- the thread of the loop

    def put(self, asked: Sequence[tuple[str, int]], tensors: Mapping[str, NDArray[Any]], answer: "Answer") -> None:
        """Takes rows that were answered: request ids with numbers of rows, in the order of the rows. Never waits, never raises for lack of room."""
        chosen, start = [], 0
        for id, n_rows in asked:
            if self._share >= 1.0 or zlib.crc32(id.encode()) < self._share * 2**32:
                chosen.append(Asked(id, start, n_rows))
            start += n_rows
        if not start or not chosen:
            return
        n_bytes = _FIXED_BYTES * (len(asked) + len(tensors) + 4) + start * self._row_bytes
        n_bytes += answer.prediction.nbytes + (0 if answer.probability is None else answer.probability.nbytes)
        for name in self._texts:
            n_bytes += sum(map(len, tensors[name]))
        for name in self._sequences:
            n_bytes += sum(steps.nbytes for steps in tensors[name])
        if self._put_bytes - self._done_bytes + n_bytes > QUEUE_BYTES:
            self._full_rows += sum(a.n_rows for a in chosen)
            self._warn("full", "rows are answered faster than the prediction log takes them: some are not logged, see mis_log_dropped_rows_total")
            return
        self._put_bytes += n_bytes
        self._queue.append(Batch(tuple(chosen), {name: tensors[name] for name in self._cells}, answer, self._clock(), n_bytes))

    def close(self) -> None:
        """Writes what waits, for a few seconds at most, and ends."""
        self._stop.set()
        self._thread.join(CLOSE_S + 1.0)
        if self.dropped_rows:
            _log.warning("rows were answered and not logged", extra={"n_rows": self.dropped_rows, "folder": self.folder})

    # -- the thread of the log

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self._drain(PAUSE_S, lambda: False)
            self._tidy()
        end = time.monotonic() + CLOSE_S
        self._drain(0.0, lambda: time.monotonic() > end)
        self._failed_rows += sum(a.n_rows for batch in self._queue for a in batch.asked)
        self._close_segment()

    def _drain(self, pause_s: float, over: Callable[[], bool]) -> None:
        while self._queue and not over():
            batches: list[Batch] = []
            n_rows = 0
            while self._queue and (not batches or n_rows + len(self._queue[0].answer) <= SLICE_ROWS):
                batches.append(self._queue.popleft())
                n_rows += len(batches[-1].answer)
            for parts in _slices(batches):
                n_rows = sum(part.stop - part.start for part in parts)
                try:
                    self._write(self._text(parts), n_rows)
                except Exception as error:  # noqa: BLE001 — the log must go on with the next rows whatever was odd about these, and say that it did
                    self._failed_rows += n_rows
                    self._warn("odd", "rows could not be written to the prediction log", error)
                time.sleep(pause_s)
            self._done_bytes += sum(batch.n_bytes for batch in batches)

    def _text(self, parts: "Sequence[_Part]") -> bytes:
        """Rows as JSON lines."""
        columns = [read(_together([p.of(p.batch.tensors[name]) for p in parts])) for name, read in self._cells.items()]
        ids = [f"{p.asked.id}/{row - p.asked.start}" for p in parts for row in range(p.start, p.stop)]
        times = [p.batch.time for p in parts for _ in range(p.start, p.stop)]
        predictions = _together([p.of(p.batch.answer.prediction) for p in parts])
        if self._given is not None:
            predictions = list(map(self._given, predictions))
        shares = [p.of(p.batch.answer.probability) for p in parts if p.batch.answer.probability is not None]
        classes: Iterable[Any] = starmap(self._classes, _together(shares)) if shares else repeat(msgspec.UNSET)
        # Objects of fixed fields rather than dictionaries: they are made and written in half the time.
        return self._encoder.encode_lines(
            list(map(_Row, ids, times, repeat(self._version), starmap(self._inputs, zip(*columns, strict=True)), predictions, classes))
        )

    def _write(self, text: bytes, n_rows: int) -> None:
        """Appends lines to the segment, or drops and counts them."""
        if time.monotonic() - self._failed_at < AGAIN_S:
            self._failed_rows += n_rows
            return
        written = 0
        try:
            written = self._open_segment().append(text)
        except OSError as error:
            self._warn("disk", f"the prediction log cannot be written ({error.strerror}): rows are dropped until it can", error)
        whole = n_rows if written == len(text) else text[:written].count(b"\n")
        self.written_rows += whole
        if whole < n_rows:
            # The segment may end in half a line now: nothing may follow it.
            self._failed_rows += n_rows - whole
            self._failed_at = time.monotonic()
            self._warn("disk", "the disk of the prediction log is full: rows are dropped until there is room")
            self._close_segment()

    def _open_segment(self) -> "_Segment":
        if self._segment is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._segment = _Segment(self.folder / segment_name(self._clock(), os.getpid(), self._n_segments), self._head)
            self._n_segments += 1
        return self._segment

    def _tidy(self) -> None:
        """Closes a segment that is large or old enough; removes those whose time is over."""
        if self._segment is not None and (
            self._segment.size >= self._segment_bytes or time.monotonic() - self._segment.opened_at >= min(LONGEST_S, self._keep)
        ):
            self._close_segment()
        if time.monotonic() - self._swept_at < min(LONGEST_S, max(self._keep / 4, 1.0)):
            return
        self._swept_at = time.monotonic()
        try:
            oldest = self._clock().timestamp() - self._keep
            for one in segments(self.folder):
                if one.stat().st_mtime < oldest and not is_open(one):
                    one.unlink()
        except FileNotFoundError:
            return  # another server of the same model was faster; the next sweep does the rest
        except Exception as error:  # noqa: BLE001 — the thread must live
            self._warn("sweep", "old segments of the prediction log could not be removed", error)

    def _close_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _warn(self, why: str, words: str, error: Exception | None = None) -> None:
        if why not in self._warned:
            self._warned.add(why)
            _log.warning(words, extra={"folder": str(self.folder), **({"error": type(error).__name__} if error else {})})


def _slices(batches: Sequence[Batch]) -> Iterator[list[_Part]]:
    """The rows that are to be logged, `SLICE_ROWS` at a time at most."""
    parts: list[_Part] = []
    room = SLICE_ROWS
    for batch in batches:
        for asked in batch.asked:
            start, end = asked.start, asked.start + asked.n_rows
            while start < end:
                parts.append(_Part(batch, asked, start, min(end, start + room)))
                room -= parts[-1].stop - start
                start = parts[-1].stop
                if not room:
                    yield parts
                    parts, room = [], SLICE_ROWS
    if parts:
        yield parts


class _Segment:
    """One file that lines are appended to, locked while it is open."""

    def __init__(self, path: Path, head: Head) -> None:
        self._path = path
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.size, self.opened_at = 0, time.monotonic()
        self._before = head.line()

    def append(self, text: bytes) -> int:
        """Writes lines; gives how many bytes of them the disk took. Raises `OSError` when it took none."""
        text, skipped = self._before + text, len(self._before)
        self._before = b""
        written = 0
        while written < len(text):
            try:
                written += os.write(self._file, memoryview(text)[written:])
            except OSError:
                if not written:
                    raise
                break
        self.size += written
        return max(written - skipped, 0)

    def close(self) -> None:
        if not self.size:
            self._path.unlink(missing_ok=True)  # the disk took not even the first line
        os.close(self._file)


def logged_inputs(package: "Package") -> "list[InputColumn]":
    """The columns that are kept: all but images, which would be nearly all of the log and are hardly ever free of what is personal."""
    return [one for one in package.inputs if one.input != "image"]


def _version(package: "Package") -> str:
    return str(package.version) if package.version is not None else package.manifest.identity


def _head(package: "Package", version: str) -> Head:
    columns = []
    for one in logged_inputs(package):
        kind = "float" if one.input == "float64" and one.column.type == "string" else one.column.type
        columns.append({"name": one.name, "type": kind, **({"width": one.column.width} if one.column.width is not None else {})})
    labels, task = package.task.labels, package.task
    if task.numbers and task.several:
        return Head(FORMAT, package.name, version, package.manifest.identity, tuple(columns), "vector", (), task.n_scores)
    prediction = {bool: "bool", int: "int", str: "string"}[type(labels[0])] if labels else "float"
    return Head(FORMAT, package.name, version, package.manifest.identity, tuple(columns), prediction, package.label_keys)


def _together(arrays: Sequence[NDArray[Any]]) -> list[Any]:
    """The rows of all of them as Python values."""
    return (arrays[0] if len(arrays) == 1 else np.concatenate(arrays)).tolist()  # type: ignore[no-any-return]


def _fields(names: Sequence[str]) -> Callable[..., Any]:
    """Makes the object with these names from its values in order."""
    names = tuple(names)
    try:
        return msgspec.defstruct("Fields", [(f"_{i}", Any) for i in range(len(names))], rename={f"_{i}": name for i, name in enumerate(names)}, gc=False)
    except ValueError:  # a name with a quote or a control character in it
        return lambda *values: dict(zip(names, values, strict=True))


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _cells_of(column: "InputColumn") -> Callable[[list[Any]], list[Any]]:
    """From the graph's form of a column back to JSON cells of its type; the inverse of `package._cells._fed`, a missing cell is None."""
    kind, form = column.column.type, column.input
    if form == "vector":
        return lambda cells: [None if all(v != v for v in cell) else cell for cell in cells]
    if form == "sequence":
        flat = column.column.width == 1
        return lambda cells: [cell[:, 0].tolist() if flat else cell.tolist() for cell in cells]
    if form == "float64":
        if kind == "int":
            return lambda cells: [None if v != v else int(v) for v in cells]
        if kind == "bool":
            return lambda cells: [None if v != v else v != 0.0 for v in cells]
        if kind == "time":
            return lambda cells: [None if v != v else _moment(int(v)) for v in cells]
        return lambda cells: cells  # NaN is written as null
    if form == "int64":
        if kind == "time":
            return lambda cells: [None if v == MISSING_MOMENT else _moment(v) for v in cells]
        return lambda cells: [None if v == MISSING_MOMENT else v for v in cells]
    if kind == "bool":
        return lambda cells: [_FLAGS.get(v) for v in cells]
    if kind in ("int", "float"):
        number: Callable[[str], float] = int if kind == "int" else float
        return lambda cells: [number(v) if v else None for v in cells]
    return lambda cells: [v or None for v in cells]
