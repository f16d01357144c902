"""The split: shares, what stays together, what stays put, and what each kind refuses."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pydantic import ValidationError

from modelinscale.core.errors import DataError
from modelinscale.data._hash import hash_pairs, hash_rows
from modelinscale.data.split import TEST, TRAIN, UNUSED, VALID, Parts, Split, assign, columns_of


def table(n_rows: int, seed: int = 7, **more: Any) -> pa.Table:
    generator = np.random.default_rng(seed)
    return pa.table(
        {"a": generator.normal(size=n_rows), "b": generator.choice(["x", "y", "z"], n_rows), "y": generator.choice(["no", "yes"], n_rows, p=[0.9, 0.1]), **more}
    )


def parts_of(rows: pa.Table, time: str | None = None, label_delay: float = 0.0, classes: bool = True, **settings: Any) -> Parts:
    return assign(rows, Split(**settings), target="y", content=("a", "b"), time=time, label_delay=label_delay, classes=classes)


def shares(parts: Parts) -> list[float]:
    return [round(float((parts == part).mean()), 2) for part in (TRAIN, VALID, TEST, UNUSED)]


@pytest.mark.parametrize("kind", ["auto", "hash", "random"])
def test_shares_are_about_what_was_asked(kind: str) -> None:
    assert shares(parts_of(table(20_000), type=kind, valid=0.2, test=0.1)) == pytest.approx([0.7, 0.2, 0.1, 0.0], abs=0.011)


def test_valid_may_be_nothing() -> None:
    assert shares(parts_of(table(1000), valid=0))[1] == 0.0


def test_equal_rows_stay_together_and_the_order_of_features_does_not_matter() -> None:
    rows = pa.concat_tables([table(500), table(500).slice(100)])
    parts = parts_of(rows)
    assert (parts[500:] == parts[100:500]).all()
    other = assign(rows, Split(), target="y", content=("b", "a"), classes=True)
    assert (other == parts).all()


@pytest.mark.parametrize("settings", [{}, {"type": "random"}, {"type": "group", "group": "g"}])
def test_new_rows_move_no_old_ones(settings: dict[str, Any]) -> None:
    rows = table(6000, g=[i // 3 for i in range(6000)])
    few, many = parts_of(rows.slice(0, 4000), **settings), parts_of(rows, **settings)
    assert (many[:4000] == few).all()


def test_the_same_draw_everywhere_and_another_with_another_seed() -> None:
    # Written down once: a change here moves rows between train and test in every project there is.
    rows = pa.table({"a": [i / 8 for i in range(40)], "b": [f"word {i}" for i in range(40)], "y": [i % 2 for i in range(40)]})
    assert "".join(str(p) for p in parts_of(rows)) == "2220200020100200000200010211000000101200"
    assert (parts_of(rows, seed=1) != parts_of(rows)).any()


@pytest.mark.parametrize("settings", [{}, {"type": "random"}, {"type": "group", "group": "g"}, {"column": "p"}])
def test_frames_and_tables_are_split_alike(settings: dict[str, Any]) -> None:
    rows = table(300, g=[f"group {i % 40}" for i in range(300)], p=["train", "train", "test"] * 100)
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    of_frame = assign(frame, Split(**settings), target="y", content=("a", "b"), classes=True)
    assert (of_frame == parts_of(rows, **settings)).all()


def test_rows_without_a_target_are_unused() -> None:
    rows = table(300).set_column(2, "y", pa.array([None if i % 3 == 0 else "yes" for i in range(300)]))
    parts = parts_of(rows)
    assert ((parts == UNUSED) == (np.arange(300) % 3 == 0)).all()


@pytest.mark.parametrize("seed", range(20))
def test_each_part_of_a_small_table_has_each_class(seed: int) -> None:
    rows = pa.table({"a": np.random.default_rng(seed).normal(size=30), "b": ["x"] * 30, "y": ["a", "a", "b", "c", "c", "c"] * 5})
    parts = parts_of(rows)
    for part in (TRAIN, VALID, TEST):
        assert set(np.array(rows["y"])[parts == part]) == {"a", "b", "c"}


def test_a_class_with_few_rows_is_in_train_at_least() -> None:
    for seed in range(10):
        rows = pa.table({"a": np.random.default_rng(seed).normal(size=43), "b": ["x"] * 43, "y": ["often"] * 40 + ["twice"] * 2 + ["once"]})
        parts = parts_of(rows)
        assert len(set(parts[40:42])) == 2
        assert TRAIN in parts[40:42]
        assert parts[42] == TRAIN


def test_three_rows_are_enough_and_two_are_not() -> None:
    assert sorted(parts_of(table(3), classes=False)) == [TRAIN, VALID, TEST]
    with pytest.raises(DataError, match=r"leaves no rows to valid .*There must be at least 3 different rows with a target"):
        parts_of(table(2), classes=False)


def test_equal_rows_only_cannot_be_split() -> None:
    with pytest.raises(DataError, match="leaves no rows to valid and test"):
        parts_of(pa.table({"a": [1.0] * 50, "b": ["x"] * 50, "y": ["no"] * 50}))


# Groups.


def test_groups_stay_together_and_missing_is_one() -> None:
    rows = table(3000, g=[None if i % 50 == 0 else i % 211 for i in range(3000)], h=["p", "q"] * 1500)
    for names in (["g"], ["g", "h"]):
        parts = parts_of(rows, type="group", group=names)
        keys: dict[Any, int] = {}
        for key, part in zip(zip(*(rows[n].to_pylist() for n in names), strict=True), parts, strict=True):
            assert keys.setdefault(key, part) == part
        assert shares(parts)[2] == pytest.approx(0.15, abs=0.08)


@pytest.mark.parametrize("n_groups", [3, 4, 5, 8])
def test_a_few_groups_fill_every_part(n_groups: int) -> None:
    parts = parts_of(table(400, g=[i % n_groups for i in range(400)]), type="group", group="g", classes=False)
    assert (np.bincount(parts, minlength=3) > 0).all()
    assert shares(parts)[0] >= 0.3


def test_one_huge_group_trains() -> None:
    parts = parts_of(table(1000, g=[0 if i < 900 else i for i in range(1000)]), type="group", group="g")
    assert set(parts[:900]) == {TRAIN}


def test_too_few_groups_say_so() -> None:
    with pytest.raises(DataError, match=r"split by group leaves no rows to valid .*at least 3 groups"):
        parts_of(table(400, g=[i % 2 for i in range(400)]), type="group", group="g", classes=False)


# Time.

DAY = timedelta(days=1)
START = datetime(2024, 1, 1)


def timed(days: list[float | None]) -> pa.Table:
    at = pa.array([None if d is None else START + d * DAY for d in days], pa.timestamp("us"))
    return table(len(days), t=at)


def test_the_last_rows_test_and_those_before_choose() -> None:
    order = np.random.default_rng(7).permutation(100)
    parts = parts_of(timed([float(d) for d in order]), time="t", valid=0.2, test=0.1)
    assert [str(parts[np.argsort(order)][i]) for i in (0, 69, 70, 89, 90, 99)] == ["0", "0", "1", "1", "2", "2"]


def test_durations_are_counted_back_from_the_end() -> None:
    parts = parts_of(timed([float(d) for d in range(100)]), time="t", valid="7d", test="14d")
    assert np.flatnonzero(parts == TEST).tolist() == list(range(86, 100))
    assert np.flatnonzero(parts == VALID).tolist() == list(range(79, 86))


def test_the_label_delay_leaves_a_gap_before_each_part() -> None:
    parts = parts_of(timed([float(d) for d in range(100)]), time="t", valid=0.1, test=0.1, label_delay=7 * 86400)
    where = {part: np.flatnonzero(parts == part) for part in (TRAIN, VALID, TEST)}
    assert where[TEST].tolist() == list(range(90, 100))
    assert where[VALID].tolist() == list(range(73, 83))
    assert where[TRAIN].tolist() == list(range(66))


def test_rows_of_one_moment_stay_together_and_rows_without_one_are_unused() -> None:
    parts = parts_of(timed([float(d // 10) for d in range(100)] + [None]), time="t", valid=0.15, test=0.15)
    assert all(len(set(parts[i : i + 10])) == 1 for i in range(0, 100, 10))
    assert parts[100] == UNUSED
    assert set(parts[:100]) == {TRAIN, VALID, TEST}


def test_plain_numbers_may_be_time_for_shares_only() -> None:
    rows = table(100, t=list(range(100)))
    assert parts_of(rows, time="t", test=0.1)[99] == TEST
    with pytest.raises(DataError, match="'t' holds plain numbers, so 7d means nothing there"):
        parts_of(rows, time="t", test="7d")
    with pytest.raises(DataError, match="holds plain numbers, so 1 d means"):
        parts_of(rows, time="t", label_delay=86400.0)


def test_a_gap_that_eats_a_part_says_so() -> None:
    with pytest.raises(DataError, match=r"split by time leaves no rows to train and valid .*`label_delay` \(200 d\)"):
        parts_of(timed([float(d) for d in range(100)]), time="t", label_delay=200 * 86400)


def test_time_that_is_no_time_is_refused() -> None:
    with pytest.raises(DataError, match="'b' holds string, no moments or numbers"):
        assign(table(10), Split(), target="y", content=("a",), time="b")
    with pytest.raises(DataError, match="needs a time column"):
        parts_of(table(10), type="time")
    with pytest.raises(DataError, match="missing in every row"):
        parts_of(timed([None, None]), time="t")


# A given column.


@pytest.mark.parametrize("words", [("train", "test", "valid"), ("TRAIN ", "Holdout", "val"), ("training", "testing", "dev")])
def test_a_column_says_it_in_the_usual_words(words: tuple[str, str, str]) -> None:
    parts = parts_of(table(6, p=[*words, *words]), type="column", column="p")
    assert parts.tolist() == [TRAIN, TEST, VALID] * 2


def test_other_values_are_said_in_values_and_the_rest_is_unused() -> None:
    rows = table(8, p=[1, 2, 3, 4, 1, 2, 3, None])
    assert parts_of(rows, column="p", values={"train": [1, 2], "test": 3}, valid=0).tolist() == [0, 0, 2, -1, 0, 0, 2, -1]
    flags = table(6, p=[True, False] * 3)
    assert parts_of(flags, column="p", values={"train": False, "test": True}, valid=0).tolist() == [2, 0] * 3


def test_a_part_of_train_chooses_when_the_column_names_none() -> None:
    rows = table(4000, p=["train"] * 3000 + ["test"] * 1000)
    parts = parts_of(rows, column="p", valid=0.2)
    assert set(parts[3000:]) == {TEST}
    assert np.mean(parts[:3000] == VALID) == pytest.approx(0.2, abs=0.03)
    timed_rows = rows.append_column("t", pa.array(np.arange(4000), pa.timestamp("us")))
    parts = assign(timed_rows, Split(type="column", column="p", valid=0.2), target="y", content=("a", "b"), time="t")
    assert np.flatnonzero(parts == VALID).tolist() == list(range(2400, 3000))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["train", "tset"], r"'p' holds 'tset', which are not words for train, valid or test\. Did you mean 'test'\?.*values: \{train"),
        (["train", "train"], "leaves no rows to test"),
        (["test", "test"], "leaves no rows to train"),
        ([True, False], "holds 'true'|holds True"),
    ],
)
def test_a_column_that_does_not_say_it_is_refused(values: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        parts_of(table(40, p=values * 20), column="p")


def test_a_column_of_many_values_is_not_taken_for_parts() -> None:
    with pytest.raises(DataError, match="'p' has more than 100 values, so it does not say"):
        parts_of(table(200, p=list(range(200))), column="p")


# Settings.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "randm"}, "type"),
        ({"test": 15}, r"`test: 15` is not a share between 0 and 1\. Did you mean 0\.15\?"),
        ({"valid": -0.1}, "is not a share"),
        ({"valid": 0.5, "test": 0.5}, "leave nothing to train"),
        ({"test": 0}, "leaves nothing to measure with"),
        ({"type": "hash", "test": "7d"}, "`test: 7d` is a duration, which only a split in time has"),
        ({"test": "7 bananas"}, "is not a duration"),
        ({"type": "group"}, r"needs `group`.*\{type: group, group: customer\}"),
        ({"type": "column"}, "needs `column`"),
        ({"type": "column", "column": "p", "group": "g"}, "`group` is not for a split by column"),
        ({"group": "g", "column": "p"}, "both there"),
        ({"type": "hash", "column": "p"}, "`column` is not for a split of type hash"),
        ({"values": {"train": 1}}, "`values` is for a split by column"),
        ({"values": {"tarin": 1}, "column": "p"}, "tarin"),
        ({"shuffle": True}, "shuffle"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Split(**settings)


def test_auto_follows_what_is_declared() -> None:
    assert [Split(**s).resolved(t) for s, t in (({}, None), ({}, "t"), ({"group": "g"}, "t"), ({"column": "p"}, "t"))] == ["hash", "time", "group", "column"]
    assert columns_of(Split(), time=None, content=("a", "b"), target="y") == ("a", "b", "y")
    assert columns_of(Split(), time="t", content=("a", "b"), target="y") == ("y", "t")
    assert columns_of(Split(type="group", group="g"), time=None, content=("a",), target="y") == ("g", "y")


def test_settings_round_trip() -> None:
    for split in (Split(), Split(type="time", valid="7d", test=0.2), Split(column="p", values={"train": [1, True], "test": "x"})):
        assert Split.model_validate(split.plain()) == split


def test_a_column_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"needs the column 'gg', which is not there"):
        parts_of(table(10, g=[1] * 10), type="group", group="gg")


# Hashes.


def test_hashes_see_what_is_equal_and_nothing_else() -> None:
    columns = [
        pa.array([0.0, -0.0, None, float("nan"), 1.0, 2.0]),
        pa.array([1, 1, None, None, 1, None]),
        pa.array(["a" * 7, "a" * 7, None, None, "", None]),
        pa.array([[1.0, -0.0], [1.0, 0.0], None, None, [0.0, 0.0], [1.0, 0.0]], pa.list_(pa.float32(), 2)),
        pa.array([True, True, None, None, False, None]),
        pa.array([datetime(2024, 1, 1), datetime(2024, 1, 1), None, None, datetime(1, 1, 1), None], pa.timestamp("us")),
    ]
    hashes = hash_rows(columns, 6)
    assert hashes[0] == hashes[1]
    assert hashes[2] == hashes[3]
    assert len(set(hashes.tolist())) == 4


def test_hashes_of_text_depend_on_every_byte_and_on_where_a_cell_ends() -> None:
    words = ["", "a", "ab", "b", "a\0", "\0", "\0\0", *("x" * n for n in range(1, 40)), "x" * 100 + "y", "x" * 100 + "z", "é", "e\u0301", "🙂"]
    one, two = hash_pairs([pa.array(words)], len(words))
    assert len(set(one.tolist())) == len(set(two.tolist())) == len(words)
    left, right = hash_rows([pa.array(["a"]), pa.array(["bc"])], 1), hash_rows([pa.array(["ab"]), pa.array(["c"])], 1)
    assert left[0] != right[0]


def test_hashes_do_not_depend_on_how_the_column_is_held() -> None:
    values = [f"word {i % 50}" if i % 7 else None for i in range(40_000)]
    plain = hash_rows([pa.array(values)], len(values))
    held = [
        pa.chunked_array([values[:3], values[3:20_000], values[20_000:]], pa.string()),
        pa.array(values, pa.large_string()),
        pa.array(values).dictionary_encode(),
        pa.array(["head", *values])[1:],
        pl.Series(values).to_arrow(),
    ]
    for column in held:
        assert (hash_rows([column], len(values)) == plain).all()


def test_hashes_are_spread_evenly() -> None:
    for column in (pa.array(range(100_000)), pa.array([f"u{i}" for i in range(100_000)]), pa.array(np.arange(100_000) / 8)):
        counts = np.bincount((hash_rows([column], 100_000) >> np.uint64(56)).astype(np.int64), minlength=256)
        expected = 100_000 / 256
        assert ((counts - expected) ** 2 / expected).sum() < 350  # chi-squared, 255 degrees of freedom: 1 in 20,000 by chance
