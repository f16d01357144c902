"""A network whose weights lie in parts on two processes: the curve of one, half the bytes, the same numbers after a kill, checkpoints for any number."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from modelinscale.compute._crew import MEETING
from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.errors import ComputeError, ModelError, StoreError, UsageError
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Strategy, Weights
from modelinscale.models._deep import launch, saved
from modelinscale.models._deep.saved import Checkpoint
from modelinscale.models.network import Network
from modelinscale.testing.recorded import Recorded, history, said
from modelinscale.testing.waits import until
from modelinscale.train import Train

TASK = Task(type="binary", target="y", labels=("no", "yes"))
SIZES: dict[str, Any] = {"dropout": 0, "shift": 0, "epochs": 3, "batch_rows": 48, "width": 15, "maps": 4, "patience": 99, "layers": 2, "units": 16}
MODEL = Network(members=2, sequence="transformer", **SIZES)
"""Its sides can be cut evenly (two members) and cannot (fifteen units)."""
TOLERANCE = 2e-4
"""As between one process and two that hold all weights (`test_distributed`): sums in another order, and what grows from them in three epochs."""


def rows(n: int, *, wide: bool = False) -> Examples:
    """Numbers that say the answer, and with ``wide`` images and sequences; ``number`` is which row it is."""
    chance = generator(3, "sharded")
    x = chance.normal(size=(n, 3)).astype(np.float32)
    target = (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64)
    blocks: dict[str, Any] = {"x": x, "number": np.arange(n, dtype=np.float32)[:, None]}
    layouts = {"x": Layout("dense", 3, ("a", "b", "c")), "number": Layout("dense", 1, ("number",))}
    if wide:
        blocks["picture"] = (chance.integers(0, 120, (n, 8, 8, 1)) + 100 * target[:, None, None, None]).astype(np.uint8)
        blocks["steps"] = (chance.normal(size=(n, 5, 2)) + target[:, None, None]).astype(np.float32)
        layouts |= {"picture": Layout("image", 64, (), (8, 8, 1)), "steps": Layout("steps", 10, (), (5, 2))}
    return Examples(Encoded(layouts, blocks), target, chance.uniform(0.5, 2.0, n))


def learned(train: Examples, valid: Examples | None, *, model: Network = MODEL, **effort: Any) -> Weights:
    return model.fit(train, valid, TASK, Effort(n_threads=1, **effort))


def valid_losses(weights: Weights) -> list[float]:
    return [point["valid"] for point in weights.meta["curve"]]


@pytest.mark.slow
def test_two_processes_with_half_the_weights_each_follow_the_curve_of_one() -> None:
    train, valid = rows(308, wide=True), rows(1_100, wide=True)  # the last batch of 20; three blocks of validation rows for two processes; normalised batches
    told: list[str] = []
    one, two = learned(train, valid), learned(train, valid, workers=2, strategy="fully_sharded", tell=told.append)
    assert valid_losses(two) == pytest.approx(valid_losses(one), rel=TOLERANCE)
    assert list(one.arrays) == list(two.arrays)
    for name, values in one.arrays.items():
        assert values.shape == two.arrays[name].shape
        assert values.dtype == two.arrays[name].dtype
        assert np.allclose(values, two.arrays[name], rtol=5e-3, atol=5e-3), name
    assert MODEL.predict(two, valid.rows) == pytest.approx(MODEL.predict(one, valid.rows), abs=5e-3)
    (note,) = (one for one in told if "2 processes learned together" in one)
    assert "each held about 5" in note


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_the_numbers_are_those_of_never_stopped(tmp_path: Path) -> None:
    plain = rows(480)
    train = Recorded.of(plain, tmp_path / "said", slow_s=0.1)
    (tmp_path / "kept").mkdir()
    told: list[str] = []
    killer = _kills_one(tmp_path / "said", tmp_path / "kept")
    found = learned(train, None, workers=2, strategy="fully_sharded", checkpoints=tmp_path / "kept", checkpoint_s=0.2, tell=told.append)
    killer.join(100)
    assert any("was lost after" in note and "the last checkpoint" in note for note in told)
    assert history(tmp_path / "said", 480, MODEL.epochs) == [1] * MODEL.epochs
    straight = learned(plain, None, workers=2, strategy="fully_sharded")
    for name, values in straight.arrays.items():
        assert np.array_equal(found.arrays[name], values), name
    assert [point["train"] for point in found.meta["curve"]] == pytest.approx([point["train"] for point in straight.meta["curve"]], rel=1e-9)


@pytest.mark.slow
def test_one_process_goes_on_from_what_two_with_parts_wrote_and_two_from_what_one_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid = rows(480), rows(200)
    straight = valid_losses(learned(train, valid))
    (tmp_path / "two").mkdir()
    monkeypatch.setattr(launch, "_LOST_IN_VAIN", 0)
    slow = Recorded.of(train, tmp_path / "said", slow_s=0.1)
    killer = _kills_one(tmp_path / "said", tmp_path / "two")
    with pytest.raises(ComputeError, match="lost 1 times without getting further"):
        learned(slow, valid, workers=2, strategy="fully_sharded", checkpoints=tmp_path / "two", checkpoint_s=0.2)
    killer.join(100)
    assert saved.counted(tmp_path / "two" / "network.npz").seconds > 0
    after_two = learned(train, valid, checkpoints=tmp_path / "two")
    assert valid_losses(after_two) == pytest.approx(straight, rel=TOLERANCE)

    (tmp_path / "one").mkdir()
    with pytest.raises(Stopped):
        learned(train, valid, checkpoints=tmp_path / "one", checkpoint_s=0.0, progress=stops_in_the_second_epoch)
    after_one = learned(train, valid, workers=2, strategy="fully_sharded", checkpoints=tmp_path / "one")
    assert valid_losses(after_one) == pytest.approx(straight, rel=TOLERANCE)


class Stopped(Exception):
    """By a test."""


def stops_in_the_second_epoch(share: float, note: str) -> None:
    if note.startswith("epoch 2"):
        raise Stopped


_TWO = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location('told', sys.argv[1])
told = importlib.util.module_from_spec(spec); spec.loader.exec_module(told)
print(json.dumps(told.bytes_held()))
"""


def bytes_held() -> dict[str, Any]:
    """In one of two processes: what each strategy holds after a step, the numbers of weights by name, and what a layer that is not called brings."""
    import torch

    from modelinscale.models._deep.loop import Loop
    from modelinscale.models._deep.net import Net, Port, Shape
    from modelinscale.models._deep.strategy import Parallel, join

    join(patience_s=60.0, device="cpu")
    found: dict[str, Any] = {}
    train = rows(96)
    for how in ("data_parallel", "fully_sharded", "not called"):
        torch.manual_seed(1)
        ports = (Port("dense", ("x", "number"), (3, 1), settings=(("binned", [0, 1]), ("n_bins", 4))),)
        net = Net(ports, Shape(256, 3, 1, 0.0, 1), {"dense0": {"edges": np.linspace(-2, 2, 10, dtype=np.float32).reshape(2, 5)}})
        if how == "not called":
            takes_for_itself(net)
        strategy = Parallel()
        if how != "data_parallel":
            strategy.shard()
        loop = Loop(net, Network(members=1).recipe(96), TASK, Effort(), train, None, 0.0, 1.0, "", strategy)
        loop.at.n_steps = 2
        step = next(loop._steps(0, 0))
        try:
            loop._step(step)
        except ModelError as error:
            found[how] = str(error)
            continue
        loop._backward(step)
        gradients = [loop.held.own(p.grad) for p in loop.parameters if p.grad is not None]
        moments = [one for optimizer in loop.optimizers for m in optimizer.moments.values() for one in (m.first, m.second)]
        tensors = [*loop.held.now.values(), *loop.held.average.values(), *gradients, *moments]
        found[how] = sum(one.numel() * one.element_size() for one in tensors)
    torch.distributed.destroy_process_group()
    return found


def takes_for_itself(net: Any) -> None:
    """A network that multiplies with the weights of a layer in a list, and does not call it."""
    import torch

    layers = torch.nn.ModuleList([torch.nn.Linear(256, 256)])
    net.more = layers
    trunk = net.trunk
    net.trunk = lambda parts: trunk(parts) + layers[0].weight.sum() * 0  # type: ignore[operator]


@pytest.fixture(scope="module")
def held_by_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    who = {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    who[MEETING] = str(tmp_path_factory.mktemp("held") / "meeting")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO, __file__], env=os.environ | who | {"RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    told = [one.communicate(timeout=150) for one in both]
    assert [one.returncode for one in both] == [0, 0], told[0][1] + told[1][1]
    return [json.loads(out.splitlines()[-1]) for out, _ in told]


@pytest.mark.slow
def test_weights_gradients_average_and_moments_take_half_the_bytes_in_each_of_two(held_by_two: list[dict[str, Any]]) -> None:
    for held in held_by_two:
        assert 0.49 < held["fully_sharded"] / held["data_parallel"] < 0.51


@pytest.mark.slow
def test_a_layer_whose_weights_another_takes_is_a_clear_error(held_by_two: list[dict[str, Any]]) -> None:
    assert "cannot be learned with its weights in parts" in held_by_two[0]["not called"]
    assert "Set `train.strategy: data_parallel`" in held_by_two[0]["not called"]


@pytest.mark.slow
def test_parts_are_chosen_where_all_weights_do_not_fit_the_memory_of_a_process() -> None:
    model = Network(members=1, bins=0, **SIZES | {"width": 1024, "layers": 6, "epochs": 1})
    train, told = rows(96), list[str]()
    learned(train, None, model=model, workers=2, memory=190 << 20, tell=told.append)  # 20 MiB of weights: eight of them are too much
    assert any("each of 2 holds a part of them (`train.strategy: fully_sharded`)" in note for note in told)
    assert any("each held about 50%" in note for note in told)


def of_numbers(width: int, layers: int) -> Any:
    """A network of numbers."""
    from modelinscale.models._deep.net import Net, Port, Shape

    return Net((Port("dense", ("x", "number"), (3, 1), settings=(("binned", []), ("n_bins", 1))),), Shape(width, layers, 1, 0.0, 1))


def test_whole_weights_that_do_not_fit_are_an_error_where_the_user_wants_them_whole() -> None:
    from modelinscale.models._deep.size import fitting, shards

    net, train = of_numbers(1024, 6), rows(96)
    recipe, told = MODEL.recipe(96), list[str]()

    def chosen(strategy: Strategy, memory: int | None, world: int = 2) -> bool:
        return shards(recipe, net, train, Effort(memory=memory, strategy=strategy, tell=told.append), world)

    assert chosen("auto", 190 << 20)
    assert len(told) == 1
    assert not chosen("auto", 400 << 20)
    assert not chosen("auto", None)
    assert not chosen("auto", 190 << 20, 1)
    assert not chosen("data_parallel", 190 << 20)
    assert chosen("fully_sharded", None)
    with pytest.raises(ModelError, match=r"a step of 24 rows needs about .*; 161.5 MiB are left for it.* or `train.workers`"):
        fitting(recipe, net, train, Effort(memory=190 << 20), 2)
    assert fitting(recipe, net, train, Effort(memory=190 << 20), 2, parts=2) == recipe


def test_a_pytorch_that_cannot_lay_weights_in_parts_is_refused_and_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelinscale.models._deep import size
    from modelinscale.models._deep.held import is_too_old

    assert [is_too_old(one) for one in ("2.6.0", "2.7.1+cpu", "2.8.0a0+git1", "2.13.0+cpu", "3.0")] == [True, True, False, False, False]
    monkeypatch.setattr(size, "is_too_old", lambda version: True)
    net, train, told = of_numbers(1024, 6), rows(96), list[str]()
    recipe, effort = MODEL.recipe(96), Effort(memory=190 << 20, tell=told.append)
    assert not size.shards(recipe, net, train, effort, 2)
    assert len(told) == 1
    assert "With PyTorch 2.8 or newer each of 2 could hold a part" in told[0]
    with pytest.raises(UsageError, match=r"needs PyTorch 2.8 or newer, and .* is installed.*pip install 'torch>=2.8'"):
        size.shards(recipe, net, train, replace(effort, strategy="fully_sharded"), 2)


def test_weights_that_stayed_together_while_it_judged_are_not_the_averages_afterwards(alone: Any) -> None:
    import torch

    from modelinscale.models._deep.feed import feed
    from modelinscale.models._deep.held import Shards

    net, train = of_numbers(16, 2), rows(8)
    held = Shards(net, torch.device("cpu"), alone, everyone=False)
    batch = feed(train, held.net, TASK, np.zeros(1), np.ones(1)).make.step(train).batch
    with torch.no_grad():
        before = held.net(batch).clone()
        for value in held.average.values():
            value.zero_()
        with held.judging() as judge:
            assert not torch.equal(judge(batch), before)
            held.net.unshard()  # type: ignore[operator]  # as PyTorch before 2.8 leaves the outermost weights
        assert torch.equal(held.net(batch), before)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Any]:
    """A group of this process."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "meeting"), 1), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "fully_sharded"}, "set `workers: 2` or more"),
        ({"strategy": "fully_sharded", "workers": 2, "compress_above": 0.4}, "`compress_above` is not there for `strategy: fully_sharded`"),
    ],
)
def test_what_does_not_go_together_is_said_when_it_is_read(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Train(**settings)


def arrays(taken: list[str]) -> Iterator[tuple[str, NDArray[Any]]]:
    for name in ("a", "b", "c"):
        taken.append(name)
        yield f"now/{name}", np.arange(3)


def test_arrays_written_one_after_the_other_are_read_as_those_written_at_once(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "network.npz", "this", print)
    checkpoint.write(arrays([]), {"step": 7}, writes=True)
    found = checkpoint.load(lambda kind, name, values: values[1:])
    assert found is not None
    assert found[1] == {"step": 7}
    assert {name: values.tolist() for name, values in found[0]["now"].items()} == {"a": [1, 2], "b": [1, 2], "c": [1, 2]}


def test_a_disk_that_refuses_a_checkpoint_is_told_of_once_and_every_array_is_gone_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*said: object) -> None:
        raise StoreError("No space left on device.")

    told: list[str] = []
    taken: list[str] = []
    checkpoint = Checkpoint(tmp_path / "network.npz", "this", told.append)
    monkeypatch.setattr(saved, "_put", full)
    for _ in range(2):
        checkpoint.write(arrays(taken), {}, writes=True)
    assert taken == ["a", "b", "c"] * 2, "other processes wait at each"
    assert len(told) == 1
    assert "training goes on without" in told[0]
    assert list(tmp_path.iterdir()) == []


def _kills_one(file: Path, kept: Path) -> threading.Thread:
    """Kills a process of the first group at a random moment after its first checkpoint; where it writes what, ``kept`` says."""

    def kill() -> None:
        until(lambda: (kept / "network.npz").exists() and len({line["pid"] for line in said(file)}) == 2, "a checkpoint of both", within_s=120)
        threading.Event().wait(random.Random(4).uniform(0.0, 0.4))
        os.kill(said(file)[-1]["pid"], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread
