"""The target column: which task it asks for, its answers as numbers, and how much rows weigh."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError, did_you_mean
from modelinscale.core.task import Label, Task, TaskType
from modelinscale.models import Examples

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


def find_task(values: "pl.Series", target: str, declared: TaskType | None = None, positive: Label | None = None) -> Task:
    """The task a target column asks for; ``declared`` and ``positive`` are what the user said, if anything.

    Two different values: binary. Text, or few different whole numbers: multiclass. Other numbers: regression. Missing cells do not count. The
    positive class is the one declared, else the one whose name says so (true, 1, yes, spam, …), else the rarer. Classes are in sorted order,
    for binary (negative, positive). Raises `DataError` where there is nothing to learn or what was declared cannot be.
    """
    present = _present(values, target)
    counts = present.alias("value").value_counts(name="n").sort("value")
    distinct = counts["value"].to_list()
    if len(distinct) == 1:
        raise DataError(
            f"every row with a target has the same {target!r}: {distinct[0]!r}; there is nothing to tell apart.",
            fix="Bring rows with other outcomes, or choose another target.",
        )
    type = declared or _guess(present, distinct)
    if type == "regression":
        _check_number(present, target)
        if positive is not None:
            raise DataError(f"`positive: {positive}` makes no sense for {target!r}, a number to predict.", fix="Leave `positive` out, or set `task: binary`.")
        return Task(type="regression", target=target)
    labels = _labels(present, distinct, target)
    if type == "binary" and len(labels) != 2:
        raise DataError(f"`task: binary` needs 2 different values of {target!r}, found {len(labels)}: {_some(labels)}.", fix="Set `task: multiclass`.")
    if type == "multiclass" and len(labels) == 2:
        raise DataError(f"`task: multiclass` needs more than 2 different values of {target!r}, found {_some(labels)}.", fix="Set `task: binary`.")
    if len(labels) > MAX_CLASSES:
        raise DataError(
            f"{target!r} has {len(labels):,} different values in {len(present):,} rows; a model can tell {MAX_CLASSES:,} apart: {_some(labels)}.",
            fix="Choose another target, or group its values; for a number to predict set `task: regression`.",
        )
    if type == "multiclass":
        if positive is not None:
            raise DataError(f"`positive: {positive}` makes no sense for {target!r}, which has {len(labels)} classes.", fix="Leave `positive` out.")
        return Task(type="multiclass", target=target, labels=tuple(labels))
    yes = _positive(labels, counts["n"].to_list(), target, positive)
    return Task(type="binary", target=target, labels=(labels[1 - yes], labels[yes]))


def encode_target(values: "pl.Series", task: Task) -> NDArray[np.float64] | NDArray[np.int64]:
    """(N,): the class index (int64) or the number (float64) of each row. Raises `DataError` for a missing, unknown or infinite one."""
    import polars as pl

    if task.type == "regression":
        numbers = values.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise DataError(f"{len(bad):,} rows have no finite number as {task.target!r}; the first: {values[int(bad[0])]!r}.", fix="Leave such rows out.")
        return np.ascontiguousarray(numbers, np.float64)
    kind = pl.Boolean if isinstance(task.labels[0], bool) else pl.Int64 if isinstance(task.labels[0], int) else pl.String
    index = values.cast(kind, strict=False).replace_strict(list(task.labels), list(range(len(task.labels))), default=None, return_dtype=pl.Int64)
    if index.null_count():
        odd = values.filter(index.is_null()).unique().to_list()
        raise DataError(
            f"{index.null_count():,} rows have a {task.target!r} that is none of the classes ({_some(list(task.labels))}): {_some(odd)}.",
            fix="Leave such rows out, or train again.",
        )
    return np.ascontiguousarray(index.to_numpy(), np.int64)


def row_weights(values: "pl.Series") -> NDArray[np.float64]:
    """(N,): a column of row weights. Raises `DataError` for a missing, negative or infinite one, and when all are 0."""
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
    if len(weight) and not weight.any():
        raise DataError(f"column {values.name!r} cannot be a row weight: it is 0 in every row.", fix="Give some rows a weight above 0.")
    return np.ascontiguousarray(weight, np.float64)


def check_examples(train: Examples, task: Task) -> None:
    """Raises `DataError` when the training rows alone leave nothing to learn, though the whole table would."""
    if not len(train):
        raise DataError("there are no training rows.", fix="Bring more labelled rows, or set `data.split`.")
    if train.weight is not None and not train.weight.any():
        raise DataError("every training row has weight 0.", fix="Give some training rows a weight above 0.")
    if (train.target == train.target[0]).all():
        only = train.target[0] if task.type == "regression" else task.labels[int(train.target[0])]
        raise DataError(
            f"all {len(train):,} training rows have the same {task.target!r}: {only!r}.", fix="Bring more rows, or split them in another way (`data.split`)."
        )


def class_factors(train: Examples, task: Task, wanted: Literal["balanced"] | dict[Label, float] | None) -> NDArray[np.float64] | None:
    """(C,): what each class multiplies its rows' weights by; None: nothing. ``balanced``: all classes weigh the same, 1 a row on average."""
    if wanted is None:
        return None
    if task.type == "regression":
        raise DataError(f"`train.class_weight` makes no sense for {task.target!r}, which is a number to predict.", fix="Leave it out.")
    if wanted == "balanced":
        sums = np.bincount(train.target, train.weight, len(task.labels))
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


def weighted(examples: Examples, factors: NDArray[np.float64] | None) -> Examples:
    """The same rows with the factors of their classes multiplied into their weights."""
    if factors is None:
        return examples
    own = factors[examples.target]
    return Examples(examples.rows, examples.target, own if examples.weight is None else own * examples.weight)


def _present(values: "pl.Series", target: str) -> "pl.Series":
    import polars as pl

    if values.dtype.is_nested() or values.dtype.is_temporal():
        what = "lists of numbers" if values.dtype.is_nested() else "moments"
        raise DataError(
            f"{target!r} holds {what}, which cannot be predicted.",
            fix="Choose a column of numbers, flags or words.",
        )
    present = values.drop_nulls()
    if present.dtype.is_float():
        present = present.drop_nans()
        infinite = int(present.is_infinite().sum())
        if infinite:
            raise DataError(f"{target!r} is infinite in {infinite:,} rows.", fix="Leave such rows out, or give them a number.")
    elif present.dtype == pl.String:
        present = present.filter(present != "")
    if not len(present):
        raise DataError(f"no row has a value of {target!r}; nothing can be learned.", fix="Choose another target, or bring rows whose outcome is known.")
    return present


def _guess(present: "pl.Series", distinct: list[Any]) -> TaskType:
    if len(distinct) == 2 and (not present.dtype.is_float() or _whole(distinct)):
        return "binary"
    if not present.dtype.is_numeric():
        return "multiclass"
    return "multiclass" if _whole(distinct) and len(distinct) <= min(FEW, len(present) // 4) else "regression"


def _whole(distinct: list[Any]) -> bool:
    return all(float(v).is_integer() and abs(v) < 2**53 for v in distinct)


def _check_number(present: "pl.Series", target: str) -> None:
    if not present.dtype.is_numeric():
        raise DataError(
            f"`task: regression` needs numbers, but {target!r} is {present.dtype}: {_some(present.unique().sort().to_list())}.",
            fix="Leave `task` out, or make the column a number.",
        )


def _labels(present: "pl.Series", distinct: list[Any], target: str) -> list[Label]:
    if not present.dtype.is_float():
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
