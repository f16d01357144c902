"""News of a follower: for people and scripts as they come, and in a status file for probes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.clock import Clock
from modelinscale.core.errors import MisError
from modelinscale.core.files import write_json
from modelinscale.core.units import show_seconds
from modelinscale.data._counts import Counts
from modelinscale.pipeline._place import Place

if TYPE_CHECKING:
    from modelinscale.data.collect import Collected
    from modelinscale.data.tail import Step

ALIVE_S = 5.0
"""How often the status file says that the follower lives, when nothing else happens."""
AT_WORK = ("following", "waiting")
"""States of a follower that has not ended, or was killed."""


@dataclass(frozen=True, kw_only=True)
class Followed(Counts):
    """News of a follower, for people and scripts."""

    time: str
    """When, in UTC."""
    state: str
    """``following``; ``waiting`` for a source that is out of reach or empty; ``stopped``; ``failed``."""
    table: str
    newest_age_s: float | None
    """How old the newest of the rows that came is, by the column `data.time`; None without one."""
    rows_per_s: float
    """Rows read a second, since the commit before."""
    committed: bool
    """Whether this is the news of a commit."""

    def plain(self) -> dict[str, Any]:
        return {"time": self.time, "state": self.state, "table": self.table} | {k: v for k, v in vars(self).items() if k != "committed"}

    @property
    def words(self) -> str:
        if self.note:
            return f"{self.state}: {self.note}"
        late = f"{show_seconds(round(self.behind_s, 1))} behind"
        behind = "nothing behind" if self.behind == 0 else f"{self.behind:,} rows, {late}" if self.behind is not None else late
        age = f", the newest {show_seconds(round(self.newest_age_s))} old" if self.newest_age_s is not None else ""
        if not self.committed:
            return f"{self.state}, {behind}{age}"
        bad = f", {self.n_quarantined:,} in quarantine" if self.n_quarantined else ""
        return f"+{self.n_added:,} rows{bad}, {self.n_rows:,} in all, {self.rows_per_s:,.0f} rows/s, {behind}{age}"


class Status:
    """What is told of a follower: to whoever asked, and in the status file."""

    def __init__(self, place: Place, table: str, news: Callable[[Followed], None], clock: Clock, run: str) -> None:
        """``run``: the follower's, as lineage and commits name it."""
        self._path = place.store.path("follow", f"{place.spec.name}.json")
        self._table, self._news, self._clock, self._run = table, news, clock, run
        self._start = self._before = clock()
        self._committed: datetime | None = None
        self._written: datetime | None = None
        self._state = "following"
        self._behind: int | None = None
        self._behind_s = 0.0
        self._newest: datetime | None = None
        self.version: int | None = None
        self.n_rows = self.n_added = self.n_quarantined = 0
        """In the table; and since the start."""
        self.killed = _killed(self._path)
        """The run of the follower before, where that was killed."""
        self._write(self._start, "")

    def take(self, step: Step) -> None:
        """Tells of one step, unless it says what was said."""
        moment = self._clock()
        state = "waiting" if step.what == "waiting" else "following"
        changed, self._state = state != self._state, state
        self._behind, self._behind_s, self.version, self.n_rows = step.behind, step.behind_s, step.version, step.n_rows
        self._newest = step.newest.replace(tzinfo=UTC) if step.newest is not None else None
        if step.what == "committed":
            self._committed = moment
            self.n_added += step.n_added
            self.n_quarantined += step.n_quarantined
        if step.what != "idle" or changed or self._written is None or (moment - self._written).total_seconds() >= ALIVE_S:
            self._write(moment, step.note)
        if step.what != "idle" or changed:
            self._news(self._followed(moment, step.n_added, step.n_quarantined, step.what == "committed", step.note))
        if step.what == "committed":
            self._before = moment

    def waiting(self, why: str) -> None:
        """Tells that the source cannot be read yet."""
        moment, said = self._clock(), self._state
        self._state = "waiting"
        self._behind_s = (moment - self._start).total_seconds()
        if said != "waiting":
            self._news(self._followed(moment, 0, 0, False, why))
        self._write(moment, why)

    def stopped(self, found: Collected | None) -> Followed:
        """Writes the last status down, and gives it for the command's last words."""
        self._state = "stopped"
        if found is not None:
            self.version, self.n_rows = found.version, found.n_rows
        moment, self._before = self._clock(), self._start
        self._write(moment, "")
        return self._followed(moment, self.n_added, self.n_quarantined, False, "")

    def failed(self, error: BaseException) -> None:
        """Writes down why it ended. Only what we wrote ourselves is repeated: another library's words may hold anything."""
        self._state = "failed"
        self._write(self._clock(), error.message if isinstance(error, MisError) else type(error).__name__)

    def _followed(self, moment: datetime, n_added: int, n_quarantined: int, committed: bool, note: str) -> Followed:
        seconds = max((moment - self._before).total_seconds(), 1e-3)
        return Followed(
            time=moment.isoformat(timespec="milliseconds"),
            state=self._state,
            table=self._table,
            version=self.version,
            n_rows=self.n_rows,
            n_added=n_added,
            n_quarantined=n_quarantined,
            behind=self._behind,
            behind_s=self._behind_s,
            newest_age_s=self._age(moment),
            rows_per_s=round((n_added + n_quarantined) / seconds, 1),
            committed=committed,
            note=note,
        )

    def _age(self, moment: datetime) -> float | None:
        return None if self._newest is None else round((moment - self._newest).total_seconds(), 3)

    def _write(self, moment: datetime, note: str) -> None:
        self._written = moment
        write_json(
            self._path,
            {
                "state": self._state,
                "process": os.getpid(),
                "run": self._run,
                "started": self._start.isoformat(timespec="seconds"),
                "alive": moment.isoformat(timespec="milliseconds"),
                "committed": None if self._committed is None else self._committed.isoformat(timespec="milliseconds"),
                "table": self._table,
                "version": self.version,
                "n_rows": self.n_rows,
                "n_added": self.n_added,
                "n_quarantined": self.n_quarantined,
                "behind": self._behind,
                "behind_s": self._behind_s,
                "newest_age_s": self._age(moment),
                "note": note,
            },
        )


def _killed(path: Path) -> str | None:
    """The run of a follower that never said that it ended. The caller holds the table, so it is not at work."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none was there, or one of another version's making
        return None
    run = found.get("run") if isinstance(found, dict) and found.get("state") in AT_WORK else None
    return run if isinstance(run, str) else None
