"""A project on a Ray cluster of two nodes leaves what it leaves on this machine, byte for byte; a node that dies costs time only."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project, predict
from modelinscale.compute.ray import Ray
from modelinscale.core.errors import DataError
from modelinscale.data import partitions
from modelinscale.pipeline import _context
from modelinscale.testing.clusters import TwoNodes

pytestmark = pytest.mark.slow  # a cluster takes five seconds of the processor, its workers as much again

N = 12_000


def write(folder: Path, compute: str) -> Path:
    """A project over mixed columns, dirty and personal ones among them, in two files."""
    chance = np.random.default_rng(5)
    x, shop = chance.normal(size=N), chance.choice([f"s{i}" for i in range(60)], N)
    good = chance.random(N) < 0.5
    frame = pl.DataFrame(
        {
            "x": np.where(chance.random(N) < 0.05, "", x.round(4).astype(str)),
            "size": np.where(chance.random(N) < 0.01, "large", chance.lognormal(2, 1, N).round(2).astype(str)),
            "shop": np.char.add(np.where(chance.random(N) < 0.3, "  ", ""), shop),
            "mail": np.char.add(np.char.add("p", chance.integers(0, 900, N).astype(str)), "@example.org"),
            "note": np.where(good, "quick and friendly service today", "slow and late delivery again"),
            "w": chance.integers(1, 4, N) / 2,
            "y": np.where(x + (shop < "s2") + 2 * good + chance.normal(size=N) > 2, "yes", "no"),
        }
    )
    (folder / "rows").mkdir(parents=True)
    for i in range(4):
        frame[i * N // 4 : (i + 1) * N // 4].write_csv(folder / "rows" / f"{i}.csv")
    (folder / "key").write_text("a-key-of-more-than-sixteen-letters")
    (folder / "model.yaml").write_text(
        "name: shops\n"
        "data:\n  source: rows/*.csv\n  columns: {x: float, size: float}\n  clean: {shop: [trim], size: [{type: fill, value: 7.5}]}\n"
        "  personal: {mail: pseudonym}\n  pseudonym_key: ${FILE:key}\n"
        "target: y\nmodel: {type: trees, rounds: 20}\ntrain: {weight: w}\n"
        "features: {x: number, size: number, shop: category, mail: category, note: text}\nevaluate: {slices: [shop]}\n"
        f"compute: {compute}\n"
    )
    return folder


@pytest.fixture(scope="module", autouse=True)
def as_if_large() -> Iterator[None]:
    """The table is worked on as one larger than memory, and its encoded rows are left on disk, to be compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "HELD", 1e9)
        patch.setattr(partitions, "MOST_ROWS", 1_500)
        patch.setattr(_context, "HELD_ENCODED", 1e12)
        patch.setattr(_context.Context, "forget_examples", lambda _: None)
        yield


def left(folder: Path) -> dict[str, Any]:
    """What a run and a prediction left, as bytes; of the lake its rows."""
    from modelinscale.data.lake import open_table

    found: dict[str, Any] = {}
    for step in ("prepare", "train", "evaluate"):
        (at,) = (one for one in (folder / ".mis" / "steps" / step).iterdir() if one.is_dir())
        for file in sorted(at.rglob("*")):
            if file.is_file() and file.suffix in (".npy", ".npz", ".json") and file.name != "result.json":
                found[f"{step}/{file.relative_to(at)}"] = file.read_bytes()
    for work in sorted((folder / ".mis" / "work").glob("rows-*")):
        found |= {f"encoded/{file.relative_to(work)}": file.read_bytes() for file in sorted(work.rglob("*")) if file.is_file()}
    for table in sorted((folder / ".mis" / "lake").iterdir()):
        rows = open_table(str(table))
        cells = str([batch.to_pylist() for batch in rows.blocks(list(rows.schema.names))])
        found[f"lake/{table.name.partition('.')[2]}"] = cells.replace(str(folder), "")
    return found


def answered(folder: Path) -> bytes:
    predict(str(folder / "rows" / "*.csv"), out=folder / "answers.csv", file=folder / "model.yaml")
    return (folder / "answers.csv").read_bytes()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, as_if_large: None) -> tuple[dict[str, Any], bytes]:
    """What is left, and answered, on this machine."""
    folder = write(tmp_path_factory.mktemp("here") / "shops", "local")
    Project(folder).run()
    return left(folder), answered(folder)


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_a_project_on_two_nodes_leaves_the_same_bytes(here: tuple[dict[str, Any], bytes], two_nodes: TwoNodes, tmp_path: Path) -> None:
    folder = write(tmp_path / "shops", f"{{type: ray, address: '{two_nodes.address}', memory: 2GiB}}")
    Project(folder).run()
    wanted, answers = here
    _same(left(folder), wanted)
    kinds = {name.split("/")[0] for name in wanted}
    assert kinds == {"prepare", "train", "evaluate", "encoded", "lake"}, "all of it was compared"
    assert answered(folder) == answers


def test_a_node_that_dies_at_every_step_costs_time_only(here: tuple[dict[str, Any], bytes], two_nodes: TwoNodes, tmp_path: Path) -> None:
    folder, killed = write(tmp_path / "shops", f"{{type: ray, address: '{two_nodes.address}'}}"), list[str]()

    def kill_soon(step: str) -> None:
        # The work begins, and its node is gone from under it.
        killed.append(step)
        if len(killed) > 1:
            two_nodes.do("add")
        threading.Timer(0.1, two_nodes.do, ["kill"]).start()

    def progress(step: str, share: float | None, note: str) -> None:
        if (step, note) in (("collect", "reading"), ("prepare", "what the columns hold"), ("evaluate", "calibration and threshold")):
            kill_soon(step)

    try:
        Project(folder).run(progress=progress)
        kill_soon("predict")
        answers = answered(folder)
    finally:
        two_nodes.do("add")
    assert killed == ["collect", "prepare", "evaluate", "predict"]
    _same(left(folder), here[0])
    assert answers == here[1]


def test_a_task_over_its_budget_is_stopped_with_a_reason(two_nodes: TwoNodes) -> None:
    def hoards(n: int) -> int:
        hoard.append(bytearray(b"x" * n))
        time.sleep(3)  # it is looked at twenty times a second, on a machine that is not busy
        return len(hoard)

    hoard: list[bytearray] = []
    with pytest.raises(DataError, match=r"working on it: the process holds .* more than `compute.memory` allows \(256.0 MiB\)") as caught:
        list(Ray(address=two_nodes.address, memory="256MiB").map(hoards, [500 << 20]))
    assert caught.value.__notes__ == [f"while working on {500 << 20}"]
