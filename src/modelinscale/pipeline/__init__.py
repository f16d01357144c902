"""The pipeline: what a model.yaml asks for, as steps that are done once for the same inputs and never half."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import UsageError
from modelinscale.pipeline._describe import Described, Table, describe
from modelinscale.pipeline._place import Facts, Place, Result
from modelinscale.pipeline._plan import STEPS, Plan, Planned, steps_of
from modelinscale.spec import ModelSpec

if TYPE_CHECKING:
    from threading import Event

    from modelinscale.pipeline._context import Context
    from modelinscale.pipeline._follow import Followed
    from modelinscale.pipeline._tune import Watch

__all__ = ["STEPS", "Described", "Outcome", "Plan", "Planned", "Progress", "Table", "describe", "follow", "learned", "plan", "run"]

Progress = Callable[[str, float | None, str], None]
"""Called with the step, the share of it done (0 to 1; None: not known) and a few words."""


@dataclass(frozen=True)
class Outcome:
    """What stands after a run."""

    name: str
    steps: tuple[Result, ...]
    collected: Facts = field(default_factory=dict)
    family: str | None = None
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    baselines: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    version: str | None = None
    package: Path | None = None
    aliases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    no_better: bool = False
    """Whether always the same answer does as well on the test rows, by the main metric."""

    @property
    def report(self) -> Path | None:
        """The page that tells how good the model is, as HTML; None before the evaluation."""
        return next((page for s in self.steps if s.step == "evaluate" and (page := s.folder / "report.html").is_file()), None)

    @property
    def fresh(self) -> bool:
        """Whether anything had to be done."""
        return any(s.fresh for s in self.steps)

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data, the form scripts may rely on."""
        return {
            "name": self.name,
            "version": self.version,
            "package": str(self.package) if self.package else None,
            "aliases": list(self.aliases),
            "report": str(self.report) if self.report else None,
            "model": self.family,
            "metrics": self.metrics,
            "baselines": self.baselines,
            "table": {k: self.collected[k] for k in ("version", "n_rows", "n_added", "n_quarantined") if k in self.collected},
            "notes": list(self.notes),
            "steps": [{"step": s.step, "identity": s.identity, "done_now": s.fresh, "seconds": s.seconds} for s in self.steps],
        }


def plan(spec: ModelSpec, base: Path) -> Plan:
    """What `run` would do; reads only. ``base`` is the folder of model.yaml."""
    from modelinscale.pipeline._plan import plan as walk
    from modelinscale.pipeline._steps import INPUTS, WORDS, standing

    return walk(Place.of(spec, base), INPUTS, WORDS, standing)


def run(
    spec: ModelSpec,
    base: Path,
    *,
    until: str = "register",
    progress: Progress = lambda step, share, note: None,
    wait_s: float = 600.0,
    watch: "Watch | None" = None,
) -> Outcome:
    """Does every step up to ``until`` that is not done yet. ``watch`` is told of the trials of a search.

    One run at a time for a store: another one waits up to ``wait_s`` seconds, then `StoreError`.
    A kill at any moment leaves finished steps finished and unfinished ones invisible; the next run goes on from there.
    """
    if until not in steps_of(spec):
        raise UsageError(f"there is no step {until!r}.", fix=f"Steps: {', '.join(steps_of(spec))}.")
    from modelinscale.pipeline._steps import Runner

    place = Place.of(spec, base)
    with place.store.lock("lock", wait_s=wait_s):
        return Runner(place, progress, watch).run(until)


def follow(
    spec: ModelSpec, base: Path, *, stop: "Event", news: "Callable[[Followed], None]" = lambda followed: None, every_s: float | None = None
) -> "Followed":
    """Brings rows into the table as they arrive, until ``stop`` is set; ``every_s`` instead of `data.follow.every`. See `mis collect --follow`."""
    from modelinscale.pipeline._follow import follow as go

    settings = spec.data.follow if every_s is None else spec.data.follow.but(every=every_s)
    return go(Place.of(spec, base), stop, settings, news)


def learned(spec: ModelSpec, base: Path) -> "Context":
    """What the newest finished steps left: rows, parts, states, weights, decision. Reads only; raises `UsageError` when something is not done yet."""
    from modelinscale.pipeline._context import Context
    from modelinscale.pipeline._steps import INPUTS, standing

    place = Place.of(spec, base)
    context = Context(place, lambda step, share, note: None)
    for step in steps_of(spec):
        found = standing(place, step, INPUTS[step](place, context.done))
        if found is None:
            raise UsageError(f"{step} is not done yet.", fix="Run `mis run` first.")
        context.done[step] = found
    return context
