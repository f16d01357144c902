"""What would be done, and why: pure reading, nothing is changed."""

from collections.abc import Callable
from dataclasses import dataclass

from modelinscale.pipeline._estimates import Estimate, estimates
from modelinscale.pipeline._needs import size_of, whole
from modelinscale.pipeline._place import Facts, Place, Result, as_plain
from modelinscale.pipeline._search_costs import Search, search_to_do
from modelinscale.spec import ModelSpec

STEPS = ("collect", "prepare", "train", "evaluate", "export", "register")
TUNE = "tune"
"""A step of its own before train, where the file asks for a search."""


def steps_of(spec: ModelSpec) -> tuple[str, ...]:
    """The steps of this file, in order."""
    return STEPS if spec.tune is None else (*STEPS[:2], TUNE, *STEPS[2:])


Inputs = Callable[[Place, dict[str, Result]], Facts]
"""A step's inputs from the place and the results of the steps before."""


Standing = Callable[[Place, str, Facts], Result | None]
"""The result made earlier from the same inputs whose product is still there, or None."""


@dataclass(frozen=True)
class Planned:
    """One step as it would be."""

    step: str
    identity: str | None
    """None while it depends on a step that is still to do."""
    done: bool
    why: str


@dataclass(frozen=True)
class Plan:
    """All steps, in order."""

    steps: tuple[Planned, ...]
    estimates: tuple[Estimate, ...] = ()
    """What the steps that are still to do take of memory and disk, and what there is."""
    search: Search | None = None
    """What the search that is still to do will cost, where the file asks for one."""


def plan(place: Place, inputs: dict[str, Inputs], words: dict[str, Callable[[Facts], str]], standing: Standing) -> Plan:
    """Walks the steps as `run` would, without doing any."""
    done: dict[str, Result] = {}
    steps: list[Planned] = []
    waiting: str | None = None
    for step in steps_of(place.spec):
        if waiting:
            steps.append(Planned(step, None, False, f"after {waiting}"))
            continue
        wanted = inputs[step](place, done)
        found = standing(place, step, wanted)
        if found:
            done[step] = found
            steps.append(Planned(step, found.identity, True, f"done: {words[step](found.facts)}"))
        else:
            waiting = step
            size = whole(place.spec, size_of(place, done["collect"].facts)) if "collect" in done else ""
            steps.append(Planned(step, place.name(step, wanted), False, "; ".join(filter(None, [_changes(place, step, wanted), size]))))
    left = tuple(one.step for one in steps if not one.done)
    return Plan(tuple(steps), estimates(place, done, left), search_to_do(place, done) if TUNE in left else None)


def _changes(place: Place, step: str, wanted: Facts) -> str:
    last = place.newest(step)
    if last is None:
        return "not done yet"
    changed = _differences(as_plain(wanted), last.inputs)
    return f"changed: {', '.join(changed)}" if changed else "done by another version of the code"


def _differences(a: Facts, b: Facts, prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted({*a, *b}):
        x, y = a.get(key), b.get(key)
        if x == y:
            continue
        if isinstance(x, dict) and isinstance(y, dict):
            found += _differences(x, y, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}")
    return found
