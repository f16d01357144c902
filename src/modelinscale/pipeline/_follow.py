"""Follow: rows come into the table as they arrive, until somebody stops the command; other commands work on the table meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from modelinscale.core.clock import Clock, now
from modelinscale.core.errors import MisError, Unreachable
from modelinscale.core.files import write_json
from modelinscale.core.logs import log
from modelinscale.core.units import show_seconds
from modelinscale.pipeline import _collect
from modelinscale.pipeline._followed import bringing
from modelinscale.pipeline._lineage import audit_of
from modelinscale.pipeline._place import Place

if TYPE_CHECKING:
    from modelinscale.data.collect import Collected
    from modelinscale.data.tail import Follow, Step

ALIVE_S = 5.0
"""How often the status file says that the follower lives, when nothing else happens."""
WAIT_S = 600.0
"""How long a collect that is at work is waited for."""


@dataclass(frozen=True)
class Followed:
    """News of a follower, for people and scripts."""

    time: str
    """When, in UTC."""
    state: str
    """``following``; ``waiting`` for a source out of reach; ``stopped``; ``failed``."""
    table: str
    version: int | None
    n_rows: int
    """In the table."""
    n_added: int
    """By this commit; at the end: since the start."""
    n_quarantined: int
    """As ``n_added``."""
    behind: int | None
    """Rows that the source still has; None where it cannot tell."""
    rows_per_s: float
    """Rows read a second, since the commit before."""
    committed: bool
    """Whether this is the news of a commit."""
    note: str = ""

    def plain(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "committed"}

    @property
    def words(self) -> str:
        behind = f", {self.behind:,} behind" if self.behind is not None else ""
        bad = f", {self.n_quarantined:,} in quarantine" if self.n_quarantined else ""
        if self.note:
            return f"{self.state}: {self.note}"
        if not self.committed:
            return f"{self.state}{behind}"
        return f"+{self.n_added:,} rows{bad}, {self.n_rows:,} in all, {self.rows_per_s:,.0f} rows/s{behind}"


def follow(place: Place, stop: threading.Event, settings: Follow, news: Callable[[Followed], None], clock: Clock = now) -> Followed:
    """Follows the source of a project until ``stop`` is set. What was read by then is committed.

    Holds the table, not the project: `mis run` takes the table's newest version meanwhile. ``follow/NAME.json`` in the store says how it stands, for probes.
    """
    from modelinscale.data.tail import tail

    table = _collect.table_name(place)
    with bringing(place, table, wait_s=WAIT_S):
        status = _Status(place, table, news, clock)
        try:
            job = _job(place, stop, settings, status)
            found = None if job is None else tail(job.source, stop=stop, settings=settings, news=status.take, **job.how)
        except MisError as error:
            status.failed(error)
            with place.store.shared():
                audit_of(place).write("follow", table, failed=type(error).__name__)
            raise
        done = status.stopped(found)
        with place.store.shared():
            audit_of(place).write("follow", table, version=done.version, n_added=done.n_added, n_quarantined=done.n_quarantined)
        return done


def _job(place: Place, stop: threading.Event, settings: Follow, status: _Status) -> _collect.Job | None:
    """What is to be followed; a source out of reach is waited for, since it must be asked what its columns are. None if told to stop meanwhile."""
    from modelinscale.data.tail import FIRST_PAUSE_S

    pause, start = FIRST_PAUSE_S, now()
    while not stop.is_set():
        try:
            return _collect.job(place)
        except Unreachable as error:
            if settings.give_up is not None and (now() - start).total_seconds() >= settings.give_up:
                raise
            log(__name__).warning("the source is out of reach", extra={"error": str(error), "next_try_s": pause})
            status.waiting(error.message)
            stop.wait(pause)
            pause = min(pause * 2, settings.pause)
    return None


class _Status:
    """What is told of a follower: to whoever asked, and in the status file."""

    def __init__(self, place: Place, table: str, news: Callable[[Followed], None], clock: Clock) -> None:
        self._path = place.store.path("follow", f"{place.spec.name}.json")
        self._table, self._news, self._clock = table, news, clock
        self._start = self._before = clock()
        self._committed: datetime | None = None
        self._written: datetime | None = None
        self._state = "following"
        self._behind: int | None = None
        self._version: int | None = None
        self._n_rows = 0
        self._n_added = self._n_quarantined = 0
        self._write(self._start, "")

    def take(self, step: Step) -> None:
        moment = self._clock()
        state = "waiting" if step.what == "waiting" else "following"
        changed, self._state = state != self._state, state
        self._behind, self._version, self._n_rows = step.behind, step.version, step.n_rows
        if step.what == "committed":
            self._committed = moment
            self._n_added += step.n_added
            self._n_quarantined += step.n_quarantined
        if step.what != "idle" or changed or self._written is None or (moment - self._written).total_seconds() >= ALIVE_S:
            self._write(moment, step.note)
        if step.what != "idle" or changed:
            self._news(self._followed(moment, step.n_added, step.n_quarantined, step.what == "committed", step.note))
        if step.what == "committed":
            self._before = moment

    def waiting(self, why: str) -> None:
        moment, self._state = self._clock(), "waiting"
        self._news(self._followed(moment, 0, 0, False, why))
        self._write(moment, why)

    def stopped(self, found: Collected | None) -> Followed:
        self._state = "stopped"
        if found is not None:
            self._version, self._n_rows = found.version, found.n_rows
        moment, self._before = self._clock(), self._start
        self._write(moment, "")
        return self._followed(moment, self._n_added, self._n_quarantined, False, "")

    def failed(self, error: MisError) -> None:
        self._state = "failed"
        self._write(self._clock(), error.message)

    def _followed(self, moment: datetime, n_added: int, n_quarantined: int, committed: bool, note: str) -> Followed:
        seconds = max((moment - self._before).total_seconds(), 1e-3)
        return Followed(
            time=moment.isoformat(timespec="milliseconds"),
            state=self._state,
            table=self._table,
            version=self._version,
            n_rows=self._n_rows,
            n_added=n_added,
            n_quarantined=n_quarantined,
            behind=self._behind,
            rows_per_s=round((n_added + n_quarantined) / seconds, 1),
            committed=committed,
            note=note,
        )

    def _write(self, moment: datetime, note: str) -> None:
        self._written = moment
        write_json(
            self._path,
            {
                "state": self._state,
                "process": os.getpid(),
                "started": self._start.isoformat(timespec="seconds"),
                "alive": moment.isoformat(timespec="milliseconds"),
                "committed": None if self._committed is None else self._committed.isoformat(timespec="milliseconds"),
                "table": self._table,
                "version": self._version,
                "n_rows": self._n_rows,
                "n_added": self._n_added,
                "n_quarantined": self._n_quarantined,
                "behind": self._behind,
                "note": note,
            },
        )


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that is set by the first SIGTERM or SIGINT; a second one ends the process at once, which costs nothing but what is read again."""
    stop, start = threading.Event(), now()

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
        log(__name__).info("asked to stop", extra={"signal": signal.Signals(number).name, "after": show_seconds((now() - start).total_seconds())})

    before = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
