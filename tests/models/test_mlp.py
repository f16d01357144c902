"""What the suite for all families does not say about the network."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modelinscale.core import memory
from modelinscale.core.encoded import Encoded
from modelinscale.core.errors import DataError, StoreError
from modelinscale.models import Effort, Examples, Weights
from modelinscale.models import _network_training as training
from modelinscale.models.mlp import Mlp
from modelinscale.testing.models import planted

MLP = Mlp(width=16, members=2, epochs=6, bins=4)


class Killed(BaseException):
    """Stands for the kill."""


def kill_at(share: float) -> Effort:
    def progress(done: float, note: str) -> None:
        if done >= share:
            raise Killed

    return Effort(progress=progress)


def same(a: Weights, b: Weights) -> bool:
    return a.meta == b.meta and all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)


@pytest.fixture
def every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_S", 0.0)


@pytest.mark.usefixtures("every_round")
def test_killed_and_resumed_it_ends_at_the_same_bits(tmp_path: Path) -> None:
    given = planted("scaled", "multiclass")
    straight = MLP.fit(given.train, given.valid, given.task, Effort())
    for share in (0.3, 0.6, 0.9):
        effort = kill_at(share)
        with pytest.raises(Killed):
            MLP.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, progress=effort.progress))
    assert (tmp_path / "mlp.npz").is_file()
    notes: list[float] = []
    resumed = MLP.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, progress=lambda share, note: notes.append(share)))
    assert notes[0] > 0.5, "it began anew"
    assert same(straight, resumed)


@pytest.mark.usefixtures("every_round")
@pytest.mark.parametrize("feature", ["size", "colour", "note"])
def test_a_table_of_one_kind_of_column_resumes_too(tmp_path: Path, feature: str) -> None:
    given = planted("scaled", "binary", n_rows=200)
    rows = Encoded({feature: given.layouts[feature]}, {feature: given.train.rows[feature]})
    train = Examples(rows, given.train.target)
    straight = MLP.fit(train, None, given.task, Effort())
    with pytest.raises(Killed):
        MLP.fit(train, None, given.task, Effort(checkpoints=tmp_path, progress=kill_at(0.6).progress))
    assert same(straight, MLP.fit(train, None, given.task, Effort(checkpoints=tmp_path)))


@pytest.mark.usefixtures("every_round")
def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path: Path) -> None:
    given = planted("scaled", "binary")
    MLP.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path))
    other = Effort(checkpoints=tmp_path, seed=8)
    assert same(MLP.fit(given.train, given.valid, given.task, other), MLP.fit(given.train, given.valid, given.task, Effort(seed=8)))


def test_a_damaged_checkpoint_is_an_error_that_says_so(tmp_path: Path) -> None:
    given = planted("scaled", "binary")
    (tmp_path / "mlp.npz").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(StoreError, match=r"mlp\.npz cannot be read"):
        MLP.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path))


def test_the_callers_chance_and_threads_stay_as_they_were() -> None:
    import torch

    given = planted("scaled", "binary", n_rows=200)
    torch.manual_seed(3)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(3)
    MLP.fit(given.train, given.valid, given.task, Effort(n_threads=1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


def test_its_optimiser_takes_the_steps_of_torchs_own_to_the_last_bit() -> None:
    import torch

    from modelinscale.models._adamw import AdamW

    torch.manual_seed(3)
    ours = [torch.nn.Parameter(torch.randn(7, 5)), torch.nn.Parameter(torch.randn(5)), torch.nn.Parameter(torch.randn(2))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    one, other = AdamW(ours, 0.01), torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.01, fused=True)
    for i in range(20):
        rows = torch.randn(11, 7)
        for parameters in (ours, theirs):
            ((rows @ parameters[0] + parameters[1]) ** 2).mean().backward()  # type: ignore[no-untyped-call]
        other.param_groups[0]["lr"] = 0.1 / (i + 1)
        one.step(0.1 / (i + 1))
        other.step()
        other.zero_grad(set_to_none=True)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert len(one.moments) == 2, "what never had a gradient is left alone"
    assert all(p.grad is None for p in ours)


WITHOUT = """
import sys
from modelinscale.models import Effort
from modelinscale.models.mlp import Mlp
from modelinscale.testing.models import planted
given = planted("scaled", "binary", n_rows=200)
Mlp(width=16, members=2, epochs=1).fit(given.train, given.valid, given.task, Effort())
assert "torch" in sys.modules and "torch._dynamo" not in sys.modules
"""


@pytest.mark.slow
def test_training_does_not_load_torchs_compiler_which_holds_as_much_memory_as_half_of_torch() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


def test_a_training_over_its_budget_stops_with_a_reason() -> None:
    given = planted("scaled", "binary")
    with memory.guarded(memory.held() // 2), pytest.raises(DataError, match=r"training mlp: the process holds .* more than `compute.memory` allows"):
        Mlp(width=64, epochs=1000, patience=1000).fit(given.train, None, given.task, Effort())


def test_the_bytes_a_row_needs_grow_with_the_network() -> None:
    given = planted("scaled", "binary", n_rows=200)
    few, many = (Mlp(width=n, members=m, epochs=1) for n, m in ((16, 1), (64, 4)))
    assert 0 < few.row_bytes(few.fit(given.train, None, given.task, Effort())) < many.row_bytes(many.fit(given.train, None, given.task, Effort()))
