"""Boosted trees learned by several processes: LightGBM's data-parallel learner, each process with its part of the rows, all with the same borders of bins.

Every process finds the borders from all rows, as one process alone would, and keeps every W-th row; at each leaf the histograms are summed over the processes.
Source: Meng et al., A Communication-Efficient Parallel Algorithm for Decision Tree, 2016, for the learner.
"""

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelinscale.compute._crew import Say
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model, Weights

if TYPE_CHECKING:
    from modelinscale.models._deep.strategy import Parallel
    from modelinscale.models.trees import Trees

LEAST_CELLS = 20_000_000
"""Below so many cells of the training rows one process is done before several have begun."""
_WAIT_MINUTES = 5
"""How long one waits for the others before it takes them for lost; LightGBM counts in minutes."""


def fit(model: "Trees", train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
    """What `Trees.fit` finds, up to rounding and to LightGBM's guess of how many rows a leaf has. A lost process costs all rounds: a new group begins anew."""
    from modelinscale.models._deep.launch import supervised
    from modelinscale.models._deep.worker import Job

    found: Weights = supervised(work, lambda plain: Job(model.plain(), train, valid, task, plain), replace(effort, checkpoints=None))
    return found


def work(job: Any, say: Say, kept: Path | None) -> Weights | bool | None:
    """What one process does."""
    from modelinscale.models._deep.strategy import Parallel, join
    from modelinscale.models._deep.worker import Beat, telling

    def learned(effort: Effort) -> Weights:
        join(patience_s=effort.patience_s)
        strategy, beat = Parallel(), Beat(say)
        model: Trees = Model.parse(job.model)  # type: ignore[assignment]
        return model.learned(job.train, job.valid, job.task, effort, Share(strategy, beat))

    return telling(say, replace(job.effort, n_threads=int(os.environ.get("OMP_NUM_THREADS", "1"))), learned)


@dataclass
class Share:
    """This process's part of the work."""

    strategy: "Parallel"
    beat: Any
    rounds: int = 0

    def of(self, data: Any, params: dict[str, Any], n_rows: int) -> tuple[Any, dict[str, Any]]:
        """Its rows of a ``Dataset`` of all, and the settings to learn together with the others."""
        rank, world = self.strategy.rank, self.strategy.world
        if world == 1:
            return data, params
        with socket.socket() as free:
            free.bind((_address(), 0))
            own = free.getsockname()
        places = self.strategy.told(f"{own[0]}:{own[1]}")
        more = {"tree_learner": "data", "pre_partition": True, "num_machines": world, "machines": ",".join(places)}
        more |= {"local_listen_port": own[1], "time_out": _WAIT_MINUTES}
        part = data.construct().subset(np.arange(rank, n_rows, world))
        return part.construct(), params | more

    def agrees(self, over: bool) -> bool:
        """Whether to end, as the first process says: the same in all. Asked once a round."""
        self.rounds += 1
        self.beat(self.rounds)
        return bool(self.strategy.leads(float(over)))


def _address() -> str:
    """This machine's address as the first process sees it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((os.environ["MASTER_ADDR"], 9))  # sends nothing
        return str(way.getsockname()[0])


__all__ = ["LEAST_CELLS", "Share", "fit", "work"]
