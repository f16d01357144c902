"""Boosted trees (LightGBM): splits on values in their own unit, native sets of categories, missing values a branch of their own.

Weights are the text LightGBM saves, as bytes: readable, exact, no pickle.
"""

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.encoded import Encoded, Form, Layout, Sparse
from modelinscale.core.graph import Graph
from modelinscale.core.seeds import derive
from modelinscale.core.space import Choices, Range, Span
from modelinscale.core.task import Task
from modelinscale.models import MORE_ROUNDS, Effort, Examples, Model, Scores, Weights, _trees_together
from modelinscale.models._bins import Source, dataset, sources
from modelinscale.models._forest import Tree, bounds, draw, read
from modelinscale.models._lightgbm import lightgbm
from modelinscale.models._matrix import Block, as_matrix, blocks_of
from modelinscale.models._sets import Codes, codes_of, draw_coded
from modelinscale.models._totals import centre_and_spread

_OBJECTIVE = {"binary": ("binary", "binary_logloss"), "multiclass": ("multiclass", "multi_logloss"), "regression": ("regression", "l2")}
_ONE_THREAD_CELLS = 1_000_000
"""Up to this many filled cells a second thread costs about what it brings; the answer is the same with any number."""


class Trees(Model):
    """Gradient-boosted trees; the best first choice for tables."""

    form: ClassVar[Form] = "plain"
    searched: ClassVar[Mapping[str, Span | None]] = {
        "rounds": Choices((400,)),  # as many as small steps need; validation rows say where to stop
        "learning_rate": Range(0.03, 0.3, log=True, start=0.1),
        "leaves": Range(8, 256, log=True, start=31),
        "l2": Range(1e-3, 100.0, log=True, start=1.0),
        "min_leaf_weight": None,
        "columns_share": Range(0.4, 1.0, start=1.0),
        "rows_share": Range(0.5, 1.0, start=1.0),
        "patience": None,
    }

    rounds: int | None = Field(None, ge=1)
    """Most boosting rounds; with validation rows the best number up to this is kept. Null: 200, fewer where rows times classes exceed
    700,000, down to 52."""
    learning_rate: float | None = Field(None, gt=0, le=1)
    """How much of each tree is added. Null: 0.1, more where there are fewer rounds, up to 0.3."""
    leaves: int | None = Field(None, ge=2, le=4096)
    """Most leaves of a tree. Null: 31, and 63 from 100,000 rows on."""
    min_leaf_rows: int = Field(20, ge=1)
    """Fewest rows in a leaf; fewer are allowed where there are fewer than 200 rows."""
    l2: float = Field(1.0, ge=0)
    """Penalty on the squared values of leaves."""
    min_leaf_weight: float = Field(0.1, ge=0)
    """Fewest rows in a leaf counted by what is still uncertain in them (the sum of second derivatives). LightGBM's own default, 0.001, lets
    a few rows that are nearly settled make leaves so large that multiclass training falls apart."""
    columns_share: float = Field(1.0, gt=0, le=1)
    """Share of the columns each tree may use."""
    rows_share: float = Field(1.0, gt=0, le=1)
    """Share of the rows each tree learns from."""
    random_splits: bool = False
    """Tries one border a column by chance instead of all: trees that differ more, and a better member of an ensemble."""
    patience: int = Field(30, ge=1)
    """Rounds without a better validation loss after which it stops."""

    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        if task.several:
            return f"it gives one class or one number, not {task.several}; `network` does"
        return "" if blocks_of(layouts) else "there is no feature to split on"

    def fit(self, train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        if effort.workers > 1 and effort.crew is not None and len(train) * sum(b.n_columns for b in blocks_of(train.layouts)) >= _trees_together.LEAST_CELLS:
            return _trees_together.fit(self, train, valid, task, effort)  # on this machine threads do better
        return self.learned(train, valid, task, effort)

    def learned(self, train: Examples, valid: Examples | None, task: Task, effort: Effort, share: _trees_together.Share | None = None) -> Weights:
        """What `fit` finds, by this process alone or, with its ``share`` of the rows, together with others."""
        start = time.monotonic()
        blocks = blocks_of(train.layouts)
        center, scale = centre_and_spread(train, task)
        learns, stops = sources(train, valid, blocks, task.n_scores, effort)
        params = self._params(task, effort, len(learns), _n_filled(learns.held.rows, blocks) if train.held else len(learns) * learns.n_columns)
        data = dataset(learns, center, scale, params)
        mine, params = (data, params) if share is None else share.of(data, params, len(learns))
        booster = lightgbm().Booster(params, mine)
        if stops is not None:
            booster.add_valid(dataset(stops, center, scale, params, reference=data), "valid")
        rounds = self._rounds(len(learns), task)
        best_round, best_loss, note = 0, np.inf, ""
        for i in range(1, rounds + 1):
            stopped = booster.update()
            note = f"round {i}"
            if valid is not None:
                loss = booster.eval_valid()[0][2]
                note += f", valid loss {loss:.4g}"
                if loss < best_loss:
                    best_round, best_loss = i, loss
            if i % 10 == 0:
                effort.progress(i / rounds, note)
            over = _over(start, effort)
            if stopped or (valid is not None and i - best_round >= self.patience) or (over if share is None else share.agrees(over)):
                break
        effort.progress(1.0, note)
        return _weights(booster.model_to_string(num_iteration=best_round or -1), blocks, task, center, scale)

    def without_valid(self, learned: Sequence[Weights], task: Task) -> "Trees":
        """A tenth more rounds than were best: more rows bear more. Steps and leaves as they were, where rows and rounds chose them."""
        rounds, text = np.mean([n_rounds(one) for one in learned]), _text(learned[0])
        chosen = {name: kind(_said(text, said)) for name, said, kind in (("learning_rate", "learning_rate", float), ("leaves", "num_leaves", int))}
        return self.but(rounds=max(1, round(float(rounds) * MORE_ROUNDS)), **chosen)

    def update(self, weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """Adds up to 20 trees for the new rows, gently: with LightGBM's defaults, going on from new rows alone wrecks a model of rare
        events within weeks (average precision 0.69 to 0.03); with these settings it holds 0.66, beside 0.69 for training anew."""
        blocks, center, scale = _blocks(weights), weights.meta["center"], weights.meta["scale"]
        # Few rows that are nearly settled already would never reach 5: then a fiftieth of all there is.
        least = min(5.0, _uncertainty(self.predict(weights, new.rows), new, task) / 50)
        params = {
            **self._params(task, effort, len(new), _n_filled(new.rows, blocks)),
            "min_sum_hessian_in_leaf": least,
            "lambda_l2": 5.0,
            "max_delta_step": 0.7,
        }
        # LightGBM guesses the rows of a leaf from their uncertainty: of few rows that are nearly settled, no 20 would ever come together.
        params["min_data_in_leaf"] = min(self.min_leaf_rows, max(1, len(new) // 100))
        data = dataset(Source(new, blocks), center, scale, params)
        booster = lightgbm().train(params, data, num_boost_round=20, init_model=_booster(weights))
        return _weights(booster.model_to_string(), blocks, task, center, scale)

    def predict(self, weights: Weights, rows: Encoded) -> Scores:
        X = as_matrix(rows, _blocks(weights))
        if not rows.n_rows:
            return np.empty(0 if weights.meta["n_scores"] == 1 else (0, weights.meta["n_scores"]))
        scores: NDArray[np.float64] = _booster(weights).predict(X, raw_score=True, num_threads=_threads(X.nnz if hasattr(X, "nnz") else X.size, 0))
        return scores * float(weights.meta["scale"]) + float(weights.meta["center"])

    def graph(self, weights: Weights, task: Task, layouts: dict[str, Layout], graph: Graph, blocks: dict[str, str]) -> str:
        trees, matrix = draw_coded(_trees(weights), _codes(weights), _blocks(weights), graph, blocks)
        tensor = draw(trees, task.n_scores, graph, matrix)
        if task.type == "regression":
            scale, center = (graph.constant(weights.meta[name], np.float32) for name in ("scale", "center"))
            tensor = graph.op("Add", graph.op("Mul", tensor, scale), center)
        return tensor if task.n_scores > 1 else graph.op("Squeeze", tensor, graph.constant([1], np.int64))

    def row_bytes(self, weights: Weights) -> int:
        return sum(found.table.shape[1] * 9 for found in _codes(weights).values())  # as bytes, as float32, and side by side with the others

    def edges(self, weights: Weights) -> dict[str, NDArray[np.float32]]:
        columns = _by_column(_blocks(weights))
        names = [name for block in _blocks(weights) for name in block.names]
        found: dict[str, list[NDArray[np.float32]]] = {}
        for tree in _trees(weights):
            thresholds = bounds(tree)
            for feature in np.unique(tree.feature):
                if columns[feature].role == "dense":
                    found.setdefault(names[feature], []).append(thresholds[tree.feature == feature])
        return {name: np.unique(np.concatenate(parts)) for name, parts in found.items()}

    def importance(self, weights: Weights, layouts: dict[str, Layout]) -> dict[str, float]:
        """Share of the loss that splits on each feature saved in training."""
        columns = _by_column(_blocks(weights))
        gain = np.zeros(len(columns))
        for tree in _trees(weights):
            np.add.at(gain, tree.feature, tree.gain)
        total = gain.sum() or 1.0
        shares = dict.fromkeys(layouts, 0.0)
        for block, one in zip(columns, gain, strict=True):
            shares[block.feature] += float(one / total)
        return shares

    def _rounds(self, n_rows: int, task: Task) -> int:
        # Covertype (395,000 rows, 7 classes), one thread: 50 rounds of 63 leaves at 0.3 reach accuracy 0.908 in 13 s of CPU time, at 0.2 0.894;
        # of 31 leaves at 0.2 0.857 in 8 s, at 0.1 0.827.
        return self.rounds or min(200, max(52, 145_000_000 // max(1, n_rows * task.n_scores)))

    def _params(self, task: Task, effort: Effort, n_rows: int, n_filled: int) -> dict[str, Any]:
        objective, metric = _OBJECTIVE[task.type]
        seed = derive(effort.seed, "trees") % (1 << 31)
        params: dict[str, Any] = {
            "objective": objective,
            "metric": metric,
            "learning_rate": self.learning_rate or min(0.3, max(0.1, 20 / self._rounds(n_rows, task))),
            "num_leaves": self.leaves or (31 if n_rows < 100_000 else 63),
            "min_data_in_leaf": min(self.min_leaf_rows, max(1, n_rows // 10)),
            "lambda_l2": self.l2,
            "min_sum_hessian_in_leaf": self.min_leaf_weight,
            "feature_fraction": self.columns_share,
            "bagging_fraction": self.rows_share,
            "bagging_freq": int(self.rows_share < 1),
            "extra_trees": self.random_splits,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": _threads(n_filled, effort.n_threads),
            "verbosity": -1,
        }
        if task.type == "multiclass":
            params["num_class"] = task.n_scores
        return params


def _threads(n_filled: int, wanted: int) -> int:
    """``n_filled``: cells of the matrix that are not empty."""
    return 1 if n_filled <= _ONE_THREAD_CELLS else wanted


def _n_filled(rows: Encoded, blocks: tuple[Block, ...]) -> int:
    return sum(len(part.values) if isinstance(part := rows[block.feature], Sparse) else part.size for block in blocks)


def _uncertainty(scores: Scores, examples: Examples, task: Task) -> float:
    """The sum over rows of the second derivative of the loss by a score: what LightGBM weighs leaves by."""
    weight = np.ones(len(examples)) if examples.weight is None else examples.weight
    if task.type == "regression":
        return float(weight.sum())
    if task.type == "binary":
        p = 0.5 * (1 + np.tanh(scores / 2))
        return float(weight @ (p * (1 - p)))
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return float(weight @ (p * (1 - p)).mean(axis=1))


def _over(start: float, effort: Effort) -> bool:
    return effort.budget_s is not None and time.monotonic() - start > effort.budget_s


def _weights(text: str, blocks: tuple[Block, ...], task: Task, center: float, scale: float) -> Weights:
    arrays = {"trees": np.frombuffer(text.encode("utf-8"), np.uint8)}
    return Weights(arrays, {"blocks": [block.plain() for block in blocks], "n_scores": task.n_scores, "center": center, "scale": scale})


def n_rounds(weights: Weights) -> int:
    """Rounds that were kept."""
    return weights.arrays["trees"].tobytes().count(b"\nTree=") // int(weights.meta["n_scores"])


def _said(text: str, name: str) -> str:
    """A setting, as the saved text has it."""
    start = text.index(f"\n[{name}: ") + len(name) + 4
    return text[start : text.index("]", start)]


def _text(weights: Weights) -> str:
    return weights.arrays["trees"].tobytes().decode("utf-8")


def _booster(weights: Weights) -> Any:
    return lightgbm().Booster(model_str=_text(weights))


def _trees(weights: Weights) -> tuple[Tree, ...]:
    return _read(_text(weights))


@lru_cache(maxsize=2)
def _read(text: str) -> tuple[Tree, ...]:
    # Export asks for the trees of one model four times.
    return tuple(read(text))


def _codes(weights: Weights) -> dict[int, Codes]:
    return _coded(_text(weights), tuple(block.n_ids for block in _by_column(_blocks(weights))))


@lru_cache(maxsize=2)
def _coded(text: str, n_ids: tuple[int, ...]) -> dict[int, Codes]:
    return codes_of(_read(text), dict(enumerate(n_ids)))


def _blocks(weights: Weights) -> tuple[Block, ...]:
    return tuple(Block.parse(block) for block in weights.meta["blocks"])


def _by_column(blocks: tuple[Block, ...]) -> list[Block]:
    return [block for block in blocks for _ in block.names]
