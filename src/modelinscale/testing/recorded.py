"""Rows that write down who took them, and what was written: for tests of several processes that learn together, wherever these run."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modelinscale.compute._crew import MEETING
from modelinscale.models import Examples


class Recorded(Examples):
    """Appends a line for each batch that is dealt: epoch, first row, process, whole or a share, and its rows by what the last number says."""

    file: Path
    slow_s: float

    @classmethod
    def of(cls, examples: Examples, file: Path, slow_s: float = 0.0) -> "Recorded":
        found = cls(examples.rows, examples.target, examples.weight)
        object.__setattr__(found, "file", file)
        object.__setattr__(found, "slow_s", slow_s)
        return found

    @property
    def held(self) -> bool:
        """As if they lay on disk, so that a process that learns alone asks for batches too."""
        return False

    def batches(self, seed: int, epoch: int, n_rows: int, start: int = 0, *, rank: int = 0, world: int = 1) -> Iterator[Examples]:
        if "MASTER_ADDR" not in os.environ:  # none of the processes that learn
            yield from super().batches(seed, epoch, n_rows, start, rank=rank, world=world)
            return
        first = start
        for batch in super().batches(seed, epoch, n_rows, start, rank=rank, world=world):
            ids = np.asarray(batch.rows["number"])[:, 0].astype(int).tolist()
            line = {"at": time.monotonic_ns(), "epoch": epoch, "first": first, "who": os.environ.get("RANK", "0"), "of": os.environ.get("WORLD_SIZE", "1")}
            with self.file.open("a") as out:
                out.write(json.dumps(line | {"shared": world > 1, "ids": ids, "pid": os.getpid(), "group": _group()}) + "\n")
            time.sleep(self.slow_s)  # a step long enough to be killed in
            yield batch
            first += n_rows


def _group() -> str:
    """Where the processes that learn together met."""
    return os.environ.get(MEETING) or os.environ["MASTER_PORT"]


def said(file: Path) -> list[dict[str, Any]]:
    """The lines that are whole."""
    lines = file.read_text().split("\n") if file.exists() else []
    return [json.loads(line) for line in lines[:-1]]


def history(file: Path, n_rows: int, n_epochs: int) -> list[int]:
    """Of each epoch, how often each row was learned from: 1 for all, or an error. What was done after the last checkpoint is done again, and counts once."""
    lines = said(file)
    groups = sorted({line["group"] for line in lines}, key=lambda group: min(line["at"] for line in lines if line["group"] == group))
    steps: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for group in groups:
        mine = [line for line in lines if line["group"] == group]
        begun = min((line["epoch"], line["first"]) for line in mine)
        steps = {at: done for at, done in steps.items() if at < begun}  # a group goes on from there: what others did beyond is gone
        for line in mine:
            steps.setdefault((line["epoch"], line["first"]), []).append(line)
    found = []
    for epoch in range(n_epochs):
        counts: defaultdict[int, int] = defaultdict(int)
        for (of, _), done in steps.items():
            if of == epoch:
                for line in done if done[0]["shared"] else done[:1]:  # a small batch is taken whole by each
                    for one in line["ids"]:
                        counts[one] += 1
        assert sorted(counts) == list(range(n_rows)), "a row was left out"
        assert set(counts.values()) == {1}, "a row came twice"
        found.append(1)
    return found


__all__ = ["Recorded", "history", "said"]
