"""Rows that write down who took them: imported by name also in the processes that learn together."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

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

    def batches(self, seed: int, epoch: int, n_rows: int, start: int = 0, *, rank: int = 0, world: int = 1) -> Iterator[Examples]:
        first = start
        for batch in super().batches(seed, epoch, n_rows, start, rank=rank, world=world):
            ids = np.asarray(batch.rows["number"])[:, 0].astype(int).tolist()
            line = {"at": time.monotonic_ns(), "epoch": epoch, "first": first, "who": os.environ.get("RANK", "0"), "of": os.environ.get("WORLD_SIZE", "1")}
            with self.file.open("a") as out:
                out.write(json.dumps(line | {"shared": world > 1, "ids": ids, "pid": os.getpid(), "port": os.environ.get("MASTER_PORT")}) + "\n")
            time.sleep(self.slow_s)  # a step long enough to be killed in
            yield batch
            first += n_rows
