"""A network for tables (PyTorch): numbers through learned bins, categories and words through embeddings, a small ensemble that shares its weights.

K members of the ensemble, C scores. See `_deep` for its parts and their sources.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from modelinscale.core.encoded import Form, Layout, Role
from modelinscale.core.space import Range, Span
from modelinscale.core.task import Task
from modelinscale.models._deep import plan
from modelinscale.models._deep.family import Deep
from modelinscale.models._deep.plan import Recipe, Shape

_MOST_BATCH_ROWS, _BIN_WIDTH, _WARM_STEPS = 1024, 8, 50


class Mlp(Deep):
    """A modern network for tables; slower to train than trees, often better on smooth or text-like data."""

    form: ClassVar[Form] = "scaled"
    together: ClassVar[bool] = True
    searched: ClassVar[Mapping[str, Span | None]] = {
        "width": Range(32, 512, log=True, start=128),
        "layers": Range(1, 4, start=2),
        "members": Range(1, 8, start=4),
        "bins": Range(0, 48, start=16),
        "waves": Range(0, 48, start=16),
        "frequency": Range(0.02, 2.0, log=True, start=0.3),
        "swap": Range(0.0, 0.2, start=0.0),
        "dropout": Range(0.0, 0.5, start=0.1),
        "weight_decay": Range(1e-5, 0.1, log=True, start=3e-4),
        "epochs": None,
        "patience": None,
    }

    width: int = Field(128, ge=4, le=4096)
    """Units of a hidden layer."""
    layers: int = Field(2, ge=1, le=16)
    """Hidden layers."""
    members: int = Field(4, ge=1, le=64)
    """Networks of the ensemble; they share nearly all weights."""
    bins: int = Field(16, ge=0, le=128)
    """Bins a number is seen through; 0: none. Beyond 300 columns of numbers there are none."""
    borders: Literal["quantiles", "tree"] = "quantiles"
    """Where bins end: each with as many training rows (quantiles), or where a tree of the column alone would part the answers."""
    waves: int = Field(16, ge=0, le=128)
    """Waves a number is seen through besides, cosines whose frequencies are learned; 0: none. Beyond 300 columns of numbers there are none."""
    frequency: float = Field(0.3, gt=0, le=100)
    """Deviation of the frequencies at first, in waves for each standard deviation of a number; larger ones see finer steps, and learn more by heart."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of hidden units left out at each training step."""
    swap: float = Field(0.0, ge=0, lt=1)
    """Share of a training row's columns that are taken from other rows of the step, so that no answer hangs on one column; texts stay."""
    learning_rate: float = Field(3e-3, gt=0)
    """Step size of AdamW."""
    weight_decay: float = Field(3e-4, ge=0)
    """How fast unused weights shrink, per step and unit of step size."""
    batch_rows: int | None = Field(None, ge=1)
    """Rows a step; null: from the number of rows, 64 to 1024."""
    epochs: int = Field(60, ge=1)
    """Most passes over the rows; it stops earlier when validation rows stop getting better."""
    patience: int = Field(8, ge=1)
    """Looks at the validation rows (one an epoch, at least every 100,000 rows) without a better loss after which it stops."""

    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        return "" if any(layout.width for layout in layouts.values()) else "there is no feature to learn from"

    def recipe(self, n_rows: int) -> Recipe:
        return Recipe(
            epochs=self.epochs,
            batch_rows=self.batch_rows or plan.batch_rows(n_rows, 64, _MOST_BATCH_ROWS),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warm_share=0.0,
            warm_steps=_WARM_STEPS,
            patience=self.patience,
            fall="none",
            swap=self.swap,
        )

    def shape(self, kinds: Sequence[Role], n_scores: int) -> Shape:
        return Shape(self.width, self.layers, self.members, self.dropout, n_scores)

    def step_bytes(self, n_columns: int, sides: Sequence[int] = (), lengths: Sequence[int] = ()) -> int:
        """Of the whole step: a table's is small. Measured without waves: 66 MiB for 1,024 rows of 44 columns; this says 69."""
        K, H, L = self.members, self.width, self.layers
        D = n_columns * (1 + _BIN_WIDTH * (2 if self.waves else 1))
        per_row = 3 * K * D + 8 * K * H * L + 6 * n_columns * (self.bins + self.waves)  # what each layer gives, what is kept of it for its gradient, and that
        n_weights = D * H + H * H * (L - 1)
        return 4 * ((self.batch_rows or _MOST_BATCH_ROWS) * per_row + 8 * n_weights)  # now, average, best, judged, gradient, both moments, copied
