"""What goes wrong while a network learns: each is an error that says where, or a fallback that is told, and what was there stays whole."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from modelinscale.core.encoded import Encoded, Layout, Sparse, Values
from modelinscale.core.errors import MisError, ModelError, StoreError
from modelinscale.models import Effort, Examples, Model
from modelinscale.models._deep import loop
from modelinscale.models._deep.feed import Step
from modelinscale.models._deep.parts import Tensor
from modelinscale.models._deep.saved import fingerprint_of
from modelinscale.models.mlp import Mlp
from modelinscale.models.network import Network
from modelinscale.testing.disks import no_file_larger_than
from modelinscale.testing.kills import same
from modelinscale.testing.models import TASKS, planted

BINARY = TASKS["binary"]
FAMILIES: dict[str, Model] = {
    "mlp": Mlp(width=16, members=2, bins=4, epochs=4, batch_rows=64),
    "network": Network(width=16, members=2, bins=4, maps=4, units=8, text="bag", sequence="tcn", epochs=4, batch_rows=64),
}
both = pytest.mark.parametrize("model", [FAMILIES["mlp"], pytest.param(FAMILIES["network"], marks=pytest.mark.slow)], ids=list(FAMILIES))
"""One loop for both: the network of parts, which is slower, there once more in full."""


def images(n_rows: int, side: int) -> Examples:
    target = (np.arange(n_rows) % 2).astype(np.int64)
    pixels = np.broadcast_to((100 * target + 50).astype(np.uint8)[:, None, None, None], (n_rows, side, side, 3)).copy()
    return Examples(Encoded({"p": Layout("image", side * side * 3, (), (side, side, 3))}, {"p": pixels}), target)


def series(n_rows: int, longest: int) -> Examples:
    target = (np.arange(n_rows) % 2).astype(np.int64)
    steps = np.random.default_rng(0).normal(size=(n_rows, longest, 2)).astype(np.float32)
    steps[:, :, 0] += target[:, None]
    return Examples(Encoded({"s": Layout("steps", longest * 2, (), (longest, 2))}, {"s": steps}), target)


# -- checkpoints


def test_a_checkpoint_that_takes_longer_than_the_time_between_two_is_not_followed_by_the_next_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, saves, moves = [0.0], list[float](), loop.Loop._step

    def step(self: loop.Loop, step: Step) -> Tensor:
        clock[0] += 1.0
        return moves(self, step)

    def save(self: loop.Loop) -> None:
        saves.append(clock[0])
        clock[0] += 3.0

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(loop.Loop, "_step", step)
    monkeypatch.setattr(loop.Loop, "_save", save)
    given = planted("scaled", "binary", n_rows=300)
    Mlp(width=8, members=1, bins=0, epochs=30, batch_rows=64).fit(given.train, None, given.task, Effort(checkpoints=tmp_path, checkpoint_s=2.0))
    assert saves[:3] == [2.0, 35.0, 68.0], "ten times the three seconds that each takes, from its end on"


@both
def test_a_disk_that_refuses_a_checkpoint_is_told_of_once_and_training_goes_on(model: Model, tmp_path: Path) -> None:
    given, told = planted(model.form, "binary", n_rows=300), list[str]()
    with no_file_larger_than(4096):
        found = model.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, checkpoint_s=0, tell=told.append))
    assert [re.sub(r"(?s)\. .*", "", one) for one in told] == [
        "A checkpoint could not be written, and training goes on without: killed now, it would begin at the one before"
    ]
    assert re.search(r"(File too large|No space)", told[0])
    assert not list(tmp_path.iterdir()), "half a checkpoint is left"
    assert same(found, model.fit(given.train, given.valid, given.task, Effort()))


@both
def test_the_checkpoint_before_stays_whole_when_the_next_does_not_fit(model: Model, tmp_path: Path) -> None:
    given = planted(model.form, "binary", n_rows=300)
    straight = model.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, checkpoint_s=0))
    before = (tmp_path / f"{model.type}.npz").read_bytes()
    with no_file_larger_than(4096):
        again = model.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, checkpoint_s=0))
    assert (tmp_path / f"{model.type}.npz").read_bytes() == before
    assert same(again, straight)


@both
@pytest.mark.parametrize("damage", ["cut", "turned", "no archive", "empty", "no facts"])
def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(model: Model, damage: str, tmp_path: Path) -> None:
    given = planted(model.form, "binary", n_rows=200)
    effort, file = Effort(checkpoints=tmp_path, checkpoint_s=0), tmp_path / f"{model.type}.npz"
    model.but(epochs=1).fit(given.train, None, given.task, effort)
    whole = file.read_bytes()
    middle = len(whole) // 2
    turned = whole[:middle] + bytes(255 - one for one in whole[middle : middle + 64]) + whole[middle + 64 :]
    file.write_bytes({"cut": whole[:middle], "turned": turned, "no archive": b"\x00" * 100, "empty": b"", "no facts": whole}[damage])
    if damage == "no facts":
        np.savez(file, other=np.zeros(1))
    with pytest.raises(StoreError, match=rf"{model.type}\.npz cannot be read") as caught:
        model.but(epochs=1).fit(given.train, None, given.task, effort)
    assert caught.value.fix == "Remove it; training then begins anew."


@both
@pytest.mark.parametrize("change", ["words", "settings", "seed"])
def test_a_checkpoint_of_something_else_is_not_taken_up(model: Model, change: str, tmp_path: Path) -> None:
    given = planted(model.form, "binary", n_rows=200)
    model.fit(given.train, None, given.task, Effort(checkpoints=tmp_path, checkpoint_s=0))
    train, seed, changed = given.train, 7, model
    if change == "settings":
        changed = model.but(dropout=0.2)
    elif change == "seed":
        seed = 8
    else:
        train = other(train, change)
    anew = changed.fit(train, None, given.task, Effort(seed=seed))
    assert same(changed.fit(train, None, given.task, Effort(seed=seed, checkpoints=tmp_path, checkpoint_s=0)), anew)


def other(train: Examples, change: str) -> Examples:
    blocks: dict[str, Values] = dict(train.rows.blocks)
    target, weight = train.target.copy(), None
    note = train.rows["note"]
    assert isinstance(note, Sparse)
    if change == "words":  # the same counts, of words beside those
        blocks["note"] = Sparse(note.starts, (note.width - 1 - note.columns).astype(np.int32), note.values, note.width)
    elif change == "numbers":
        blocks["size"] = np.array(blocks["size"]) + np.float32(1)
    elif change == "answers":
        target[0] = 1 - target[0]
    elif change == "weights":
        weight = np.linspace(0.5, 2.0, len(train))
    else:
        return train.take(np.arange(len(train) - 1))
    return Examples(Encoded(train.layouts, blocks), target, weight)


def test_the_fingerprint_of_rows_tells_every_cell_apart_and_is_the_same_on_disk(tmp_path: Path) -> None:
    from modelinscale.encode.stored import Stored, write

    train = planted("deep", "binary", n_rows=200).train
    changed = [other(train, change) for change in ("words", "numbers", "answers", "weights", "rows")]
    renamed = Encoded({f"a {n}": layout for n, layout in train.layouts.items()}, {f"a {n}": block for n, block in train.rows.items()})
    found = [fingerprint_of(one) for one in (train, *changed, replace(train, rows=renamed))]
    assert len(set(found)) == len(found)
    write(tmp_path / "rows", train.layouts, [train], numbers=False, weights=False)
    assert fingerprint_of(Stored(tmp_path / "rows")) == found[0]


# -- numbers


@both
def test_a_loss_that_is_no_number_names_its_step_and_the_rows_that_made_it(model: Model) -> None:
    given = planted(model.form, "regression", n_rows=300)
    size = np.array(given.train.rows["size"])
    size[[17, 55], 0] = 3e38
    broken = Examples(Encoded(given.layouts, {**given.train.rows.blocks, "size": size}), given.train.target)
    with pytest.raises(ModelError, match=rf"the loss of {model.type} is (nan|inf) at step \d+ \(epoch 1, its step \d of 3\).*Rows of that step") as caught:
        model.fit(broken, None, given.task, Effort())
    named = re.findall(r"No number by themselves: ([\d, ]+)\.", caught.value.message)
    assert set(named[0].split(", ")) <= {"17", "55"}


@both
def test_weights_that_explode_are_an_error_with_advice_and_leave_no_weights(model: Model, tmp_path: Path) -> None:
    given = planted(model.form, "regression", n_rows=300)
    with pytest.raises(ModelError, match=rf"of {model.type} (is|has the length) .* at step \d+") as caught:
        model.but(learning_rate=1e30).fit(given.train, None, given.task, Effort(checkpoints=tmp_path))
    assert "Lower `learning_rate`" in (caught.value.fix or "")


def test_a_broken_cell_in_the_middle_of_an_epoch_is_named_from_disk_too(tmp_path: Path) -> None:
    from modelinscale.encode.stored import Stored, write

    given = planted("scaled", "binary", n_rows=400)
    size = np.array(given.train.rows["size"])
    size[123, 1] = np.nan
    broken = Examples(Encoded(given.layouts, {**given.train.rows.blocks, "size": size}), given.train.target)
    write(tmp_path / "rows", broken.layouts, [broken], numbers=False, weights=False)
    with pytest.raises(ModelError, match=r"the loss of mlp is nan .*No number by themselves: 123\."):
        FAMILIES["mlp"].fit(Stored(tmp_path / "rows"), None, given.task, Effort())


# -- time, memory, machine


@both
def test_a_budget_shorter_than_an_epoch_gives_weights_that_answer_and_says_so(model: Model) -> None:
    given, told = planted(model.form, "binary", n_rows=400), list[str]()
    weights = model.but(batch_rows=8).fit(given.train, given.valid, given.task, Effort(budget_s=0.0, tell=told.append))
    assert np.isfinite(model.predict(weights, given.test.rows)).all()
    assert re.search(rf"The time for {model.type} ended within its first epoch, after 1 of 30 steps.*Raise `train.budget`", told[0])


@pytest.mark.parametrize("what", [pytest.param("images", marks=pytest.mark.slow), pytest.param("sequences", marks=pytest.mark.slow), "table"])
def test_a_step_too_large_for_the_memory_goes_through_in_pieces_and_says_so(what: str) -> None:
    model = Network(width=16, maps=8, units=8, sequence="transformer", epochs=1, batch_rows=64, dropout=0.0, shift=0.0)
    train = {"images": images(64, 64), "sequences": series(64, 200), "table": wide(64)}[what]
    if what == "table":
        model = model.but(width=1024, members=32, waves=0)
    told: list[str] = []
    model.fit(train, None, BINARY, Effort(memory=1 << 34, tell=told.append))
    assert told == []
    weights = model.fit(train, None, BINARY, Effort(memory=MEMORY[what] << 20, tell=told.append))
    assert re.search(r"a step of 64 rows needs about .* a row: within `compute.memory` each goes through the network in \d+ pieces", told[0])
    assert np.isfinite(model.predict(weights, train.rows)).all()


MEMORY = {"images": 80, "sequences": 50, "table": 110}


def wide(n_rows: int) -> Examples:
    values = np.random.default_rng(0).normal(size=(n_rows, 40)).astype(np.float32)
    return Examples(Encoded({"x": Layout("dense", 40, tuple(f"x{i}" for i in range(40)))}, {"x": values}), (values[:, 0] > 0).astype(np.int64))


@pytest.mark.parametrize("train", [images(8, 96), series(8, 300)], ids=["images", "sequences"])
def test_a_row_too_large_for_the_memory_is_an_error_before_the_first_step(train: Examples) -> None:
    model = Network(width=16, maps=8, units=8, sequence="transformer", epochs=1)
    notes: list[float] = []
    with pytest.raises(ModelError, match=r"a step of \d+ rows needs about .* are left for it\.") as caught:
        model.fit(train, None, BINARY, Effort(memory=8 << 20, progress=lambda share, note: notes.append(share)))
    assert "`batch_rows`" in (caught.value.fix or "")
    assert not notes


def test_large_rows_are_scored_few_at_a_time_and_small_ones_as_many_as_ever() -> None:
    from modelinscale.models._deep.net import Net, Port
    from modelinscale.models._deep.plan import Shape

    def scored(*ports: Port) -> int:
        return Net(ports, Shape(4, 0, 1, 0.0, 1)).scored_rows

    def image(side: int) -> Port:
        return Port("image", ("p",), (side * side * 3,), (side, side, 3), (("encoder", "resnet"), ("maps", 4)))

    assert [scored(image(side)) for side in (28, 64, 224)] == [512, 128, 8]
    assert scored(Port("dense", ("x",), (3,), settings=(("binned", ()), ("n_bins", 0)))) == 512
    assert scored(Port("steps", ("s",), (20_000,), (10_000, 2), (("encoder", "tcn"), ("units", 8), ("noise", 0.0)))) == 2


def test_no_gpu_is_no_fault_and_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    given = planted("scaled", "binary", n_rows=200)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert same(*(FAMILIES["mlp"].fit(given.train, None, given.task, Effort()) for _ in range(2)))


def test_more_threads_than_cores_learn_as_well() -> None:
    given = planted("scaled", "binary", n_rows=200)
    weights = FAMILIES["mlp"].fit(given.train, None, given.task, Effort(n_threads=4 * (os.cpu_count() or 1)))
    assert np.isfinite(FAMILIES["mlp"].predict(weights, given.test.rows)).all()


@pytest.mark.slow
def test_more_processes_than_cores_learn_as_well() -> None:
    given = planted("scaled", "binary", n_rows=300)
    weights = FAMILIES["mlp"].but(epochs=2).fit(given.train, given.valid, given.task, Effort(workers=(os.cpu_count() or 1) + 1))
    assert np.isfinite(FAMILIES["mlp"].predict(weights, given.test.rows)).all()


def test_bf16_where_the_machine_has_none_is_tried_and_answers() -> None:
    given, told = planted("deep", "binary", n_rows=200), list[str]()
    model = FAMILIES["network"].but(precision="bf16", epochs=2)
    weights = model.fit(given.train, None, given.task, Effort(tell=told.append))
    assert np.isfinite(model.predict(weights, given.test.rows)).all()
    assert all("learns with 32 bits" in one for one in told)


@both
def test_an_update_whose_rows_are_broken_leaves_the_weights_as_they_were(model: Model) -> None:
    given = planted(model.form, "regression", n_rows=200)
    weights = model.fit(given.train, None, given.task, Effort())
    kept = json.dumps(weights.meta), {name: array.copy() for name, array in weights.arrays.items()}
    size = np.full_like(np.asarray(given.valid.rows["size"]), np.nan)
    broken = Examples(Encoded(given.layouts, {**given.valid.rows.blocks, "size": size}), given.valid.target)
    with pytest.raises(MisError, match=rf"the loss of {model.type} is nan"):
        model.update(weights, broken, None, given.task, Effort())
    assert json.dumps(weights.meta) == kept[0]
    assert all(np.array_equal(weights.arrays[name], array) for name, array in kept[1].items())
