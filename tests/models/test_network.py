"""What the suite for all families does not say about the network of parts and its loop."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modelinscale.core import memory
from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.errors import DataError, ModelError, StoreError
from modelinscale.models import Effort, Examples
from modelinscale.models._deep import loop as looping
from modelinscale.models._deep import precision
from modelinscale.models._deep.plan import Fall
from modelinscale.models.network import Network
from modelinscale.testing.kills import Killed, kill_at, same
from modelinscale.testing.models import TASKS, planted
from modelinscale.testing.waits import until

SMALL = Network(width=16, members=2, epochs=4, bins=4, maps=4, batch_rows=64)
BINARY = TASKS["binary"]


def pictures(n_rows: int, side: int = 6, channels: int = 1) -> Examples:
    """Bright ones and dark ones."""
    target = (np.arange(n_rows) % 2).astype(np.int64)
    pixels = (np.arange(n_rows * side * side * channels) % 97).astype(np.uint8).reshape(n_rows, side, side, channels)
    pixels = pixels + (120 * target).astype(np.uint8)[:, None, None, None]
    return Examples(Encoded({"p": Layout("image", side * side * channels, (), (side, side, channels))}, {"p": pixels}), target)


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words after every step."""
    monkeypatch.setattr(looping, "_TELL_S", 0.0)


@pytest.mark.usefixtures("every_step")
def test_killed_within_an_epoch_and_resumed_it_ends_at_the_same_bits(tmp_path: Path) -> None:
    given, model = planted("deep", "multiclass", n_rows=200), SMALL.but(batch_rows=32)
    straight = model.fit(given.train, given.valid, given.task, Effort())
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(Killed):
            model.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, checkpoint_s=0, progress=kill_at(share).progress))
    notes: list[float] = []
    resumed = model.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, progress=lambda share, note: notes.append(share)))
    assert notes[0] > 0.5, "it began anew"
    assert same(straight, resumed)


KILLED = """
import sys
from pathlib import Path
from modelinscale.models import Effort
from modelinscale.models._deep import loop
from modelinscale.models.network import Network
from modelinscale.testing.models import planted
loop._TELL_S = 0.0
given = planted("deep", "binary", n_rows=400)
model = Network(width=16, members=2, epochs=12, bins=4, maps=4, batch_rows=64)
effort = Effort(n_threads=1, checkpoint_s=0, checkpoints=Path(sys.argv[1]), progress=lambda share, note: print(share, flush=True))
model.fit(given.train, given.valid, given.task, effort)
"""


@pytest.mark.slow
def test_a_process_killed_by_the_system_is_taken_up_to_the_same_bits(tmp_path: Path) -> None:
    given = planted("deep", "binary", n_rows=400)
    model = Network(width=16, members=2, epochs=12, bins=4, maps=4, batch_rows=64)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        until(lambda: float(process.stdout.readline()) > 0.3)  # type: ignore[union-attr]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    notes: list[float] = []
    resumed = model.fit(given.train, given.valid, given.task, Effort(n_threads=1, checkpoints=tmp_path, progress=lambda share, note: notes.append(share)))
    assert notes[0] > 0.25, "it began anew"
    assert same(resumed, model.fit(given.train, given.valid, given.task, Effort(n_threads=1)))


def test_a_damaged_checkpoint_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "network.npz").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(StoreError, match=r"network\.npz cannot be read"):
        SMALL.fit(pictures(40), None, BINARY, Effort(checkpoints=tmp_path))


@pytest.mark.usefixtures("every_step")
def test_a_disk_that_is_full_at_a_checkpoint_is_told_of_once_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise StoreError(f"Cannot write {path}: No space left on device.", fix="Free some space.")

    monkeypatch.setattr("modelinscale.models._deep.saved.replaced", full)
    told: list[str] = []
    found = SMALL.fit(pictures(100), None, BINARY, Effort(checkpoints=tmp_path, checkpoint_s=0, tell=told.append))
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert same(found, SMALL.fit(pictures(100), None, BINARY, Effort()))


def test_a_loss_that_is_no_number_is_named_with_its_step_and_rows() -> None:
    given = planted("deep", "regression", n_rows=300)
    blocks = dict(given.train.rows.blocks)
    size = np.array(blocks["size"])
    size[17, 0] = 3e38
    broken = Examples(Encoded(given.layouts, {**blocks, "size": size}), given.train.target)
    with pytest.raises(ModelError, match=r"the loss of network is (nan|inf) at step \d+ \(epoch 1, its step \d of 3\).*No number by themselves: 17\."):
        SMALL.fit(broken, None, given.task, Effort())


def test_a_gradient_that_explodes_is_an_error_with_advice() -> None:
    given = planted("deep", "regression", n_rows=300)
    with pytest.raises(ModelError, match=r"of network (is|has the length) .* at step \d+") as caught:
        SMALL.but(learning_rate=1e30).fit(given.train, None, given.task, Effort())
    assert "learning_rate" in (caught.value.fix or "")


def test_a_budget_shorter_than_an_epoch_gives_a_model_and_says_so() -> None:
    train, told = pictures(400), list[str]()
    weights = SMALL.but(batch_rows=8).fit(train, train, BINARY, Effort(budget_s=0.0, tell=told.append))
    assert np.isfinite(SMALL.predict(weights, train.rows)).all()
    assert "within its first epoch, after 1 of 50 steps" in told[0]


@pytest.mark.parametrize("n_rows", [1, 2, 65])
@pytest.mark.parametrize("side", [1, 2, 5])
def test_few_rows_and_tiny_images_are_learned_from(n_rows: int, side: int) -> None:
    train = pictures(n_rows, side)
    weights = SMALL.but(epochs=2).fit(train, None, BINARY, Effort())
    assert np.isfinite(SMALL.predict(weights, train.rows)).all()


def test_images_with_another_number_of_channels_are_refused() -> None:
    weights = SMALL.but(epochs=1).fit(pictures(40), None, BINARY, Effort())
    with pytest.raises(ModelError, match=r"'p' is image of width 108, learned as image of width 36"):
        SMALL.predict(weights, pictures(4, channels=3).rows)


def test_the_pieces_of_a_step_together_are_the_step() -> None:
    given = planted("deep", "regression", n_rows=300)
    rows = Encoded({k: v for k, v in given.layouts.items() if k != "picture"}, {k: v for k, v in given.train.rows.items() if k != "picture"})
    train = Examples(rows, given.train.target, np.linspace(0.5, 2.0, len(given.train)))
    model = SMALL.but(dropout=0.0, epochs=1)
    # Ids are hidden by chance in training, drawn a piece at a time: without that column the steps are the same.
    train = Examples(
        Encoded({k: v for k, v in rows.layouts.items() if k != "colour"}, {k: v for k, v in rows.items() if k != "colour"}), train.target, train.weight
    )
    whole, pieces = (model.but(accumulate=n).fit(train, None, given.task, Effort()) for n in (1, 3))
    for name, array in whole.arrays.items():
        np.testing.assert_allclose(pieces.arrays[name], array, rtol=1e-3, atol=1e-5, err_msg=name)


def test_the_curve_of_every_epoch_is_kept_and_a_clock_is_not_in_it() -> None:
    given, notes = planted("deep", "binary", n_rows=300), list[str]()
    weights = SMALL.fit(given.train, given.valid, given.task, Effort(progress=lambda share, note: notes.append(note)))
    assert [point["epoch"] for point in weights.meta["curve"]] == [1.0, 2.0, 3.0, 4.0]
    assert all(point.keys() == {"epoch", "train", "valid", "rate"} for point in weights.meta["curve"])
    assert weights.meta["curve"][-1]["train"] < weights.meta["curve"][0]["train"]
    assert "rows/s" in notes[-1]


def test_bf16_that_learns_otherwise_falls_back_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    train, told, model = pictures(80), list[str](), SMALL.but(batch_rows=16)
    plain = model.but(precision="fp32").fit(train, None, BINARY, Effort())
    monkeypatch.setattr(precision, "_APART", -1.0)  # no two losses are so near
    fallen = model.but(precision="bf16").fit(train, None, BINARY, Effort(tell=told.append))
    assert "with 32 bits, not with bf16: after 16 steps its loss was" in told[0] or "after 20 steps its loss was" in told[0]
    assert same(plain, fallen)


@pytest.mark.slow
def test_bf16_is_used_where_it_is_asked_for_and_learns_the_same() -> None:
    train, told = pictures(300), list[str]()
    half = SMALL.but(precision="bf16").fit(train, None, BINARY, Effort(tell=told.append))
    full = SMALL.but(precision="fp32").fit(train, None, BINARY, Effort())
    assert not told
    assert not same(half, full), "it multiplied with 32 bits"
    assert abs(half.meta["curve"][-1]["train"] - full.meta["curve"][-1]["train"]) < 0.05


def test_auto_is_fp32_on_a_table_whatever_the_machine_can(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    cpu = torch.device("cpu")
    assert not precision.is_candidate("auto", {"dense", "ids"}, 10_000, cpu)
    assert precision.is_candidate("auto", {"dense", "image"}, 10_000, cpu)
    assert not precision.is_candidate("auto", {"image"}, 100, cpu), "the check would take a good part of it"
    assert not precision.is_worth_compiling(cpu, 1e6)
    assert precision.is_worth_compiling(torch.device("cuda"), 1e6)


def test_the_step_size_rises_and_falls_to_nearly_nothing() -> None:
    recipe = looping.Recipe(epochs=1, batch_rows=1, learning_rate=1.0, weight_decay=0.0, warm_share=0.25, patience=1)
    falls: list[Fall] = ["linear", "cosine"]
    for fall in falls:
        rates = [replace(recipe, fall=fall).rate(step, 40) for step in range(40)]
        assert np.argmax(rates) in (9, 10)
        assert max(rates) == 1.0
        assert rates[-1] < 0.04
    assert replace(recipe, fall="none").rate(39, 40) == 1.0


@pytest.mark.slow
def test_rows_on_disk_and_in_memory_give_the_same_bits(tmp_path: Path) -> None:
    from modelinscale.encode.stored import Stored, write

    given = planted("deep", "multiclass", n_rows=400)

    def kept(name: str, examples: Examples) -> Stored:
        write(tmp_path / name, examples.layouts, [examples], numbers=False, weights=False)
        return Stored(tmp_path / name)

    in_memory = SMALL.fit(given.train, given.valid, given.task, Effort())
    from_disk = SMALL.fit(kept("train", given.train), kept("valid", given.valid), given.task, Effort())
    assert same(in_memory, from_disk)


def test_a_training_over_its_memory_stops_with_a_reason() -> None:
    with memory.guarded(memory.held() // 2), pytest.raises(DataError, match=r"training network: the process holds .* more than `compute.memory` allows"):
        SMALL.but(epochs=1000).fit(pictures(400), None, BINARY, Effort())


def test_moments_lie_in_memory_as_their_weights_do() -> None:
    import torch

    p = torch.nn.Parameter(torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last))
    found = looping._like(p, p.detach().numpy())
    assert found.stride() == p.stride()
    assert torch.equal(found, p)
