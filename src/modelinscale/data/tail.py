"""Follow: a collect that does not end. What arrives is committed every few seconds; a kill at any moment loses and doubles nothing."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from threading import Event
from time import monotonic
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from modelinscale.compute import Compute
from modelinscale.compute.local import Local
from modelinscale.core.errors import Unreachable
from modelinscale.core.logs import log
from modelinscale.core.schema import Schema
from modelinscale.core.settings import Settings
from modelinscale.core.units import Duration, Size
from modelinscale.data.collect import Collected, State, Unit, begin, piece_of
from modelinscale.data.contract import Contract
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.treatment import Treatment

FIRST_PAUSE_S = 1.0
"""The pause after a first failed attempt; each further one is twice as long."""
SHARE_ROWS = 10_000
"""Rows after which the share of bad ones is taken anew."""
IDLE_NEWS_S = 1.0
"""How often is told that nothing is there."""
COMPACT_COMMITS = 64
"""Commits after which small files are joined, if there are enough."""


class Follow(Settings):
    """How ``mis collect --follow`` keeps up with a source. A commit closes with the first of these to be reached."""

    every: Annotated[Duration, Field(ge=0.1, le=86_400)] = 5.0
    """How often rows are committed while they keep coming: how old the newest row in the lake may be, and what a kill has to read again."""
    rows: int = Field(100_000, ge=1)
    """Rows of a commit."""
    size: Annotated[Size, Field(ge=1024)] = Field(64 << 20, alias="bytes")
    """Bytes of a commit, in memory. One commit is gathered while the one before is written; more is not read ahead."""
    pause: Annotated[Duration, Field(ge=0.1)] = 60.0
    """The longest pause between two attempts to reach a source that does not answer; the first is a second."""
    give_up: Annotated[Duration, Field(gt=0)] | None = None
    """How long a source may stay out of reach before that is an error. Left out: it is waited for until somebody stops the command."""


class Step(NamedTuple):
    """News of a follower."""

    what: Literal["committed", "idle", "waiting"]
    """Rows were committed, nothing is there now, or the source is out of reach."""
    version: int | None
    """Of the table, once there is one."""
    n_rows: int
    """In the table."""
    n_added: int
    """By this commit."""
    n_quarantined: int
    """By this commit."""
    behind: int | None
    """Rows that the source still has, where it can tell."""
    note: str = ""
    """Why it waits."""


def tail(
    source: Source,
    *,
    lake: str,
    quarantine: str,
    contract: Contract,
    stop: Event,
    settings: Follow | None = None,
    run: str = "",
    max_quarantined: float = 0.5,
    compute: Compute | None = None,
    news: Callable[[Step], None] = lambda step: None,
    reads: Schema | None = None,
    treatments: Sequence[Treatment] = (),
    facts: Mapping[str, Any] | None = None,
) -> Collected | None:
    """Collects what the source has and then what arrives, until ``stop`` is set: what was read by then is committed. None if no row ever came.

    The rows are treated, judged and committed as by `collect`, whose arguments the others are; the share of bad rows is taken anew every 10,000 rows.
    A source out of reach is tried again, with growing pauses; any other error ends it, and what was committed stays.
    """
    how, notes = settings or Follow(), list[str]()
    state = begin(source, lake, quarantine, contract, run, max_quarantined, lambda share, note: None, reads, notes, facts)
    follower = _Follower(source, state, how, stop, news)
    work, place = partial(piece_of, state.raw, tuple(treatments)), compute or Local()
    with ThreadPoolExecutor(1, thread_name_prefix="lake") as writer, closing(follower.gathered()) as batches:
        for chunks in batches:
            if not chunks:
                follower.tidy(wait=False)
                continue
            unit = Unit()
            for piece in place.map(work, chunks):
                unit.add(piece)
            judged = state.judge(unit)
            follower.tidy(wait=True)
            state.refuse_if_too_bad()
            state.watch.refuse(state.kept, final=False)
            follower.writing = writer.submit(state.write, unit, judged)
            del unit, judged
        follower.tidy(wait=True)
    return state.collected(notes) if state.table is not None else None


class _Follower:
    """Where a follower stands."""

    def __init__(self, source: Source, state: State, how: Follow, stop: Event, news: Callable[[Step], None]) -> None:
        self._source, self._state, self._how, self._stop, self._news = source, state, how, stop, news
        self._n_commits, self._said, self._away = 0, 0.0, False
        self._n_good, self._n_bad = state.n_good, state.n_bad
        self._told = state.cursor is None
        self.writing: Future[None] | None = None

    def gathered(self) -> Generator[list[Chunk], None, None]:
        """The chunks of one commit after the other; nothing when there is nothing to commit now."""
        chunks: list[Chunk] = []
        n_rows = n_bytes = 0
        after: Cursor | None = self._state.cursor
        pause, since, closed = FIRST_PAUSE_S, 0.0, 0.0
        lost_at: float | None = None
        while not self._stop.is_set():
            try:
                with closing(_generator(self._source.follow(after, self._state.raw, every_s=self._how.every, stop=self._stop))) as arriving:
                    for chunk in arriving:
                        pause, lost_at, now, self._away = FIRST_PAUSE_S, None, monotonic(), False
                        if chunk is not None:
                            self._state.note_columns(chunk)
                            since = since if chunks else now
                            chunks.append(chunk)
                            n_rows, n_bytes, after = n_rows + chunk.batch.num_rows, n_bytes + chunk.batch.nbytes, chunk.cursor
                        full = n_rows >= self._how.rows or n_bytes >= self._how.size
                        # When nothing more is there now and the last commit is long ago, waiting would help nobody.
                        due = now - since >= self._how.every or (chunk is None and now - closed >= self._how.every)
                        if chunks and (full or due):
                            yield chunks
                            chunks, n_rows, n_bytes, closed = [], 0, 0, monotonic()
                        elif chunk is None:
                            yield []
            except Unreachable as error:
                self._away = True
                if chunks:
                    yield chunks
                    chunks, n_rows, n_bytes, closed = [], 0, 0, monotonic()
                lost_at = monotonic() if lost_at is None else lost_at
                if self._how.give_up is not None and monotonic() - lost_at >= self._how.give_up:
                    raise
                yield []
                log(__name__).warning("the source is out of reach", extra={"error": str(error), "next_try_s": pause})
                self._news(self._step("waiting", 0, 0, error.message))
                self._stop.wait(pause)
                pause = min(pause * 2, self._how.pause)
        if chunks:
            yield chunks

    def tidy(self, *, wait: bool) -> None:
        """Looks after the commit that is being written, if it is done (or once it is)."""
        state = self._state
        if self.writing is None or not (wait or self.writing.done()):
            if not wait and self.writing is None:
                self._tell()
                if not self._away and monotonic() - self._said >= IDLE_NEWS_S:
                    self._said = monotonic()
                    self._news(self._step("idle", 0, 0))
            return
        state.keep(self.writing)
        self.writing = None
        self._told = False
        self._tell()
        self._n_commits += 1
        if self._n_commits % COMPACT_COMMITS == 0 and state.table is not None:
            state.table = state.table.compact()
        state.forget_share(SHARE_ROWS)
        n_good, n_bad = state.n_good - self._n_good, state.n_bad - self._n_bad
        self._n_good, self._n_bad = state.n_good, state.n_bad
        self._news(self._step("committed", n_good, n_bad))

    def _tell(self) -> None:
        """Tells the source how far the lake is; also after a kill, when the lake may be further than the source knows."""
        if not self._told and self._state.cursor is not None:
            self._told = True
            self._source.committed(self._state.cursor)

    def _step(self, what: Literal["committed", "idle", "waiting"], n_added: int, n_quarantined: int, note: str = "") -> Step:
        state = self._state
        behind = None
        if what != "waiting" and state.cursor is not None:
            try:
                behind = self._source.behind(state.cursor)
            except Unreachable:  # the next read says so
                behind = None
        table = state.table
        return Step(what, table.rows_version if table else None, table.n_rows if table else 0, n_added, n_quarantined, behind, note)


def _generator(arriving: Iterator[Chunk | None]) -> Generator[Chunk | None, None, None]:
    """The same, as something that can be closed."""
    yield from arriving
