"""Models: families that learn from encoded rows. Weights are plain arrays, saved without pickle."""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from modelinscale.compute._crew import Crew
from modelinscale.core import order
from modelinscale.core.encoded import Encoded, Form, Layout, Sparse
from modelinscale.core.errors import ModelError
from modelinscale.core.graph import Graph
from modelinscale.core.kinds import Kind
from modelinscale.core.space import Span, derived, narrowed
from modelinscale.core.task import Task

Scores = NDArray[np.float64]
"""(N,) for binary (logit of the positive class) and regression (the value), (N, C) logits for multiclass."""


BLOCK_ROWS = 65_536
"""Rows of a block that a family goes through. Always as many, wherever the rows lie: sums over blocks are then the same to the last bit."""
SCORED_ROWS = 16_384
"""Rows that are scored at once where memory is short. Families score a power of two of rows at a time, at most this many, so that the last bits of a score
are the same in blocks of as many, or of any multiple."""


MORE_ROUNDS = 1.1
"""Times as many rounds of boosting where the rows held out are learned from as well."""


@dataclass(frozen=True)
class Examples:
    """Encoded rows with their answers, held in memory. Rows on disk look the same (`encode.stored.Stored`); families that ask for blocks, for some
    rows or for batches hold no more of those than that, and families that ask for ``rows`` hold them all."""

    rows: Encoded
    target: NDArray[np.float64] | NDArray[np.int64]
    """(N,): class index (int64) or number (float64)."""
    weight: NDArray[np.float64] | None = None
    """(N,) row weights, class weights already multiplied in; None: all 1."""

    def __len__(self) -> int:
        return len(self.target)

    @property
    def layouts(self) -> dict[str, Layout]:
        return self.rows.layouts

    @property
    def held(self) -> bool:
        """Whether all rows are in memory anyway."""
        return True

    def blocks(self, n_rows: int = BLOCK_ROWS) -> "Iterator[Examples]":
        """The rows in order, ``n_rows`` at a time."""
        for start in range(0, len(self), n_rows):
            stop = min(start + n_rows, len(self))
            yield Examples(self.rows.slice(start, stop), self.target[start:stop], None if self.weight is None else self.weight[start:stop])

    def take(self, index: NDArray[np.int64]) -> "Examples":
        """The rows at ``index``, in memory; on disk it has to ascend."""
        return Examples(self.rows.rows(index), self.target[index], None if self.weight is None else self.weight[index])

    def weighed(self, factors: NDArray[np.float64] | None) -> "Examples":
        """The same rows with the factors of their classes, (C,), multiplied into their weights; None: as they are."""
        if factors is None:
            return self
        own = factors[self.target]
        return Examples(self.rows, self.target, own if self.weight is None else own * self.weight)

    @property
    def encoded_bytes(self) -> float:
        """Bytes of an encoded row on average, its answer apart: the same wherever rows lie, since the order of batches depends on it."""
        fixed = sum(layout.row_bytes for layout in self.layouts.values())
        return fixed + 8 * self._n_items / max(1, len(self))

    @property
    def _n_items(self) -> int:
        return sum(len(block.columns) for block in self.rows.values() if isinstance(block, Sparse))

    def batches(self, seed: int, epoch: int, n_rows: int, start: int = 0, *, rank: int = 0, world: int = 1) -> "Iterator[Examples]":
        """One epoch of ``n_rows`` at a time in an order of its own (`core.order`), from its row ``start`` on; of each batch the share, which may be empty, of
        the process ``rank`` of ``world`` that learn together."""
        deck, first = order.shuffled(len(self), seed), start
        for places in order.batches(len(self), self.encoded_bytes, seed, epoch, n_rows, start):
            yield self.take(deck[places[order.shared(len(self), first, len(places), rank, world)]])
            first += len(places)


@dataclass(frozen=True)
class Weights:
    """What a family learned: named arrays and JSON-ready facts (``meta``)."""

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Writes ``weights.npz`` and ``weights.json`` into an existing folder."""
        np.savez(folder / "weights.npz", **self.arrays)  # type: ignore[arg-type]
        (folder / "weights.json").write_text(json.dumps(self.meta, allow_nan=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Weights":
        """Reads what `save` wrote; never unpickles."""
        try:
            with np.load(BytesIO((folder / "weights.npz").read_bytes()), allow_pickle=False) as arrays:
                return cls(dict(arrays), json.loads((folder / "weights.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, BadZipFile) as error:
            raise ModelError(f"{folder}: the weights cannot be read ({error}).", fix="Run `mis run` again; it trains anew.") from error


def unheard(*said: object) -> None:
    """Whom to tell where nobody listens. A function with a name, so that other processes know it."""


Device = Literal["auto", "cpu", "gpu"]
"""auto: on a GPU where there is one."""
Strategy = Literal["auto", "data_parallel", "fully_sharded"]
"""data_parallel: all of them in each process · fully_sharded: a part of each in each process · auto: parts where the whole does not fit into its memory."""


@dataclass(frozen=True)
class Effort:
    """What fitting may use and whom it tells."""

    seed: int = 7
    budget_s: float | None = None
    """Wall seconds after which a family stops at its best so far; None: no limit."""
    n_threads: int = 0
    """0: all cores."""
    device: Device = "auto"
    """Where networks learn."""
    checkpoints: Path | None = None
    """A folder where a family that trains in steps keeps its newest state, to resume after a kill; None: none kept."""
    memory: int | None = None
    """Bytes that training may take besides interpreter and libraries; None: no limit."""
    workers: int = 1
    """Processes that a network of parts learns in, together."""
    compress_above: float | None = None
    """Of several processes: gradients travel in 16 bits where more than this share of the first steps was their way; None: always in full."""
    strategy: Strategy = "auto"
    """What each of several processes holds of the weights."""
    checkpoint_s: float = 10.0
    """Seconds between two checkpoints, at least, and ten times what one kept the training waiting; 0: one at every step."""
    patience_s: float = 300.0
    """Of several processes: how long one waits for the others before it takes them for lost."""
    crew: Crew | None = None
    """Where several processes are begun; None: on this machine."""
    tell: Callable[[str], None] = unheard
    """Called with a sentence the user should know of though nothing failed."""
    progress: Callable[[float, str], None] = unheard
    """Called with the share done (0 to 1) and a few words such as ``valid loss 0.312``."""


class Model(Kind):
    """A model family with its hyperparameters."""

    folder: ClassVar[str] = "models"
    form: ClassVar[Form]
    """Which form of encoding it learns from."""

    searched: ClassVar[Mapping[str, Span | None]] = {}
    """Where a search looks for some settings, instead of where their bounds say; None: it leaves them as they are."""

    @classmethod
    def space(cls) -> dict[str, Span]:
        """What a search may try, by setting: from the fields' own bounds and choices, and what ``searched`` says of them."""
        return narrowed(derived(cls), cls.searched)

    @abstractmethod
    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        """Why this family cannot learn this, or "" if it can."""

    @abstractmethod
    def fit(self, train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """Learns; the same seed gives the same weights. ``valid`` is for early stopping only."""

    @abstractmethod
    def update(self, weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """Goes on learning from new rows alone (plus whatever rehearsal rows the caller mixed in)."""

    @abstractmethod
    def predict(self, weights: Weights, rows: Encoded) -> Scores:
        """Scores of rows, (N,) or (N, C), before calibration."""

    @abstractmethod
    def graph(self, weights: Weights, task: Task, layouts: dict[str, Layout], graph: Graph, blocks: dict[str, str]) -> str:
        """Draws `predict`; ``blocks`` maps feature names to tensors. Returns float32 scores, (N,) or (N, C)."""

    def without_valid(self, learned: Sequence[Weights], task: Task) -> "Model | None":
        """Settings to learn with from all rows, none of them held out, from what it ``learned`` with rows held out; None: it needs those to know its end."""
        return None

    def row_bytes(self, weights: Weights) -> int:
        """About how many bytes its part of the graph holds of one row at once, beyond the encoded blocks. 0 by default."""
        return 0

    def origins(self, weights: Weights) -> tuple[dict[str, Any], ...]:
        """Weights learned elsewhere that are among these, as a package's manifest names them. None by default."""
        return ()

    def edges(self, weights: Weights) -> dict[str, NDArray[np.float32]]:
        """Values at which the answer may jump, by dense column name (tree thresholds): export tests one ULP either side. None by default."""
        return {}

    def importance(self, weights: Weights, layouts: dict[str, Layout]) -> dict[str, float]:
        """Share of the model's work each feature does, by feature name, summing to 1; empty where the family has no cheap answer."""
        return {}
