"""How the network of `mlp` learns: AdamW, a moving average of the weights, early stopping, checkpoints that resume to the same bits.

Imported only inside functions, as it needs torch.
"""

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded
from modelinscale.core.errors import StoreError
from modelinscale.core.files import write_bytes
from modelinscale.core.identity import identity
from modelinscale.core.memory import check
from modelinscale.core.seeds import derive
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Scores, Weights
from modelinscale.models._adamw import AdamW, Moments
from modelinscale.models._borders import BINNED_COLUMNS, borders_of
from modelinscale.models._feed import Arrays, Feed, Rows, Step, feed, scores
from modelinscale.models._matrix import Block, blocks_of
from modelinscale.models._network import Network, Shape
from modelinscale.models._torch import torch
from modelinscale.models._totals import base_scores, centre_and_spread, n_with
from modelinscale.models._words import rarity

if TYPE_CHECKING:
    from modelinscale.models.mlp import Mlp

_ROUND_ROWS = 100_000
"""Rows between two looks at the validation rows, at most."""
_WARM_STEPS = 50
"""Steps over which the step size rises to its full value."""
_AVERAGE = 0.995
"""How much of the moving average of the weights stays at each step."""
_OTHER_SHARE = 0.01
"""Share of ids shown as "other" in training, so that the network knows what to make of words it never saw."""
_EDGE_ROWS = 100_000
"""Rows that the borders of bins are taken from, at least, where there are so many."""
_ONE_THREAD_PRODUCTS = 20_000_000
"""Up to this many multiplications a step a second thread costs more than it brings (64 rows: 2.7 ms, one thread 2.1 ms)."""
_CHECKPOINT_S = 5.0
"""Seconds between two checkpoints, at least."""
_UPDATE_EPOCHS, _UPDATE_RATE = 3, 0.2


def fit(model: "Mlp", train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
    blocks = blocks_of(train.layouts)
    center, scale = centre_and_spread(train, task)
    facts: dict[str, Any] = {"blocks": [b.plain() for b in blocks], "center": center, "scale": scale}
    fixed = _rarities(train, blocks)
    numbers = _numbers(train, blocks, model.bins)
    binned, edges = borders_of(numbers, model.bins)
    shape = Shape(
        n_numbers=numbers.shape[1],
        binned=binned,
        n_bins=edges.shape[1] - 1,
        n_ids=tuple(b.n_ids for b in blocks if b.role == "ids"),
        n_words=sum(b.n_columns for b in blocks if b.role == "sparse"),
        width=model.width,
        layers=model.layers,
        members=model.members,
        dropout=model.dropout,
        n_scores=task.n_scores,
    )
    facts["shape"] = shape.plain()
    with _threads(effort, shape, _batch_rows(model, len(train))):
        torch.manual_seed(derive(effort.seed, "mlp", "start"))
        network = Network(shape, edges)
        _start_at_base_rate(network, train, task)
        rows = feed(train, blocks, fixed, task, center, scale)
        held_out = None if valid is None else feed(valid, blocks, fixed, task, center, scale)
        fingerprint = identity(model, task, effort.seed, rows.fingerprint() if effort.checkpoints else "", facts)
        best = _Loop(model, task, effort, network, rows, held_out, fingerprint).run()
    return Weights({**best, **fixed, "edges": edges}, facts)


def update(model: "Mlp", weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
    blocks = tuple(Block.parse(b) for b in weights.meta["blocks"])
    center, scale = weights.meta["center"], weights.meta["scale"]
    rows = feed(new, blocks, weights.arrays, task, center, scale)
    held_out = None if valid is None else feed(valid, blocks, weights.arrays, task, center, scale)
    gentle = model.but(epochs=_UPDATE_EPOCHS, learning_rate=model.learning_rate * _UPDATE_RATE)
    with _threads(effort, Shape.parse(weights.meta["shape"]), _batch_rows(model, len(new))):
        network = _network(weights)
        best = _Loop(gentle, task, replace(effort, checkpoints=None), network, rows, held_out, "").run(keep_start=True)
    return Weights({**weights.arrays, **best}, weights.meta)


def predict(weights: Weights, rows: Encoded) -> Scores:
    """(N,) or (N, C): the mean of the members' scores."""
    blocks = tuple(Block.parse(b) for b in weights.meta["blocks"])
    found: NDArray[np.float64] = scores(_network(weights), Rows.of(rows, blocks, weights.arrays)).numpy().astype(np.float64)
    found = found * float(weights.meta["scale"]) + float(weights.meta["center"])
    return found if found.shape[1] > 1 else found[:, 0]


@dataclass
class _Progress:
    """Where training stands; everything a checkpoint has to hold besides the arrays."""

    round: int = 0
    step: int = 0
    best_loss: float = float("inf")
    best_round: int = 0
    seconds: float = 0.0
    """Wall time of all runs so far."""

    def plain(self) -> dict[str, Any]:
        return {**self.__dict__, "best_loss": None if np.isinf(self.best_loss) else self.best_loss}


@dataclass
class _Loop:
    """One training: rounds of steps, each round ended by a look at the validation rows."""

    model: "Mlp"
    task: Task
    effort: Effort
    network: Network
    rows: Feed
    valid: Feed | None
    fingerprint: str
    at: _Progress = field(default_factory=_Progress)
    average: Arrays = field(default_factory=dict)
    best: Arrays = field(default_factory=dict)

    def run(self, *, keep_start: bool = False) -> Arrays:
        """The best weights found. ``keep_start``: those it began with count as a candidate."""
        n = len(self.rows)
        batch_rows = _batch_rows(self.model, n)
        round_steps = -(-min(n, _ROUND_ROWS) // batch_rows)
        epoch_rounds = -(-n // (round_steps * batch_rows))
        n_rounds = self.model.epochs * epoch_rounds
        optimizer = AdamW(self.network.parameters(), self.model.weight_decay)
        self.average = self.best = self.network.arrays()
        if not self._resume(optimizer) and keep_start and self.valid is not None:
            self.at.best_loss = self._valid_loss(self.average)
        began, saved = time.monotonic() - self.at.seconds, time.monotonic()
        steps: Iterator[Step] | None = None
        while self.at.round < n_rounds and not self._stale():
            epoch, part = divmod(self.at.round, epoch_rounds)
            torch.manual_seed(derive(self.effort.seed, "mlp", "round", self.at.round))
            # One pass through the rows an epoch: what a round leaves of what was read is not read again in the next.
            steps = self.rows.steps(self.effort.seed, epoch, batch_rows, part * round_steps * batch_rows) if steps is None or not part else steps
            for step in islice(steps, round_steps):
                check("training mlp")
                self._step(optimizer, step)
                if self._over(began):
                    break
            self.at.round += 1
            self._look()
            self.at.seconds = time.monotonic() - began
            loss = f", valid loss {self.at.best_loss:.4g}" if self.valid is not None else ""
            self.effort.progress(self.at.round / n_rounds, f"epoch {(self.at.round - 1) // epoch_rounds + 1}{loss}")
            if self._over(began):
                break
            if time.monotonic() - saved >= _CHECKPOINT_S:
                self._save(optimizer)
                saved = time.monotonic()
        return self.best

    def _step(self, optimizer: AdamW, step: Step) -> None:
        self.network.train()
        batch = step.batch
        if batch.ids.shape[1]:
            hidden = (torch.rand(batch.ids.shape) < _OTHER_SHARE) & (batch.ids > 1)
            batch = replace(batch, ids=torch.where(hidden, 1, batch.ids))
        loss = _loss(self.network(batch), step.target, step.weight, self.task)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        optimizer.step(self.model.learning_rate * min(1.0, (self.at.step + 1) / _WARM_STEPS))
        self.at.step += 1
        keep = min(_AVERAGE, (self.at.step + 1) / (self.at.step + 10))
        with torch.no_grad():
            parameters: list[torch.Tensor] = list(self.network.parameters())
            torch._foreach_lerp_([torch.from_numpy(array) for array in self.average.values()], parameters, 1 - keep)

    def _look(self) -> None:
        """Keeps the averaged weights when the validation rows like them better than any before."""
        loss = self._valid_loss(self.average) if self.valid is not None else -float(self.at.round)
        if loss < self.at.best_loss:
            self.at.best_loss, self.at.best_round = loss, self.at.round
            self.best = {name: array.copy() for name, array in self.average.items()}

    def _valid_loss(self, arrays: Arrays) -> float:
        assert self.valid is not None
        judge = Network(self.network.shape, np.zeros((len(self.network.shape.binned), self.network.shape.n_bins + 1), np.float32))
        judge.low, judge.inverse = self.network.low, self.network.inverse
        judge.load(arrays)
        said, target, weight = self.valid.judged(judge)
        return float(_loss(said[None], target, weight, self.task))

    def _stale(self) -> bool:
        return self.valid is not None and self.at.round - self.at.best_round >= self.model.patience

    def _over(self, began: float) -> bool:
        return self.effort.budget_s is not None and time.monotonic() - began > self.effort.budget_s

    # -- checkpoints: one file, whole or not there

    def _save(self, optimizer: AdamW) -> None:
        if self.effort.checkpoints is None:
            return
        arrays: Arrays = {}
        for name, p in self.network.named_parameters():
            found = {"now": p.detach(), "average": self.average[name], "best": self.best[name]}
            if p in optimizer.moments:  # a table of no words takes no part
                found |= {"m": optimizer.moments[p].first, "v": optimizer.moments[p].second}
            arrays.update({f"{kind}/{name}": np.asarray(value) for kind, value in found.items()})
        meta = json.dumps({"format": 1, "of": self.fingerprint, **self.at.plain()})
        file = io.BytesIO()
        np.savez(file, meta=np.frombuffer(meta.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        write_bytes(self._file(), file.getvalue())

    def _resume(self, optimizer: AdamW) -> bool:
        """Takes up a checkpoint of the very same training, if there is one."""
        if self.effort.checkpoints is None or not self._file().is_file():
            return False
        try:
            with np.load(io.BytesIO(self._file().read_bytes()), allow_pickle=False) as stored:
                arrays = dict(stored)
        except (OSError, ValueError, BadZipFile) as error:
            raise StoreError(f"{self._file()} cannot be read ({error}).", fix="Remove it; training then begins anew.") from error
        meta = json.loads(arrays.pop("meta").tobytes().decode())
        if meta.pop("format") != 1 or meta.pop("of") != self.fingerprint:
            return False  # of other rows or settings: begun anew, and overwritten
        self.at = _Progress(**{**meta, "best_loss": float("inf") if meta["best_loss"] is None else meta["best_loss"]})
        kinds = {kind: {n.removeprefix(f"{kind}/"): a for n, a in arrays.items() if n.startswith(f"{kind}/")} for kind in ("now", "average", "best", "m", "v")}
        self.network.load(kinds["now"])
        self.average, self.best = kinds["average"], kinds["best"]
        for name, p in self.network.named_parameters():
            if name in kinds["m"]:
                moments = (torch.from_numpy(kinds[kind][name]) for kind in ("m", "v"))
                optimizer.moments[p] = Moments(torch.tensor(float(self.at.step)), *moments)
        return True

    def _file(self) -> Path:
        assert self.effort.checkpoints is not None
        return self.effort.checkpoints / "mlp.npz"


def _loss(scores: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, task: Task) -> torch.Tensor:
    """Weighted mean loss of (K, B, C) scores, over members and rows."""
    K = len(scores)
    if task.type == "multiclass":
        each = torch.nn.functional.cross_entropy(scores.flatten(0, 1), target.repeat(K), reduction="none").view(K, -1)
    elif task.type == "binary":
        each = torch.nn.functional.binary_cross_entropy_with_logits(scores[..., 0], target.expand(K, -1), reduction="none")
    else:
        each = (scores[..., 0] - target) ** 2
    return (each * weight).sum() / (weight.sum() * K).clamp_min(1e-12)


def _network(weights: Weights) -> Network:
    network = Network(Shape.parse(weights.meta["shape"]), weights.arrays["edges"])
    network.load(weights.arrays)
    return network


def _start_at_base_rate(network: Network, train: Examples, task: Task) -> None:
    """The first answers say how common each class is."""
    if task.type != "regression":
        with torch.no_grad():
            network.head_bias.add_(torch.from_numpy(base_scores(train, task).astype(np.float32)))


def _numbers(train: Examples, blocks: tuple[Block, ...], n_bins: int) -> NDArray[np.float32]:
    """Every so-manieth row's numbers, (n, P): enough to see quantiles; no more than one row where there will be no bins."""
    dense = [b for b in blocks if b.role == "dense"]
    wanted = _EDGE_ROWS if n_bins and sum(b.n_columns for b in dense) <= BINNED_COLUMNS else 1
    some = train.take(np.arange(0, len(train), max(1, len(train) // wanted))).rows
    return np.concatenate([np.asarray(some[b.feature], np.float32) for b in dense], axis=1) if dense else np.empty((some.n_rows, 0), np.float32)


def _rarities(train: Examples, blocks: tuple[Block, ...]) -> Arrays:
    return {f"rarity.{b.feature}": rarity(n_with(train, b.feature, b.n_columns), len(train)) for b in blocks if b.role == "sparse"}


def _batch_rows(model: "Mlp", n_rows: int) -> int:
    return model.batch_rows or int(min(1024, max(64, 2 ** round(np.log2(max(n_rows, 1) / 60)))))


@contextmanager
def _threads(effort: Effort, shape: Shape, batch_rows: int) -> Iterator[None]:
    """The threads asked for, one where steps are small; torch's threads and its chance are afterwards as they were."""
    products = batch_rows * shape.members * shape.width * (shape.n_inputs + shape.width * (shape.layers - 1))
    before = torch.get_num_threads()
    torch.set_num_threads(1 if products <= _ONE_THREAD_PRODUCTS else effort.n_threads or before)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)
