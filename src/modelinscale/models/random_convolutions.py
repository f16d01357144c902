"""Random convolutions with a linear model on top: sequences told apart in seconds, on one core, by how kernels of chance answer to them.

N rows, F features of convolutions. See `_convolutions` for what is found in a sequence, and its sources.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.encoded import Encoded, Form, Layout, Values, block_name, feature_of, joined, layouts_in
from modelinscale.core.graph import Graph
from modelinscale.core.order import shuffled
from modelinscale.core.space import Range, Span
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model, Scores, Weights
from modelinscale.models._convolutions import Bank
from modelinscale.models._in_step import in_step
from modelinscale.models._threads import one_blas_thread
from modelinscale.models.linear import Linear, _Design

_CELLS = 40_000_000
"""Rows times features that are learned from at most: what the linear model holds, 320 MB."""
_CELL_BYTES = 32
"""Of such a cell at the fullest."""
_LEAST_FEATURES, _USUAL_FEATURES = 1_000, 5_000
_SEEN_ROWS = 4_096
"""Rows that thresholds are chosen from, and columns that end together found in."""
_SCORED_ROWS = 1_024
"""Rows whose features are held at once."""
_AS_COLUMNS = 30
_TOLD_ROWS = 256
"""Rows on which is measured what each feature does."""


class RandomConvolutions(Model):
    """Sequences through thousands of random convolutions, all other columns beside them, in one linear model.

    The first to try on sequences: on some hundred to some ten thousand rows it is about as good as anything and needs seconds. Images, texts and numbers
    are seen as `linear` sees them; without sequences it is that.
    """

    form: ClassVar[Form] = "scaled+deep"
    searched: ClassVar[Mapping[str, Span | None]] = {
        "features": Range(1000, 10_000, log=True, start=5000),
        "groups": Range(8, 64, log=True, start=64),
        "strength": Range(1e-6, 1.0, log=True, start=1e-2),
        "rows": None,
    }

    features: int | None = Field(None, ge=84, le=100_000)
    """Thresholds that answers of kernels are counted above; null: 5,000, and fewer (down to 1,000) where there are very many rows."""
    groups: int = Field(64, ge=0, le=1024)
    """Groups of eight kernels that contend for each step, for each spacing of their taps; 0: none."""
    strength: float | None = Field(None, ge=0)
    """How much coefficients are held back; null: the best of four on the validation rows."""
    rows: int | None = Field(None, ge=1000)
    """Most rows to learn from, drawn by the seed; null: as many as memory allows, 8,000 with 5,000 features."""

    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        return self._head.accepts(task, layouts_in(layouts, "scaled", self.form))

    def fit(self, train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        since = time.monotonic()
        seen = train.take(np.arange(0, len(train), max(1, len(train) // _SEEN_ROWS))).rows
        banks = self._drawn_banks(seen, len(train), effort)
        learned = self._found(banks, self._some(train, banks, effort))
        held_out = None if valid is None else self._found(banks, self._some(valid, banks, effort))
        effort.progress(0.3, f"{sum(bank.n_features for bank in banks)} features of convolutions")
        head = self._head.fit(learned, held_out, task, _left(effort, since))
        longest = max((layout.shape[0] for layout in train.layouts.values() if layout.role == "steps"), default=0)
        return self._weights(banks, head, learned, longest)

    def update(self, weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """The convolutions stay; the linear model goes on from its old coefficients."""
        since, (banks, head) = time.monotonic(), _parts(weights)
        learned = self._found(banks, self._some(new, banks, effort))
        return self._weights(banks, self._head.update(head, learned, None, task, _left(effort, since)), learned, weights.meta["longest"])

    def predict(self, weights: Weights, rows: Encoded) -> Scores:
        banks, head = _parts(weights)
        parts = [self._head.predict(head, self._seen(banks, rows.slice(a, a + _SCORED_ROWS))) for a in range(0, max(1, rows.n_rows), _SCORED_ROWS)]
        return np.concatenate(parts)

    def graph(self, weights: Weights, task: Task, layouts: dict[str, Layout], graph: Graph, blocks: dict[str, str]) -> str:
        banks, head = _parts(weights)
        tensors = {name: blocks[name] for name in self._others(layouts)} | {_block(bank): bank.graph(graph, blocks) for bank in banks}
        return self._head.graph(head, task, self._layouts(banks, layouts), graph, tensors)

    def row_bytes(self, weights: Weights) -> int:
        """Answers of all kernels of one layer at all steps, and whether each is above each threshold."""
        most = [(layer.n_features if not layer.contends else 4 * layer.n_features) for bank in _parts(weights)[0] for layer in bank.layers]
        return 6 * max(most, default=0) * int(weights.meta["longest"])

    def importance(self, weights: Weights, layouts: dict[str, Layout]) -> dict[str, float]:
        """Share of how far scores move when a feature's cells are another row's, measured on training rows."""
        shares = dict.fromkeys((feature_of(name, self.form) for name in layouts), 0.0)
        total = sum(weights.meta["moves"].values()) or 1.0
        for name, move in weights.meta["moves"].items():
            shares[name] += move / total
        return shares

    @property
    def _head(self) -> Linear:
        return _Head(strength=self.strength, rows=None)

    def _drawn_banks(self, seen: Encoded, n_rows: int, effort: Effort) -> list[Bank]:
        """A bank for each set of sequences that end together; they share the features evenly."""
        steps = {name: np.asarray(seen[name]) for name, layout in seen.layouts.items() if layout.role == "steps"}
        groups = in_step(steps)
        n = self.features or int(np.clip(_cells(effort) // max(1, n_rows), _LEAST_FEATURES, _USUAL_FEATURES))
        with one_blas_thread():
            return [Bank.draw(seen, names, n // len(groups), -(-self.groups // len(groups)), effort.seed) for names in groups]

    def _some(self, examples: Examples, banks: list[Bank], effort: Effort) -> Examples:
        """At most as many rows as may be held with their features, drawn by the seed; in memory."""
        width = sum(bank.n_features for bank in banks) + sum(layout.width for name, layout in examples.layouts.items() if layout.role == "dense")
        most = max(1000, min(self.rows or len(examples), _cells(effort) // max(1, width)))
        if len(examples) <= most:
            return examples if examples.held else examples.take(np.arange(len(examples)))
        return examples.take(np.sort(shuffled(len(examples), effort.seed)[:most]))

    def _found(self, banks: list[Bank], examples: Examples) -> Examples:
        """The same rows as the linear model sees them."""
        parts = [self._seen(banks, examples.rows.slice(a, a + _SCORED_ROWS)) for a in range(0, max(1, len(examples)), _SCORED_ROWS)]
        return Examples(joined(parts), examples.target, examples.weight)

    def _seen(self, banks: list[Bank], rows: Encoded) -> Encoded:
        blocks: dict[str, Values] = {name: rows[name] for name in self._others(rows.layouts)}
        with one_blas_thread():
            blocks |= {_block(bank): bank.found(rows) for bank in banks}
        return Encoded(self._layouts(banks, rows.layouts), blocks)

    def _others(self, layouts: Mapping[str, Layout]) -> list[str]:
        """Blocks in scaled form: all columns, of sequences a summary."""
        return [name for name in layouts if name == block_name(feature_of(name, self.form), "scaled", self.form)]

    def _layouts(self, banks: list[Bank], layouts: Mapping[str, Layout]) -> dict[str, Layout]:
        found = {name: layouts[name] for name in self._others(layouts)}
        for bank in banks:
            n = bank.n_features
            found[_block(bank)] = Layout("dense", n, tuple(f"{_block(bank)} {i}" for i in range(n)))
        return found

    def _weights(self, banks: list[Bank], head: Weights, learned: Examples, longest: int) -> Weights:
        arrays: dict[str, NDArray[Any]] = {f"head/{name}": array for name, array in head.arrays.items()}
        for i, bank in enumerate(banks):
            arrays |= {f"bank {i}/{name}": array for name, array in bank.arrays().items()}
        meta = {"head": head.meta, "banks": [bank.plain() for bank in banks], "moves": self._moves(banks, head, learned), "longest": longest}
        return Weights(arrays, meta)

    def _moves(self, banks: list[Bank], head: Weights, learned: Examples) -> dict[str, float]:
        """By feature, how far scores move when its cells are another row's."""
        rows = learned.rows.slice(0, _TOLD_ROWS)
        other, scores = rows.rows(np.roll(np.arange(rows.n_rows), 1)), self._head.predict(head, rows)
        owners: dict[str, tuple[str, ...]] = {name: (feature_of(name, self.form),) for name in self._others(rows.layouts)}
        owners |= {_block(bank): tuple(feature_of(name, self.form) for name in bank.features) for bank in banks}
        found: dict[str, float] = {}
        for block, names in owners.items():
            moved = self._head.predict(head, Encoded(rows.layouts, {**rows.blocks, block: other[block]}))
            for name in names:
                found[name] = found.get(name, 0.0) + float(np.abs(moved - scores).mean()) / len(names)
        return found


class _Head(Linear):
    """The linear model. All convolutions of a sequence together are held back as firmly as some thirty columns: they say the same in many ways."""

    def _firmness(self, design: _Design) -> NDArray[np.float64]:
        found = super()._firmness(design)
        for block, at in design.places():
            if block.role == "dense" and block.feature.startswith("deep/"):
                found[at] = max(1.0, block.n_columns / _AS_COLUMNS)
        return found


def _block(bank: Bank) -> str:
    """What a bank's block is called for the linear model: as its first feature's steps, which that does not see."""
    return bank.features[0]


def _parts(weights: Weights) -> tuple[list[Bank], Weights]:
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in weights.arrays.items():
        part, _, own = name.partition("/")
        found.setdefault(part, {})[own] = array
    banks = [Bank.parse(plain, found.get(f"bank {i}", {})) for i, plain in enumerate(weights.meta["banks"])]
    return banks, Weights(found["head"], weights.meta["head"])


def _cells(effort: Effort) -> int:
    return _CELLS if effort.memory is None else min(_CELLS, effort.memory // _CELL_BYTES)


def _left(effort: Effort, since: float) -> Effort:
    """What is left for the linear model."""
    budget_s = None if effort.budget_s is None else max(0.0, effort.budget_s - (time.monotonic() - since))
    return replace(effort, budget_s=budget_s, progress=lambda share, note: effort.progress(0.3 + 0.7 * share, note))
