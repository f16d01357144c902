"""The target column: which task it asks for, its answers as numbers, and how much rows weigh."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError, did_you_mean
from modelinscale.core.task import LEVELS, Label, Targets, Task, TaskType, names_of
from modelinscale.train._columns import Columns, encode_columns, find_columns
from modelinscale.train._lists import Lists, encode_lists, find_lists
from modelinscale.train._sets import Sets, encode_sets, find_sets, holds_sets

if TYPE_CHECKING:
    import polars as pl

MAX_CLASSES = 1000
"""More classes than this are no longer a table's target."""
FEW = 20
"""Whole numbers with at most this many different values, each seen four times on average, are read as classes."""
_POSITIVE = {"1", "true", "t", "yes", "y", "positive", "pos", "spam", "fraud", "fraudulent", "churn", "churned", "default", "defaulted", "malignant"}
_POSITIVE |= {"sick", "ill", "dead", "died", "failure", "failed", "fail", "anomaly", "attack", "abnormal", "click", "clicked"}
_NEGATIVE = {"0", "-1", "false", "f", "no", "n", "negative", "neg", "ham", "normal", "benign", "legit", "legitimate", "genuine", "healthy", "alive", "ok"}
_SAID = {True: ("yes", "y", "true", "t", "1"), False: ("no", "n", "false", "f", "0")}


@dataclass(frozen=True)
class Seen:
    """What a target column holds, in short; merges exactly, so that a table can be gone through in partitions."""

    kind: Any
    """The column's type (Polars)."""
    n: int
    """Rows that have a value."""
    n_infinite: int
    counts: "pl.DataFrame"
    """``value``, ``n``: the `COUNTED` smallest values at most, ascending, and how often each occurs."""
    lists: Lists | None = None
    """Of a column of lists of numbers what these hold; none: its cells are something else."""
    sets: Sets | None = None
    """Of a column of lists of labels what these hold."""

    @classmethod
    def of(cls, values: "pl.Series") -> "Seen":
        import polars as pl

        present, n_infinite = values.drop_nulls(), 0
        if present.dtype.is_float():
            present = present.drop_nans()
            n_infinite = int(present.is_infinite().sum())
        elif present.dtype == pl.String:
            present = present.filter(present != "")
        if present.dtype.is_nested():
            lists = Lists.of(values) if _holds_numbers(values.dtype) else None  # others are refused later
            return cls(values.dtype, len(present), 0, pl.DataFrame({"value": [], "n": []}), lists)
        counts = present.alias("value").value_counts(name="n").sort("value").head(COUNTED)
        sets = Sets.of(values) if present.dtype == pl.String and holds_sets(present) else None
        return cls(values.dtype, len(present), n_infinite, counts, sets=sets)

    def merged(self, other: "Seen") -> "Seen":
        """Both together."""
        import polars as pl

        both = pl.concat([self.counts, other.counts])
        counts = both.group_by("value").agg(pl.col("n").sum()).sort("value").head(COUNTED) if len(both.columns) else both
        lists = self.lists.merged(other.lists) if self.lists and other.lists else None
        return Seen(self.kind, self.n + other.n, self.n_infinite + other.n_infinite, counts, lists, _both(self, other))

    @property
    def n_distinct(self) -> str:
        """How many different values there are, in words."""
        return f"{len(self.counts):,}" if len(self.counts) < COUNTED else f"{COUNTED:,} or more"


COUNTED = 100_000
"""Different values of a target that are counted; more than `MAX_CLASSES` are no classes anyway."""


def see(blocks: "Iterable[pl.DataFrame]", targets: Targets) -> "Seen | Columns":
    """What the target columns hold in a table that comes in blocks; one at least."""
    names = names_of(targets)
    if len(names) > 1:
        return reduce(Columns.merged, (Columns.of(block, names) for block in blocks))
    return reduce(Seen.merged, (Seen.of(block[names[0]]) for block in blocks))


def find_task(
    values: "pl.Series | Seen | Columns", target: Targets, declared: TaskType | None = None, positive: Label | None = None, levels: tuple[float, ...] = LEVELS
) -> Task:
    """The task a target column asks for; ``declared`` and ``positive`` are what the user said, if anything, ``levels`` those of quantiles.

    Two different values: binary. Text, or few different whole numbers: multiclass. Other numbers, and lists of as many: regression. Lists of words:
    multilabel. Several columns: multilabel where all are flags, else regression. Missing cells do not count. The
    positive class is the one declared, else the one whose name says so (true, 1, yes, spam, …), else the rarer. Classes are in sorted order,
    for binary (negative, positive). Raises `DataError` where there is nothing to learn or what was declared cannot be.
    """
    if isinstance(values, Columns):
        return find_columns(values, declared)
    assert isinstance(target, str), "several targets are seen as several columns"
    seen = values if isinstance(values, Seen) else Seen.of(values)
    _check_kind(seen, target)
    if seen.lists is not None:
        _check_lists(target, declared, positive)
        return find_lists(seen.lists, target)
    if declared == "multilabel" or (declared is None and seen.sets is not None):
        if seen.sets is None:
            raise DataError(f"`task: multilabel` needs lists of words as {target!r}, found {_some(seen.counts['value'].head(7).to_list())}.", fix=_LISTED)
        if positive is not None:
            raise DataError(f"`positive: {positive}` makes no sense for {target!r}, lists of labels to predict.", fix="Leave `positive` out.")
        return find_sets(seen.sets, target)
    distinct = seen.counts["value"].to_list()
    if len(distinct) == 1:
        raise DataError(
            f"every row with a target has the same {target!r}: {distinct[0]!r}; there is nothing to tell apart.",
            fix="Bring rows with other outcomes, or choose another target.",
        )
    type = declared or _guess(seen, distinct)
    if type in ("regression", "quantiles"):
        _check_number(seen, distinct, target)
        if positive is not None:
            raise DataError(f"`positive: {positive}` makes no sense for {target!r}, a number to predict.", fix="Leave `positive` out, or set `task: binary`.")
        return Task(type="regression", target=target) if type == "regression" else Task(type="quantiles", target=target, levels=levels)
    labels = _labels(seen, distinct, target)
    if type == "binary" and len(labels) != 2:
        raise DataError(f"`task: binary` needs 2 different values of {target!r}, found {seen.n_distinct}: {_some(labels)}.", fix="Set `task: multiclass`.")
    if type == "multiclass" and len(labels) == 2:
        raise DataError(f"`task: multiclass` needs more than 2 different values of {target!r}, found {_some(labels)}.", fix="Set `task: binary`.")
    if len(labels) > MAX_CLASSES:
        raise DataError(
            f"{target!r} has {seen.n_distinct} different values in {seen.n:,} rows; a model can tell {MAX_CLASSES:,} apart: {_some(labels)}.",
            fix="Choose another target, or group its values; for a number to predict set `task: regression`.",
        )
    if type == "multiclass":
        if positive is not None:
            raise DataError(f"`positive: {positive}` makes no sense for {target!r}, which has {len(labels)} classes.", fix="Leave `positive` out.")
        return Task(type="multiclass", target=target, labels=tuple(labels))
    yes = _positive(labels, seen.counts["n"].to_list(), target, positive)
    return Task(type="binary", target=target, labels=(labels[1 - yes], labels[yes]))


def encode_targets(frame: "pl.DataFrame", task: Task) -> NDArray[np.float64] | NDArray[np.int64]:
    """The answers of rows of the table, from one column or several: as `encode_target`."""
    return encode_columns(frame, task) if task.targets else encode_target(frame[task.target], task)


def encode_target(values: "pl.Series", task: Task) -> NDArray[np.float64] | NDArray[np.int64]:
    """(N,): the class index (int64) or the number (float64) of each row; (N, W) of lists, of labels 0 and 1.

    Raises `DataError` for a missing, unknown or infinite one.
    """
    import polars as pl

    if task.width is not None:
        return encode_lists(values, task)
    if task.type == "multilabel":
        return encode_sets(values, task)
    if task.numbers:
        numbers = values.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise DataError(f"{len(bad):,} rows have no finite number as {task.target!r}; the first: {values[int(bad[0])]!r}.", fix="Leave such rows out.")
        return np.array(numbers, np.float64)
    kind = pl.Boolean if isinstance(task.labels[0], bool) else pl.Int64 if isinstance(task.labels[0], int) else pl.String
    cells = values.cast(kind, strict=False)
    if kind == pl.Boolean and task.labels == (False, True):  # what the replacement below gives, without looking anything up
        index = cells.cast(pl.Int64)
    else:
        index = cells.replace_strict(list(task.labels), list(range(len(task.labels))), default=None, return_dtype=pl.Int64)
    if index.null_count():
        odd = values.filter(index.is_null()).unique().to_list()
        raise DataError(
            f"{index.null_count():,} rows have a {task.target!r} that is none of the classes ({_some(list(task.labels))}): {_some(odd)}.",
            fix="Leave such rows out, or train again.",
        )
    return np.array(index.to_numpy(), np.int64)


def row_weights(values: "pl.Series", *, whole: bool = True) -> NDArray[np.float64]:
    """(N,): a column of row weights. Raises `DataError` for a missing, negative or infinite one, and when all of the ``whole`` column are 0."""
    import polars as pl

    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        raise DataError(f"column {values.name!r} ({values.dtype}) cannot be a row weight.", fix="Name a column of numbers, 0 or more.")
    weight = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if len(bad):
        raise DataError(
            f"column {values.name!r} cannot be a row weight: {len(bad):,} rows have none, a negative or an infinite one; the first: {values[int(bad[0])]!r}.",
            fix="Give every row a finite weight, 0 or more.",
        )
    if whole and len(weight) and not weight.any():
        raise DataError(f"column {values.name!r} cannot be a row weight: it is 0 in every row.", fix="Give some rows a weight above 0.")
    return np.array(weight, np.float64)


@dataclass(frozen=True)
class Totals:
    """What is to be known of training rows before anything is learned from them; the same bits whether they are held or on disk."""

    n: int
    low: Any
    high: Any
    """Least and greatest target; of lists (W,)."""
    weight: float
    classes: NDArray[np.float64]
    """(C,): the weight of each class; of numbers the sum of weighted targets, (1,) or (W,)."""
    quantiles: tuple[float, ...] = ()
    """Of the targets, for quantiles."""

    @classmethod
    def of(cls, blocks: Iterable[tuple[NDArray[Any], NDArray[np.float64] | None]], task: Task) -> "Totals":
        """From targets and weights in blocks of `BLOCK_ROWS`."""
        n, low, high, total = 0, np.inf, -np.inf, 0.0
        classes = np.zeros(task.target_width or max(1, len(task.labels)))
        sample = _Sample()
        for target, weight in blocks:
            if task.levels:
                sample.add(target, weight)
            n += len(target)
            if not len(target):
                continue
            low, high = np.minimum(low, target.min(0)), np.maximum(high, target.max(0))
            total += len(target) if weight is None else float(weight.sum())
            if not task.one_class:
                classes += target.sum(0) if weight is None else weight @ target
            else:
                classes += np.bincount(target, weight, len(task.labels))
        return cls(n, low, high, total, classes, sample.quantiles(task.levels))

    @property
    def constant(self) -> tuple[float, ...]:
        """What is known without any column: the share of each class (C,), or the mean (1,), of lists (W,), or the quantiles (Q,)."""
        return self.quantiles or tuple(float(c) for c in self.classes / self.weight)


class _Sample:
    """Some of the targets, evenly spaced; all of them where they are few."""

    def __init__(self) -> None:
        self.step, self.at = 1, 0
        self.kept: list[NDArray[np.float64]] = []  # (n, 2): target, weight

    def add(self, target: NDArray[np.float64], weight: NDArray[np.float64] | None) -> None:
        pairs = np.stack([target, np.ones(len(target)) if weight is None else weight], axis=1)
        self.kept.append(pairs[-self.at % self.step :: self.step])
        self.at += len(target)
        while sum(map(len, self.kept)) > _SAMPLED:
            self.kept, self.step = [np.concatenate(self.kept)[::2]], self.step * 2

    def quantiles(self, levels: tuple[float, ...]) -> tuple[float, ...]:
        values = np.concatenate(self.kept) if self.kept else np.zeros((0, 2))
        if not len(values) or not values[:, 1].any():
            return ()
        return tuple(float(q) for q in np.quantile(values[:, 0], levels, weights=values[:, 1], method="inverted_cdf"))


_SAMPLED = 1_000_000
"""Targets that quantiles are taken from, at most."""
_LISTED = 'Write lists in the data, such as ["red", "round"]: JSON lines, or text cells that hold such lists.'


def _both(one: Seen, other: Seen) -> Sets | None:
    """The labels of both; of a part without any row that has a target, those of the other."""
    if one.sets and other.sets:
        return one.sets.merged(other.sets)
    sets, empty = (one.sets, other) if one.sets else (other.sets, one)
    if sets is None or empty.n:
        return None
    return sets if one.sets else Sets(sets.n_rows, sets.counts, sets.odd)


def check_totals(train: Totals, task: Task) -> None:
    """Raises `DataError` when the training rows alone leave nothing to learn, though the whole table would."""
    if not train.n:
        raise DataError("there are no training rows.", fix="Bring more labelled rows, or set `data.split`.")
    if not train.weight:
        raise DataError("every training row has weight 0.", fix="Give some training rows a weight above 0.")
    if np.all(train.low == train.high):
        only = task.labels[int(train.low)] if task.one_class else np.asarray(train.low, np.float64).tolist()
        raise DataError(
            f"all {train.n:,} training rows have the same {task.target!r}: {only!r}.", fix="Bring more rows, or split them in another way (`data.split`)."
        )


def class_factors(train: Totals, task: Task, wanted: Literal["balanced"] | dict[Label, float] | None) -> NDArray[np.float64] | None:
    """(C,): what each class multiplies its rows' weights by; None: nothing. ``balanced``: all classes weigh the same, 1 a row on average."""
    if wanted is None:
        return None
    if not task.one_class:
        what = "is a number to predict" if task.numbers else "holds any number of labels a row"
        raise DataError(f"`train.class_weight` makes no sense for {task.target!r}, which {what}.", fix="Leave it out.")
    if wanted == "balanced":
        sums = train.classes
        present = sums > 0
        factors = np.ones(len(sums))
        factors[present] = sums.sum() / (present.sum() * sums[present])
        return factors
    places = {_word(label): i for i, label in enumerate(task.labels)}
    unknown = [label for label in wanted if _word(label) not in places]
    if unknown:
        raise DataError(
            f"`train.class_weight` names {unknown[0]!r}, which is no class of {task.target!r}.{did_you_mean(_word(unknown[0]), list(places))}",
            fix=f"Classes: {_some(list(task.labels))}.",
        )
    factors = np.ones(len(task.labels))
    for label, factor in wanted.items():
        factors[places[_word(label)]] = factor
    return factors


def _check_kind(seen: Seen, target: str) -> None:
    if (seen.kind.is_nested() and seen.lists is None) or seen.kind.is_temporal():
        what = "lists of lists" if seen.kind.is_nested() else "moments"
        raise DataError(
            f"{target!r} holds {what}, which cannot be predicted.",
            fix="Choose a column of numbers, flags or words.",
        )
    if seen.n_infinite:
        raise DataError(f"{target!r} is infinite in {seen.n_infinite:,} rows.", fix="Leave such rows out, or give them a number.")
    if not seen.n:
        raise DataError(f"no row has a value of {target!r}; nothing can be learned.", fix="Choose another target, or bring rows whose outcome is known.")


def _check_lists(target: str, declared: TaskType | None, positive: Label | None) -> None:
    if declared not in (None, "regression"):
        raise DataError(f"`task: {declared}` is not for lists of numbers, which {target!r} holds.", fix="Leave `task` out, or set `task: regression`.")
    if positive is not None:
        raise DataError(f"`positive: {positive}` makes no sense for {target!r}, lists of numbers to predict.", fix="Leave `positive` out.")


def _holds_numbers(kind: Any) -> bool:
    inner = getattr(kind, "inner", None)
    return inner is not None and bool(inner.is_numeric())


def _guess(seen: Seen, distinct: list[Any]) -> TaskType:
    if len(distinct) == 2 and (not seen.kind.is_float() or _whole(distinct)):
        return "binary"
    if not seen.kind.is_numeric():
        return "multiclass"
    return "multiclass" if len(distinct) <= min(FEW, seen.n // 4) and _whole(distinct) else "regression"


def _whole(distinct: list[Any]) -> bool:
    return all(float(v).is_integer() and abs(v) < 2**53 for v in distinct)


def _check_number(seen: Seen, distinct: list[Any], target: str) -> None:
    if not seen.kind.is_numeric():
        raise DataError(
            f"`task: regression` needs numbers, but {target!r} is {seen.kind}: {_some(distinct)}.",
            fix="Leave `task` out, or make the column a number.",
        )


def _labels(seen: Seen, distinct: list[Any], target: str) -> list[Label]:
    if not seen.kind.is_float():
        return list(distinct)
    if not _whole(distinct):
        raise DataError(
            f"{target!r} has values with a fraction, which cannot be classes: {_some(distinct)}.", fix="Leave `task` out, or read the column as text."
        )
    return [int(v) for v in distinct]


def _positive(labels: list[Label], counts: list[int], target: str, declared: Label | None) -> int:
    words = [_word(label) for label in labels]
    if declared is not None:
        word = _word(declared)
        if word in words:
            return words.index(word)
        # YAML reads a bare yes or no as a flag, while the column says the word.
        meant = [i for i, w in enumerate(words) if isinstance(declared, bool) and w in _SAID[declared]]
        if len(meant) == 1:
            return meant[0]
        raise DataError(f"`positive: {declared}` is no value of {target!r}.{did_you_mean(word, words)}", fix=f"Its values: {_some(labels)}.")
    said = [i for i, w in enumerate(words) if w in _POSITIVE]
    denied = [i for i, w in enumerate(words) if w in _NEGATIVE]
    if len(said) == 1:
        return said[0]
    if len(denied) == 1:
        return 1 - denied[0]
    return 0 if counts[0] < counts[1] else 1


def _word(label: Label) -> str:
    return str(label).strip().lower()


def _some(values: list[Any]) -> str:
    shown = ", ".join(repr(v) for v in values[:6])
    return f"{shown}, …" if len(values) > 6 else shown
