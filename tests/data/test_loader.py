"""The loader: every row once an epoch, in an order that depends on nothing but rows, seed and epoch."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from modelinscale.core.errors import StoreError, UsageError
from modelinscale.core.order import keys, rows_of, shuffled
from modelinscale.data import loader as loading
from modelinscale.data import shuffle as shuffling
from modelinscale.data.loader import LANES, Loader
from modelinscale.data.rowfile import ITEM, Held, Ragged, RowFile, Rows, RowWriter, joined
from modelinscale.data.shuffle import Shuffled, disk_bytes, run_rows, shuffle
from modelinscale.testing.examples import examples

RECORD = np.dtype([("row", "<i8"), ("words", "<f4", (3,)), ("target", "<f8")])


def rows(n: int, first: int = 0, *, ragged: bool = False) -> Rows:
    """Rows that know their number; ragged ones have ``row % 4`` items."""
    fixed = np.zeros(n, RECORD)
    fixed["row"] = np.arange(first, first + n)
    fixed["words"] = fixed["row"][:, None] + np.array([0.0, 0.25, 0.5], np.float32)
    fixed["target"] = -fixed["row"]
    if not ragged:
        return Rows(fixed)
    starts = np.concatenate([[0], np.cumsum(fixed["row"] % 4)]).astype(np.int64)
    items = np.zeros(starts[-1], ITEM)
    items["column"] = np.repeat(fixed["row"], fixed["row"] % 4)
    items["value"] = np.arange(starts[-1]) - np.repeat(starts[:-1], fixed["row"] % 4)
    return Rows(fixed, {"text": Ragged(starts, items)})


def whole(found: Rows) -> bool:
    """Whether each row's fields still belong together."""
    number = found.fixed["row"]
    fits = bool((found.fixed["words"][:, 1] == number + np.float32(0.25)).all() and (found.fixed["target"] == -number).all())
    for one in found.ragged.values():
        sizes = np.diff(one.starts)
        fits &= bool((sizes == number % 4).all() and (one.items["column"] == np.repeat(number, sizes)).all())
    return fits


def numbers(batches: list[loading.Batch]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, np.int64), *(b.rows.fixed["row"] for b in batches)])


def file_of(folder: Path, n: int, *, ragged: bool = False, parts: int = 3) -> RowFile:
    folder.mkdir(parents=True)
    with RowWriter(folder, RECORD, ("text",) if ragged else ()) as writer:
        for part in np.array_split(np.arange(n), parts):
            writer.append(rows(len(part), int(part[0]) if len(part) else 0, ragged=ragged))
    return RowFile(folder)


def shuffled_file(folder: Path, n: int, n_runs: int, *, ragged: bool = False) -> Shuffled:
    """Rows shuffled with a memory that holds a run, of so many; seed 9."""
    with file_of(folder / "rows", n, ragged=ragged) as file:
        (folder / "out").mkdir()
        memory = next(m for m in range(1, 1 << 30, 64) if run_rows(file.row_bytes, m) * n_runs >= n)
        shuffle(file, folder / "out", seed=9, memory=memory)
    return Shuffled(folder / "out")


# -- the file


@pytest.mark.parametrize("ragged", [False, True])
def test_any_range_of_a_row_file_is_what_was_written(tmp_path: Path, ragged: bool) -> None:
    with file_of(tmp_path / "rows", 1000, ragged=ragged) as file:
        assert file.n_rows == 1000
        for start, n in ((0, 1000), (0, 0), (17, 300), (990, 50), (999, 1)):
            found, expected = file.read(start, n), rows(1000, ragged=ragged).slice(start, min(1000, start + n))
            assert (found.fixed == expected.fixed).all()
            for name in expected.ragged:
                assert (found.ragged[name].starts == expected.ragged[name].starts).all()
                assert (found.ragged[name].items == expected.ragged[name].items).all()


def test_a_file_whose_writer_failed_is_none(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    with pytest.raises(KeyError), RowWriter(tmp_path / "rows", RECORD, ("text",)) as writer:
        writer.append(rows(10))  # without the ragged field it was opened for
    with pytest.raises(StoreError, match=r"cannot be read.*mis run"):
        RowFile(tmp_path / "rows")


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    file_of(tmp_path / "rows", 100, ragged=True).close()
    for name in ("rows.bin", "text.heap"):
        content = (tmp_path / "rows" / name).read_bytes()
        (tmp_path / "rows" / name).write_bytes(content[:-8])
        with pytest.raises(StoreError, match="cannot be read"):
            RowFile(tmp_path / "rows")
        (tmp_path / "rows" / name).write_bytes(content)


def test_rows_joined_and_taken_keep_their_ragged_fields() -> None:
    parts = [rows(5, 0, ragged=True), rows(0, 5, ragged=True), rows(9, 5, ragged=True)]
    found = joined(parts).take(np.array([13, 0, 3, 3]))
    assert found.fixed["row"].tolist() == [13, 0, 3, 3]
    assert whole(found)


# -- the order


@settings(max_examples=examples(25), deadline=None)
@given(n=st.integers(0, 700), batch=st.integers(1, 300), world=st.integers(1, 7), seed=st.integers(0, 5), ragged=st.booleans())
def test_every_row_comes_once_an_epoch_whoever_reads(n: int, batch: int, world: int, seed: int, ragged: bool) -> None:
    source = Held(rows(n, ragged=ragged))
    alone = list(Loader(source, seed, batch).epoch(3))
    assert sorted(numbers(alone).tolist()) == list(range(n))
    assert all(whole(b.rows) for b in alone)
    together = [list(Loader(source, seed, batch, rank, world).epoch(3)) for rank in range(world)]
    assert {len(one) for one in together} == {len(alone)} == {Loader(source, seed, batch).n_batches()}
    for i, one in enumerate(alone):
        shares = [t[i] for t in together]
        assert sorted(numbers(shares).tolist()) == sorted(numbers([one]).tolist()), "the same rows in every batch, however many share it"
        assert {s.after for s in shares} == {one.after}
        assert {s.n_all for s in shares} == {len(one.rows)}


@settings(max_examples=examples(25), deadline=None)
@given(n=st.integers(1, 700), batch=st.integers(1, 200), data=st.data())
def test_an_epoch_entered_at_any_row_gives_the_rest(n: int, batch: int, data: st.DataObject) -> None:
    source = Held(rows(n, ragged=True))
    straight = numbers(list(Loader(source, 1, batch).epoch(0)))
    start = data.draw(st.integers(0, n))
    assert numbers(list(Loader(source, 1, batch).epoch(0, start))).tolist() == straight[start:].tolist()


def test_a_file_and_rows_in_memory_give_the_same_batches(tmp_path: Path) -> None:
    with file_of(tmp_path / "rows", 20_011, ragged=True) as file:
        assert file.row_bytes == Held(rows(20_011, ragged=True)).row_bytes, "the order depends on it"
        one, other = (list(Loader(source, 5, 999).epoch(2)) for source in (file, Held(rows(20_011, ragged=True))))
        assert numbers(one).tolist() == numbers(other).tolist()
        assert all(whole(b.rows) for b in one)


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_workers_may_come_and_go_within_an_epoch(tmp_path: Path, is_shuffled: bool) -> None:
    """Over five epochs 1, 2, 3 and again 1 workers, stopped at random: every row exactly once an epoch."""
    chance, n = random.Random(3), 10_007
    with shuffled_file(tmp_path, n, 5) if is_shuffled else file_of(tmp_path / "rows", n) as file:
        orders = []
        for epoch in range(5):
            seen: list[NDArray[np.int64]] = []
            at = 0
            for world in [1, 2, 3, 1] * 50:
                until = n if chance.random() < 0.05 else min(n, at + chance.randrange(1, 2000))
                # What a worker did after the last state that was kept is lost with it, and done again.
                shares = [list(Loader(file, 11, 170, rank, world).epoch(epoch, at)) for rank in range(world)]
                kept = [b for share in shares for b in share if b.after <= until]
                seen.append(numbers(kept))
                at = max([at, *(b.after for b in kept)])
                if at == n:
                    break
            found = np.concatenate(seen)
            assert len(found) == n
            assert (np.sort(found) == np.arange(n)).all()
            orders.append(found)
        assert all((a[:1000] != b[:1000]).any() for a, b in pairwise(orders)), "epochs have different orders"


def test_the_order_is_the_same_for_ever() -> None:
    """A checkpoint made by one version must be resumable by the next: the order may never change."""
    found = numbers(list(Loader(Held(rows(1000)), 7, 100).epoch(1)))
    assert found[:12].tolist() == [143, 340, 368, 77, 116, 168, 294, 740, 100, 43, 701, 952]
    assert int((found * np.arange(1000)).sum()) == 248_260_891


def test_more_workers_than_lanes_are_refused() -> None:
    source = Held(rows(10))
    with pytest.raises(UsageError, match=f"at most {LANES}"):
        Loader(source, 1, 5, 0, LANES + 1)
    with pytest.raises(UsageError, match="workers count from 0"):
        Loader(source, 1, 5, 2, 2)
    with pytest.raises(UsageError, match="at least one row"):
        Loader(source, 1, 0)
    with pytest.raises(UsageError, match="row 11 is not in an epoch of 10"):
        next(Loader(source, 1, 5).epoch(0, 11))


# -- how well it mixes


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_batches_are_spread_over_the_table_as_random_ones(tmp_path: Path, is_shuffled: bool) -> None:
    """Counts of (batch, part of the table) against what chance gives: chi-squared, with the shuffled file as good as chance, the plain one near."""
    n, batch, n_parts = 200_000, 1000, 50
    source = shuffled_file(tmp_path, n, 5) if is_shuffled else Held(rows(n))
    batches = list(Loader(source, 3, batch).epoch(0))
    counts = np.stack([np.bincount(b.rows.fixed["row"] * n_parts // n, minlength=n_parts) for b in batches])
    expected = batch / n_parts
    chi = float(((counts - expected) ** 2 / expected).sum())
    freedom = (len(batches) - 1) * (n_parts - 1)
    z = (chi - freedom) / (2 * freedom) ** 0.5
    if is_shuffled:
        assert abs(z) < 4.5, f"z = {z:.1f}"
    means = np.array([b.rows.fixed["row"].mean() for b in batches])
    spread = means.std() / (n / 12**0.5 / batch**0.5)
    assert spread < (1.2 if is_shuffled else 12), f"means of batches spread {spread:.2f} times as far as random ones"
    if isinstance(source, Shuffled):
        source.close()


def test_neighbours_part(tmp_path: Path) -> None:
    """Rows side by side in one epoch are not side by side in the next: of pairs within a batch few are again together."""
    n, batch = 100_000, 500
    with shuffled_file(tmp_path, n, 3) as file:
        of = np.empty((2, n), np.int64)
        for epoch in range(2):
            for i, one in enumerate(Loader(file, 3, batch).epoch(epoch)):
                of[epoch, one.rows.fixed["row"]] = i
    order = np.argsort(of[0], kind="stable")
    together = float((of[1][order[1:]] == of[1][order[:-1]])[of[0][order[1:]] == of[0][order[:-1]]].mean())
    assert together < 6 * batch / n, f"{together:.4f} of neighbours meet again, chance gives {batch / n:.4f}"


# -- the shuffle


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("n_runs", [1, 2, 7, 32, 33])
def test_a_shuffle_is_the_order_of_the_keys_however_many_runs_memory_makes(tmp_path: Path, n_runs: int, ragged: bool) -> None:
    n, chance = 10_007, np.random.default_rng(n_runs)
    with shuffled_file(tmp_path, n, n_runs, ragged=ragged) as file:
        out = file.read(0, n)
        assert whole(out)
        assert (out.fixed["row"] == shuffled(n, 9)).all()
        ranges = [(int(start), int(min(size, n - start))) for start, size in zip(chance.integers(0, n, 20), chance.integers(0, 5000, 20), strict=True)]
        places = chance.permutation(sum(size for _, size in ranges))[:999]
        expected = joined([out.slice(start, start + size) for start, size in ranges]).take(places)
        as_read, there = file.unsorted(ranges, places)
        found = as_read.take(there)
        assert whole(found)
        assert (found.fixed["row"] == expected.fixed["row"]).all()
        assert len(file.read(n, 5)) == len(file.unsorted([], places[:0])[0]) == 0
    assert {one.name for one in (tmp_path / "out").iterdir()} - {"text.heap"} == {"rows.bin", "about.json"} | ({"turns"} if n_runs > 1 else set())


def test_runs_are_merged_as_often_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffling, "MOST_RUNS", 3)
    with shuffled_file(tmp_path, 5_000, 20, ragged=True) as file:
        out = file.read(0, 5_000)
    assert whole(out)
    assert (out.fixed["row"] == shuffled(5_000, 9)).all()


@settings(max_examples=examples(25), deadline=None)
@given(seed=st.integers(0, 2**40), first=st.integers(0, 2**50), n=st.integers(0, 50_000))
def test_a_key_tells_its_row(seed: int, first: int, n: int) -> None:
    assert (rows_of(seed, keys(seed, first, n)) == np.arange(first, first + n)).all()


def test_a_table_in_memory_is_shuffled_by_its_keys() -> None:
    assert (shuffled(50_000, 4) == np.argsort(keys(4, 0, 50_000))).all()


def test_the_disk_a_shuffle_takes_is_what_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its fullest, which with many runs is before the unmerged ones are removed."""
    most, n, seen = 0, 50_000, (tmp_path / "out")

    def looked(doing: str) -> None:
        nonlocal most
        most = max(most, sum(one.stat().st_size for one in seen.rglob("*") if one.is_file()))

    monkeypatch.setattr(shuffling, "check", looked)
    for n_runs in (4, 40):
        most = 0
        folder = tmp_path / str(n_runs)
        folder.mkdir()
        seen = folder / "out"
        with shuffled_file(folder, n, n_runs, ragged=True) as file:
            said = disk_bytes(n, file.row_bytes + 12, n * int(1.2 * file.row_bytes + 8) // n_runs)
        assert 0.85 * said < most < 1.02 * said, n_runs


def test_an_order_of_another_length_is_refused(tmp_path: Path) -> None:
    shuffled_file(tmp_path / "a", 10_000, 3).close()
    shuffled_file(tmp_path / "b", 4_000, 3).close()
    (tmp_path / "a" / "out" / "turns").rename(tmp_path / "turns")
    (tmp_path / "b" / "out" / "turns").rename(tmp_path / "a" / "out" / "turns")
    with pytest.raises(StoreError, match=r"not as long as the rows.*mis run"):
        Shuffled(tmp_path / "a" / "out")
