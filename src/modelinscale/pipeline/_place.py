"""Where a project's results lie, and how a step's result appears: in one step, under the identity of what went in."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelinscale import __version__
from modelinscale.core.elsewhere import located
from modelinscale.core.errors import StoreError
from modelinscale.core.files import sweep, told, write_json
from modelinscale.core.identity import identity
from modelinscale.features import Feature
from modelinscale.spec import ModelSpec
from modelinscale.store import Store

Facts = dict[str, Any]
RESULT = "result.json"


@dataclass(frozen=True)
class Result:
    """What a step left: plain facts, and a folder with whatever else it wrote."""

    step: str
    identity: str
    inputs: Facts
    facts: Facts
    folder: Path
    fresh: bool = False
    """Whether it was made by this run."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Place:
    """One project: its file's folder, its spec, its store."""

    spec: ModelSpec
    base: Path
    store: Store

    @classmethod
    def of(cls, spec: ModelSpec, base: Path) -> "Place":
        return cls(spec, base, spec.store_at(base))

    def located(self, features: Mapping[str, Feature]) -> dict[str, Feature]:
        """Features that learn, with what was taught elsewhere taken from where model.yaml lies. Their states keep it, so that it is looked for once."""
        return {name: Feature.parse(located(feature.plain(), self.base)) for name, feature in features.items()}

    def name(self, step: str, inputs: Facts) -> str:
        """The identity of a step with these inputs, under this version of the code."""
        return identity(step, __version__, inputs)

    def find(self, step: str, inputs: Facts) -> Result | None:
        """The result made earlier from the same inputs, or None."""
        name = self.name(step, inputs)
        folder = self.store.path("steps", step, name)
        if not (folder / RESULT).is_file():
            return None
        found = _read(folder / RESULT)
        return Result(step, name, inputs, found["facts"], folder, seconds=found["seconds"])

    def discard(self, result: Result) -> None:
        """Removes a result whose product is gone, so that it can be made again; out of sight first, so that no part of it is ever found."""
        self.store.discard("steps", result.step, result.folder.name)

    def newest(self, step: str) -> Result | None:
        """The result of a step made last, whatever its inputs: to say what changed since."""
        folders = [self.store.path("steps", step, name) for name in self.store.list("steps", step)]
        dated = [(f.stat().st_mtime_ns, f) for f in folders if (f / RESULT).is_file()]
        if not dated:
            return None
        folder = max(dated)[1]
        found = _read(folder / RESULT)
        return Result(step, folder.name, found["inputs"], found["facts"], folder)

    def make(self, step: str, inputs: Facts, work: Callable[[Path], Facts]) -> Result:
        """Does the work of a step in a folder that appears only when it is whole."""
        name, start = self.name(step, inputs), time.monotonic()
        with self.store.publish("steps", step, name) as folder:
            facts = work(folder)
            seconds = round(time.monotonic() - start, 3)
            write_json(folder / RESULT, {"step": step, "identity": name, "inputs": as_plain(inputs), "facts": facts, "seconds": seconds})
        return Result(step, name, inputs, facts, self.store.path("steps", step, name), fresh=True, seconds=seconds)

    def checkpoints(self, name: str) -> Path:
        """A folder for a family's checkpoints during the training with this identity."""
        folder = self.store.path("work", name)
        with told(folder, "write"):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def forget_checkpoints(self, name: str) -> None:
        """Removes them: the weights they led to are about to be kept."""
        shutil.rmtree(self.store.path("work", name), ignore_errors=True)

    def sweep(self) -> None:
        """Removes what killed runs left at the side; called while the project is locked, so nobody else is writing."""
        for step in self.store.list("steps"):
            sweep(self.store.path("steps", step), older_than_s=0.0)


def results(place: Place, step: str) -> list[Result]:
    """Every result of a step that there is, whatever its inputs."""
    folders = [place.store.path("steps", step, name) for name in place.store.list("steps", step)]
    read = [(folder, _read(folder / RESULT)) for folder in folders if (folder / RESULT).is_file()]
    return [Result(step, folder.name, found["inputs"], found["facts"], folder, seconds=found["seconds"]) for folder, found in read]


def as_plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda v: v.plain() if hasattr(v, "plain") else str(v)))


def _read(path: Path) -> Facts:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}).", fix=f"Remove the folder {path.parent} and run `mis run` again: it makes that step anew."
        ) from error
    assert isinstance(found, dict)
    return found
