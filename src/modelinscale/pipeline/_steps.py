"""The steps in order, and the runner that does those that are not done yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from modelinscale.core.logs import log
from modelinscale.core.memory import give_back, guarded
from modelinscale.pipeline import _collect, _evaluate, _export, _prepare, _register, _train, _tune
from modelinscale.pipeline._ahead import import_ahead
from modelinscale.pipeline._context import Context
from modelinscale.pipeline._lineage import Witness
from modelinscale.pipeline._look import named
from modelinscale.pipeline._needs import Size, refuse
from modelinscale.pipeline._place import Facts, Place, Result
from modelinscale.pipeline._plan import STEPS, TUNE, Inputs, steps_of

if TYPE_CHECKING:
    from modelinscale.pipeline import Outcome, Progress

_MODULES: dict[str, ModuleType] = dict(zip((*STEPS, TUNE), (_collect, _prepare, _train, _evaluate, _export, _register, _tune), strict=True))
INPUTS: dict[str, Inputs] = {step: module.inputs for step, module in _MODULES.items()}
STANDS: dict[str, Callable[[Place, Facts], bool]] = {"collect": _collect.stands, "register": _register.stands}
"""Steps whose product lies outside their own folder: whether it is still there."""
WORDS: dict[str, Callable[[Facts], str]] = {step: module.words for step, module in _MODULES.items()}


def standing(place: Place, step: str, inputs: Facts) -> Result | None:
    """The result made earlier from the same inputs whose product is still there, or None."""
    found = place.find(step, inputs)
    return found if found is None or step not in STANDS or STANDS[step](place, found.facts) else None


class Runner:
    """Does steps in order; every one whole or not at all."""

    def __init__(self, place: Place, progress: Progress, watch: _tune.Watch | None = None) -> None:
        self.context = Context(place, progress, watch)
        self.witness = Witness(self.context)

    def run(self, until: str) -> Outcome:
        """Everything up to ``until`` that is not done yet."""
        place, context = self.context.place, self.context
        place.sweep()
        steps = steps_of(place.spec)
        for step in steps[: steps.index(until) + 1]:
            wanted = INPUTS[step](place, context.done)
            found = standing(place, step, wanted)
            if found is None:
                gone = place.find(step, wanted)
                if gone is not None:
                    place.discard(gone)
                if step == "collect" and until not in STEPS[:2]:
                    import_ahead()
                size = None if step == "collect" else Size(len(context.rows), len(context.rows.columns), context.rows.row_bytes)
                refuse(place.spec, size, steps[steps.index(step) : steps.index(until) + 1])
                work = cast("Callable[[Context, Path], Facts]", _MODULES[step].work)
                make = partial(place.make, step, wanted, partial(work, context))
                if place.spec.compute.memory is not None:
                    give_back()
                with guarded(place.spec.compute.memory):
                    found = self.witness.made(step, place.name(step, wanted), make)
                log(__name__).info("step done", extra={"step": step, "identity": found.identity, "seconds": found.seconds})
            context.done[step] = found
            if step == "collect":  # also when it was done before: the file may name other columns now
                named(place.spec, context.schema)
            context.progress(step, 1.0, WORDS[step](found.facts))
        outcome = _outcome(context)
        if outcome.fresh:
            done = [s.step for s in outcome.steps if s.fresh]
            self.witness.audit.write("run", place.spec.name, steps=done, version=outcome.version, aliases=list(outcome.aliases))
        return outcome


def _outcome(context: Context) -> Outcome:
    from modelinscale.pipeline import Outcome

    done, spec = context.done, context.spec
    facts = {step: result.facts for step, result in done.items()}
    registered = facts.get("register", {})
    evaluation = facts.get("evaluate", {}).get("evaluation", {})
    notes = [note for step in ("prepare", "tune", "train", "evaluate") for note in facts.get(step, {}).get("notes", ())]
    # What collect and register say is news only when they were done now.
    notes = [*(facts["collect"]["notes"] if done["collect"].fresh else ()), *notes, *(registered["notes"] if registered and done["register"].fresh else ())]
    refit = _register.refit_note(context.place) if registered else None
    return Outcome(
        name=spec.name,
        steps=tuple(done.values()),
        collected=facts["collect"] if done["collect"].fresh else {**facts["collect"], "n_added": 0, "n_quarantined_now": 0, "n_dropped": 0},
        family=facts.get("train", {}).get("family"),
        metrics=evaluation.get("metrics", {}),
        baselines=evaluation.get("baselines", {}),
        version=str(registered["version"]) if registered else None,
        package=context.place.store.path(registered["package"]) if registered else None,
        aliases=_register.aliases(context.place, registered["version"]) if registered else (),
        notes=(*notes, refit) if refit else tuple(notes),
        no_better=_evaluate.no_better(evaluation),
    )
