"""Step 3, train: the family asked for (or the best of all) and, beside it, the linear baseline."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from modelinscale.core.encoded import Form
from modelinscale.core.files import write_array
from modelinscale.pipeline._elsewhere import contents
from modelinscale.pipeline._place import Facts, Place, Result

if TYPE_CHECKING:
    from modelinscale.pipeline._context import Context


def inputs(place: Place, done: dict[str, Result]) -> Facts:
    spec = place.spec
    model = done["tune"].facts["model"] if "tune" in done else spec.model
    return {"rows": done["prepare"].identity, "model": model, "train": spec.train, **contents(place, "train", model)}


def work(context: Context, folder: Path) -> Facts:
    from modelinscale.core.elsewhere import located
    from modelinscale.models import Model
    from modelinscale.models.linear import Linear
    from modelinscale.pipeline._context import HELD_OUT
    from modelinscale.train import fit

    spec = context.spec
    name = context.place.name("train", inputs(context.place, context.done))
    notes: list[str] = []
    memory = None if spec.compute.memory is None else context.room
    fitted = fit(
        Model.parse(located(context.facts("tune")["model"], context.place.base)) if "tune" in context.done else spec.model_at(context.place.base),
        context.examples,
        context.task,
        context.layouts,
        spec.train,
        checkpoints=context.place.checkpoints(name),
        memory=memory,
        crew=spec.compute.crew(),
        tell=notes.append,
        progress=context.report("train"),
        folds=context.folds,
    )
    linear = fitted.linear or fit(Linear(), context.examples, context.task, context.layouts, spec.train, memory=memory, tell=notes.append).chosen
    for which, one in (("model", fitted.chosen), ("linear", linear)):
        (folder / which).mkdir()
        one.weights.save(folder / which)
        if one.saw_valid and one.valid_scores is not None:
            write_array(folder / which / HELD_OUT, one.valid_scores)
        context.remember(which, one)
    context.place.forget_checkpoints(name)
    for column, feature in context.features.items():
        notes += [f"{column}: {note}" for note in feature.notes(context.states[column], fitted.chosen.model.form)]
    forms: set[Form] = {trial.model.form for trial in fitted.trials} | {"scaled"}
    if not all(context.fits(form) for form in forms):
        context.forget_examples()
    return {
        "family": fitted.chosen.model.type,
        "model": fitted.chosen.model.plain(),
        "linear": linear.model.plain(),
        "trials": [trial.plain() for trial in fitted.trials],
        "notes": list(dict.fromkeys(notes)),
    }


def words(facts: Facts) -> str:
    tried = Counter(t["model"]["type"] for t in facts["trials"] if t["model"]["type"] != "ensemble")
    family: str = facts["family"]
    if family == "ensemble":
        family = next((f"ensemble of {t['note']}" for t in facts["trials"] if t["model"] == facts["model"] and t["note"]), family)
    shown = ", ".join(name if n == 1 else f"{name} ({n})" for name, n in tried.items())
    return family + (f", the best of {shown}" if tried.total() > 1 else "")
