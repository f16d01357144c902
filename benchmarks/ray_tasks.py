"""Summaries, encoding and scoring of a generated table as our Ray tasks, beside a `ray.data` pipeline written by hand for the same job, a private cluster each.

`ray.data` needs pandas, which this project does not: put it into a folder of its own and name that.
    pip install --no-deps --target FOLDER pandas python-dateutil pytz six tzdata
    python benchmarks/ray_tasks.py --pandas FOLDER [--rows 10000000] [--rounds 3] [--limit 1800]   writes benchmarks/results/ray_tasks.md

Both read the same Parquet files and learn the same states; a linear model is learned from the first rows, here; then every row is encoded and scored. Both
must give the same states, encoded bytes and scores. Each round runs both, each in a process of its own with its own cluster, in turns; processor time and
memory are those of the whole process tree, read from the kernel twenty times a second, the start of the cluster included. At the end ours runs once more on
two nodes, of which one is killed in the middle, and must find the same. `--limit`: seconds that a side may take.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _measure import _field, _tree

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

    from modelinscale.encode import States
    from modelinscale.features import Feature
    from modelinscale.models import Model, Weights

HERE = Path(__file__).parent
GROUP = 250_000
"""Rows of a file, which is a partition of ours and a block of Ray's."""
HEAD = 20_000
"""Rows that the model is learned from."""
KINDS = {
    "amount": "number",
    "height": "number",
    "weight": "number",
    "age": "number",
    "online": "flag",
    "shop": "category",
    "country": "category",
    "at": "moment",
}


def features() -> "dict[str, Feature]":
    from modelinscale.features import Feature

    return {name: Feature.parse(kind) for name, kind in KINDS.items()}


def generate(folder: Path, n_rows: int) -> None:
    """Writes mixed columns, a file for each group."""
    import numpy as np
    import polars as pl

    folder.mkdir()
    for start in range(0, n_rows, GROUP):
        n, chance = min(GROUP, n_rows - start), np.random.default_rng([7, start])
        rows = pl.DataFrame(
            {
                "amount": np.where(chance.random(n) < 0.05, np.nan, chance.lognormal(3, 1, n)),
                "height": chance.normal(1.7, 0.1, n),
                "weight": chance.lognormal(4, 0.3, n),
                "age": chance.integers(18, 90, n).astype(np.float64),
                "online": chance.random(n) < 0.3,
                "shop": np.char.add("shop ", chance.integers(0, 5_000, n).astype(str)),
                "country": chance.choice(["DE", "FR", "IT", "PL", "ES"], n),
                "at": chance.integers(1_600_000_000_000_000, 1_700_000_000_000_000, n),
            }
        ).with_columns(pl.col("at").cast(pl.Datetime("us")))
        rows.write_parquet(_file(str(folder), start // GROUP))


def _file(folder: str, group: int) -> str:
    return f"{folder}/{group:05d}.parquet"


def read(folder: str, group: int) -> "pl.DataFrame":
    import polars as pl
    import pyarrow.parquet as pq

    rows = pl.from_arrow(pq.ParquetFile(_file(folder, group)).read())
    assert isinstance(rows, pl.DataFrame)
    return rows


@dataclass(frozen=True)
class Scored:
    """What is done with every row once the states are known: it is encoded, and scored by a model."""

    states: "States"
    model: "Model"
    weights: "Weights"

    @classmethod
    def of(cls, states: "States", head: "pl.DataFrame") -> "Scored":
        """With a model of whether it is online, learned from a few rows."""
        import numpy as np

        from modelinscale.core.task import Task
        from modelinscale.encode import encode
        from modelinscale.models import Effort, Examples, Model

        model, target = Model.parse("linear"), head["online"].to_numpy().astype(np.int64)
        task = Task(type="binary", target="online", labels=("no", "yes"))
        return cls(states, model, model.fit(Examples(encode(features(), states, head, "scaled"), target), None, task, Effort()))

    def digests(self, rows: "pl.DataFrame") -> tuple[int, int]:
        """What encoding and scoring these rows give, as numbers: sums of a hash of each row's bytes, so that they do not depend on how rows are cut."""
        import numpy as np

        from modelinscale.encode import encode
        from modelinscale.models import BLOCK_ROWS

        found = encode(features(), self.states, rows, "scaled")
        blocks = [block for block in found.blocks.values() if isinstance(block, np.ndarray)]
        assert len(blocks) == len(found.blocks), "no feature here is a list of words"
        scores = [self.model.predict(self.weights, found.slice(i, min(i + BLOCK_ROWS, len(rows)))) for i in range(0, len(rows), BLOCK_ROWS)]
        return _digest(blocks), _digest([np.concatenate(scores)])


def _digest(blocks: "list[NDArray[Any]]") -> int:
    import numpy as np

    hashes, odd = np.zeros(len(blocks[0]), np.uint64), np.uint64(0x9E3779B97F4A7C15)
    for block in blocks:
        for column in np.ascontiguousarray(block).view(np.uint32).reshape(len(hashes), -1).T:
            hashes = hashes * odd + column
    hashes ^= hashes >> np.uint64(29)
    return int((hashes * odd).sum(dtype=np.uint64))


def ours(path: str, n_groups: int, address: str | None = None) -> "tuple[States, list[int]]":
    """Two maps of our Ray compute."""
    from modelinscale.compute.ray import Ray
    from modelinscale.encode import empty_all, merge_all, observe_all, settle_all

    compute, kinds = Ray(address=address), features()
    states = compute.reduce(lambda group: observe_all(kinds, read(path, group)), partial(merge_all, kinds), range(n_groups), empty_all(kinds))
    settled = settle_all(kinds, states)
    scored = Scored.of(settled, read(path, 0).head(HEAD))
    found = list(compute.map(lambda group: scored.digests(read(path, group)), range(n_groups)))
    return settled, [sum(one) % 2**64 for one in zip(*found, strict=True)]


def theirs(path: str, n_groups: int) -> "tuple[States, list[int]]":
    """`ray.data`: one `map_batches` that gives each block's states, merged here in the order of the blocks; one that encodes and scores."""
    import pickle

    import pyarrow as pa
    import ray

    from modelinscale.encode import empty_all, merge_all, observe_all, settle_all

    kinds = features()
    ray.init(address="local", include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"POLARS_MAX_THREADS": "1"}})
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.execution_options.preserve_order = False, True

    def look(batch: "pa.Table") -> "pa.Table":
        return pa.table({"state": pa.array([pickle.dumps(observe_all(kinds, _frame(batch)))], pa.binary())})

    states = empty_all(kinds)
    rows: Any = ray.data.read_parquet(path)
    for row in rows.map_batches(look, batch_size=GROUP, batch_format="pyarrow").iter_rows():
        states = merge_all(kinds, states, pickle.loads(row["state"]))  # noqa: S301  # our own bytes
    settled = settle_all(kinds, states)
    scored = Scored.of(settled, read(path, 0).head(HEAD))

    def count(batch: "pa.Table") -> "pa.Table":
        encoded, scores = scored.digests(_frame(batch))
        return pa.table({"encoded": pa.array([encoded], pa.uint64()), "scores": pa.array([scores], pa.uint64())})

    found = [(row["encoded"], row["scores"]) for row in rows.map_batches(count, batch_size=GROUP, batch_format="pyarrow").iter_rows()]
    ray.shutdown()
    return settled, [sum(one) % 2**64 for one in zip(*found, strict=True)]


def _frame(batch: "pa.Table") -> "pl.DataFrame":
    import polars as pl

    rows = pl.from_arrow(batch)
    assert isinstance(rows, pl.DataFrame)
    return rows


def child(which: str, path: str, n_groups: int) -> None:
    """One of the two in this process (``which`` may also be the address of a cluster for ours); tells what it found."""
    states, totals = theirs(path, n_groups) if which == "theirs" else ours(path, n_groups, None if which == "ours" else which)
    plain = json.dumps(states, default=lambda array: array.tolist(), sort_keys=False)
    print(json.dumps({"states": hashlib.sha256(plain.encode()).hexdigest(), "digests": totals}))


@dataclass(frozen=True)
class Took:
    """What one side found and took, its cluster included. Ray's workers are not waited for, so that the kernel's sums over children miss them."""

    found: dict[str, Any]
    wall_s: float
    cpu_s: float
    peak_bytes: int


def measured(command: list[str], limit_s: float, environment: dict[str, str]) -> Took:
    with tempfile.TemporaryFile() as out:
        start, cpu, peak = time.perf_counter(), dict[int, float](), 0
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(0.05)
            if time.perf_counter() - start > limit_s:
                process.terminate()
                process.wait()
                raise TimeoutError(f"{' '.join(command)} took more than {limit_s:.0f} s")
            pids = _tree(process.pid)
            cpu |= {pid: max(_cpu(pid), cpu.get(pid, 0.0)) for pid in pids}
            peak = max(peak, sum(_field(pid, "VmRSS") for pid in pids))
        wall = time.perf_counter() - start
        out.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}")
        return Took(json.loads(out.read().decode().splitlines()[-1]), wall, sum(cpu.values()), peak)


def killed(path: str, n_groups: int, wanted: dict[str, Any], limit_s: float) -> str:
    """Ours on a cluster of two nodes of one CPU each; the second node is killed when the first half is done. What to say of it."""
    from modelinscale.testing.clusters import two_nodes

    with two_nodes() as cluster:
        command = [sys.executable, __file__, "--child", cluster.address, path, str(n_groups)]
        start = time.perf_counter()
        whole = measured(command, limit_s, os.environ | cluster.token)
        seconds = time.perf_counter() - start
        timer = threading.Timer(seconds / 2, cluster.do, ["kill"])
        timer.start()
        less = measured(command, limit_s, os.environ | cluster.token)
        timer.cancel()
    assert whole.found == wanted, "two nodes do not find what one finds"
    assert less.found == wanted, "without the node that was killed another thing is found"
    return (
        f"On two nodes of one CPU: {whole.wall_s:.1f} s; with one of them killed after {seconds / 2:.0f} s: {less.wall_s:.1f} s. Same states, bytes and scores."
    )


def _cpu(pid: int) -> float:
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:  # it ended while we looked
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pandas", type=Path, help="the folder it was put into, if it is not installed")
    parser.add_argument("--limit", type=float, default=1800.0)
    parser.add_argument("--child", nargs=3, metavar=("WHICH", "PATH", "GROUPS"))
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], arguments.child[1], int(arguments.child[2]))
        return
    lines = [
        "# Our Ray tasks beside ray.data",
        "",
        f"{arguments.rows:,} rows of {len(KINDS)} columns: states, encoding and scores, {os.cpu_count()} CPUs. All three the same in every round.",
        "",
        "| round | ours: wall s | CPU s | peak GB | ray.data: wall s | CPU s | peak GB | wall, ours / theirs | CPU, ours / theirs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        path, n_groups = Path(name) / "rows", -(-arguments.rows // GROUP)
        generate(path, arguments.rows)
        environment = os.environ | ({"PYTHONPATH": str(arguments.pandas.absolute())} if arguments.pandas else {})
        for i in range(arguments.rounds):
            took = {
                which: measured([sys.executable, __file__, "--child", which, str(path), str(n_groups)], arguments.limit, environment)
                for which in (("ours", "theirs") if i % 2 == 0 else ("theirs", "ours"))
            }
            a, b = took["ours"], took["theirs"]
            assert a.found == b.found, "the two do not agree"
            lines.append(
                f"| {i + 1} | {a.wall_s:.1f} | {a.cpu_s:.1f} | {a.peak_bytes / 1e9:.2f} | {b.wall_s:.1f} | {b.cpu_s:.1f} | {b.peak_bytes / 1e9:.2f} "
                f"| {a.wall_s / b.wall_s:.2f} | {a.cpu_s / b.cpu_s:.2f} |"
            )
            print(lines[-1], flush=True)
        lines += ["", killed(str(path), n_groups, a.found, arguments.limit)]
        print(lines[-1], flush=True)
    (HERE / "results" / "ray_tasks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
