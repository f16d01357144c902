"""What the suite for all families does not say about the network."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from modelinscale.core import memory
from modelinscale.core.encoded import Encoded, Layout, Sparse
from modelinscale.core.errors import DataError, StoreError
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Weights
from modelinscale.models._deep import loop as looping
from modelinscale.models.mlp import Mlp
from modelinscale.testing.kills import Killed, kill_at, same
from modelinscale.testing.models import planted

MLP = Mlp(width=16, members=2, epochs=6, bins=4)


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words after every step."""
    monkeypatch.setattr(looping, "_TELL_S", 0.0)


@pytest.mark.usefixtures("every_step")
def test_killed_and_resumed_it_ends_at_the_same_bits(tmp_path: Path) -> None:
    given = planted("scaled", "multiclass", n_rows=400)
    straight = MLP.fit(given.train, given.valid, given.task, Effort())
    for share in (0.3, 0.6, 0.9):
        effort = kill_at(share)
        with pytest.raises(Killed):
            MLP.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, checkpoint_s=0, progress=effort.progress))
    assert (tmp_path / "mlp.npz").is_file()
    notes: list[float] = []
    resumed = MLP.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, progress=lambda share, note: notes.append(share)))
    assert notes[0] > 0.5, "it began anew"
    assert same(straight, resumed)


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("feature", ["size", "colour", "note"])
def test_a_table_of_one_kind_of_column_resumes_too(tmp_path: Path, feature: str) -> None:
    given = planted("scaled", "binary", n_rows=200)
    rows = Encoded({feature: given.layouts[feature]}, {feature: given.train.rows[feature]})
    train = Examples(rows, given.train.target)
    straight = MLP.fit(train, None, given.task, Effort())
    with pytest.raises(Killed):
        MLP.fit(train, None, given.task, Effort(checkpoints=tmp_path, checkpoint_s=0, progress=kill_at(0.6).progress))
    assert same(straight, MLP.fit(train, None, given.task, Effort(checkpoints=tmp_path)))


@pytest.mark.usefixtures("every_step")
def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path: Path) -> None:
    given = planted("scaled", "binary", n_rows=300)
    MLP.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, checkpoint_s=0))
    assert (tmp_path / "mlp.npz").is_file()
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


def test_weights_of_the_network_it_had_before_give_the_same_answers() -> None:
    folder = Path(__file__).parent.parent / "golden" / "mlp-1"
    weights, stored = Weights.load(folder), np.load(folder / "rows.npz")
    layouts = {
        "size": Layout("dense", 2, ("size", "size missing")),
        "colour": Layout("ids", 5, ("(missing)", "(other)", "a", "b", "c")),
        "note": Layout("sparse", 4, ("w0", "w1", "w2", "w3")),
        "age": Layout("dense", 1, ("age",)),
        "town": Layout("ids", 4, ("(missing)", "(other)", "x", "y")),
        "title": Layout("sparse", 3, ("t0", "t1", "t2")),
    }
    rows = Encoded(layouts, {name: counted(stored[name]) if layout.role == "sparse" else stored[name] for name, layout in layouts.items()})
    model, task = Mlp(width=8, members=2), Task(type="regression", target="y")
    np.testing.assert_allclose(model.predict(weights, rows), stored["scores"], rtol=1e-6)
    assert model.row_bytes(weights) > 0
    new = Examples(rows, stored["scores"] + 30.0)
    updated = model.but(learning_rate=0.05).update(weights, new, None, task, Effort())
    assert abs(model.predict(updated, rows) - new.target).mean() < 30.0
    assert "ports" in updated.meta


def counted(full: NDArray[np.float32]) -> Sparse:
    row, column = np.nonzero(full)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(full)))]).astype(np.int64)
    return Sparse(starts, column.astype(np.int32), full[row, column], full.shape[1])


def test_columns_of_ids_share_a_table_and_blocks_of_words_another() -> None:
    given = planted("scaled", "binary", n_rows=200)
    twice = {**given.layouts, "colour 2": given.layouts["colour"], "note 2": given.layouts["note"]}
    rows = Encoded(twice, {**given.train.rows, "colour 2": given.train.rows["colour"], "note 2": given.train.rows["note"]})
    weights = MLP.fit(Examples(rows, given.train.target), None, given.task, Effort())
    assert [(port["kind"], port["features"]) for port in weights.meta["ports"]] == [
        ("dense", ["size", "noise", "still"]),
        ("ids", ["colour", "colour 2"]),
        ("sparse", ["note", "note 2"]),
    ]
    assert weights.arrays["parts.ids1.table"].shape == (12, 12)
    assert np.isfinite(MLP.predict(weights, rows)).all()
