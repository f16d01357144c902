"""Ray on a real cluster of two nodes: what every compute must do, the same answers as here, and nodes and workers that die."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from modelinscale.compute import Compute
from modelinscale.compute import _ray_flight as flight
from modelinscale.compute.local import Local
from modelinscale.compute.ray import Ray
from modelinscale.core.errors import ComputeError
from modelinscale.core.secrets import reveal
from modelinscale.encode import empty_all, encode, merge_all, observe_all, settle_all
from modelinscale.features import Feature
from modelinscale.testing import compute as suite
from modelinscale.testing import waits
from modelinscale.testing.clusters import TwoNodes

pytestmark = pytest.mark.slow  # a cluster takes five seconds of the processor

FEATURES = {
    name: Feature.parse(value)
    for name, value in {
        "amount": "number",
        "height": {"type": "number", "scale": "standard"},
        "online": "flag",
        "shop": "category",
        "at": "moment",
        "note": "text",
        "face": "vector",
    }.items()
}


@pytest.fixture
def ray(two_nodes: TwoNodes) -> Ray:
    return Ray(address=two_nodes.address)


def _rows(start: int, n: int) -> pl.DataFrame:
    """Rows ``start`` to ``start + n`` of an endless table, as a descriptor of a lake's rows would give them."""
    chance = np.random.default_rng([7, start])
    missing = chance.random(n) < 0.1
    return pl.DataFrame(
        {
            "amount": np.where(missing, np.nan, chance.lognormal(3, 2, n)),
            "height": chance.normal(1.7, 0.1, n) * 1e3,
            "online": chance.random(n) < 0.3,
            "shop": chance.choice([f"shop {i}" for i in range(300)], n),
            "at": chance.integers(1_600_000_000_000_000, 1_700_000_000_000_000, n),
            "note": chance.choice(["left at the door", "", "ΣΑΣ 日本", "call me"], n),
            "face": chance.normal(size=(n, 4)).astype(np.float32),
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us")), pl.when(pl.lit(pl.Series(missing))).then(None).otherwise(pl.col("shop")).alias("shop"))


def _bits(value: Any) -> Any:
    """A value in a form that is equal only when every bit is; entries in any order, which Polars does not promise for counts."""
    if isinstance(value, dict):
        return {key: _bits(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_bits(one) for one in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return pickle.dumps(value) if isinstance(value, float | int | str | bool | None) else _bits(vars(value))


@pytest.mark.parametrize("rule", suite.SUITE, ids=lambda rule: rule.__name__)
def test_ray_does_what_every_compute_must(ray: Ray, rule: Callable[[Compute], None]) -> None:
    rule(ray)


def test_states_and_encoded_bytes_are_those_of_this_machine_to_the_bit(ray: Ray) -> None:
    parts = [(start, 3000) for start in range(0, 30_000, 3000)]
    look = lambda part: observe_all(FEATURES, _rows(*part))  # noqa: E731
    found = [c.reduce(look, partial(merge_all, FEATURES), parts, empty_all(FEATURES)) for c in (Local(), ray, ray.but(workers=1), ray.but(workers=5))]
    assert all(_bits(one) == _bits(found[0]) for one in found[1:])
    states = settle_all(FEATURES, found[0])
    assert all(list(map(_bits, settle_all(FEATURES, one).items())) == list(map(_bits, states.items())) for one in found[1:])  # also the order of words
    as_blocks = lambda part: encode(FEATURES, states, _rows(*part), "scaled")  # noqa: E731
    for here, there in zip(Local().map(as_blocks, parts), ray.map(as_blocks, parts), strict=True):
        assert _bits(here.layouts) == _bits(there.layouts)
        assert _bits(here.blocks) == _bits(there.blocks)


def test_a_frame_held_by_the_function_is_seen_by_every_task(ray: Ray) -> None:
    frame, starts = _rows(0, 20_000), range(0, 20_000, 3000)
    look = lambda start: observe_all(FEATURES, frame[start : start + 3000])  # noqa: E731
    here, there = (c.reduce(look, partial(merge_all, FEATURES), starts, empty_all(FEATURES)) for c in (Local(), ray))
    assert _bits(here) == _bits(there)


def test_tasks_run_on_both_nodes_with_one_thread_each(ray: Ray, tmp_path: Path) -> None:
    def where(_: int) -> tuple[str, list[str]]:
        import ray as it

        node = it.get_runtime_context().get_node_id()
        (tmp_path / node).touch()
        waits.until(lambda: len(list(tmp_path.iterdir())) == 2, "a task on the other node")
        return node, [os.environ["POLARS_MAX_THREADS"], os.environ["LANCE_CPU_THREADS"]]

    found = list(ray.map(where, range(8)))
    assert len({node for node, _ in found}) == 2
    assert all(threads == ["1", "1"] for _, threads in found)


def test_a_node_killed_in_the_middle_costs_time_only(ray: Ray, two_nodes: TwoNodes) -> None:
    def slow(x: int) -> "np.ndarray[Any, Any]":
        time.sleep(0.3)
        return np.full(100_000, x)  # large enough to lie on the node that dies

    results = []
    for result in ray.map(slow, range(16)):
        results.append(result)
        if len(results) == 4:
            two_nodes.do("kill")
    assert _bits(results) == _bits([np.full(100_000, x) for x in range(16)])
    two_nodes.do("add")


def test_a_worker_that_dies_once_costs_time_only(ray: Ray, tmp_path: Path) -> None:
    def dies_once(x: int) -> int:
        mark = tmp_path / str(x)
        if x % 5 == 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return -x

    assert list(ray.map(dies_once, range(10))) == [-x for x in range(10)]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_worker_that_always_dies_is_told_with_its_item_and_memory_as_a_likely_cause(ray: Ray, tmp_path: Path) -> None:
    def dies(x: int) -> int:
        (tmp_path / f"{x} {time.monotonic_ns()}").touch()
        if x == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    results = []
    with pytest.raises(ComputeError, match=r"worker was lost each time it was tried.*memory_per_task") as caught:  # noqa: PT012
        for result in ray.but(retries=1).map(dies, range(10)):
            results.append(result)
    assert results == [0, 1, 2]
    assert caught.value.__notes__ == ["while working on 3"]
    assert len(list(tmp_path.glob("3 *"))) == 2


def test_an_error_that_cannot_travel_is_told_in_words(ray: Ray) -> None:
    class NeedsTwoError(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(f"{a} and {b} do not go together")

    def fails(x: int) -> int:
        raise NeedsTwoError(x, 2)

    with pytest.raises(ComputeError, match="NeedsTwoError: 1 and 2 do not go together") as caught:
        list(ray.map(fails, [1]))
    assert "in fails" in str(caught.value.__cause__)


def test_a_result_that_cannot_travel_is_an_error_of_its_item(ray: Ray) -> None:
    with pytest.raises(TypeError, match="pickle") as caught:
        list(ray.map(lambda x: (x for _ in range(3)), ["part 1"]))
    assert caught.value.__notes__ == ["while working on part 1"]


def test_a_secret_revealed_on_a_worker_stays_there(ray: Ray) -> None:
    def connects(_: int) -> None:
        os.environ["DATABASE_PASSWORD"] = "hunter2hunter2"
        raise OSError(f"cannot log in as mis:{reveal('${ENV:DATABASE_PASSWORD}')}")

    with pytest.raises(ComputeError, match=r"OSError: cannot log in as mis:\*\*\*") as caught:
        list(ray.map(connects, [1]))
    assert "hunter2hunter2" not in f"{caught.value.__cause__}"


def test_work_the_nodes_do_not_know_is_told_plainly(ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def work(x): return x\n")
    list(ray.map(abs, [1]))  # connected: the nodes know the paths of that moment
    monkeypatch.syspath_prepend(tmp_path)
    from importlib import import_module

    with pytest.raises(ComputeError, match=r"cannot load the work: No module named 'only_here'.*on every node"):
        list(ray.map(import_module("only_here").work, [1]))


def test_a_slice_of_a_table_travels_without_the_rest(ray: Ray) -> None:
    table = pa.table({"x": np.arange(1_000_000)})
    (size,) = ray.map(lambda part: sum(b.size for b in part.column("x").chunk(0).buffers() if b), [table.slice(5, 10)])
    assert size < 1000


def test_results_that_wait_for_a_slow_one_are_bounded_too(ray: Ray) -> None:
    taken = []

    def items() -> Iterator[int]:
        for x in range(1000):
            taken.append(x)
            yield x

    results = ray.map(lambda x: time.sleep(1 if x == 0 else 0), items())
    next(results)
    assert len(taken) <= 4  # two CPUs, twice
    results.close()  # type: ignore[attr-defined]


def test_maps_left_in_the_middle_harm_nothing(ray: Ray) -> None:
    for _ in range(40):
        results = ray.map(abs, range(20))
        assert [next(results), next(results)] == [0, 1]
        results.close()  # type: ignore[attr-defined]
    assert list(ray.map(abs, range(3))) == [0, 1, 2]


def test_tasks_too_big_for_every_node_are_refused_after_a_while(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "LOOK_S", 0.1)
    monkeypatch.setattr(flight, "SCALE_S", 0.3)
    monkeypatch.setattr("modelinscale.compute.ray.Ray.wish", lambda _: "64 CPUs")
    with pytest.raises(ComputeError, match="no node of the Ray cluster has 64 CPUs"):
        list(ray.but(cpus_per_task=64).map(abs, range(3)))


def _run(program: str, two_nodes: TwoNodes, **environment: str) -> str:
    before = "from modelinscale.compute.ray import Ray\nfrom modelinscale.testing import compute as suite\n"
    before += f"ADDRESS, PORT = {two_nodes.address!r}, {two_nodes.client_port}\n"
    done = subprocess.run([sys.executable, "-c", before + program], env=os.environ | environment, capture_output=True, text=True, timeout=240, check=False)
    return done.stdout + done.stderr


def test_a_machine_outside_the_cluster_comes_through_the_client_port(two_nodes: TwoNodes) -> None:
    program = "ray = Ray(address=f'ray://127.0.0.1:{PORT}')\nfor rule in suite.SUITE: rule(ray)\nray.close()\nprint('all kept')"
    assert "all kept" in _run(program, two_nodes)


def test_a_wrong_token_is_refused_with_what_to_do(two_nodes: TwoNodes) -> None:
    said = _run("list(Ray(address=ADDRESS).map(abs, [1]))", two_nodes, RAY_AUTH_TOKEN="0" * 32, RAY_NUM_REDIS_GET_RETRIES="3")
    assert "refuses our token. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in said


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nowhere.invalid:6379"])
def test_a_cluster_that_is_not_there_is_told_at_once(two_nodes: TwoNodes, address: str) -> None:
    Ray().close()
    start = time.monotonic()
    with pytest.raises(ComputeError, match=r"cannot be reached: .*Is it running"):
        list(Ray(address=address).map(abs, [1]))
    assert time.monotonic() - start < 100


def test_a_cluster_of_another_ray_is_refused_with_both_versions(two_nodes: TwoNodes) -> None:
    program = "import ray._private.utils as u\nu.compute_version_info = lambda: ('2.40.0', '3.11.2')\nlist(Ray(address=ADDRESS).map(abs, [1]))"
    said = _run(program, two_nodes)
    assert "runs other versions: " in said
    assert "Ray: 2.40.0" in said
    assert "Use the same versions of Python and Ray here and on every node." in said


def test_nodes_with_another_modelinscale_do_not_work_for_this_one(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelinscale.__version__", "9.9.9")
    with pytest.raises(ComputeError, match=r"has modelinscale \S+, and 9\.9\.9 runs here\. Install modelinscale==9\.9\.9 on every node"):
        list(ray.map(abs, [1]))


def test_another_cluster_in_the_middle_of_the_work_is_refused(ray: Ray) -> None:
    results = ray.map(abs, range(100))
    next(results)
    with pytest.raises(ComputeError, match="Ray allows one cluster a process"):
        list(Ray(address="127.0.0.1:9").map(abs, [1]))
    assert list(results) == list(range(1, 100))
