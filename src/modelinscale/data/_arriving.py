"""What arrives at a follower, gathered into commits: through outages of the source, and never more in memory than one commit."""

from collections.abc import Generator, Iterator
from contextlib import closing
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

from modelinscale.core.errors import NothingYet, Unreachable
from modelinscale.core.logs import log
from modelinscale.data._collecting import Collecting
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._messages import from_the_first

if TYPE_CHECKING:
    from modelinscale.data.tail import Follow

FIRST_PAUSE_S = 1.0
"""The pause after a first failed attempt; each further one is twice as long."""


class Patience:
    """How long a source that does not answer is waited for: pauses that grow, until it is given up."""

    def __init__(self, how: "Follow") -> None:
        self._how = how
        self.answered()

    def answered(self) -> None:
        """The source answers (again)."""
        self._pause_s, self._lost_at = FIRST_PAUSE_S, float("inf")

    def pause_s(self, error: Unreachable | NothingYet) -> float:
        """How long to wait before the next attempt. Raises ``error`` where it has been out of reach for longer than `Follow.give_up` allows.

        A source that is there and empty is looked at as often as any other.
        """
        self._lost_at = min(self._lost_at, monotonic())
        if self._how.give_up is not None and monotonic() - self._lost_at >= self._how.give_up:
            raise error
        pause_s = min(self._how.every, self._how.pause) if isinstance(error, NothingYet) else self._pause_s
        log(__name__).warning("the source cannot be read now", extra={"error": str(error), "next_try_s": pause_s})
        self._pause_s = min(pause_s * 2, self._how.pause)
        return pause_s


class Arriving:
    """The rows of a source while they come."""

    def __init__(self, source: Source, state: Collecting, how: "Follow", stop: Event, *, block_bytes: int) -> None:
        """``block_bytes``: how large a chunk may be, see `Source.within`."""
        self._block_bytes, self._bounded = block_bytes, False
        self._state, self._how, self._stop = state, how, stop
        self.source = source
        """What is read: a stream may be asked how far behind its reader is only where it is read."""
        self._chunks: list[Chunk] = []
        self._n_rows = self._n_bytes = 0
        self.away = ""
        """Why the source is out of reach, or not there yet; empty while it answers."""
        self.had_all = False
        """Whether the source had nothing more at the last look."""
        self.all_at = monotonic()
        """When everything that the source had was last gathered and given out (at first: the start), on the monotonic clock."""

    def commits(self) -> Generator[list[Chunk], None, None]:
        """The chunks of one commit after the other, until told to stop; nothing when there is nothing to commit now."""
        after: Cursor | None = self._state.cursor
        since, closed = 0.0, 0.0
        patience = Patience(self._how)
        while not self._stop.is_set():
            try:
                if not self._bounded:  # here, since it may have to look at the first rows, which are out of reach or not there yet
                    self.source, self._bounded = self.source.within(self._block_bytes, self._state.raw), True
                with closing(_generator(self.source.follow(after, self._state.raw, every_s=self._how.every, stop=self._stop))) as arriving:
                    for chunk in arriving:
                        now, self.away = monotonic(), ""
                        patience.answered()
                        self.had_all = chunk is None
                        if chunk is not None:
                            since = since if self._chunks else now
                            self._add(chunk)
                            after = chunk.cursor
                        # When nothing more is there now and the last commit is long ago, waiting would help nobody.
                        due = now - since >= self._how.every or (self.had_all and now - closed >= self._how.every)
                        if self.had_all and (due or not self._chunks):
                            self.all_at = now
                        if self._chunks and (self._full or due):
                            yield self._taken()
                            closed = monotonic()
                        elif chunk is None:
                            yield []
            except (Unreachable, NothingYet) as error:
                if isinstance(error, NothingYet):
                    if after is not None:
                        raise
                    self.source = from_the_first(self.source)
                self.away, self.had_all = error.message, False
                if self._chunks:
                    yield self._taken()
                    closed = monotonic()
                pause_s = patience.pause_s(error)
                yield []
                self._stop.wait(pause_s)
        if self._chunks:
            yield self._taken()

    @property
    def _full(self) -> bool:
        return self._n_rows >= self._how.rows or self._n_bytes >= self._how.size

    def _add(self, chunk: Chunk) -> None:
        self._state.note_columns(chunk)
        self._chunks.append(chunk)
        self._n_rows += chunk.batch.num_rows
        self._n_bytes += chunk.batch.nbytes

    def _taken(self) -> list[Chunk]:
        chunks, self._chunks, self._n_rows, self._n_bytes = self._chunks, [], 0, 0
        return chunks


def _generator(arriving: Iterator[Chunk | None]) -> Generator[Chunk | None, None, None]:
    """The same, as something that can be closed."""
    yield from arriving
