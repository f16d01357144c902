"""The study: every trial in Optuna's storage, so that a kill loses none that is done, several machines share one, and Optuna's own tools can look at it."""

import os
import socket
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import StoreError, UsageError, needs
from modelinscale.core.secrets import reveal, veil
from modelinscale.tune import _engine
from modelinscale.tune._rungs import Entry
from modelinscale.tune._space import Point, Space

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy

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

    def __init__(self, storage: Any, name: str, space: Space, about: About) -> None:
        optuna = _engine.optuna()
        self.space, self.name, self._storage = space, name, storage
        self._study: OptunaStudy = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
        if _ABOUT not in self._study.user_attrs:
            self._study.set_user_attr(_ABOUT, about.plain())
        self._about = about.plain()
        self._trials: dict[int, int] = {}
        self._heard: dict[str, tuple[Any, float]] = {}
        self._beaten = 0.0
        self._by = {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}

    def close(self) -> None:
        """Lets go of the connections to the storage."""
        remove, engine = getattr(self._storage, "remove_session", None), getattr(getattr(self._storage, "_backend", self._storage), "engine", None)
        if remove is not None:
            remove()
        if engine is not None:
            engine.dispose()

    def entries(self) -> list[Entry]:
        """Every trial whose settings are known, in order."""
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            ours, result = trial.user_attrs.get(_OURS), trial.user_attrs.get(_RESULT, {})
            if ours is None or self.space.outside(trial.params):
                continue
            state = {"RUNNING": "running", "COMPLETE": "done", "PRUNED": "done"}.get(trial.state.name, "lost" if result.get("lost") else "failed")
            known = state == "done"
            loss = (trial.value if trial.state.name == "COMPLETE" else next(iter(trial.intermediate_values.values()), None)) if known else None
            began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            spent = {"seconds": result.get("seconds", 0.0), "cpu_seconds": result.get("cpu_seconds", 0.0), "note": result.get("note", "")}
            found.append(Entry(trial.number, ours["draw"], trial.params, ours["share"], state, loss, began=began, **spent))  # type: ignore[arg-type]
        return found

    def begin(self, draw: int, point: Point, share: float) -> Entry | None:
        """Notes that these settings are being tried now; None: another machine was quicker."""
        from optuna.trial import TrialState, create_trial

        ours = {_OURS: {"draw": draw, "share": share, "by": self._by}}
        known = _engine.distributions(self.space, point)
        trial = create_trial(state=TrialState.RUNNING, params=dict(point), distributions=known, user_attrs=ours)
        trial_id = self._storage.create_new_trial(self._study._study_id, template_trial=trial)  # one transaction: a kill leaves no half of it
        number = self._storage.get_trial_number_from_id(trial_id)
        self._trials[number] = trial_id
        entry = Entry(number, draw, point, share, "running", began=time.time())
        if any(e.number < number and e.state != "lost" and (e.draw, e.share) == (draw, share) for e in self.entries()):
            self.end(entry, None, note="tried by another machine", lost=True)
            return None
        return entry

    def end(self, entry: Entry, loss: float | None, *, note: str = "", seconds: float = 0.0, cpu_seconds: float = 0.0, lost: bool = False) -> None:
        """Notes what came of a trial; without a loss it failed, or (``lost``) its process did."""
        from optuna.trial import TrialState

        trial_id = self._trials.pop(entry.number)
        result = {"note": note, "seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3), **({"lost": True} if lost else {})}
        self._storage.set_trial_user_attr(trial_id, _RESULT, result)
        if loss is not None and entry.share < 1.0:
            self._storage.set_trial_intermediate_value(trial_id, _engine.step_of(entry.share), loss)
        state = TrialState.FAIL if loss is None else TrialState.PRUNED if entry.share < 1.0 else TrialState.COMPLETE
        self._storage.set_trial_state_values(trial_id, state, None if loss is None else [loss])

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
        study.add_trials([_engine.frozen(self.space, e.point, e.loss, 1.0, running=False) for e in sorted(entries, key=lambda e: e.draw) if e.share == lowest])
        found: OptunaStudy = study
        return found


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
