"""What `model: auto` tries: the families by themselves, then settings that did well elsewhere, then variations of what did well here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from modelinscale.core.encoded import Form, Layout
from modelinscale.core.seeds import derive, generator
from modelinscale.core.task import Task
from modelinscale.models import Model
from modelinscale.models.trees import Trees

_BIG_ROWS = 50_000
"""From here on trees of many leaves come first: there are rows enough to fill them."""


QUICK = Trees(rounds=400, learning_rate=0.15, leaves=63, columns_share=0.7, min_leaf_weight=0.1, l2=1.0)
"""Where time is short for anything else."""


@dataclass(frozen=True)
class Candidate:
    """Settings to try."""

    model: Model
    share: float = 0.4
    """The most it may take of what is left of the budget when its turn comes."""


def families(layouts: Callable[[Form], dict[str, Layout]], *, more: bool, several: bool = False) -> list[Candidate]:
    """The families by themselves. Where a column keeps its shape for deep networks (an image) those first: what the others see of it is little.

    ``more``: further settings come after them, `mlp` among those, so they leave time for that. ``several``: an answer is more than one class or one number.
    """
    shaped = any(layout.shape for layout in layouts("deep").values())
    if several:
        shares = {"linear": 0.2, "network": 1.0}
    elif shaped:
        shares = {"linear": 0.1, "trees": 0.1, "network": 0.5 if more else 1.0}
    else:
        shares = {"linear": 0.1, "trees": 0.2} if more else {"linear": 0.15, "trees": 0.5, "mlp": 1.0}
    return [Candidate(Model.parse(name), share) for name, share in shares.items()]


def portfolio(task: Task, n_rows: int, layouts: Callable[[Form], dict[str, Layout]]) -> list[Candidate]:
    """Further settings, the most promising first. Boosting ones hold leaves back more than their library does: with its defaults rare classes make a model
    worse with more rows (covertype: log loss 0.379 of 120,000 rows, 0.658 of 465,000)."""
    if any(layout.shape for layout in layouts("deep").values()):
        return [_candidate(one) for one in _shaped(layouts)]
    floor = {"min_leaf_weight": 1.0, "l2": 5.0, "patience": 60}
    few = 0.5 if task.n_scores > 2 else 1.0  # a round of several classes is as many trees
    settings: dict[str, dict[str, Any]] = {
        "small steps": {"rounds": int(1500 * few), "learning_rate": 0.04, "leaves": 63, "columns_share": 0.6, "rows_share": 0.8, **floor},
        "chance borders": {"rounds": int(1000 * few), "learning_rate": 0.08, "leaves": 63, "random_splits": True, **floor},
        "few columns": {"rounds": int(1000 * few), "learning_rate": 0.06, "leaves": 24, "columns_share": 0.4, "rows_share": 0.7, **floor},
        "deep": {"rounds": int(2500 * few), "learning_rate": 0.03, "leaves": 127, "columns_share": 0.5, "rows_share": 0.8, **floor},
        "deep, large steps": {"rounds": int(1000 * few), "learning_rate": 0.1, "leaves": 255, "columns_share": 0.7, "rows_share": 0.9, **floor},
        "shallow": {"rounds": int(1500 * few), "learning_rate": 0.1, "leaves": 8, **floor},
    }
    trees = {name: {"type": "trees", **one} for name, one in settings.items()}
    catboost, deeper = {"type": "catboost"}, {"type": "catboost", "depth": 8, "l2": 6.0, "rounds": 1500}
    plain = {"type": "mlp"}
    wide = {"type": "mlp", "width": 256, "members": 8, "dropout": 0.2, "learning_rate": 2e-3, "bins": 32}
    if n_rows >= _BIG_ROWS:
        order = [trees["deep, large steps"], catboost, trees["chance borders"], plain, trees["small steps"], trees["deep"], deeper, wide]
    else:
        order = [trees["small steps"], catboost, plain, trees["chance borders"], wide, trees["few columns"], deeper, trees["deep"], trees["shallow"]]
    return [_candidate(one) for one in order if one["type"] != "catboost" or has_catboost()]


def _shaped(layouts: Callable[[Form], dict[str, Layout]]) -> list[dict[str, Any]]:
    """Where columns keep their shape: wider and otherwise encoded networks."""
    roles = {layout.role for layout in layouts("deep").values()}
    from modelinscale.core.kinds import names

    found: list[dict[str, Any]] = []
    if "image" in roles:
        found += [{"maps": 48, "smoothing": 0.05, "cut_out": 0.3}, {"maps": 24, "shift": 0.05, "epochs": 25}]
    if "steps" in roles:
        found += [{"type": "random_convolutions"}] if "random_convolutions" in names("models") else []
        found += [{"sequence": "tcn", "noise": 0.1}, {"sequence": "transformer"}]
    if "tokens" in roles:
        found += [{"text": "bag", "units": 128}, {"text": "tcn"}]
    return [{"type": "network", **one} for one in found]


def variations(best: list[Model], task: Task, seed: int) -> Iterator[Candidate]:
    """Without end, settings drawn anew around those of boosting that did best so far, the first named the most often."""
    chance = generator(derive(seed, "auto"), "variations", 0)
    known = [one for one in best if one.type in ("trees", "catboost")]
    while known:
        model = known[min(int(chance.geometric(0.6)) - 1, len(known) - 1)]
        plain = model.plain()
        if model.type == "catboost":
            moved: dict[str, Any] = {"depth": int(chance.integers(4, 10)), "l2": float(np.exp(chance.uniform(np.log(1), np.log(20))))}
        else:
            leaves = plain["leaves"] or 31
            moved = {
                "leaves": int(np.clip(leaves * np.exp(chance.normal(0, 0.6)), 8, 400)),
                "columns_share": float(chance.uniform(0.3, 1.0)),
                "rows_share": float(chance.uniform(0.6, 1.0)),
                "l2": float(np.exp(chance.uniform(np.log(0.5), np.log(30)))),
                "min_leaf_rows": int(chance.integers(5, 60)),
                "random_splits": bool(chance.random() < 0.25),
            }
            if plain["learning_rate"] is None:
                moved |= {"learning_rate": 0.05, "rounds": 600 if task.n_scores > 2 else 1200, "patience": 60, "min_leaf_weight": 1.0}
        yield _candidate({**plain, **moved})


def _candidate(plain: dict[str, Any]) -> Candidate:
    return Candidate(Model.parse(plain))


def has_catboost() -> bool:
    from modelinscale.core.kinds import names

    return "catboost" in names("models") and find_spec("catboost") is not None
