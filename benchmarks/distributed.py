"""How much faster two processes learn than one, on steps that are mostly computing: `python -m benchmarks.distributed` on a machine with two free cores.

Learns images of 64 x 64 pixels. Compared are rows a second within the training, so that beginning the processes does not count.
"""

import argparse
import re
import statistics

import numpy as np

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples
from modelinscale.models.network import Network

SIDE = 64


def rows(n: int) -> Examples:
    chance = generator(7, "benchmark", "distributed")
    target = chance.integers(0, 2, n)
    pixels = (chance.integers(0, 128, (n, SIDE, SIDE, 1)) + 100 * target[:, None, None, None]).astype(np.uint8)
    return Examples(Encoded({"picture": Layout("image", SIDE * SIDE, (), (SIDE, SIDE, 1))}, {"picture": pixels}), target)


def rows_a_second(workers: int, n_rows: int, epochs: int) -> tuple[float, str]:
    """The median over the epochs, and what was said of communication."""
    found: list[float] = []
    notes: list[str] = []

    def progress(share: float, note: str) -> None:
        said = re.search(r"([\d,]+) rows/s", note)
        if said:
            found.append(float(said[1].replace(",", "")) * workers)  # each says how fast its own share goes

    model = Network(epochs=epochs, batch_rows=128, shift=0, dropout=0)
    model.fit(
        rows(n_rows), None, Task(type="binary", target="y", labels=("no", "yes")), Effort(workers=workers, n_threads=1, progress=progress, tell=notes.append)
    )
    return statistics.median(found), " ".join(notes)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=2_048)
    arguments.add_argument("--epochs", type=int, default=4)
    arguments.add_argument("--times", type=int, default=3)
    asked = arguments.parse_args()
    ratios = []
    for _ in range(asked.times):  # in turn: what else the machine does falls on both
        one, _ = rows_a_second(1, asked.rows, asked.epochs)
        two, said = rows_a_second(2, asked.rows, asked.epochs)
        ratios.append(two / one)
        print(f"1 process {one:,.0f} rows/s, 2 processes {two:,.0f} rows/s, {two / one:.2f} times; {said}")
    print(f"median {statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
