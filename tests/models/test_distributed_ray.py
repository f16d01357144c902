"""A network learned on the nodes of a Ray cluster: the curve of one process, each row once an epoch though a node dies, and as many as there is room for."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project
from modelinscale.compute.ray import Ray
from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.errors import ComputeError
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, _trees_together
from modelinscale.models._deep import launch
from modelinscale.models.network import Network
from modelinscale.models.trees import Trees
from modelinscale.testing.clusters import TwoNodes
from modelinscale.testing.recorded import Recorded, history, said
from modelinscale.testing.waits import until
from modelinscale.train import loss

pytestmark = pytest.mark.slow  # a cluster, and workers that import PyTorch
TASK = Task(type="binary", target="y", labels=("no", "yes"))


def rows(n: int) -> Examples:
    """Numbers that say the answer; ``number`` is which row it is."""
    x = generator(3, "distributed").normal(size=(n, 3)).astype(np.float32)
    blocks: dict[str, Any] = {"x": x, "number": np.arange(n, dtype=np.float32)[:, None]}
    layouts = {"x": Layout("dense", 3, ("a", "b", "c")), "number": Layout("dense", 1, ("number",))}
    return Examples(Encoded(layouts, blocks), (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64))


def curve(folder: Path, extra: str) -> tuple[list[float], str]:
    """The losses on validation rows of a project's network, and its notes."""
    x = generator(5, "distributed").normal(size=(600, 2))
    folder.mkdir()
    pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": np.where(x[:, 0] > 0, "yes", "no")}).write_csv(folder / "rows.csv")
    model = "{type: network, dropout: 0, epochs: 3, width: 16, members: 1, layers: 1, batch_rows: 48}"
    (folder / "model.yaml").write_text(f"name: two\ndata: {{source: rows.csv}}\ntarget: y\nmodel: {model}\n{extra}\n")
    Project(folder).run()
    (at,) = (one for one in (folder / ".mis" / "steps" / "train").iterdir() if one.is_dir())
    facts = (at / "result.json").read_text()
    return [point["valid"] for point in json.loads((at / "model" / "weights.json").read_text())["curve"]], facts


def test_a_project_learns_its_network_on_two_nodes_with_the_curve_of_one_process(two_nodes: TwoNodes, tmp_path: Path) -> None:
    alone, _ = curve(tmp_path / "alone", "")
    together, facts = curve(tmp_path / "together", f"train: {{workers: 2}}\ncompute: {{type: ray, address: '{two_nodes.address}'}}")
    assert together == pytest.approx(alone, rel=2e-4)
    assert "2 processes learned together" in facts


def test_a_node_that_dies_costs_steps_only_and_another_joins_in(two_nodes: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_ROOM_S", 1.0)
    file, kept, told = tmp_path / "said", tmp_path / "kept", list[str]()
    kept.mkdir()
    train = Recorded.of(rows(480), file, slow_s=0.3)
    model = Network(dropout=0, epochs=8, batch_rows=48, width=16, members=1, layers=1, patience=99)

    def worlds() -> list[str]:
        return [line["of"] for line in said(file)]

    def kill_and_add() -> None:
        until(lambda: len(worlds()) > 12 and list(kept.iterdir()), "two learn")
        two_nodes.do("kill")
        until(lambda: "1" in worlds(), "one goes on")
        two_nodes.do("add")

    other = threading.Thread(target=kill_and_add, daemon=True)
    other.start()
    crew = Ray(address=two_nodes.address).crew()
    found = model.fit(train, None, TASK, Effort(n_threads=1, workers=2, crew=crew, checkpoints=kept, checkpoint_s=0.3, tell=told.append))
    other.join()
    assert [of for of, before in zip(worlds(), [None, *worlds()], strict=False) if of != before] == ["2", "1", "2"]
    assert history(file, 480, 8) == [1] * 8
    assert any("was lost after" in note and "go on from the last checkpoint" in note for note in told)
    assert any("there is room for 1 of 2 processes" in note for note in told)
    assert any("there is room for 2 processes again" in note for note in told)
    straight = model.fit(rows(480), None, TASK, Effort(n_threads=1))
    for name, values in straight.arrays.items():
        assert np.allclose(found.arrays[name], values, rtol=2e-3, atol=2e-3), name


def test_trees_learn_on_two_nodes_with_the_loss_of_one_process(two_nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trees_together, "LEAST_CELLS", 0)
    train, test, model, told = rows(2_000), rows(3_000), Trees(rounds=20), list[str]()
    two = model.fit(train, None, TASK, Effort(workers=2, crew=Ray(address=two_nodes.address).crew(), tell=told.append))
    one = model.fit(train, None, TASK, Effort(n_threads=1))
    a, b = (loss(model.predict(weights, test.rows), test.target, None, TASK) for weights in (one, two))
    assert b == pytest.approx(a, abs=0.01), "0.02, where guessing is 0.69"
    assert "[num_machines: 2]" in two.arrays["trees"].tobytes().decode()


def test_a_gpu_asked_for_where_none_is_is_told_with_what_was_asked(two_nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_WAIT_S", 0.5)
    waits: list[Any] = []
    crew = Ray(address=two_nodes.address, gpus_per_task=1).crew()
    with pytest.raises(ComputeError, match="no room for a process that learns, which asks for 1 CPUs and 1 GPUs"):
        Network().fit(rows(100), None, TASK, Effort(workers=2, crew=crew, progress=lambda share, note: waits.append(note)))
    assert waits[0] == "waiting for room for a process, which asks for 1 CPUs and 1 GPUs"
