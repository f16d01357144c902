"""The regularised linear model: logistic for classes, ridge for numbers. Repeatable, quick, and the baseline everything else is held against.

N rows, F columns (each id one column), C scores. What is minimised: the weighted mean loss of the rows, plus half of ``strength`` times the
squared coefficients of the columns in standard units; a hundredth of it for those of words, whose rows have length 1. Intercepts are free.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.encoded import Encoded, Form, Layout, Sparse
from modelinscale.core.errors import ModelError
from modelinscale.core.graph import Graph
from modelinscale.core.seeds import derive, mixed
from modelinscale.core.space import Range, Span
from modelinscale.core.task import Task
from modelinscale.models import BLOCK_ROWS, Effort, Examples, Model, Scores, Weights
from modelinscale.models._matrix import Block, blocks_of, check
from modelinscale.models._minimise import minimise
from modelinscale.models._threads import one_blas_thread
from modelinscale.models._totals import Middle, said
from modelinscale.models._words import draw_weigh, rarity, weigh

F64 = NDArray[np.float64]

_WHITENED_COLUMNS = 600
"""Up to this many columns the minimum is sought in coordinates in which they are uncorrelated (a Cholesky factor: F^3 / 3 operations)."""
_CELLS = 40_000_000
"""Most cells of a dense matrix: 320 MB."""
_SCORED_ROWS = 4_096
"""Rows scored at once; a power of two, as blocks of rows are, so that the last bits do not depend on how rows come."""
_CELL_BYTES = 24
"""Of a cell at the fullest: the matrix, its squares, and what they are made from."""
_REFRESH = 12
"""Steps after which those coordinates are chosen anew."""
_CURVATURE_ROWS = 20_000
"""Rows that curvature is taken from when choosing them."""
_PATH = (10.0, 1.0, 0.1, 0.01)
"""Strengths tried where rows are few, in units of 1 / N; what most libraries call C = 1 is 1."""
_PLENTY = 100
"""With more rows than this for each coefficient the strength hardly matters, and 1 / N is taken untried."""
_OF_WORDS = 0.01
"""How many times ``strength`` coefficients of words are held back: their columns are far smaller than standard units, a row has length 1 in all together."""
_MEMORY = 10
"""In an update old rows count at most this many times the new ones: an old model must still be able to move."""

_FREE = 1e-7
"""The penalty on intercepts: next to none, yet a class without rows does not run away."""


class Linear(Model):
    """Logistic or ridge regression on standardised numbers, one-hot categories and tf-idf words."""

    form: ClassVar[Form] = "scaled"
    searched: ClassVar[Mapping[str, Span | None]] = {"strength": Range(1e-7, 0.1, log=True, start=1e-5), "rows": None, "iterations": None}

    strength: float | None = Field(None, ge=0)
    """How much coefficients are held back; null: the best of four on the validation rows, or 1 / rows where rows are plenty."""
    rows: int | None = Field(100_000, ge=1000)
    """Most rows to learn from, drawn by the seed so that rare classes stay; null: all."""
    iterations: int = Field(200, ge=1)
    """Most steps towards the minimum; it usually takes 10 to 40."""

    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        return ""

    def fit(self, train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        over, design = _watch(effort), _Design.observe(train)
        train = self._drawn(train, design, task, effort)
        valid = None if valid is None else self._drawn(valid, design, task, effort)
        problem = _Problem.of(design, train, task)
        n, n_coefficients = len(train), (problem.n_columns + 1) * task.n_scores
        strengths = [self.strength] if self.strength is not None else [s / n for s in _PATH]
        if self.strength is None and (valid is None or len(valid) < 20 or n > _PLENTY * n_coefficients):
            strengths = [1.0 / n]
        held_out = None if valid is None or len(strengths) == 1 else _Problem.of(design, valid, task, like=problem)
        best, W = None, problem.start()
        for i, strength in enumerate(strengths):
            penalty = strength * self._firmness(design)
            penalty[-1] = _FREE
            W = problem.solve(W, penalty, np.zeros_like(penalty), self.iterations, over)
            loss = problem.loss(W) if held_out is None else held_out.loss(W)
            effort.progress((i + 1) / len(strengths), f"strength {strength:.2g}, loss {loss:.4g}")
            if best is not None and loss >= best[0]:
                break  # the loss falls, then rises along the path
            best = (loss, strength, W)
            if over():
                break
        assert best is not None
        return problem.weights(best[2], task, strength=best[1], n_rows=float(n))

    def without_valid(self, learned: Sequence[Weights], task: Task) -> "Linear":
        """Held back as much as was best."""
        return self.but(strength=float(np.exp(np.mean([np.log(max(one.meta["strength"], 1e-12)) for one in learned]))))

    def update(self, weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """From the old coefficients, each held to its old value as firmly as the old rows determined it (the diagonal of their curvature)."""
        over, design = _watch(effort), _Design.parse(weights)
        new = self._drawn(new, design, task, effort)
        problem = _Problem.of(design, new, task, middle=_middle(weights))
        middle = weights.arrays["intercept"] - weights.arrays.get("offsets", 0.0)
        old, strength = np.vstack([weights.arrays["coefficients"], middle]), weights.meta["strength"]
        share = min(weights.meta["n_rows"] / len(new), _MEMORY)
        hold = weights.arrays["curvature"][:, None] * share
        penalty = hold + strength * self._firmness(design)
        penalty[-1] = hold[-1] + _FREE
        W = problem.solve(old, penalty, hold / penalty * old, self.iterations, over)
        effort.progress(1.0, f"loss {problem.loss(W):.4g}")
        return problem.weights(W, task, strength=strength, n_rows=(1 + share) * len(new), before=(share, weights))

    def predict(self, weights: Weights, rows: Encoded) -> Scores:
        design = _Design.parse(weights)
        # Some rows at a time: as float64, copied from parts, they take several times what they took as encoded.
        parts = [design.matrix(rows.slice(a, a + _SCORED_ROWS)) @ weights.arrays["coefficients"] for a in range(0, max(1, rows.n_rows), _SCORED_ROWS)]
        z = np.concatenate(parts) + weights.arrays["intercept"]
        center, scale = _middle(weights)
        scores: F64 = np.asarray(z, np.float64) * scale + center
        return scores if scores.shape[1] > 1 else scores[:, 0]

    def graph(self, weights: Weights, task: Task, layouts: dict[str, Layout], graph: Graph, blocks: dict[str, str]) -> str:
        design, (center, spread) = _Design.parse(weights), _middle(weights)
        coefficients = weights.arrays["coefficients"] * spread
        bias = weights.arrays["intercept"] * spread + center
        parts = []
        for block, at in design.places():
            W, tensor = coefficients[at], blocks[block.feature]
            if block.role == "dense":
                W = W * design.scale[at][:, None]
                bias = bias - design.shift[at] @ W
            if block.role == "sparse":
                tensor = draw_weigh(graph, tensor, design.scale[at])
            table = graph.constant(W, np.float32)
            parts.append(graph.op("Gather", table, tensor, axis=0) if block.role == "ids" else graph.op("MatMul", tensor, table))
        if not parts:
            raise ModelError("There is no feature to draw a linear model on.", fix="Name at least one feature.")
        total = graph.op("Sum", *parts, graph.constant(bias[None, :], np.float32))
        return total if task.n_scores > 1 else graph.op("Squeeze", total, graph.constant([1], np.int64))

    def importance(self, weights: Weights, layouts: dict[str, Layout]) -> dict[str, float]:
        """Share of the summed sizes of the coefficients, each in units of its column's deviation."""
        size = np.abs(weights.arrays["coefficients"]).mean(axis=1) * weights.arrays["spread"]
        total, shares = size.sum() or 1.0, dict.fromkeys(layouts, 0.0)
        for block, at in _Design.parse(weights).places():
            shares[block.feature] = float(size[at].sum() / total)
        return shares

    def _firmness(self, design: "_Design") -> F64:
        """(F + 1, 1): how many times ``strength`` each coefficient, and last the intercept, is held back."""
        found = np.ones((len(design.scale) + 1, 1))
        for block, at in design.places():
            if block.role == "sparse":
                found[at] = design.of_words
        return found

    def _drawn(self, examples: Examples, design: "_Design", task: Task, effort: Effort) -> Examples:
        """At most ``rows`` examples (fewer where there are very many columns), in memory; what a drawn row stands for goes into its weight."""
        cells = _CELLS if effort.memory is None else min(_CELLS, effort.memory // _CELL_BYTES)
        most = max(1000, min(self.rows or len(examples), cells // design.n_cells))
        if len(examples) <= most:
            return examples if examples.held else examples.take(np.arange(len(examples)))
        n_classes = max(1, len(task.labels))
        sizes = np.zeros(n_classes, np.int64)
        for block in examples.blocks():
            sizes += np.bincount(_class(block, task), minlength=n_classes)
        # Half of the rows go to classes by their size, half evenly: a class of a thousandth keeps all it has.
        wanted = np.minimum(sizes, (most * (0.5 * sizes / len(examples) + 0.5 / n_classes)).astype(np.int64) + 1)
        index, groups = _lowest(examples, task, wanted, derive(effort.seed, "linear", "rows"))
        drawn = examples.take(index)
        stands_for = (sizes / np.maximum(wanted, 1))[groups]
        return Examples(drawn.rows, drawn.target, stands_for if drawn.weight is None else drawn.weight * stands_for)


def _middle(weights: Weights) -> tuple[Middle, Middle]:
    """Center and scale of numbers to predict."""
    return np.asarray(weights.meta["center"], np.float64), np.asarray(weights.meta["scale"], np.float64)


def _class(examples: Examples, task: Task) -> NDArray[np.int64]:
    """(N,): the class of each row; numbers are one class."""
    return np.zeros(len(examples), np.int64) if not task.one_class else examples.target.astype(np.int64, copy=False)


def _lowest(examples: Examples, task: Task, wanted: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of each class with the ``wanted`` lowest keys, ascending, and their classes. A key is a function of seed and place: a draw without replacement
    that needs no list of all rows."""
    found: list[tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]] = []
    most, at = int(wanted.sum()), 0

    def cut() -> None:
        keys, index, groups = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((keys, groups))
        starts = np.searchsorted(groups[order], np.arange(len(wanted)))
        kept = order[np.arange(len(order)) - starts[groups[order]] < wanted[groups[order]]]
        found[:] = [(keys[kept], index[kept], groups[kept])]

    for block in examples.blocks():
        index = np.arange(at, at + len(block))
        found.append((mixed(np.uint64(seed), index.astype(np.uint64)), index, _class(block, task)))
        at += len(block)
        if sum(len(keys) for keys, _, _ in found) > 2 * most + 4 * BLOCK_ROWS:
            cut()
    cut()
    _, index, groups = found[0]
    order = np.argsort(index)
    return index[order], groups[order]


def _watch(effort: Effort) -> Callable[[], bool]:
    """Whether the budget, running from now, is used up."""
    began = time.monotonic()
    return lambda: effort.budget_s is not None and time.monotonic() - began > effort.budget_s


@dataclass(frozen=True)
class _Design:
    """From blocks to the columns of the linear model: ``(x - shift) * scale`` for dense ones, one column an id, and for counts of words
    ``log(1 + count) * scale`` (scale: the inverse document frequency), each row then divided by its length."""

    blocks: tuple[Block, ...]
    shift: F64  # (F,)
    scale: F64  # (F,)
    of_words: float = _OF_WORDS

    @classmethod
    def observe(cls, examples: Examples) -> "_Design":
        """Means and deviations of all rows, block by block: the middle first, then distances from it."""
        blocks = blocks_of(examples.layouts)
        sums = {b.feature: np.zeros(b.n_columns) for b in blocks if b.role != "ids"}
        n = max(1, len(examples))
        for one in examples.blocks():
            for name, total in sums.items():
                part = one.rows[name]
                total += np.bincount(part.columns, minlength=part.width) if isinstance(part, Sparse) else part.sum(axis=0, dtype=np.float64)
        dense = {b.feature: sums[b.feature] / n for b in blocks if b.role == "dense"}
        squares = {name: np.zeros(len(mean)) for name, mean in dense.items()}
        for one in examples.blocks() if dense else ():
            for name, mean in dense.items():
                part = one.rows[name]
                assert not isinstance(part, Sparse)
                away = part - mean
                squares[name] += np.einsum("ij,ij->j", away, away)
        shift, scale = [], []
        for block in blocks:
            if block.role == "sparse":
                scale.append(rarity(sums[block.feature], len(examples)))
                shift.append(np.zeros(block.n_columns))
            elif block.role == "ids":
                scale.append(np.ones(block.n_ids))
                shift.append(np.zeros(block.n_ids))
            else:
                mean, deviation = dense[block.feature], np.sqrt(squares[block.feature] / n)
                scale.append(1 / np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6), deviation, 1.0))
                shift.append(mean)
        none = [np.empty(0)]
        return cls(blocks, np.concatenate(shift or none), np.concatenate(scale or none))

    @classmethod
    def parse(cls, weights: Weights) -> "_Design":
        # Weights from before words were held back less do not say so.
        return cls(tuple(Block.parse(b) for b in weights.meta["blocks"]), weights.arrays["shift"], weights.arrays["scale"], weights.meta.get("of_words", 1.0))

    def places(self) -> list[tuple[Block, slice]]:
        """Each block with its columns."""
        found, at = [], 0
        for block in self.blocks:
            width = block.n_ids if block.role == "ids" else block.n_columns
            found.append((block, slice(at, at + width)))
            at += width
        return found

    @property
    def n_cells(self) -> int:
        """Cells a row takes in memory, about."""
        full = len(self.scale)
        return max(1, full if self.is_dense else sum(b.n_columns if b.role == "dense" else 1 for b in self.blocks) + 100)

    @property
    def is_dense(self) -> bool:
        """Whether rows become a plain array: few columns, or columns mostly filled."""
        full = len(self.scale)
        return full <= _WHITENED_COLUMNS or sum(b.n_columns for b in self.blocks if b.role == "dense") > full / 4

    def matrix(self, rows: Encoded) -> Any:
        """(N, F) float64, an array or a ``csr_matrix``."""
        check(rows, self.blocks)
        return self._dense(rows) if self.is_dense else self._sparse(rows)

    def _dense(self, rows: Encoded) -> F64:
        X = np.zeros((rows.n_rows, len(self.scale)))
        for block, at in self.places():
            part = rows[block.feature]
            if isinstance(part, Sparse):
                X[:, at] = self._words(part, at).toarray()
            elif block.role == "ids":
                X[np.arange(len(part)), at.start + part] = 1.0
            else:
                np.multiply(part - self.shift[at], self.scale[at], out=X[:, at])
        return X

    def _sparse(self, rows: Encoded) -> Any:
        from scipy.sparse import csr_matrix, hstack

        parts = []
        for block, at in self.places():
            part = rows[block.feature]
            if isinstance(part, Sparse):
                parts.append(self._words(part, at))
            elif block.role == "ids":
                parts.append(csr_matrix((np.ones(len(part)), part, np.arange(len(part) + 1)), shape=(len(part), block.n_ids)))
            else:
                parts.append(csr_matrix((part - self.shift[at]) * self.scale[at]))
        return hstack(parts, format="csr")

    def _words(self, part: Sparse, at: slice) -> Any:
        from scipy.sparse import csr_matrix

        return csr_matrix((weigh(part, self.scale[at]), part.columns, part.starts), shape=(len(part), part.width))


@dataclass(frozen=True)
class _Problem:
    """Rows and answers, ready to be fitted. Parameters W (F + 1, C): coefficients, and the intercepts in the last row."""

    design: _Design
    task: Task
    X: Any  # (N, F)
    target: NDArray[Any]  # (N,), numbers in standard units
    share: F64
    """(N,): weight of each row, summing to 1."""
    center: Middle
    scale: Middle
    """Mean and deviation of a number to predict, of several (C,); 0 and 1 for classes."""

    @classmethod
    def of(cls, design: _Design, examples: Examples, task: Task, like: "_Problem | None" = None, middle: tuple[Middle, Middle] | None = None) -> "_Problem":
        weight = np.ones(len(examples)) if examples.weight is None else examples.weight
        share, target = weight / weight.sum(), examples.target
        center, scale = (like.center, like.scale) if like is not None else middle or (0.0, 1.0)
        if like is None and middle is None and task.numbers:
            center = share @ target
            scale = np.sqrt(share @ (target - center) ** 2)
            scale = np.where(scale > 0, scale, 1.0)
        return cls(design, task, design.matrix(examples.rows), (target - center) / scale if task.numbers else target, share, center, scale)

    @property
    def n_columns(self) -> int:
        return len(self.design.scale)

    def start(self) -> F64:
        """No effect of any column; the intercepts say how common each class is."""
        W = np.zeros((self.n_columns + 1, self.task.n_scores))
        if self.task.type in ("binary", "multilabel"):
            p = np.clip(self.share @ self.target, 1e-6, 1 - 1e-6)
            W[-1] = np.log(p / (1 - p))
        elif self.task.type == "multiclass":
            W[-1] = np.log(np.maximum(self._frequencies(), 1e-6))
        return W

    def _frequencies(self) -> F64:
        return cast(F64, np.bincount(self.target, self.share, len(self.task.labels)))

    def solve(self, start: F64, penalty: F64, anchor: F64, iterations: int, stop: Callable[[], bool]) -> F64:
        """The minimum, from ``start``, of the loss plus half the penalty on squared distances from ``anchor``, both (F + 1, 1 or C); or how far it
        came until ``stop`` said so."""
        W = start
        with one_blas_thread():
            for _ in range(0, iterations, _REFRESH):
                if stop():
                    break
                W, done = self._step(W, penalty, anchor, stop)
                if done:
                    break
        return W

    def _step(self, start: F64, penalty: F64, anchor: F64, stop: Callable[[], bool]) -> tuple[F64, bool]:
        """A few steps in coordinates made for where it stands; and whether that was enough."""
        to_parameters, to_coordinates = self._coordinates(start, penalty)

        def value(U: F64) -> tuple[float, F64]:
            W = start + to_parameters(U)
            loss, gradient = self._loss_and_gradient(W)
            away = W - anchor
            return loss + 0.5 * float((penalty * away * away).sum()), to_coordinates(gradient + penalty * away)

        U, done = minimise(value, np.zeros_like(start), _REFRESH, stop=stop)
        return start + to_parameters(U), done

    def loss(self, W: F64) -> float:
        """The weighted mean loss, no penalty."""
        return self._loss_and_residuals(W)[0]

    def weights(self, W: F64, task: Task, *, strength: float, n_rows: float, before: tuple[float, Weights] | None = None) -> Weights:
        """As named arrays; ``before``: how many times the old rows count beside these, and what they left."""
        X, steep = self.X, self._steepness(W).mean(axis=1)
        offsets = self._offsets(W)
        squared = X.multiply(X).tocsr() if hasattr(X, "multiply") else X * X
        mean = np.asarray(X.T @ self.share).ravel()
        spread = np.sqrt(np.maximum(np.asarray(squared.T @ self.share).ravel() - mean**2, 0.0))
        curvature = np.append(np.asarray(squared.T @ steep).ravel(), steep.sum())
        if before is not None:
            old_share, old = before
            curvature = (curvature + old_share * old.arrays["curvature"]) / (1 + old_share)
            spread = np.sqrt((spread**2 + old_share * old.arrays["spread"] ** 2) / (1 + old_share))
            offsets = (offsets + old_share * old.arrays.get("offsets", 0.0)) / (1 + old_share)
        arrays = {
            "coefficients": W[:-1],
            "intercept": W[-1] + offsets,
            **({"offsets": offsets} if self.task.levels else {}),
            "shift": self.design.shift,
            "scale": self.design.scale,
            "spread": spread,
            "curvature": curvature,
        }
        meta = {
            "blocks": [b.plain() for b in self.design.blocks],
            "center": said(self.center),
            "scale": said(self.scale),
            "strength": strength,
            "of_words": self.design.of_words,
            "n_rows": n_rows,
        }
        return Weights(arrays, meta)

    def _offsets(self, W: F64) -> F64:
        """(C,): quantiles are the mean, moved for each level to where its share of the rows is below."""
        if not self.task.levels:
            return np.zeros(W.shape[1])
        off = self.target[:, None] - (np.asarray(self.X @ W[:-1]) + W[-1])  # (N, Q)
        moved = [np.quantile(off[:, k], level, weights=self.share, method="inverted_cdf") for k, level in enumerate(self.task.levels)]
        return np.array(moved)

    def _loss_and_gradient(self, W: F64) -> tuple[float, F64]:
        loss, residuals = self._loss_and_residuals(W)
        return loss, np.vstack([np.asarray(self.X.T @ residuals), residuals.sum(axis=0)])

    def _loss_and_residuals(self, W: F64) -> tuple[float, F64]:
        """The loss, and its derivative by each score, (N, C)."""
        z = np.asarray(self.X @ W[:-1]) + W[-1]  # (N, C)
        share, y = self.share, self.target
        if self.task.numbers:
            away = z - y.reshape(len(y), -1)
            return 0.5 * float((share @ away**2).sum()), share[:, None] * away
        if self.task.type == "binary":
            s = z[:, 0]
            e = np.exp(-np.abs(s))
            p = np.where(s >= 0, 1.0, e) / (1.0 + e)
            return float(share @ (np.maximum(s, 0.0) - s * y + np.log1p(e))), (share * (p - y))[:, None]
        if self.task.type == "multilabel":
            e = np.exp(-np.abs(z))
            p = np.where(z >= 0, 1.0, e) / (1.0 + e)
            return float((share @ (np.maximum(z, 0.0) - z * y + np.log1p(e))).sum()), share[:, None] * (p - y)
        z = np.ascontiguousarray(z.T)  # (C, N): sums over classes are then sums of long rows, 2 x as fast
        z -= z.max(axis=0)
        at = np.arange(len(y))
        own = z[y, at]
        p = np.exp(z, out=z)
        total = p.sum(axis=0)
        loss = float(share @ (np.log(total) - own))
        p /= total
        p[y, at] -= 1.0
        p *= share
        return loss, p.T

    def _steepness(self, W: F64, rows: slice = slice(None)) -> F64:
        """(N, 1 or C): second derivative of the loss of each row by each of its scores, times the row's share."""
        share = self.share[rows, None]
        if self.task.numbers:
            return share
        p = self._probability(W, rows)
        return share * np.maximum(p * (1 - p), 1e-4)

    def _probability(self, W: F64, rows: slice) -> F64:
        z = np.asarray(self.X[rows] @ W[:-1]) + W[-1]
        if self.task.type in ("binary", "multilabel"):
            return cast(F64, 0.5 * (1 + np.tanh(z / 2)))
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return cast(F64, p / p.sum(axis=1, keepdims=True))

    def _coordinates(self, W: F64, penalty: F64) -> tuple[Callable[[F64], F64], Callable[[F64], F64]]:
        """Coordinates in which the loss near ``W`` is about equally steep in every direction: the way from there to parameters, and of
        gradients to there. Few columns: through the Cholesky factors of each score's own curvature; many: each column by its own."""
        rows = slice(None, None, max(1, len(self.share) // _CURVATURE_ROWS))  # a rough curvature is enough: it changes the way, not the minimum
        steep = self._steepness(W, rows)
        steep *= self.share.sum() / self.share[rows].sum()
        X = self.X[rows]
        if self.n_columns > _WHITENED_COLUMNS or hasattr(X, "multiply"):
            squares = np.asarray((X.multiply(X) if hasattr(X, "multiply") else X * X).T @ steep)
            width = np.sqrt(np.vstack([squares, steep.sum(axis=0)]) + penalty + 1e-9)
            return (lambda U: U / width), (lambda G: G / width)
        X = np.hstack([X, np.ones((len(X), 1))])
        curvature = np.stack([X.T @ (X * one[:, None]) for one in steep.T])  # (C, F + 1, F + 1)
        at = np.arange(X.shape[1])
        curvature[:, at, at] += np.broadcast_to(penalty, (len(at), len(curvature))).T + 1e-9
        inverse = np.linalg.inv(np.linalg.cholesky(curvature))
        inverse = np.broadcast_to(inverse, (W.shape[1], *inverse.shape[1:]))  # of numbers all have the same curvature
        return (lambda U: np.einsum("cji,jc->ic", inverse, U)), (lambda G: np.einsum("cij,jc->ic", inverse, G))
