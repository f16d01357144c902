"""The step between prepare and train, where the file asks for it: the settings that learn best, which are then trained with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core import memory
from modelinscale.core.errors import DataError, NotSupportedYet
from modelinscale.core.files import write_bytes, write_json
from modelinscale.core.identity import identity
from modelinscale.core.task import words_of
from modelinscale.pipeline._elsewhere import contents
from modelinscale.pipeline._needs import n_trials_at_once, trial_bytes, trials_need
from modelinscale.pipeline._place import Facts, Place, Result

if TYPE_CHECKING:
    from modelinscale.pipeline._context import Context
    from modelinscale.spec import ModelSpec
    from modelinscale.tune import Entry
    from modelinscale.tune._space import Space

PAGE, TRIALS = "tuning.html", "trials.json"
_AUTO = ("linear", "trees", "mlp")
"""The families searched where ``model: auto`` is written; `network` instead of `mlp` where a column keeps its shape (images, sequences)."""

Watch = Callable[["Sequence[Entry]"], None]
"""Called with all trials whenever one begins or ends."""


def wanted(spec: ModelSpec) -> bool:
    """Whether the file asks for a search."""
    return spec.tune is not None


def inputs(place: Place, done: dict[str, Result]) -> Facts:
    spec = place.spec
    assert spec.tune is not None
    long = {name: spec.tune.plain()[name] for name in ("trials", "budget", "warm")}
    found = {"rows": done["prepare"].identity, "model": spec.model, "train": spec.train, "tune": {**spec.tune.matter(), **long}}
    return {**found, **contents(place, "tune", spec.model)}


def work(context: Context, folder: Path) -> Facts:
    from modelinscale.core.encoded import Form
    from modelinscale.core.kinds import load
    from modelinscale.tune import search
    from modelinscale.tune._fit import Fitter
    from modelinscale.tune._report import page
    from modelinscale.tune._search import plain_entry
    from modelinscale.tune._study import About

    spec, place = context.spec, context.place
    settings = spec.tune
    assert settings is not None
    space = space_of(context)
    if not space.dimensions:
        raise NotSupportedYet(f"{', '.join(space.families)}: nothing is left to search.", fix="Leave settings out of `model`, or name them in `tune.space`.")
    forms: list[Form] = sorted({load("models", family).form for family in space.families})  # type: ignore[attr-defined]
    rows = {form: (context.examples("train", form), context.examples("valid", form)) for form in forms}
    if not min(len(valid) for _, valid in rows.values()):
        raise DataError("there are no validation rows to tell good settings by.", fix="Set `data.split.valid` above 0.")
    name, local = study_of(context, space), spec.compute.type == "local"
    trial = trial_bytes(spec, len(context.features), sum(len(e) * e.encoded_bytes for parts in rows.values() for e in parts if e.held))
    if local:
        settings = settings.but(workers=n_trials_at_once(spec, trial))
        memory.refuse(trials_need(spec, trial), spec.compute.memory)
    limit = None if spec.compute.memory is None else max(256 << 20, spec.compute.memory // max(1, settings.workers or 2))
    fitter = Fitter(rows, context.task, spec.train.seed, spec.train.class_weight, spec.train.threads or 1, limit, by=settings.prune.by)
    about = About(spec.name, words_of(spec.target), {name: feature.plain() for name, feature in context.features.items()})
    scratch = place.store.path("work", f"tune-{name}")
    found = search(
        settings,
        space,
        fitter,
        name=f"{spec.name}/{name}",
        about=about,
        folder=scratch,
        file=studies(place),
        compute=None if local else spec.compute,
        trial_budget_s=spec.train.budget,
        news=_told(context, settings.trials),
    )
    _forget(scratch)
    if not all(context.fits(form) for form in forms):
        context.forget_examples()
    entries = [plain_entry(entry) for entry in found.entries]
    facts: Facts = {
        "family": found.model.type,
        "model": found.model.plain(),
        "loss": found.loss,
        "settings": dict(found.best.point),
        "start": _start(found.entries, space),
        "n_settings": len({entry.draw for entry in found.entries}),
        "n_trials": len(found.entries),
        "n_failed": sum(entry.state == "failed" for entry in found.entries),
        "n_lost": found.n_lost,
        "n_warm": found.n_warm,
        "searcher": settings.searcher.type,
        "n_rows": min(len(train) for train, _ in rows.values()),
        "rungs": [round(share, 4) for share in found.ladder],
        "importance": {name: round(share, 4) for name, share in found.importance.items()},
        "cpu_seconds": round(sum(entry.cpu_seconds for entry in found.entries), 1),
        "notes": _notes(found.entries, found.n_lost),
    }
    write_json(folder / TRIALS, {"format": 1, "study": name, "space": space.plain(), "trials": entries})
    write_bytes(folder / PAGE, page(spec.name, facts, found).encode())
    return facts


def space_of(context: Context) -> Space:
    """What is searched: the families that the file names, or those that suit the columns, with what their settings may be."""
    from modelinscale.tune import Space, models_of

    spec = context.spec
    assert spec.tune is not None
    shaped = any(layout.shape for layout in context.layouts("deep").values())
    return Space.of(models_of(spec.tune, spec.model_at(context.place.base), (*_AUTO[:2], "network") if shaped else _AUTO), spec.tune.spans)


def study_of(context: Context, space: Space) -> str:
    """The name of the search: the same rows, space, searcher and pruning go on in the same study."""
    spec = context.spec
    assert spec.tune is not None
    matter = {"rows": context.done["prepare"].identity, "space": space.plain(), "train": spec.train.plain(), "tune": spec.tune.matter()}
    return identity("study", {**matter, **contents(context.place, "tune", spec.model)})


def studies(place: Place) -> Path:
    """The file that keeps the trials of this project's searches, where no other storage is named."""
    return place.store.path("tune") / "studies.db"


def words(facts: Facts) -> str:
    return f"{facts['family']}, the best of {facts['n_settings']:,} settings: loss {facts['loss']:.4g}"


def _told(context: Context, n_trials: int) -> Watch:
    report, watch = context.report("tune"), context.watch

    def news(entries: Sequence[Entry]) -> None:
        known = [e.loss for e in entries if e.state == "done" and e.loss is not None and e.share == 1.0]
        drawn = len({e.draw for e in entries})
        report(drawn / n_trials, f"{drawn:,} of {n_trials:,} settings" + (f", best loss {min(known):.4g}" if known else ""))
        if watch is not None:
            watch(entries)

    return news


def _start(entries: Sequence[Entry], space: Space) -> float | None:
    """The least loss of the families' own first settings on all rows, where they came so far."""
    starts = space.starts()
    return min((e.loss for e in entries if e.point in starts and e.share == 1.0 and e.loss is not None), default=None)


def _notes(entries: Sequence[Entry], n_lost: int) -> list[str]:
    failed = [e for e in entries if e.state == "failed"]
    notes = [f"tuning: {len(failed):,} of {len(entries):,} trials could not learn, such as {failed[0].number}: {failed[0].note}"] if failed else []
    return [*notes, *([f"tuning: {n_lost:,} trials that a kill interrupted were done again."] if n_lost else [])]


def _forget(scratch: Path) -> None:
    import shutil

    shutil.rmtree(scratch, ignore_errors=True)


def report_of(result: Result) -> dict[str, Any]:
    """What a finished search says, with the place of its page."""
    return {**result.facts, "report": str(result.folder / PAGE), "trials_file": str(result.folder / TRIALS)}
