"""Step 6, register: the package gets a number, and an alias if it earned it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.pipeline._evaluate import no_better
from modelinscale.pipeline._export import PACKAGE
from modelinscale.pipeline._place import Facts, Place, Result, as_plain

if TYPE_CHECKING:
    from modelinscale.pipeline._context import Context
    from modelinscale.track import Main, Tracker

TRACK = "track"
"""Where the tracker keeps its files, inside the store."""


def inputs(place: Place, done: dict[str, Result]) -> Facts:
    return {"package": done["export"].identity}


def tracker(place: Place) -> Tracker:
    from modelinscale.track import open_tracker

    return open_tracker(place.store.path(TRACK))


def work(context: Context, folder: Path) -> Facts:
    from modelinscale.core.clock import now
    from modelinscale.package import copy_package
    from modelinscale.track import CHAMPION, Run

    spec, exported = context.spec, context.done["export"]
    tags = {
        "table": f"{context.facts('collect')['table']}@{context.facts('collect')['version']}",
        "rows": context.done["prepare"].identity,
        "model": context.facts("train")["family"],
    }
    ended, seconds = now(), sum(result.seconds for result in context.done.values())
    main = _main(context)
    metrics = {name: m["value"] for name, m in context.facts("evaluate")["evaluation"]["metrics"].items() if m["value"] is not None}
    kept = tracker(context.place)
    run = kept.record(
        spec.name,
        Run(exported.identity, ended - timedelta(seconds=seconds), ended, params=_flat(as_plain(spec)), metrics=metrics, tags=tags),
    )
    source = exported.folder / PACKAGE
    registered = kept.register(
        spec.name, identity=exported.identity, write=lambda target, number: copy_package(source, target, version=number), main=main, run=run, tags=tags
    )
    _keep_rows(context, registered.version.number)
    number, worse = registered.version.number, main is not None and main.constant is not None and main.worse_than(main.constant)
    but = "; it is no better than always the same answer" if not worse and no_better(context.facts("evaluate")["evaluation"]) else ""
    note = f"version {number} is {' and '.join(registered.version.aliases) or 'without alias'}: {registered.because}{but}."
    if worse and CHAMPION not in registered.version.aliases:
        note = f"{note} `mis promote {number}` puts it in use all the same."
    return {"version": registered.version.number, "package": str(registered.version.folder.relative_to(context.place.store.path())), "notes": [note]}


def _keep_rows(context: Context, number: int) -> None:
    """Names the version of the table after the model, so that no vacuum removes the rows it was trained on."""
    from modelinscale.data.lake import model_tag, open_table

    collected, store = context.facts("collect"), context.place.store
    open_table(store.uri("lake", collected["table"]), collected["version"]).tag(model_tag(context.spec.name, number))


def stands(place: Place, facts: Facts) -> bool:
    """Whether the registry still knows the version, and its package is still there."""
    known = {v.number: v.folder for v in tracker(place).versions(place.spec.name)}
    return facts["version"] in known and known[facts["version"]].is_dir()


def aliases(place: Place, number: int) -> tuple[str, ...]:
    """The aliases a version has now: they may have moved since it was registered."""
    return tuple(sorted(alias for alias, at in tracker(place).aliases(place.spec.name).items() if at == number))


def refit_note(place: Place) -> str | None:
    """What to do when the champion learned from rows that were erased since; None where it did not."""
    from modelinscale.track import CHAMPION

    versions = {v.number: v for v in tracker(place).versions(place.spec.name)}
    champion = next((v for v in versions.values() if CHAMPION in v.aliases), None)
    if champion is None or not _refit(champion.folder):
        return None
    # Of those made without the rows the newest: what is served instead should know the rows of today.
    instead = max((n for n, v in versions.items() if v.folder.is_dir() and not _refit(v.folder)), default=None)
    todo = "`mis run` makes a version without them" if instead is None else f"`mis promote {instead}` puts one without them in its place"
    return f"the champion, version {champion.number}, learned from rows that were erased since, and is still the one that answers: {todo}."


def _refit(folder: Path) -> str:
    """Why a package should be learned again; "" for one that cannot be read, which whoever opens it is told."""
    from modelinscale.core.errors import PackageError
    from modelinscale.package.manifest import read_manifest

    try:
        return read_manifest(folder).refit
    except PackageError:
        return ""


def _main(context: Context) -> Main | None:
    from modelinscale.evaluate import metrics_of
    from modelinscale.track import Main

    main = metrics_of(context.spec.evaluate, context.task)[0]
    evaluation = context.facts("evaluate")["evaluation"]
    value = evaluation["metrics"][main.type]["value"]
    return None if value is None else Main(main.type, value, main.better, evaluation["baselines"]["constant"][main.type]["value"])


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings by dotted path.

    >>> _flat({"a": {"b": 1}, "c": [1, 2]})
    {'a.b': '1', 'c': '[1, 2]'}
    """
    found: dict[str, str] = {}
    for key, one in value.items():
        if isinstance(one, Mapping) and one:
            found |= _flat(one, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(one)
    return found


def words(facts: Facts) -> str:
    return f"version {facts['version']}"
