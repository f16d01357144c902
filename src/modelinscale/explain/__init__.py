"""Explanations: what a model's answers rest on, over many rows or for one, and whether that holds when it is tried.

N rows, F features, C scores. Everything works on encoded rows: a feature is one raw column, and its blocks change places together.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.decision import Decision
from modelinscale.core.encoded import Encoded, joined
from modelinscale.core.kinds import Kind
from modelinscale.core.settings import Settings
from modelinscale.core.task import Task
from modelinscale.models import Model, Weights

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Attribution", "Change", "Effect", "Explained", "Explainer", "Explanation", "Rows", "Subject", "about", "usual"]


@dataclass(frozen=True)
class Rows:
    """Rows as they lie in the table and as the model sees them."""

    frame: "pl.DataFrame"
    """(N,) raw cells of the features' columns."""
    encoded: Encoded
    truth: NDArray[Any] | None = None
    """(N,) class index or number; None: not known."""
    weight: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return self.encoded.n_rows

    def take(self, index: NDArray[np.int64]) -> "Rows":
        """The rows at ``index``, in that order."""
        truth, weight = (None if one is None else one[index] for one in (self.truth, self.weight))
        return Rows(self.frame[index], self.encoded.rows(index), truth, weight)


@dataclass(frozen=True)
class Subject:
    """What is explained: a model with all that belongs to it."""

    model: Model
    weights: Weights
    task: Task
    decision: Decision
    background: Rows
    """Training rows by chance: what a column holds when nothing is known of it."""

    @cached_property
    def features(self) -> dict[str, tuple[str, ...]]:
        """The blocks of each feature: one, or one a form where several lie side by side."""
        found: dict[str, list[str]] = {}
        for block in self.background.encoded.layouts:
            found.setdefault(block.partition("/")[2] if "+" in self.model.form else block, []).append(block)
        return {feature: tuple(blocks) for feature, blocks in found.items()}

    def scores(self, rows: Encoded) -> NDArray[np.float64]:
        """(N, C) before calibration."""
        found = self.model.predict(self.weights, rows)
        return found if found.ndim == 2 else found[:, None]

    def outputs(self, rows: Encoded) -> NDArray[np.int64]:
        """(N,): which score of a row is explained: of many classes the decided one's."""
        if self.task.type != "multiclass":
            return np.zeros(rows.n_rows, np.int64)
        return self.decision.decide(self.decision.probability(self.scores(rows), self.task), self.task)

    def said(self, rows: Encoded, output: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N,): the explained score."""
        return self.scores(rows)[np.arange(rows.n_rows), output]


def swapped(rows: Encoded, others: Encoded, take: Mapping[str, NDArray[np.int64]], n_rows: int) -> Encoded:
    """``n_rows`` rows whose blocks are taken from the rows (0 … N - 1) or the others (N …), each by its own index."""
    both = joined([rows, others])
    plain = np.arange(n_rows)
    return Encoded(rows.layouts, {name: both.rows(take.get(name, plain)).blocks[name] if name in take else _only(both, name, plain) for name in rows.blocks})


def _only(rows: Encoded, name: str, index: NDArray[np.int64]) -> Any:
    return Encoded({name: rows.layouts[name]}, {name: rows.blocks[name]}).rows(index).blocks[name]


class Effect(Settings):
    """What a feature does, over many rows."""

    feature: str
    """The column."""
    value: float
    """permutation: how much the mean loss grows when its cells are shuffled. Others: the mean size of its contributions to the score."""
    low: float
    """Lower end of the interval of 95 %."""
    high: float
    """Upper end of it."""


class Check(Settings):
    """The same features changed in the order an explanation gives and in random orders."""

    gap: float
    """Mean score while the features come in, the weightiest first, less that while they go out, the weightiest first; in units of the score's spread."""
    random: float
    """The same for random orders, on average."""
    random_spread: float
    """The standard deviation of random orders."""
    better: bool
    """Whether the gap is above random by more than two of these."""


class Change(Settings):
    """A cell that would have to be another."""

    feature: str
    """The column."""
    was: str
    """Its cell."""
    to: str
    """What it would have to be."""


class Attribution(Settings):
    """One row's answer, explained."""

    row: int
    """Its place among the rows given, from 0."""
    answer: str
    """The class, or the number."""
    output: str
    """Whose score is explained: a class, or the target."""
    score: float
    """That score, before calibration (two classes: the logit of the positive one)."""
    base: float | None = None
    """The score that contributions are counted from; None: there is none."""
    effects: dict[str, float] = {}
    """What each feature adds to the score."""
    cells: dict[str, str] = {}
    """The row's cells, as text."""
    changes: tuple[Change, ...] | None = None
    """counterfactual: the changes that give another answer."""
    would_be: str = ""
    """counterfactual: that answer; empty: none was found."""


class Explanation(Settings):
    """What came out, as plain data."""

    format: int = 1
    """Of this description."""
    by: str
    """How it was explained."""
    model: str
    """The family."""
    target: str
    """The column that is predicted."""
    n_rows: int
    """Rows looked at."""
    importance: tuple[Effect, ...] = ()
    """Over many rows, the weightiest first."""
    unit: str = ""
    """What the importance is measured in."""
    rows: tuple[Attribution, ...] = ()
    """Row by row."""
    error: float | None = None
    """Where contributions promise to add up: by how much they miss it at most, as a share of the scores' size."""
    check: Check | None = None
    """Deletion and insertion against random order."""
    similarity: float | None = None
    """grad_cam: how alike (SSIM, 1: equal) the maps are to those of a model with random weights."""
    faithful: bool | None = None
    """Whether it stood its checks; None: nothing to check."""
    notes: tuple[str, ...] = ()
    """What a reader must know, in sentences."""


@dataclass(frozen=True)
class Explained:
    """What an explainer finds. Whatever it does not tell is empty."""

    effects: NDArray[np.float64] | None = None
    """(N, F) in the order of `Subject.features`."""
    base: NDArray[np.float64] | None = None
    """(N,): effects are counted from here."""
    importance: tuple[Effect, ...] = ()
    unit: str = ""
    maps: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """By image feature: (N, height, width), what each place adds, not negative."""
    similarity: float | None = None
    changes: tuple[tuple[tuple[Change, ...] | None, str], ...] = ()
    """For each row the changes, and the answer they would give."""
    notes: tuple[str, ...] = ()


class Explainer(Kind):
    """One way to explain."""

    folder: ClassVar[str] = "explain"
    local: ClassVar[bool] = True
    """Whether it explains a row by itself."""
    overall: ClassVar[bool] = True
    """Whether it explains many rows together."""
    additive: ClassVar[bool] = False
    """Whether contributions and base add up to the score."""

    @abstractmethod
    def refuses(self, subject: Subject) -> str:
        """Why it cannot explain this, or ""."""

    @abstractmethod
    def explain(self, subject: Subject, rows: Rows, output: NDArray[np.int64], *, seed: int, overall: bool) -> Explained:
        """``overall``: all rows together, otherwise each; ``output`` (N,) says whose score is meant (`Subject.outputs`)."""


def usual(subject: Subject, *, local: bool) -> Explainer:
    """The way to explain that suits a model when none is named."""
    names = ("tree_shap", "integrated_gradients", "permutation") if local else ("permutation",)
    ways = [Explainer.parse(name) for name in names]
    return next(way for way in ways if not way.refuses(subject))


def about(explainer: Explainer, subject: Subject, rows: Rows, *, local: bool, seed: int = 7) -> tuple[Explanation, Explained]:
    """The explanation with its checks, and what it was made of (heat maps). Raises `UsageError` where the explainer does not suit the model."""
    from modelinscale.explain._about import about as tell

    return tell(explainer, subject, rows, local=local, seed=seed)
