"""A follower at work: one commit is written while the next is gathered, windows are judged, tables kept tidy, and how far behind it is gets told."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from modelinscale.core.clock import now
from modelinscale.core.errors import Unreachable
from modelinscale.core.logs import log
from modelinscale.data._arriving import Arriving
from modelinscale.data._brought import Brought
from modelinscale.data._collecting import Collected, Collecting
from modelinscale.data._counts import Counts
from modelinscale.data._units import Unit
from modelinscale.data._windows import Windows
from modelinscale.data.contract import Judged

if TYPE_CHECKING:
    from modelinscale.data.tail import Follow

SHARE_ROWS = 10_000
"""Rows after which the share of bad ones is taken anew."""
IDLE_NEWS_S = 1.0
"""How often is told that nothing is there."""
COMPACT_COMMITS = 64
"""Commits after which small files are joined, if there are enough."""
REPORT_S = 60.0
"""How often the report is written again, at most."""
AGAIN_S = 60.0
"""After so long old versions are looked for again, where they could not be removed because a run was at work."""
KEPT_WARNINGS = 20
What = Literal["committed", "idle", "waiting", "judged"]


@dataclass(frozen=True, kw_only=True)
class Step(Counts):
    """News of a follower."""

    what: What
    """Rows were committed, nothing is there now, the source is out of reach, or checks warn of what came."""
    newest: datetime | None
    """The newest moment among the rows that came, in UTC without zone, where a column of moments is named."""


@dataclass(frozen=True)
class Hooks:
    """Whom a follower tells, and what it has done for it."""

    news: Callable[[Step], None]
    report: Callable[[Collected, Brought], None] | None
    """Called now and then, and at the end, with all that came since the start."""
    vacuum: Callable[[timedelta], bool] | None
    """Removes versions of the tables that are older than that; False: not now."""
    time: str | None
    """The column of moments that says how old rows are."""


class Follower:
    """Where a follower stands."""

    def __init__(self, state: Collecting, arriving: Arriving, how: "Follow", writer: Executor, hooks: Hooks) -> None:
        self._state, self._arriving, self._how, self._writer, self._hooks = state, arriving, how, writer, hooks
        self._windows = Windows(state, how.window)
        self._warnings: deque[str] = deque(maxlen=KEPT_WARNINGS)
        self._writing: tuple[Future[None], int, int, float] | None = None  # with its good and its bad rows, and when the source had no more
        self._caring: Future[None] | None = None
        self._told = state.cursor is None
        self._n_commits = self._n_compacted = self._n_reported = self._last_rows = 0
        self._last_behind: int | None = None
        self._said = 0.0
        self._all_at = monotonic()
        self._report_at, self._vacuum_at = monotonic() + REPORT_S, monotonic()
        self._newest: datetime | None = None

    def write(self, unit: Unit, judged: Judged) -> None:
        """Has a unit written beside what comes next. The one before must be settled."""
        assert self._writing is None, "one unit is written at a time"
        if self._hooks.time is not None:
            self._note_newest(judged, self._hooks.time)
        self._writing = (self._writer.submit(self._state.write, unit, judged), judged.good.num_rows, judged.n_bad, self._arriving.all_at)

    def _note_newest(self, judged: Judged, column: str) -> None:
        import pyarrow.compute as pc

        newest = pc.max(judged.good.column(column)).as_py() if judged.good.num_rows else None
        if newest is not None:
            self._newest = max(self._newest or newest, newest)

    def settle(self, *, wait: bool) -> None:
        """Looks after the unit that is being written, if it is done (or once it is)."""
        if self._writing is None or not (wait or self._writing[0].done()):
            return
        future, n_good, n_bad, self._all_at = self._writing
        self._state.keep(future)
        self._writing, self._told = None, False
        self._tell()
        self._n_commits += 1
        self._last_rows = n_good + n_bad
        self._state.share.take_anew(SHARE_ROWS)
        self._news("committed", n_good, n_bad)

    def tend(self, *, idle: bool) -> None:
        """What is due between two commits. Raises `DataError` when a check of a window must stop it."""
        if idle and self._writing is None:
            self._tell()
            self._all_at = self._arriving.all_at
            if not self._arriving.away and monotonic() - self._said >= IDLE_NEWS_S:
                self._said = monotonic()
                self._news("idle")
        if idle and self._arriving.away:
            self._news("waiting", note=self._arriving.away)
        if self._windows.due:
            self.settle(wait=True)
        self._warn(self._windows.turn(caught_up=self._caught_up, away=bool(self._arriving.away)))
        self._care()
        if monotonic() >= self._report_at:
            self._report_at = monotonic() + REPORT_S
            if self._state.brought.n_read != self._n_reported:
                self.report()

    def end(self) -> Collected | None:
        """Once nothing more is read: what stands in the lake; None if no row ever came."""
        self.settle(wait=True)
        self._warn(self._state.watch.warnings(final=False))
        if self._caring is not None:
            self._caring.result()
        self._state.compact()
        self.report()
        return self._found() if self._state.table is not None else None

    def report(self) -> None:
        """Tells what came since the start."""
        self.settle(wait=True)
        if self._hooks.report is not None and self._state.table is not None:
            self._n_reported = self._state.brought.n_read
            self._hooks.report(self._found(), self._state.brought)

    def _found(self) -> Collected:
        return self._state.collected(list(self._warnings))

    @property
    def _caught_up(self) -> bool:
        """Whether it has everything, or all but a commit or two (one is written, one gathered): a stream that never pauses is never empty."""
        return self._arriving.had_all or (self._last_behind is not None and self._last_behind <= 2 * self._last_rows)

    def _warn(self, words: tuple[str, ...]) -> None:
        if words:
            moment = now().isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
            self._warnings.extend(f"{moment}: {one}" for one in words)
            log(__name__).warning("checks warn", extra={"checks": list(words)})
            self._news("judged", note=" ".join(words))

    def _care(self) -> None:
        """Has small files joined and old versions removed when that is due, between two units and on their thread."""
        if self._caring is not None:
            if not self._caring.done():
                return
            self._caring.result()
            self._caring = None
        compact = self._n_commits - self._n_compacted >= COMPACT_COMMITS
        vacuum = self._hooks.vacuum is not None and self._state.table is not None and monotonic() >= self._vacuum_at
        if compact or vacuum:
            self._n_compacted = self._n_commits if compact else self._n_compacted
            self._caring = self._writer.submit(self._cared, compact=compact, vacuum=vacuum)

    def _cared(self, *, compact: bool, vacuum: bool) -> None:
        if compact:
            self._state.compact()
        if vacuum and self._hooks.vacuum is not None:
            done = self._hooks.vacuum(timedelta(seconds=self._how.keep))
            self._state.reopen()
            self._vacuum_at = monotonic() + (max(self._how.keep / 10, self._how.every) if done else AGAIN_S)

    def _tell(self) -> None:
        """Tells the source how far the lake is; also after a kill, when the lake may be further than the source knows."""
        if not self._told and self._state.cursor is not None:
            self._told = True
            self._arriving.source.committed(self._state.cursor)

    def _behind(self) -> int | None:
        if self._arriving.away or self._state.cursor is None:
            return None
        try:
            return self._arriving.source.behind(self._state.cursor)
        except Unreachable:  # the next read says so
            return None

    def _news(self, what: What, n_added: int = 0, n_quarantined: int = 0, *, note: str = "") -> None:
        behind, table = self._behind() if what != "waiting" else None, self._state.table
        self._last_behind = behind
        place: dict[str, Any] = {"version": table.rows_version if table else None, "n_rows": table.n_rows if table else 0}
        late = 0.0 if behind == 0 else monotonic() - self._all_at
        self._hooks.news(
            Step(what=what, n_added=n_added, n_quarantined=n_quarantined, behind=behind, behind_s=round(late, 3), newest=self._newest, note=note, **place)
        )
