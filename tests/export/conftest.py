"""Small real models over every column type, ready to export."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.core.decision import Decision
from modelinscale.core.schema import Column, Schema
from modelinscale.core.task import Label, Task, TaskType
from modelinscale.encode import encode, observe_all
from modelinscale.export import Parts
from modelinscale.features import Feature
from modelinscale.models import Effort, Examples, Model

LABELS: dict[TaskType, tuple[Label, ...]] = {"binary": (False, True), "multiclass": ("blue", "green", "red"), "regression": ()}
MODELS: dict[str, dict[str, Any]] = {
    "linear": {"type": "linear"},
    "trees": {"type": "trees", "rounds": 12, "leaves": 8},
    "mlp": {"type": "mlp", "width": 8, "layers": 1, "members": 2, "bins": 4, "epochs": 2},
}
SCHEMA = Schema(
    columns=(
        Column(name="id", type="int"),
        Column(name="amount", type="float"),
        Column(name="count", type="int", nullable=False),
        Column(name="city", type="string", nulls=("?",)),
        Column(name="paid", type="bool", true_words=("yes",), false_words=("no",)),
        Column(name="at", type="time", format="%d/%m/%Y %H:%M"),
        Column(name="words", type="string"),
        Column(name="place", type="vector", width=2),
        Column(name="target", type="string"),
    )
)
FEATURES = {"amount": "number", "count": "number", "city": "category", "paid": "flag", "at": "moment", "words": "text", "place": "vector"}


@dataclass(frozen=True)
class Small:
    """A fitted model, and rows it did not learn from."""

    parts: Parts
    frame: pl.DataFrame
    truth: np.ndarray[Any, Any]


def rows(n: int, seed: int) -> pl.DataFrame:
    chance = np.random.default_rng(seed)
    words = np.array(["good", "bad", "slow", "fast", "ünïcode", "😀"])
    frame = pl.DataFrame(
        {
            "amount": np.where(chance.random(n) < 0.1, np.nan, np.round(chance.lognormal(2, 1, n), 2)),
            "count": chance.integers(0, 40, n),
            "city": chance.choice(np.array(["Paris", "Oslo", "Zürich", "?!", "rare"]), n, p=[0.4, 0.3, 0.2, 0.09, 0.01]),
            "paid": chance.random(n) < 0.6,
            "at": np.datetime64("2024-01-01T00:00", "us") + chance.integers(0, 500_000, n).astype("timedelta64[m]"),
            "words": [" ".join(chance.choice(words, chance.integers(0, 6))) for _ in range(n)],
            "place": pl.Series(chance.normal(size=(n, 2)).astype(np.float32), dtype=pl.Array(pl.Float32, 2)),
        }
    )
    gone = {name: pl.when(pl.Series(chance.random(n) > 0.05)).then(pl.col(name)).alias(name) for name in ("city", "paid", "at", "place")}
    return frame.with_columns(pl.col("amount").fill_nan(None), pl.col("words").replace("", None), **gone)


def planted(frame: pl.DataFrame, task: TaskType) -> np.ndarray[Any, Any]:
    score = (
        frame["amount"].fill_null(0).log1p() - 2
        + (frame["city"] == "Paris").fill_null(False).cast(pl.Float64)
        + frame["words"].fill_null("").str.count_matches("good").cast(pl.Float64)
        - frame["count"] / 20
    ).to_numpy()  # fmt: skip
    if task == "regression":
        return np.asarray(score * 1000, np.float64)
    return np.asarray(np.digitize(score, [0.0] if task == "binary" else [-0.7, 0.7]), np.int64)


@cache
def small(family: str, type: TaskType) -> Small:
    features = {name: Feature.parse(kind) for name, kind in FEATURES.items()}
    train, valid = rows(600, 1), rows(300, 2)
    states = observe_all(features, train)
    model = Model.parse(MODELS[family])
    task = Task(type=type, target="target", labels=LABELS[type])

    def examples(frame: pl.DataFrame) -> Examples:
        return Examples(encode(features, states, frame, model.form), planted(frame, type))

    weights = model.fit(examples(train), examples(valid), task, Effort(n_threads=1))
    return Small(Parts(features, states, model, weights, task, Decision()), valid, planted(valid, type))


@pytest.fixture
def make() -> Callable[[str, TaskType], Small]:
    """``make("trees", "binary")``: fitted once for all tests."""
    return small


@pytest.fixture
def fresh() -> pl.DataFrame:
    """Rows nobody saw, missing cells among them."""
    return rows(400, 3)


@pytest.fixture
def schema() -> Schema:
    return SCHEMA
