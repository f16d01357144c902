"""Summaries and encoding of a generated table as our Ray tasks, beside a `ray.data` pipeline written by hand for the same job, on one private cluster each.

`ray.data` needs pandas, which this project does not: put it into a folder of its own and name that.
    pip install --no-deps --target FOLDER pandas python-dateutil pytz six tzdata
    python benchmarks/ray_tasks.py --pandas FOLDER [--rows 10000000] [--rounds 3] [--limit 1800]   writes benchmarks/results/ray_tasks.md

Both read the same Parquet files, learn the same states, then encode every row with them; both must give the same states and the same encoded bytes. Each
round runs both, each in a process of its own with its own cluster, in turns; processor time and memory are those of the whole process tree, read from the
kernel twenty times a second, the start of the cluster included. `--limit`: seconds that a side may take.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _measure import _field, _tree

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from modelinscale.encode import States
    from modelinscale.features import Feature

HERE = Path(__file__).parent
GROUP = 250_000
"""Rows of a file, which is a partition of ours and a block of Ray's."""
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


def digest(states: "States", rows: "pl.DataFrame") -> int:
    """What encoding these rows gives, as a number: the sum of a hash of each row's bytes, so that it does not depend on how rows are cut into partitions."""
    import numpy as np

    from modelinscale.encode import encode

    hashes, odd = np.zeros(len(rows), np.uint64), np.uint64(0x9E3779B97F4A7C15)
    for block in encode(features(), states, rows, "scaled").blocks.values():
        assert isinstance(block, np.ndarray), "no feature here is a list of words"
        for column in np.ascontiguousarray(block).view(np.uint32).reshape(len(rows), -1).T:
            hashes = hashes * odd + column
    hashes ^= hashes >> np.uint64(29)
    return int((hashes * odd).sum(dtype=np.uint64))


def ours(path: str, n_groups: int) -> "tuple[States, int]":
    """Two maps of our Ray compute."""
    from modelinscale.compute.ray import Ray
    from modelinscale.encode import empty_all, merge_all, observe_all, settle_all

    compute, kinds = Ray(), features()
    states = compute.reduce(lambda group: observe_all(kinds, read(path, group)), partial(merge_all, kinds), range(n_groups), empty_all(kinds))
    settled = settle_all(kinds, states)
    return settled, sum(compute.map(lambda group: digest(settled, read(path, group)), range(n_groups))) % 2**64


def theirs(path: str, n_groups: int) -> "tuple[States, int]":
    """`ray.data`: one `map_batches` that gives each block's states, merged here in the order of the blocks; one that encodes."""
    import pickle

    import pyarrow as pa
    import ray

    from modelinscale.encode import empty_all, merge_all, observe_all, settle_all

    kinds = features()
    ray.init(include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"POLARS_MAX_THREADS": "1"}})
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.execution_options.preserve_order = False, True

    def look(batch: "pa.Table") -> "pa.Table":
        return pa.table({"state": pa.array([pickle.dumps(observe_all(kinds, _frame(batch)))], pa.binary())})

    states = empty_all(kinds)
    rows: Any = ray.data.read_parquet(path)
    for row in rows.map_batches(look, batch_size=GROUP, batch_format="pyarrow").iter_rows():
        states = merge_all(kinds, states, pickle.loads(row["state"]))  # noqa: S301  # our own bytes
    settled = settle_all(kinds, states)

    def count(batch: "pa.Table") -> "pa.Table":
        return pa.table({"digest": pa.array([digest(settled, _frame(batch))], pa.uint64())})

    total = sum(row["digest"] for row in rows.map_batches(count, batch_size=GROUP, batch_format="pyarrow").iter_rows())
    ray.shutdown()
    return settled, total % 2**64


def _frame(batch: "pa.Table") -> "pl.DataFrame":
    import polars as pl

    rows = pl.from_arrow(batch)
    assert isinstance(rows, pl.DataFrame)
    return rows


def child(which: str, path: str, n_groups: int) -> None:
    """One of the two in this process; tells what it found."""
    states, total = (ours if which == "ours" else theirs)(path, n_groups)
    plain = json.dumps(states, default=lambda array: array.tolist(), sort_keys=False)
    print(json.dumps({"states": hashlib.sha256(plain.encode()).hexdigest(), "digest": total}))


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
        f"{arguments.rows:,} rows of {len(KINDS)} columns, states and encoding, {os.cpu_count()} CPUs. Same states and same encoded bytes in every round.",
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
    (HERE / "results" / "ray_tasks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
