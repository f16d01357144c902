"""Follow: rows come into the table as they arrive, until somebody stops the command; other commands work on the table meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

from modelinscale.core.clock import Clock, now
from modelinscale.core.errors import InUse, NothingYet, StoreError, Unreachable
from modelinscale.core.logs import log
from modelinscale.core.units import show_seconds
from modelinscale.pipeline import _collect
from modelinscale.pipeline._followed import bringing
from modelinscale.pipeline._followed_news import Followed, Status
from modelinscale.pipeline._followed_told import Told
from modelinscale.pipeline._place import Place
from modelinscale.pipeline._report import follower_folder, report_before, write_report
from modelinscale.pipeline._vacuum import vacuumed

if TYPE_CHECKING:
    from modelinscale.data._brought import Brought
    from modelinscale.data.collect import Collected
    from modelinscale.data.tail import Follow, Step

__all__ = ["Followed", "follow", "stopping"]

WAIT_S = 60.0
"""How long a collect that is at work, or a follower that is ending, is waited for. One that goes on is not: that never ends."""


def follow(place: Place, stop: threading.Event, settings: Follow, news: Callable[[Followed], None], clock: Clock = now) -> Followed:
    """Follows the source of a project until ``stop`` is set. What was read by then is committed.

    Holds the table, not the project: `mis run` takes the table's newest version meanwhile. ``follow/NAME.json`` in the store says how it stands, for
    probes; ``follow/NAME.report`` has the report of all that came since the start.
    """
    table = _collect.table_name(place)
    with _held(place, table, stop):
        return _Following(place, table, settings, news, clock).until(stop)


@contextmanager
def _held(place: Place, table: str, stop: threading.Event) -> Iterator[None]:
    """Holds the table; tells at once whom it waits for. Raises `InUse` when that takes longer than `WAIT_S`, or ``stop`` is set meanwhile."""
    end, told = monotonic() + WAIT_S, False
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(bringing(place, table, wait_s=0.5 if told else 0.0))
                break
            except InUse as error:  # other refusals do not pass by waiting
                if stop.is_set() or monotonic() >= end:
                    raise
                if not told:
                    log(__name__).warning(f"waiting for the table, up to {show_seconds(WAIT_S)}", extra={"table": table, "because": error.message})
                told = True
        yield


class _Following:
    """One follower, with all that is told of it."""

    def __init__(self, place: Place, table: str, settings: Follow, news: Callable[[Followed], None], clock: Clock) -> None:
        self._place, self._table, self._settings = place, table, settings
        self._told = Told(place, table, clock)
        self._status = Status(place, table, news, clock, self._told.run)
        self._before = report_before(place, table)
        self._job: _collect.Job | None = None

    def until(self, stop: threading.Event) -> Followed:
        from modelinscale.data.tail import tail

        self._told.started(self._status.killed)
        try:
            self._job = self._found(stop)
            found = None
            if self._job is not None:
                time = self._place.spec.data.time
                how: dict[str, Any] = {"stop": stop, "settings": self._settings, "run": self._told.run, "news": self._take, **self._job.how}
                moments = time if time in self._job.schema and time is not None and self._job.schema[time].type == "time" else None
                found = tail(self._job.source, report=self._report, vacuum=self._vacuum, time=moments, **how)
        except BaseException as error:
            self._status.failed(error)
            self._told.failed(error, self._facts())
            raise
        done = self._status.stopped(found)
        self._told.ended(self._facts())
        return done

    def _found(self, stop: threading.Event) -> _collect.Job | None:
        """What is to be followed. A source out of reach, or with nothing in it yet, is waited for, since it must be asked what its columns are.

        None if told to stop meanwhile.
        """
        from modelinscale.data.sources._messages import from_the_first
        from modelinscale.data.tail import Patience

        patience, was_empty = Patience(self._settings), False
        while not stop.is_set():
            try:
                job = _collect.job(self._place)
            except (Unreachable, NothingYet) as error:
                was_empty = was_empty or isinstance(error, NothingYet)
                pause_s = patience.pause_s(error)
                self._status.waiting(error.message)
                stop.wait(pause_s)
            else:
                return replace(job, source=from_the_first(job.source)) if was_empty else job
        return None

    def _take(self, step: Step) -> None:
        self._status.take(step)
        if step.what == "committed":
            self._told.goes_on(self._facts())

    def _facts(self) -> Mapping[str, Any] | None:
        """What came since the start, as lineage wants it."""
        status, job = self._status, self._job
        if job is None or status.version is None:
            return None
        counts = {"n_added": status.n_added, "n_quarantined_now": status.n_quarantined}
        return {"table": self._table, "version": status.version, "n_rows": status.n_rows, "schema": job.schema.plain(), **counts}

    def _report(self, found: Collected, brought: Brought) -> None:
        assert self._job is not None, "what came is of a source"
        write_report(follower_folder(self._place), self._place, self._job, found, brought, self._before)

    def _vacuum(self, older_than: timedelta) -> bool:
        """Removes old versions unless a run is at work: it may be about to name one after the model it trains on it."""
        with ExitStack() as held:
            try:
                held.enter_context(self._place.store.lock("lock"))
            except StoreError:
                return False
            done = vacuumed(self._place, older_than_s=older_than.total_seconds())
            removed = {one.name: len(one.removed) for one in done if one.removed}
            if removed:
                self._told.vacuumed(removed, sum(one.bytes_freed for one in done))
        return True


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
