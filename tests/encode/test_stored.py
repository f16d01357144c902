"""Encoded rows on disk deal the batches that rows in memory deal, shuffled once, whole or not at all."""

import errno
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelinscale.core.encoded import Encoded, Layout, Sparse
from modelinscale.core.errors import StoreError
from modelinscale.data import rowfile
from modelinscale.data.rowfile import RowFile
from modelinscale.encode import stored
from modelinscale.encode.stored import Stored, write
from modelinscale.models import Effort, Examples
from modelinscale.models.mlp import Mlp
from modelinscale.testing.models import planted

Kept = Callable[..., Stored]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Writes examples and opens them."""

    def keep(examples: Examples, name: str = "rows", *, n_rows: int = 1000, memory: int | None = None) -> Stored:
        numbers = examples.target.dtype.kind == "f"
        write(tmp_path / name, examples.layouts, examples.blocks(n_rows), numbers=numbers, weights=examples.weight is not None)
        return Stored(tmp_path / name, memory=memory)

    return keep


def ordered(n: int, *, weighed: bool = False) -> Examples:
    """Rows whose number, id, words and answer grow from the first to the last, as in a table ordered by time."""
    places = np.arange(n)
    starts = np.concatenate([[0], np.cumsum(places % 3)]).astype(np.int64)
    words = Sparse(starts, (np.arange(starts[-1]) % 7).astype(np.int32), np.linspace(0, 1, starts[-1], dtype=np.float32), 7)
    layouts = {"x": Layout("dense", 2, ("a", "b")), "id": Layout("ids", n + 1, ()), "words": Layout("sparse", 7, tuple("abcdefg"))}
    blocks: dict[str, Any] = {"x": np.stack([places / n, places % 5], axis=1).astype(np.float32), "id": places.astype(np.int32), "words": words}
    return Examples(Encoded(layouts, blocks), places * 2 // n, np.linspace(1, 2, n) if weighed else None)


def parts(one: Examples) -> Iterator[np.ndarray[Any, Any]]:
    yield from (one.target, one.weight if one.weight is not None else np.zeros(0))
    for block in one.rows.values():
        yield from (block.starts, block.columns, block.values) if isinstance(block, Sparse) else (block,)


@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_several_processes_are_each_batch_and_the_same_from_disk_as_from_memory(kept: Kept, world: int) -> None:
    held = ordered(3_001)
    on_disk = pickle.loads(pickle.dumps(kept(held)))  # noqa: S301  # as another process opens it
    for epoch, start in [(0, 0), (1, 640)]:
        whole = list(held.batches(7, epoch, 64, start))
        shares = [list(held.batches(7, epoch, 64, start, rank=r, world=world)) for r in range(world)]
        for r in range(world):
            for mine, theirs in zip(shares[r], on_disk.batches(7, epoch, 64, start, rank=r, world=world), strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(parts(mine), parts(theirs), strict=True))
        for batch, together in zip(whole, zip(*shares, strict=True), strict=True):
            assert sorted(np.concatenate([one.rows["id"] for one in together])) == sorted(batch.rows["id"])  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "weighed"), [(5, False), (3_001, True), (20_000, False)])
def test_batches_from_disk_are_those_from_memory_wherever_an_epoch_is_entered(kept: Kept, n: int, weighed: bool) -> None:
    held = ordered(n, weighed=weighed)
    on_disk = kept(held)
    factors = np.array([1.0, 3.0]) if weighed else None
    held, on_disk = held.weighed(factors), on_disk.weighed(factors)
    for epoch, start in [(0, 0), (1, 0), (1, n // 128 * 64)]:
        pairs = list(zip(held.batches(7, epoch, 64, start), on_disk.batches(7, epoch, 64, start), strict=True))
        assert sum(len(a) for a, _ in pairs) == n - start
        for a, b in pairs:
            for ours, theirs in zip(parts(a), parts(b), strict=True):
                assert ours.dtype == theirs.dtype
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("width", [2, 256, 257, 65_536, 65_537, 1 << 20])
def test_ids_take_no_more_bytes_than_they_need(kept: Kept, width: int) -> None:
    ids = np.array([0, 1, width - 1, width // 2], np.int32)
    on_disk = kept(Examples(Encoded({"id": Layout("ids", width, ())}, {"id": ids}), np.zeros(4, np.int64)))
    (block,) = on_disk.blocks()
    found: Any = block.rows["id"]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, ids)
    assert on_disk.row_bytes == 4 + (1 if width <= 256 else 2 if width <= 65_536 else 4)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_network_learns_the_same_bits_from_disk_as_from_memory(kept: Kept, task: str) -> None:
    given, model = planted("scaled", task), Mlp(width=16, members=2, epochs=3, bins=4)  # type: ignore[arg-type]
    in_memory = model.fit(given.train, given.valid, given.task, Effort())
    from_disk = model.fit(kept(given.train), kept(given.valid, "valid"), given.task, Effort())
    assert in_memory.meta == from_disk.meta
    for name, array in in_memory.arrays.items():
        np.testing.assert_array_equal(array, from_disk.arrays[name], err_msg=name)


def test_batches_of_an_ordered_table_are_spread_over_it_as_random_ones(kept: Kept) -> None:
    n, batch = 100_000, 500
    means = np.array([b.rows["id"].mean() for b in kept(ordered(n)).batches(3, 0, batch)])  # type: ignore[union-attr]
    spread = float(means.std()) / (n / 12**0.5 / batch**0.5)
    assert 0.8 < spread < 1.2, f"means of batches spread {spread:.2f} times as far as random ones"


def test_rows_are_shuffled_once_and_only_for_who_asks_for_batches(kept: Kept, tmp_path: Path) -> None:
    on_disk = kept(ordered(2_000))
    list(on_disk.blocks())
    assert [p.name for p in tmp_path.iterdir()] == ["rows"]
    first = [b.target for b in on_disk.batches(7, 0, 100)]
    (made,) = tmp_path.glob("rows-shuffled-*")
    when = (made / "rows.bin").stat().st_mtime_ns
    again = [b.target for b in Stored(tmp_path / "rows").weighed(np.array([1.0, 2.0])).batches(7, 0, 100)]
    assert (made / "rows.bin").stat().st_mtime_ns == when
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    list(on_disk.batches(8, 0, 100))
    assert len(list(tmp_path.glob("rows-shuffled-*"))) == 1, "the one of another seed stays"


def test_a_shuffle_that_is_killed_leaves_nothing_to_go_wrong(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [b.target for b in ordered(2_000).batches(7, 0, 100)]
    on_disk = kept(ordered(2_000))
    monkeypatch.setattr(stored, "_SHUFFLE_BYTES", 1 << 14)

    class KilledError(BaseException):
        """Stands for the kill."""

    with monkeypatch.context() as patch:
        read = RowFile.read

        def killed(self: RowFile, start: int, n: int) -> Any:
            if start > 800:
                raise KilledError
            return read(self, start, n)

        patch.setattr(RowFile, "read", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill tidies nothing up
        with pytest.raises(KilledError):
            list(on_disk.batches(7, 0, 100))
    assert [p for p in tmp_path.iterdir() if p.name.endswith(".part")]
    assert not list(tmp_path.glob("rows-shuffled-*"))
    again = [b.target for b in Stored(tmp_path / "rows").batches(7, 0, 100)]
    np.testing.assert_array_equal(np.concatenate(expected), np.concatenate(again))
    assert sorted(p.name[:13] for p in tmp_path.iterdir()) == ["rows", "rows-shuffled"]


def test_a_disk_that_fills_up_during_a_shuffle_is_told_and_nothing_stays(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk = kept(ordered(2_000))
    monkeypatch.setattr(stored, "_SHUFFLE_BYTES", 1 << 14)
    write, n_left = rowfile._write, 20

    def refused(file: Any, values: Any) -> None:
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, values)

    monkeypatch.setattr(rowfile, "_write", refused)
    with pytest.raises(StoreError, match=r"Cannot write .*: No space left on device.*`store` on another disk"):
        list(on_disk.batches(7, 0, 100))
    assert [p.name for p in tmp_path.iterdir()] == ["rows"]


def test_a_disk_without_room_is_told_before_anything_is_written(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk = kept(ordered(2_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(StoreError, match=r"shuffling 2,000 encoded rows takes about .* KiB on the disk of .*, and 1000 B are free.*`store` on another disk"):
        next(on_disk.batches(7, 0, 100))
    assert [p.name for p in tmp_path.iterdir()] == ["rows"]


def test_a_removed_file_of_rows_gives_its_disk_back_when_it_is_forgotten(kept: Kept) -> None:
    on_disk = kept(ordered(100))
    number = on_disk._file._file
    assert Path(f"/proc/self/fd/{number}").exists()
    where = Path(f"/proc/self/fd/{number}").readlink()
    del on_disk
    assert not Path(f"/proc/self/fd/{number}").exists() or Path(f"/proc/self/fd/{number}").readlink() != where
