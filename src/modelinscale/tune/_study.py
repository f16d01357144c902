"""The study: every trial in Optuna's storage, so that a kill loses none that is done, several machines share one, and Optuna's own tools can look at it."""

import os
import socket
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import StoreError, UsageError, needs
from modelinscale.core.secrets import reveal, veil
from modelinscale.tune import _engine, _rows
from modelinscale.tune._rungs import Entry, State
from modelinscale.tune._space import Point, Space

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.trial import FrozenTrial

_OURS, _RESULT, _ABOUT, _BEAT = "mis", "result", "about", "beat"
SILENT_S = 90.0
"""A machine that has not been heard of for so long is taken for lost, with the trials it had in work."""
BEAT_S = 10.0


def open_storage(url: str | None, file: Path) -> Any:
    """Optuna's storage: an SQLite ``file``, or what an address names; secrets in it are references. Raises `StoreError` when it does not answer."""
    optuna = _engine.optuna()
    if url is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        return _sqlite(optuna, file)
    scheme = url.partition("://")[0]
    try:
        if scheme in ("redis", "rediss"):
            needs("redis", extra="redis")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.storages.JournalStorage(optuna.storages.journal.JournalRedisBackend(reveal(url, in_url=True)))
        if scheme == "postgresql":
            needs("psycopg", extra="postgres")
            return optuna.storages.RDBStorage(reveal(url, in_url=True).replace("postgresql://", "postgresql+psycopg://", 1))
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001  # drivers raise what they like; their words may hold the address
        raise StoreError(
            f"the storage of the search, {veil(url)}, cannot be opened ({type(error).__name__}).", fix="Does the server run, and are user and password right?"
        ) from None
    raise UsageError(f"{scheme}:// is no storage for a search.", fix="Write `postgresql://user:${ENV:PW}@host/db` or `redis://host`, or leave it out.")


def _sqlite(optuna: Any, file: Path) -> Any:
    """A file that outlives any kill of ours; it does not wait for the disk at each of a trial's dozen small writes."""
    from sqlalchemy import event

    storage = optuna.storages.RDBStorage(f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": 60}})

    def set_up(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    event.listen(storage.engine, "connect", set_up)
    storage.engine.dispose()
    return storage


@dataclass(frozen=True)
class About:
    """What a study is of: studies of the same target and features can be learned from."""

    project: str
    target: str
    features: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        return {"project": self.project, "target": self.target, "features": self.features}


class Study:
    """One search, under the identity of what it searches."""

    def __init__(self, storage: Any, name: str, space: Space, about: About | None) -> None:
        """``about``: None for who only reads a study that is there."""
        optuna = _engine.optuna()
        self.space, self.name, self._storage = space, name, storage
        self._study: OptunaStudy = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
        self._about = None if about is None else about.plain()
        if about is not None and _ABOUT not in self._study.user_attrs:
            self._study.set_user_attr(_ABOUT, self._about)
        self._is_database, self._read = isinstance(storage, optuna.storages.RDBStorage), float("-inf")
        self._spaces = _engine.distributions(space)
        self._trials: dict[int, int] = {}
        self._entries: dict[int, Entry | None] = {}
        self._heard: dict[str, tuple[Any, float]] = {}
        self._beaten = 0.0
        self._by = {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}

    def close(self) -> None:
        """Lets go of the connections to the storage."""
        _let_go(self._storage)

    def entries(self, within_s: float = 0.0) -> list[Entry]:
        """Every trial whose settings are known, in order; asks the storage for those that are new or were in work, if that was not done ``within_s``."""
        now = time.monotonic()
        if now - self._read < within_s:
            return self.latest()
        self._read = now
        for trial in self._study.get_trials(deepcopy=False):
            known = self._entries.get(trial.number)
            if trial.number not in self._entries or (known is not None and known.state == "running"):
                self._entries[trial.number] = self._entry(trial)
        return self.latest()

    def latest(self) -> list[Entry]:
        """The same as far as it is known here, without a look into the storage."""
        return [entry for _, entry in sorted(self._entries.items()) if entry is not None]

    def _entry(self, trial: "FrozenTrial") -> Entry | None:
        """None: its settings are none of this space."""
        ours, result = trial.user_attrs.get(_OURS), trial.user_attrs.get(_RESULT, {})
        if ours is None or self.space.outside(trial.params):
            return None
        state = {"RUNNING": "running", "COMPLETE": "done", "PRUNED": "done"}.get(trial.state.name, "lost" if result.get("lost") else "failed")
        loss = trial.value if state == "done" else None
        began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        spent = {"seconds": result.get("seconds", 0.0), "cpu_seconds": result.get("cpu_seconds", 0.0), "note": result.get("note", "")}
        return Entry(trial.number, ours["draw"], trial.params, ours["share"], state, loss, began=began, **spent)  # type: ignore[arg-type]

    def begin(self, draw: int, point: Point, share: float) -> Entry | None:
        """Notes that these settings are being tried now; None: another machine was quicker."""
        from optuna.trial import TrialState, create_trial

        ours = {_OURS: {"draw": draw, "share": share, "by": self._by}}
        known = {name: self._spaces[name] for name in point}
        trial = create_trial(state=TrialState.RUNNING, params=dict(point), distributions=known, user_attrs=ours)
        unseen = max(self._entries, default=-1) + 1
        if self._is_database:
            trial_id, number = _rows.add(self._storage, self._study._study_id, trial)
        else:
            trial_id = self._storage.create_new_trial(self._study._study_id, template_trial=trial)
            number = self._storage.get_trial_number_from_id(trial_id)
        self._trials[number] = trial_id
        assert trial.datetime_start is not None
        entry = self._entries[number] = Entry(number, draw, dict(point), share, "running", began=trial.datetime_start.timestamp())
        others = self.entries() if number > unseen else self.latest()  # numbers have no gaps: without one nobody else began a trial since we looked
        if any(e.number < number and e.state != "lost" and (e.draw, e.share) == (draw, share) for e in others):
            self.end(entry, None, note="tried by another machine", lost=True)
            return None
        return entry

    def end(self, entry: Entry, loss: float | None, *, note: str = "", seconds: float = 0.0, cpu_seconds: float = 0.0, lost: bool = False) -> None:
        """Notes what came of a trial; without a loss it failed, or (``lost``) its process did."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        trial_id = self._trials.pop(entry.number)
        result = {"note": note, "seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3), **({"lost": True} if lost else {})}
        state = TrialState.FAIL if loss is None else TrialState.PRUNED if entry.share < 1.0 else TrialState.COMPLETE
        try:
            if self._is_database:
                _rows.settle(self._storage, trial_id, state, loss, {_RESULT: result})
            else:
                self._storage.set_trial_user_attr(trial_id, _RESULT, result)
                self._storage.set_trial_state_values(trial_id, state, None if loss is None else [loss])
        except UpdateFinishedTrialError:  # we were silent for so long (a laptop that slept) that another machine took us for dead, and repeats the trial
            loss, lost, note = None, True, "given up by another machine"
        ended: State = "lost" if lost else "failed" if loss is None else "done"
        spent = {"seconds": result["seconds"], "cpu_seconds": result["cpu_seconds"], "note": note}
        self._entries[entry.number] = replace(entry, state=ended, loss=loss, **spent)  # type: ignore[arg-type]

    def recover(self) -> int:
        """Marks the trials of processes that are no more as lost, so that they are repeated; says how many."""
        from optuna.trial import TrialState

        n = 0
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            ours = trial.user_attrs.get(_OURS)
            if trial.number in self._trials or (ours is not None and self._lives(ours["by"])):
                continue
            self._storage.set_trial_user_attr(trial._trial_id, _RESULT, {"note": "its process was lost", "lost": True})
            self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            n += 1
        self._read = float("-inf")
        return n

    def beat(self) -> None:
        """Says that this process is alive, at most every ten seconds."""
        if time.monotonic() - self._beaten >= BEAT_S:
            self._beaten = time.monotonic()
            self._study.set_user_attr(f"{_BEAT}/{_key(self._by)}", time.time())

    def _lives(self, by: Mapping[str, Any]) -> bool:
        if by["host"] == self._by["host"]:
            return _began(int(by["pid"])) == str(by["began"])
        # By our own clock: theirs may be set to another time.
        said, now = self._study.user_attrs.get(f"{_BEAT}/{_key(by)}"), time.monotonic()
        before, since = self._heard.setdefault(_key(by), (said, now))
        if said != before:
            self._heard[_key(by)] = (said, now)
        return bool(said != before) or now - since < SILENT_S

    def earlier(self, n: int) -> list[Point]:
        """The best settings of earlier studies of the same target and features, at most ``n``, each of one study, as far as they lie in this space."""
        optuna = _engine.optuna()
        found: list[tuple[float, Point]] = []
        for name in optuna.get_all_study_names(storage=self._storage):
            if name == self.name:
                continue
            other = optuna.load_study(study_name=name, storage=self._storage)
            if other.user_attrs.get(_ABOUT) != self._about:
                continue
            done = [t for t in other.get_trials(deepcopy=False) if t.state.name == "COMPLETE" and t.value is not None]
            if done:
                best = min(done, key=lambda t: (t.value, t.number))
                at = best.datetime_complete.timestamp() if best.datetime_complete else 0.0
                found.append((at, self.space.complete(best.params) if self._known(best.params) else {}))
        points = [point for _, point in sorted(found, key=lambda pair: -pair[0]) if point and not self.space.outside(point)]
        return [point for i, point in enumerate(points) if point not in points[:i]][:n]

    def _known(self, values: Mapping[str, Any]) -> bool:
        from modelinscale.tune._space import FAMILY

        return values.get(FAMILY, self.space.families[0]) in self.space.families and any(name in self.space.dimensions for name in values)

    def importance(self) -> dict[str, float]:
        """Share of each setting in what makes trials good (PED-ANOVA, Watanabe et al. 2023), the largest first; empty where there are too few trials."""
        optuna = _engine.optuna()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # too few trials to tell: Optuna would call all settings equal
            try:
                return dict(optuna.importance.get_param_importances(self._whole()))
            except (ValueError, RuntimeError, UserWarning):
                return {}

    def _whole(self) -> "OptunaStudy":
        """A study in memory of each settings' result on the rung that most were tried on: comparable, and as many as there are."""
        optuna = _engine.optuna()
        entries = [e for e in self.entries() if e.state == "done" and e.loss is not None]
        lowest = min((e.share for e in entries), default=1.0)
        study = optuna.create_study(direction="minimize")
        study.add_trials(
            [_engine.frozen(self._spaces, e.point, e.loss, 1.0, running=False) for e in sorted(entries, key=lambda e: e.draw) if e.share == lowest]
        )
        found: OptunaStudy = study
        return found


def known_trials(file: Path, name: str, space: Space) -> list[Entry]:
    """The trials of a study that lies in a file; none where there is no such study. Changes nothing."""
    storage = open_storage(None, file)
    try:
        if name not in _engine.optuna().get_all_study_names(storage=storage):
            return []
        return Study(storage, name, space, None).entries()
    finally:
        _let_go(storage)


def _let_go(storage: Any) -> None:
    """Ends the connections to a storage."""
    remove, engine = getattr(storage, "remove_session", None), getattr(getattr(storage, "_backend", storage), "engine", None)
    if remove is not None:
        remove()
    if engine is not None:
        engine.dispose()


def _key(by: Mapping[str, Any]) -> str:
    return f"{by['host']}/{by['pid']}/{by['began']}"


def _began(pid: int) -> str:
    """When a process of this machine began, as the system counts; "" when it is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        if Path("/proc/self").exists():
            return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "there"
    return "there"
