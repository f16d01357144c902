"""What a follower leaves for auditors: one run of OpenLineage from its start to its end, told of while it goes on, and lines in the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from modelinscale.core.clock import Clock
from modelinscale.core.errors import MisError, StoreError
from modelinscale.pipeline._lineage import LINEAGE, audit_of, collected_by, read_by
from modelinscale.pipeline._place import Place
from modelinscale.track.lineage import Sender, State, event, run_id

RUNNING_S = 300.0
"""How often is told that it goes on, if rows came."""
_STREAM = {"jobType": {"processingType": "STREAMING", "integration": "MODELINSCALE", "jobType": "TASK"}}


class Told:
    """One follower, from its start to its end."""

    def __init__(self, place: Place, table: str, clock: Clock) -> None:
        """Tells nobody yet."""
        self._place, self._table, self._clock = place, table, clock
        self._sender = Sender(place.spec.lineage, place.store.path(*LINEAGE), place.base)
        self._begun = self._last = clock()
        self._n_told = 0
        self.run = run_id(place.spec.name, "follow", table, self._begun.isoformat())
        """Names this follower in lineage, the audit log, commits and the status file."""

    def started(self, killed: str | None) -> None:
        """Tells of the start, and of the follower before this one where it was ``killed``: its run ends now."""
        if killed is not None:
            self._send("ABORT", run=killed)
            self._audit(run=killed, killed=True)
        self._send("START")
        self._audit(run=self.run, started=True)

    def goes_on(self, facts: Mapping[str, Any] | None) -> None:
        """Now and then, if rows came since. ``facts``: of what came since the start (see `collected_by`); None while there is no table."""
        moment = self._clock()
        if facts is None or moment - self._last < timedelta(seconds=RUNNING_S) or _n(facts) == self._n_told:
            return
        self._last, self._n_told = moment, _n(facts)
        self._send("RUNNING", facts)
        self._audit(run=self.run, **_counts(facts))

    def ended(self, facts: Mapping[str, Any] | None) -> None:
        """Tells of the end that somebody asked for."""
        self._send("COMPLETE", facts)
        self._audit(run=self.run, stopped=True, **_counts(facts))

    def failed(self, error: BaseException, facts: Mapping[str, Any] | None) -> None:
        """Tells of an end that nobody asked for; the error goes on its way."""
        # Only what we wrote ourselves is repeated: another library's words may hold anything.
        why = str(error) if isinstance(error, MisError) else type(error).__name__
        with suppress(StoreError):  # a disk that takes nothing more is what `error` tells of
            self._send("FAIL" if isinstance(error, Exception) else "ABORT", facts, {"errorMessage": {"message": why, "programmingLanguage": "PYTHON"}})
            self._audit(run=self.run, failed=type(error).__name__, **_counts(facts))

    def vacuumed(self, removed: Mapping[str, int], bytes_freed: int) -> None:
        """A line for versions that were removed; ``removed``: how many, by table. The caller holds the project's lock."""
        audit_of(self._place).write("vacuum", self._place.spec.name, removed=dict(removed), bytes_freed=bytes_freed, run=self.run)

    def _send(self, state: State, facts: Mapping[str, Any] | None = None, more: Mapping[str, Any] | None = None, *, run: str | None = None) -> None:
        spec = self._place.spec
        at = self._begun if state == "START" else max(self._clock(), self._begun + timedelta(milliseconds=1))
        outputs = [] if facts is None else collected_by(self._place, facts)
        known: dict[str, Any] = {"job": f"{spec.name}.follow", "namespace": spec.lineage.namespace, "inputs": read_by(self._place), "job_facets": _STREAM}
        self._sender.send(event(state, at=at, run=run or self.run, outputs=outputs, run_facets=more, **known))

    def _audit(self, **facts: Any) -> None:
        with self._place.store.shared():
            audit_of(self._place).write("follow", self._table, **facts)


def _counts(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if facts is None else {"version": facts["version"], "n_added": facts["n_added"], "n_quarantined": facts["n_quarantined_now"]}


def _n(facts: Mapping[str, Any]) -> int:
    return int(facts["n_added"]) + int(facts["n_quarantined_now"])
