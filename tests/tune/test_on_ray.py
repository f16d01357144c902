"""Trials as tasks of a cluster come to the same as processes of this machine."""

from pathlib import Path

import pytest

from modelinscale.models import Model
from modelinscale.testing.models import planted
from modelinscale.tune import Space, Tune, search
from modelinscale.tune._fit import Fitter
from modelinscale.tune._search import Found
from modelinscale.tune._study import About


@pytest.mark.slow
def test_a_cluster_finds_what_this_machine_finds(two_nodes: object, tmp_path: Path) -> None:
    from modelinscale.compute.ray import Ray

    given = planted("plain", "binary")
    fitter = Fitter({"plain": (given.train, given.valid)}, given.task, 7)
    space = Space.of((Model.parse({"type": "trees", "rounds": 20}),), {})
    settings = Tune.model_validate({"trials": 4, "workers": 1, "searcher": "random", "prune": {"least_rows": 40}})

    def look(name: str, compute: Ray | None) -> Found:
        at = tmp_path / name
        return search(settings, space, fitter, name=name, about=About(name, "y", {}), folder=at / "rows", file=at / "studies.db", compute=compute)

    here, there = look("here", None), look("there", Ray(address=two_nodes.address))  # type: ignore[attr-defined]
    assert [(e.draw, e.share, e.loss) for e in here.entries] == [(e.draw, e.share, e.loss) for e in there.entries]
    assert here.model == there.model
