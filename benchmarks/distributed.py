"""Several processes that learn one network: how much faster they are than one, and what is left of a training whose processes are killed.

python -m benchmarks.distributed                         two processes against one, on images of 64 x 64 pixels; wants two free cores
python -m benchmarks.distributed --kills 20              kills a process at 20 random moments, of programs of this machine and of a Ray cluster of two nodes
                                                         (there every other time the whole node), and looks whether each row was learned from once an epoch;
                                                         writes benchmarks/results/distributed.md
python -m benchmarks.distributed --memory                what each of two processes holds at its fullest, with all weights of a large network, with parts
"""

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelinscale.compute._crew import MEETING, Crew
from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples
from modelinscale.models.network import Network
from modelinscale.testing.clusters import TwoNodes, two_nodes
from modelinscale.testing.recorded import Recorded, history, said

SIDE = 64
TASK = Task(type="binary", target="y", labels=("no", "yes"))
RESULTS = Path(__file__).parent / "results" / "distributed.md"
KILLED_ROWS, KILLED_EPOCHS, KILLS_A_TRAINING = 480, 6, 5
LONGEST_S = 4.0
"""A kill comes at most so long after a group was seen to learn: some before its first checkpoint, most after several."""


def pictures(n: int) -> Examples:
    chance = generator(7, "benchmark", "distributed")
    target = chance.integers(0, 2, n)
    pixels = (chance.integers(0, 128, (n, SIDE, SIDE, 1)) + 100 * target[:, None, None, None]).astype(np.uint8)
    return Examples(Encoded({"picture": Layout("image", SIDE * SIDE, (), (SIDE, SIDE, 1))}, {"picture": pixels}), target)


def rows_a_second(workers: int, n_rows: int, epochs: int) -> tuple[float, str]:
    """Within the training, so that beginning the processes does not count: the median over the epochs, and what was said of communication."""
    found: list[float] = []
    notes: list[str] = []

    def progress(share: float, note: str) -> None:
        told = re.search(r"([\d,]+) rows/s", note)
        if told:
            found.append(float(told[1].replace(",", "")) * workers)  # each says how fast its own share goes

    model = Network(epochs=epochs, batch_rows=128, shift=0, dropout=0)
    model.fit(pictures(n_rows), None, TASK, Effort(workers=workers, n_threads=1, progress=progress, tell=notes.append))
    return statistics.median(found), " ".join(notes)


def speed(n_rows: int, epochs: int, times: int) -> None:
    ratios = []
    for _ in range(times):  # in turn: what else the machine does falls on both
        one, _ = rows_a_second(1, n_rows, epochs)
        two, words = rows_a_second(2, n_rows, epochs)
        ratios.append(two / one)
        print(f"1 process {one:,.0f} rows/s, 2 processes {two:,.0f} rows/s, {two / one:.2f} times; {words}")
    print(f"median {statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")


@dataclass
class Killer:
    """Kills one process of each new group at a random moment; with ``nodes`` every other time the second node, which it adds again afterwards."""

    file: Path
    most: int
    chance: random.Random
    nodes: TwoNodes | None = None
    kills: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        known: set[str] = set()
        while len(self.kills) < self.most and not self.over.is_set():
            lines = [line for line in said(self.file) if line["group"] not in known]
            if not lines:
                self.over.wait(0.05)
                continue
            self.over.wait(self.chance.uniform(0.0, LONGEST_S))
            group = lines[-1]["group"]
            mine = [line for line in said(self.file) if line["group"] == group]
            known |= {line["group"] for line in said(self.file)}
            if self.over.is_set():
                return
            if self.nodes is not None and mine[0]["of"] == "2" and len(self.kills) % 2:
                self.nodes.do("kill")
                self.kills.append("node")
                self.nodes.do("add")
                continue
            try:
                os.kill(self.chance.choice(sorted({line["pid"] for line in mine})), signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.kills.append("process")


def killed_training(folder: Path, most: int, seed: int, crew: Crew | None, nodes: TwoNodes | None) -> tuple[list[str], str]:
    """What was killed in one training, and how it went."""
    (folder / "kept").mkdir(parents=True)
    chance, file = generator(seed, "benchmark", "killed"), folder / "said"
    x = chance.normal(size=(KILLED_ROWS, 3)).astype(np.float32)
    blocks: dict[str, Any] = {"x": x, "number": np.arange(KILLED_ROWS, dtype=np.float32)[:, None]}
    layouts = {"x": Layout("dense", 3, ("a", "b", "c")), "number": Layout("dense", 1, ("number",))}
    train = Recorded.of(Examples(Encoded(layouts, blocks), (x[:, 0] > 0).astype(np.int64)), file, slow_s=0.15)
    model = Network(dropout=0, epochs=KILLED_EPOCHS, batch_rows=48, width=16, members=1, layers=1, patience=99)
    killer, notes = Killer(file, most, random.Random(seed), nodes), list[str]()
    thread = threading.Thread(target=killer.run, daemon=True)
    thread.start()
    model.fit(train, None, TASK, Effort(workers=2, n_threads=1, crew=crew, checkpoints=folder / "kept", checkpoint_s=0.3, tell=notes.append))
    killer.over.set()
    thread.join()
    history(file, KILLED_ROWS, KILLED_EPOCHS)  # raises where a row was left out or came twice
    worlds = {line["group"]: line["of"] for line in said(file)}.values()
    went = f"{len(killer.kills)} kills, {sum('was lost' in note for note in notes)} losses seen, groups of {' '.join(worlds)}"
    return killer.kills, f"{went}; each of {KILLED_ROWS} rows once in each of {KILLED_EPOCHS} epochs"


@contextmanager
def place(launcher: str) -> Iterator[tuple[Crew | None, TwoNodes | None]]:
    if launcher == "processes":
        yield None, None
        return
    from modelinscale.compute.ray import Ray

    with two_nodes() as nodes:
        os.environ.update(nodes.token)
        compute = Ray(address=nodes.address)
        yield compute.crew(), nodes
        compute.close()


def kills(n: int, launchers: list[str]) -> None:
    lines = [
        "# distributed.py",
        "",
        "| launcher | processes killed | nodes killed | trainings | each row once an epoch | wall seconds |",
        "|---|---|---|---|---|---|",
    ]
    for launcher in launchers:
        done: list[str] = []
        began, trainings = time.monotonic(), 0
        with place(launcher) as (crew, nodes), tempfile.TemporaryDirectory() as folder:
            while len(done) < n:
                found, went = killed_training(Path(folder) / str(trainings), min(n - len(done), KILLS_A_TRAINING), 100 + trainings, crew, nodes)
                done, trainings = done + found, trainings + 1
                print(f"{launcher}: {went}", flush=True)
        lines.append(f"| {launcher} | {done.count('process')} | {done.count('node')} | {trainings} | yes | {time.monotonic() - began:.0f} |")
    text = "\n".join(lines) + "\n"
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


def held_at_most(strategy: str) -> None:
    """As one of two processes: prints what it holds (anonymous pages) at its fullest while it learns, beyond what it held before there was a network."""
    from modelinscale.core.memory import Guard, held
    from modelinscale.models._deep.learn import fit
    from modelinscale.models._deep.strategy import Parallel, join

    join(patience_s=300.0, device="cpu")
    n = 384
    x = generator(7, "benchmark", "held").normal(size=(n, 8)).astype(np.float32)
    train = Examples(Encoded({"x": Layout("dense", 8, tuple("abcdefgh"))}, {"x": x}), (x[:, 0] > 0).astype(np.int64))
    model = Network(width=2048, layers=8, members=1, bins=0, batch_rows=64, epochs=2)
    small = Network(width=16, layers=1, members=1, bins=0, batch_rows=64, epochs=1)
    fit(small, train, None, TASK, Effort(n_threads=1), Parallel())  # what stays whatever the network
    guard, before = Guard(1 << 50), held()
    threading.Thread(target=guard.watch, daemon=True).start()
    fit(model, train, train, TASK, Effort(n_threads=1, strategy=strategy, checkpoints=Path(os.environ["KEPT"]), checkpoint_s=0.0), Parallel())  # type: ignore[arg-type]
    guard.stop()
    print(guard.peak - before, flush=True)
    os._exit(0)


def memory() -> None:
    weights = 4 * (8 * 2048 + 7 * 2048**2)
    print(f"weights of {weights / 2**20:.0f} MiB")
    for strategy in ("data_parallel", "fully_sharded"):
        with tempfile.TemporaryDirectory() as folder:
            who = {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "KEPT": folder}
            command = [sys.executable, "-m", "benchmarks.distributed", "--memory-of", strategy]
            both = [
                subprocess.Popen(command, env=os.environ | who | {MEETING: f"{folder}/meeting", "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
                for rank in range(2)
            ]
            peaks = [int(one.communicate()[0].splitlines()[-1]) for one in both]
        print(f"{strategy}: at most {' and '.join(f'{peak / 2**20:,.0f} MiB ({peak / weights:.1f} times the weights)' for peak in peaks)}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=2_048)
    arguments.add_argument("--epochs", type=int, default=4)
    arguments.add_argument("--times", type=int, default=3)
    arguments.add_argument("--kills", type=int, default=0)
    arguments.add_argument("--memory", action="store_true")
    arguments.add_argument("--memory-of", choices=["data_parallel", "fully_sharded"], help=argparse.SUPPRESS)
    arguments.add_argument("--launcher", choices=["processes", "ray", "both"], default="both")
    asked = arguments.parse_args()
    if asked.memory_of:
        held_at_most(asked.memory_of)
    elif asked.memory:
        memory()
    elif asked.kills:
        kills(asked.kills, ["processes", "ray"] if asked.launcher == "both" else [asked.launcher])
    else:
        speed(asked.rows, asked.epochs, asked.times)


if __name__ == "__main__":
    main()
