"""Boosted trees learned by several processes: the borders of one process, its first trees, and no other loss."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, _trees_together
from modelinscale.models._deep.processes import Processes
from modelinscale.models._forest import bounds, read
from modelinscale.models.trees import Trees
from modelinscale.train import loss

pytestmark = pytest.mark.slow  # processes that import PyTorch to meet

TASKS = [
    Task(type="binary", target="y", labels=("no", "yes")),
    Task(type="multiclass", target="y", labels=("a", "b", "c")),
    Task(type="regression", target="y"),
]


def rows(n: int, task: Task, seed: int) -> Examples:
    """Numbers with gaps, an id, weights."""
    chance = generator(seed, "trees together")
    x = chance.normal(size=(n, 4)).astype(np.float32)
    shop = chance.integers(0, 9, n).astype(np.int32)
    score = x[:, 0] + x[:, 1] ** 2 + (shop == 3) + chance.normal(size=n)
    x[chance.random(x.shape) < 0.03] = np.nan
    target = score if task.type == "regression" else np.digitize(score, [0.5, 2.0] if task.type == "multiclass" else [1.0])
    blocks: dict[str, Any] = {"x": x, "shop": shop}
    return Examples(Encoded({"x": Layout("dense", 4, tuple("abcd")), "shop": Layout("ids", 9, ())}, blocks), target, chance.uniform(0.5, 2.0, n))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.type)
def test_two_processes_find_the_trees_of_one_until_ties_break_another_way(task: Task) -> None:
    train, valid, test = rows(3_000, task, 1), rows(1_000, task, 2), rows(1_000, task, 3)
    model = Trees(rounds=20)
    one = model.fit(train, valid, task, Effort(n_threads=1))
    two = _trees_together.fit(model, train, valid, task, Effort(workers=2))
    a, b = (loss(model.predict(weights, test.rows), test.target, test.weight, task) for weights in (one, two))
    assert b == pytest.approx(a, rel=0.02)
    first, other = (next(iter(read(weights.arrays["trees"].tobytes().decode()))) for weights in (one, two))
    assert first.feature[:8].tolist() == other.feature[:8].tolist(), "splits of the first tree, the best ones first"
    assert np.array_equal(bounds(first)[:8], bounds(other)[:8]), "at the same borders"


def test_a_lost_process_costs_all_rounds_and_a_new_group_finds_the_same_trees() -> None:
    task, told, killed = TASKS[0], list[str](), list[int]()
    train, model = rows(3_000, task, 1), Trees(rounds=120)

    def kill_one(share: float, note: str) -> None:
        if "round" in note and not killed:
            children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
            killed.append(int(children[-1]))
            os.kill(killed[0], signal.SIGKILL)

    found = _trees_together.fit(model, train, None, task, Effort(workers=2, tell=told.append, progress=kill_one))
    assert killed
    assert any("one of the processes was lost" in note and "2 go on from the beginning" in note for note in told)
    straight = _trees_together.fit(model, train, None, task, Effort(workers=2))
    assert np.array_equal(model.predict(found, train.rows), model.predict(straight, train.rows))


def test_a_small_table_is_left_to_one_process() -> None:
    task = TASKS[0]
    train = rows(200, task, 1)
    alone = Trees(rounds=3).fit(train, None, task, Effort(n_threads=1))
    asked = Trees(rounds=3).fit(train, None, task, Effort(n_threads=1, workers=2, crew=Processes()))
    assert alone.arrays["trees"].tobytes() == asked.arrays["trees"].tobytes()
