"""What the families of networks share: they learn by one loop, answer and are drawn by one network of parts. They differ in sizes and in how they learn.

C scores. Without torch until it learns or answers.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from modelinscale.core.encoded import Encoded, Layout, Role
from modelinscale.core.graph import Graph
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model, Scores, Weights
from modelinscale.models._deep.plan import Recipe, Shape


class Deep(Model):
    """A family that learns a network of parts."""

    if TYPE_CHECKING:  # a field of each family, in its own place among the others
        bins: int
        borders: Literal["quantiles", "tree"]
        waves: int
        frequency: float
    together: ClassVar[bool]
    """Whether all columns of ids have one table and all blocks of words another: a lookup each, which is quicker, instead of an encoder each."""

    @abstractmethod
    def recipe(self, n_rows: int) -> Recipe:
        """How it learns from so many rows."""

    @abstractmethod
    def shape(self, kinds: Sequence[Role], n_scores: int) -> Shape:
        """Trunk and head behind encoders of these kinds."""

    @abstractmethod
    def step_bytes(self, n_columns: int, sides: Sequence[int] = (), lengths: Sequence[int] = ()) -> int:
        """About the least that a step of training holds, weights and gradients included, told before a row is read: over a table of so many columns, each a
        number seen through bins, images of these sides and sequences of these lengths."""

    def fit(self, train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """The same seed gives the same weights on the same machine with the same number of threads, killed and resumed in between or not
        (unless the budget ends it: then as far as time allowed)."""
        from modelinscale.models._deep.learn import fit

        return fit(self, train, valid, task, effort)

    def update(self, weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """A few passes over the new rows at a fifth of the step size; with validation rows the best state is kept, the old one included."""
        from modelinscale.models._deep.learn import update

        return update(self, weights, new, valid, task, effort)

    def predict(self, weights: Weights, rows: Encoded) -> Scores:
        from modelinscale.models._deep.learn import predict

        return predict(weights, rows)

    def graph(self, weights: Weights, task: Task, layouts: dict[str, Layout], graph: Graph, blocks: dict[str, str]) -> str:
        """The mean over members is taken of the scores, so that it needs no logarithm of probabilities."""
        from modelinscale.models._deep.learn import draw

        return draw(weights, task, graph, blocks)

    def origins(self, weights: Weights) -> tuple[dict[str, Any], ...]:
        settings = (port["settings"] for port in weights.meta.get("ports", ()))
        return tuple({"sha256": one["digest"], **one["origin"]} for one in settings if "origin" in one)

    def row_bytes(self, weights: Weights) -> int:
        from modelinscale.models._deep.size import row_bytes

        return row_bytes(weights)


__all__ = ["Deep"]
