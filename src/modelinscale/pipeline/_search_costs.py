"""What a search that is still to do will cost: how many fits, how long as far as earlier ones tell it, and the memory of one. Said by `mis plan`.

Nothing is fitted for it and nothing written.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelinscale.core.units import show_bytes, show_seconds
from modelinscale.pipeline._needs import n_trials_at_once, size_of, trial_bytes
from modelinscale.pipeline._place import results

if TYPE_CHECKING:
    from modelinscale.pipeline._context import Context
    from modelinscale.pipeline._place import Place, Result
    from modelinscale.tune import Entry, Space


@dataclass(frozen=True)
class Search:
    """A search as far as it is to come."""

    n_settings: int
    """In all."""
    fits: tuple[tuple[float, int], ...]
    """Share of the training rows (or of a family's passes over them) and how many fits are left of it."""
    n_rows: int | None
    """To learn from; None: known once rows are prepared."""
    n_done: int
    """Fits that an interrupted search left."""
    workers: int
    trial_bytes: int
    """What a fit's process holds, with the families' own settings."""
    whole_s: float | None
    """Seconds of a fit to all rows; None: nothing like it was done yet."""
    known_from: str
    budget_s: float | None

    @property
    def whole_fits(self) -> float:
        """The work that is left, in fits to all rows."""
        return sum(share * n for share, n in self.fits)

    @property
    def seconds(self) -> float | None:
        """Until it is done, or its budget ends it."""
        if self.whole_s is None:
            return self.budget_s
        return min(self.whole_s * self.whole_fits / self.workers, self.budget_s or float("inf"))

    def __str__(self) -> str:
        fits = " and ".join(f"{n:,} on {self._rows(share)}" for share, n in self.fits if n)
        parts = [f"{self.n_settings:,} settings, {self.workers} at once: fits still to do are {fits}, the work of {self.whole_fits:.3g} on all"]
        if self.n_done:
            parts.append(f"{self.n_done:,} are done")
        if self.whole_s is None:
            most = f", at most {show_seconds(self.budget_s)} (`tune.budget`)" if self.budget_s is not None else ""
            parts.append(f"how long one takes is known after the first{most}")
        else:
            assert self.seconds is not None
            ended = " (`tune.budget` ends it)" if self.seconds == self.budget_s else ""
            parts.append(f"about {show_seconds(self.seconds)}{ended}, as {self.known_from} took {show_seconds(self.whole_s)} for all rows")
        return "; ".join([*parts, f"a process of trials holds about {show_bytes(self.trial_bytes)}, more with larger settings"])

    def plain(self) -> dict[str, Any]:
        return {
            "n_settings": self.n_settings,
            "fits": [{"share": round(share, 4), "n": n} for share, n in self.fits],
            "whole_fits": round(self.whole_fits, 2),
            "n_rows": self.n_rows,
            "n_done": self.n_done,
            "workers": self.workers,
            "trial_bytes": self.trial_bytes,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "whole_fit_seconds": None if self.whole_s is None else round(self.whole_s, 3),
            "known_from": self.known_from or None,
            "budget_seconds": self.budget_s,
        }

    def _rows(self, share: float) -> str:
        if share == 1.0:
            return "all rows" if self.n_rows is None else f"all {self.n_rows:,} rows"
        return f"{share:.0%} of them" if self.n_rows is None else f"{round(share * self.n_rows):,}"


def search_to_do(place: Place, done: dict[str, Result]) -> Search:
    """What the search of this file will cost, after the steps that are done. Reads a few thousand rows, and the trials that lie in the store."""
    from modelinscale.tune._rungs import planned

    tune = place.spec.tune
    assert tune is not None
    n_settings, families, entries, held = tune.trials, tune.families, list[Any](), 0.0
    n_rows: int | None = done["prepare"].facts["n_train"] if "prepare" in done else None
    if "prepare" in done:
        context = _context(place, done)
        space, entries = _study(context)
        most = tune.searcher.most(space)
        n_settings = n_settings if most is None else min(n_settings, max(most, len(space.families)))
        families, held = tuple(space.families), _held(context, space)
    size = size_of(place, done["collect"].facts) if "collect" in done else None
    trial = trial_bytes(place.spec, size.n_columns if size else 0, held)
    ladder = tune.prune.ladder(n_rows if n_rows is not None else size.n_rows if size else 1 << 62)
    known = [entry for entry in entries if entry.state == "done"]
    fits = {share: max(0, n - sum(entry.share == share for entry in known)) for share, n in planned(tune.prune, ladder, n_settings).items()}
    workers = n_trials_at_once(place.spec, trial) if place.spec.compute.type == "local" else tune.workers or 1
    whole_s, known_from = _whole_fit(place, [(_family(e.point, families), e.share, e.seconds) for e in known], families, n_rows)
    return Search(n_settings, tuple(fits.items()), n_rows, len(known), workers, trial, whole_s, known_from, tune.budget)


def _whole_fit(place: Place, own: list[tuple[str, float, float]], families: tuple[str, ...], n_rows: int | None) -> tuple[float | None, str]:
    """Seconds of a fit to all rows, the mean over families, and who says so: trials of this search, else of the last one, else trainings."""
    if own:
        return _mean(_by_family(own), families), f"its {len(own):,} trials so far"
    earlier = place.newest("tune")
    if earlier is not None and earlier.facts.get("n_rows"):
        from modelinscale.pipeline._tune import TRIALS

        trials = json.loads((earlier.folder / TRIALS).read_text(encoding="utf-8"))["trials"]
        done = [(one["values"].get("family", earlier.facts["family"]), one["share"], one["seconds"]) for one in trials if one["state"] == "done"]
        found = _mean(_by_family(done), families)
        if found is not None:
            return found * (n_rows or earlier.facts["n_rows"]) / earlier.facts["n_rows"], f"the {len(done):,} trials of the last search"
    prepared = {result.identity: result.facts for result in results(place, "prepare")}
    trained: list[tuple[str, float, float]] = []
    for result in results(place, "train"):
        rows = prepared.get(result.inputs.get("rows", ""), {}).get("n_train")
        scale = n_rows / rows if n_rows and rows else 1.0
        trained += [(one["model"]["type"], 1.0, one["seconds"] * scale) for one in result.facts["trials"] if one["loss"] is not None]
    found = _mean(_by_family(trained), families)
    return found, "earlier trainings" if found is not None else ""


def _by_family(fits: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """Family, share and seconds of fits: for each family the seconds of a whole one."""
    seconds, shares = defaultdict[str, float](float), defaultdict[str, float](float)
    for family, share, took in fits:
        seconds[family] += took
        shares[family] += share
    return {family: seconds[family] / shares[family] for family in seconds}


def _mean(known: dict[str, float], families: tuple[str, ...]) -> float | None:
    """Over the families that are searched and known; None: none is."""
    found = [seconds for family, seconds in known.items() if family in families or not families]
    return sum(found) / len(found) if found else None


def _family(point: dict[str, Any], families: tuple[str, ...]) -> str:
    return str(point.get("family", families[0] if families else ""))


def _context(place: Place, done: dict[str, Result]) -> Context:
    from modelinscale.data.partitions import open_rows
    from modelinscale.pipeline._context import Context

    context = Context(place, lambda step, share, note: None)
    context.done = done
    collected = context.facts("collect")
    context.rows = open_rows(place.store.uri("lake", collected["table"]), collected["version"], tuple(context.features), workers=1, hold=False)
    return context


def _study(context: Context) -> tuple[Space, list[Entry]]:
    """The space, and the trials that an interrupted search left in the store; of a storage elsewhere nothing is asked."""
    from modelinscale.pipeline._tune import space_of, studies, study_of

    space, spec, file = space_of(context), context.spec, studies(context.place)
    assert spec.tune is not None
    if spec.tune.storage is not None or not file.is_file():
        return space, []
    from modelinscale.tune._study import known_trials

    return space, known_trials(file, f"{spec.name}/{study_of(context, space)}", space)


def _held(context: Context, space: Space) -> float:
    """Bytes of the encoded rows that a process of trials holds; those that are read from disk are not."""
    from modelinscale.core.kinds import load

    n = context.facts("prepare")["n_train"] + context.facts("prepare")["n_valid"]
    forms = {load("models", family).form for family in space.families}  # type: ignore[attr-defined]
    return float(sum(n * context.encoded_bytes(form) for form in forms if context.fits(form)))
