"""Step 5, export: the package, proved before it is written."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.identity import identity
from modelinscale.pipeline._evaluate import REPORT
from modelinscale.pipeline._personal import treated_of
from modelinscale.pipeline._place import Facts, Place, Result
from modelinscale.pipeline._quarantine import reasons

if TYPE_CHECKING:
    from modelinscale.pipeline._context import Context

PACKAGE = "package"
"""The package's folder inside the step's."""


def inputs(place: Place, done: dict[str, Result]) -> Facts:
    return {"evaluated": done["evaluate"].identity, "export": place.spec.export, "name": place.spec.name}


def work(context: Context, folder: Path) -> Facts:
    from modelinscale import __version__
    from modelinscale.core.decision import Decision
    from modelinscale.export import Named, Parts, Proving, Story, export
    from modelinscale.package import Lineage
    from modelinscale.pipeline._lineage import sources_of

    spec, place = context.spec, context.place
    collected, prepared, trained, evaluated = (context.facts(step) for step in ("collect", "prepare", "train", "evaluate"))
    model = context.learned("model")
    name = place.name("export", inputs(place, context.done))
    lineage = Lineage(
        table=collected["table"],
        table_version=collected["version"],
        data=context.done["prepare"].identity,
        spec=identity(spec),
        code=__version__,
        seed=spec.train.seed,
        n_rows={part: prepared[f"n_{part}"] for part in ("train", "valid", "test")},
    )
    story = Story(
        split=_SPLITS[prepared["split"]],
        sources=sources_of(spec.data.source),
        n_collected=collected["n_rows"],
        n_quarantined=collected["n_quarantined"],
        quarantine={f"{column or 'the whole row'}: {reason}": n for (column, reason), n in (reasons(place) if collected["n_quarantined"] else ())},
        left_out=prepared["left_out"],
        evaluation=evaluated["evaluation"],
        trials=[{**t, "model": t["model"]["type"]} for t in trained["trials"]],
        notes=[*prepared["notes"], *trained.get("notes", ()), *evaluated["notes"]],
    )
    context.forget_examples()
    proven = _proven(context)
    scores = context.scores(model, "valid") if model.saw_valid else context.valid_scores  # the graph is held against what the weights say, not what they said
    manifest = export(
        folder / PACKAGE,
        Parts(context.features, context.states, model.model, model.weights, context.task, Decision.model_validate(evaluated["decision"])),
        Proving(context.rows.take(context.index("valid")[proven], context.rows.columns), scores[proven]),
        Named(spec.name, name, lineage),
        schema=context.schema,
        clean=collected.get("clean"),
        personal=treated_of(place, collected["table"]),
        story=story,
        settings=spec.export,
        progress=context.report("export"),
    )
    copyfile(context.folder("evaluate") / REPORT, folder / REPORT)
    return {"parity": manifest.parity.plain(), "identity": manifest.identity}


PROVEN_ROWS = 1 << 18
"""Validation rows on which graph and training code are compared, at most: cells as Python text take a hundred bytes each."""


def _proven(context: Context) -> NDArray[np.int64]:
    """Which of the validation rows are compared: all, or as many as fit, evenly spread."""
    n = context.n_rows("valid")
    most = max(1_000, min(PROVEN_ROWS, int(context.room / 4 / (context.rows.row_bytes * 8))))
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)


_SPLITS = {
    "hash": "by what a row holds: equal rows stay together, new rows move no old ones",
    "random": "by a row's place in the table",
    "time": "in time: the newest rows test, those before choose",
    "group": "by group: rows of one group stay together",
    "column": "by a column of the data that says it",
}


def words(facts: Facts) -> str:
    parity = facts["parity"]
    n_rows = parity["n_rows"] + parity["n_odd"] + parity["n_edges"]
    return f"the package decides as the training code does on {n_rows:,} rows, probabilities at most {parity['largest_difference']:.1e} apart"
