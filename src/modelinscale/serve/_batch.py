"""Tick batching: requests that arrived in the same turn of the event loop go through the model together, and none waits for company.

A lone request pays nothing, load makes its own batches. A batch that is expected to take long runs in a thread, so that other connections
are read meanwhile; what arrives until it is done forms the next one. Measured against a waiting window in docs/serving.md.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import RequestError
from modelinscale.core.logs import log
from modelinscale.serve._message import Reply, Request

if TYPE_CHECKING:
    from modelinscale.package import Answer, Package
    from modelinscale.serve._log import PredictionLog
    from modelinscale.serve._stats import Stats

INLINE_S = 0.001
"""Batches expected to take longer than this run in the thread. Handing over costs about 0.1 ms, so short ones are better done at once."""

_log = log(__name__)


@dataclass(slots=True, eq=False)
class Work:
    """Rows of one request on their way through a model: JSON rows or ready graph inputs."""

    request: Request
    n_rows: int
    rows: Sequence[Mapping[str, Any]] | None
    tensors: dict[str, NDArray[Any]] | None
    write: "Callable[[Answer], Reply]"
    """Puts the answer to these rows into words. May run in the thread."""
    refuse: Callable[[RequestError], Reply]
    """Puts an error into words."""


class Done(NamedTuple):
    """Requests that went through the model together, for the prediction log."""

    asked: list[tuple[str, int]]
    """Request ids with numbers of rows, in the order of the rows."""
    tensors: dict[str, NDArray[Any]]
    answer: "Answer"


class Batcher:
    """The queue in front of one model."""

    def __init__(self, package: "Package", stats: "Stats", loop: asyncio.AbstractEventLoop, *, batch_rows: int, log: "PredictionLog | None" = None) -> None:
        self.package = package
        self._label = package.manifest.name
        self._stats = stats
        self._loop = loop
        self._batch_rows = batch_rows
        self._log = log
        self._waiting: deque[Work] = deque()
        self._waiting_rows = 0
        self._scheduled = False
        self._running = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"model {self._label}")
        self._pace = Pace()

    @property
    def waiting_s(self) -> float:
        """How long a request that came now would wait for its turn, at the least, as far as batches have been seen."""
        if not self._running:
            return 0.0
        n_rows = self._waiting_rows
        return math.ceil(n_rows / self._batch_rows) * self._pace.floor(min(n_rows, self._batch_rows))

    def put(self, work: Work) -> None:
        """Takes work; its request is answered in this or a later turn."""
        self._waiting.append(work)
        self._waiting_rows += work.n_rows
        self._wake()

    def warm(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Runs rows known to be good, one and then all of them, and notes how long that takes."""
        for batch in (rows[:1], rows[:1], rows, rows):
            if batch:
                start = time.perf_counter()
                self.package.shown(self.package.run(self.package.tensors(batch)))
                self._pace.set(len(batch), time.perf_counter() - start)

    def close(self) -> None:
        """Ends the thread; a batch in it is finished first."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _wake(self) -> None:
        if self._waiting and not self._scheduled and not self._running:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        batch = self._take()
        if not batch:  # every client in it has gone
            return
        n_rows = sum(w.n_rows for w in batch)
        if self._pace.expect(n_rows) <= INLINE_S:
            self._deliver(batch, *self._answer(batch, n_rows))
        else:
            self._running = True
            self._thread.submit(self._in_thread, batch, n_rows)
        self._wake()

    def _take(self) -> list[Work]:
        """The next requests in order of arrival, together at most ``batch_rows`` rows; a larger request goes alone."""
        batch: list[Work] = []
        n_rows = 0
        while self._waiting:
            work = self._waiting[0]
            if batch and n_rows + work.n_rows > self._batch_rows:
                break
            self._waiting.popleft()
            self._waiting_rows -= work.n_rows
            if work.request.alive:
                batch.append(work)
                n_rows += work.n_rows
        return batch

    def _in_thread(self, batch: list[Work], n_rows: int) -> None:
        replies, done = self._answer(batch, n_rows)
        try:
            self._loop.call_soon_threadsafe(self._landed, batch, replies, done)
        except RuntimeError:
            _log.debug("a batch ended after the server")  # the loop is closed: nobody waits any more

    def _landed(self, batch: list[Work], replies: list[Reply], done: list[Done]) -> None:
        self._running = False
        self._deliver(batch, replies, done)
        self._wake()

    def _deliver(self, batch: list[Work], replies: list[Reply], done: list[Done]) -> None:
        for work, reply in zip(batch, replies, strict=True):
            work.request.answer(reply)
        if self._log is not None:
            for one in done:
                self._log.put(*one)

    def _answer(self, batch: list[Work], n_rows: int) -> tuple[list[Reply], list[Done]]:
        """A reply for each, and what to log. Never raises: what goes wrong becomes the reply of whoever caused it."""
        start = time.perf_counter()
        try:
            tensors = self._inputs(batch)
            answer = self.package.run(tensors)
            replies, at = [], 0
            for work in batch:
                replies.append(work.write(answer if len(batch) == 1 else _part(answer, at, at + work.n_rows)))
                at += work.n_rows
        except Exception as error:  # noqa: BLE001 — one request must not fail the others, whatever the cause: each is tried by itself, and told its own
            if len(batch) > 1:
                each = [self._answer([work], work.n_rows) for work in batch]
                return [reply for replies, _ in each for reply in replies], [one for _, done in each for one in done]
            return [batch[0].refuse(self._told(error, batch[0]))], []
        seconds = time.perf_counter() - start
        self._pace.saw(n_rows, seconds)
        self._stats.ran(self._label, n_rows, seconds)
        return replies, [Done([(work.request.id, work.n_rows) for work in batch], tensors, answer)]

    def _inputs(self, batch: list[Work]) -> dict[str, NDArray[Any]]:
        if len(batch) == 1 and batch[0].tensors is not None:
            return batch[0].tensors
        # All JSON rows become tensors in one go; reordering is undone by placing each part where its request stands.
        rows = [row for work in batch if work.rows is not None for row in work.rows]
        if all(work.rows is not None for work in batch):
            return self.package.tensors(rows)
        mixed = self.package.tensors(rows) if rows else {}
        parts: list[dict[str, NDArray[Any]]] = []
        at = 0
        for work in batch:
            if work.tensors is not None:
                parts.append(work.tensors)
            else:
                parts.append({name: values[at : at + work.n_rows] for name, values in mixed.items()})
                at += work.n_rows
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _told(self, error: Exception, work: Work) -> RequestError:
        if isinstance(error, RequestError):
            return error
        _log.error("a request could not be answered", exc_info=error, extra={"request": work.request.id, "n_rows": work.n_rows})
        return RequestError(
            "the model failed on these rows; this is not the client's fault.", fix=f"Tell whoever runs this server: id {work.request.id}.", status=500
        )


def _part(answer: "Answer", start: int, stop: int) -> "Answer":
    probability = answer.probability
    return type(answer)(answer.prediction[start:stop], None if probability is None else probability[start:stop])


class Pace:
    """How long batches take by size, as a moving average for each power of two."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def saw(self, n_rows: int, seconds: float) -> None:
        """A batch took so long."""
        size = n_rows.bit_length()
        before = self._seconds.get(size)
        self._seconds[size] = seconds if before is None else 0.8 * before + 0.2 * seconds

    def set(self, n_rows: int, seconds: float) -> None:
        """Forgets what was known of this size."""
        self._seconds[n_rows.bit_length()] = seconds

    def floor(self, n_rows: int) -> float:
        """Seconds a batch of this size takes at the least: what the largest size known up to it took."""
        known = [size for size in self._seconds if size <= n_rows.bit_length()]
        return self._seconds[max(known)] if known else 0.0

    def expect(self, n_rows: int) -> float:
        """Seconds a batch of this size should take; from the nearest size known, as if time grew with rows. 0 when nothing is known.

        >>> pace = Pace()
        >>> pace.saw(1, 0.0001)
        >>> pace.expect(1), pace.expect(1024)
        (0.0001, 0.1024)
        """
        size = n_rows.bit_length()
        if size in self._seconds:
            return self._seconds[size]
        if not self._seconds:
            return 0.0
        nearest = min(self._seconds, key=lambda s: abs(s - size))
        return self._seconds[nearest] * 2.0 ** (size - nearest) if size > nearest else self._seconds[nearest]
