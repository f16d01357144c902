"""How a network learns: plain PyTorch, a step size that rises and falls, a moving average of the weights, checkpoints that resume to the same bits.

B rows of a batch, K members, C scores.
"""

import copy
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import ModelError, StoreError
from modelinscale.core.files import write_bytes
from modelinscale.core.seeds import derive
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples
from modelinscale.models._deep.net import Batch, Net
from modelinscale.models._deep.parts import Tensor
from modelinscale.models._torch import torch

Arrays = dict[str, NDArray[Any]]

JUDGED_ROWS = 512
"""Rows scored at once."""
_AVERAGE = 0.995
"""How much of the moving average of the weights stays at each step."""
_LOOKS_AT_STEPS = 12
"""Steps from which the time of all is guessed, after three to warm up."""
_BUDGET_SHARE = 0.9
"""Of the time there is, what steps are planned for; validation takes the rest."""
_CHECKPOINT_S = 10.0
"""Seconds between two checkpoints, at least."""


@dataclass(frozen=True)
class Recipe:
    """How to learn, every number settled."""

    epochs: int
    batch_rows: int
    learning_rate: float
    weight_decay: float
    warm_share: float
    """Of all steps, those over which the step size rises; then it falls to 0 in a line."""
    smoothing: float
    """Probability that is taken from the true class and spread over all."""
    shift: float
    flip: bool
    patience: int
    constant: bool = False
    """Whether the step size stays (updates)."""


@dataclass
class _Progress:
    """Where training stands: what a checkpoint has to hold besides the arrays."""

    step: int = 0
    n_steps: int = 0
    """In all, as planned; fewer once it is known that the budget does not do for them."""
    best_loss: float = float("inf")
    best_epoch: int = 0
    seconds: float = 0.0
    """Wall time of all runs so far."""
    losses: list[float] = field(default_factory=list)
    """On the validation rows, an epoch each."""


@dataclass
class Loop:
    """One training. Chance is drawn anew at every step from the step's number, so that a resumed one goes on as it would have."""

    net: Net
    recipe: Recipe
    task: Task
    effort: Effort
    train: Examples
    valid: Examples | None
    center: float
    scale: float
    """What brings a number to predict near 0 and 1; 0 and 1 for classes."""
    fingerprint: str
    at: _Progress = field(default_factory=_Progress)

    def __post_init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net = self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.judge = copy.deepcopy(self.net).eval().requires_grad_(False)  # holds the moving average
        decayed = [p for p in self.net.parameters() if p.requires_grad and p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": self.recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.recipe.learning_rate, fused=True)
        self.best: Arrays = {}
        self._saving: Future[None] | None = None

    def run(self, *, keep_start: bool = False) -> Arrays:
        """The best weights found. ``keep_start``: those it began with count as a candidate."""
        n = len(self.train)
        per_epoch = -(-n // self.recipe.batch_rows)
        resumed = self._resume()
        self.at.n_steps = self.at.n_steps or self.recipe.epochs * per_epoch
        began, saved = time.monotonic() - self.at.seconds, time.monotonic()
        if not resumed:
            self.best = self._arrays(self.judge)
            if keep_start and self.valid is not None:
                self.at.best_loss = self.judged(self.valid)
        times: list[float] = []
        with ThreadPoolExecutor(1) as saver:
            while self.at.step < self.at.n_steps and not self._stale():
                epoch, place = divmod(self.at.step, per_epoch)
                for batch in self.train.batches(derive(self.effort.seed, "network"), epoch, self.recipe.batch_rows, place * self.recipe.batch_rows):
                    since = time.monotonic()
                    self._step(batch)
                    times.append(time.monotonic() - since)
                    if self._over(began):
                        break
                    if len(times) == _LOOKS_AT_STEPS and not resumed:
                        self._plan(median(times[3:]), began)
                    self.at.seconds = time.monotonic() - began
                    if time.monotonic() - saved >= _CHECKPOINT_S:
                        self._save(saver)
                        saved = time.monotonic()
                    if self.at.step >= self.at.n_steps:
                        break
                if self.at.step % per_epoch == 0 or self.at.step >= self.at.n_steps or self._over(began):
                    self._look(-(-self.at.step // per_epoch))
                if self._over(began):
                    break
            if self._saving is not None:
                self._saving.result()
        return self.best

    def _step(self, examples: Examples) -> None:
        at, recipe = self.at, self.recipe
        torch.manual_seed(derive(self.effort.seed, "network", "step", at.step))
        chance = torch.Generator().manual_seed(derive(self.effort.seed, "network", "varied", at.step))
        batch = self.net.varied(self.net.batch(examples.rows), chance, shift=recipe.shift, flip=recipe.flip)
        target, weight = self._answers(examples)
        self.net.train()
        rate = recipe.learning_rate * self._share(at.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_of(self.net(_moved(batch, self.device)), target, weight, self.task, recipe.smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        if self.device.type == "cpu" and not torch.isfinite(norm + loss.detach()):
            raise ModelError(
                f"the loss stopped being finite at step {at.step + 1} (epoch {at.step * recipe.batch_rows // max(1, len(self.train)) + 1}): "
                f"loss {loss.item():.3g}, length of the gradient {norm.item():.3g}.",
                fix="Lower `learning_rate`, or look for extreme numbers in the rows.",
            )
        self.optimizer.step()
        at.step += 1
        keep = min(_AVERAGE, (at.step + 1) / (at.step + 10))
        with torch.no_grad():
            now = [v for v in self.net.state_dict().values() if v.dtype == torch.float32]
            torch._foreach_lerp_([v for v in self.judge.state_dict().values() if v.dtype == torch.float32], now, 1 - keep)

    def _share(self, step: int) -> float:
        """Of the full step size."""
        warm = max(1.0, self.recipe.warm_share * self.at.n_steps)
        rising = min(1.0, (step + 1) / warm)
        return rising if self.recipe.constant else rising * min(1.0, (self.at.n_steps - step) / max(1.0, self.at.n_steps - warm))

    def _plan(self, step_s: float, began: float) -> None:
        """Fewer steps where the budget does not do for all, so that the step size still falls to 0."""
        if self.effort.budget_s is not None:
            left = self.effort.budget_s - (time.monotonic() - began)
            self.at.n_steps = min(self.at.n_steps, self.at.step + max(1, int(left * _BUDGET_SHARE / max(step_s, 1e-9))))

    def _look(self, epoch: int) -> None:
        """Keeps the averaged weights when the validation rows like them better than any before; without such rows the last ones."""
        loss = self.judged(self.valid) if self.valid is not None else -float(epoch)
        self.at.losses.append(loss)
        if loss < self.at.best_loss:
            self.at.best_loss, self.at.best_epoch = loss, epoch
            self.best = self._arrays(self.judge)
        note = f", valid loss {self.at.best_loss:.4g}" if self.valid is not None else ""
        self.effort.progress(min(1.0, self.at.step / self.at.n_steps), f"epoch {epoch}{note}")

    def judged(self, examples: Examples) -> float:
        """Mean loss of the averaged weights on these rows."""
        total = weights = 0.0
        for block in examples.blocks(JUDGED_ROWS):
            target, weight = self._answers(block)
            with torch.no_grad():
                scores = self.judge(_moved(self.judge.batch(block.rows), self.device)).mean(0, keepdim=True)
                total += float(loss_of(scores, target, weight, self.task, 0.0) * weight.sum())
            weights += float(weight.sum())
        loss = total / max(weights, 1e-12)
        return loss if np.isfinite(loss) else float("inf")

    def _answers(self, examples: Examples) -> tuple[Tensor, Tensor]:
        if self.task.type == "regression":
            target = torch.from_numpy(((examples.target - self.center) / self.scale).astype(np.float32))
        elif self.task.type == "binary":
            target = torch.from_numpy(examples.target.astype(np.float32))
        else:
            target = torch.from_numpy(examples.target.astype(np.int64))
        weight = torch.ones(len(examples)) if examples.weight is None else torch.from_numpy(examples.weight.astype(np.float32))
        return target.to(self.device), weight.to(self.device)

    def _stale(self) -> bool:
        return self.valid is not None and len(self.at.losses) - self.at.best_epoch >= self.recipe.patience and bool(self.at.losses)

    def _over(self, began: float) -> bool:
        return self.effort.budget_s is not None and time.monotonic() - began > self.effort.budget_s

    # -- checkpoints: one file, whole or not there, written beside the next steps

    def _save(self, saver: ThreadPoolExecutor) -> None:
        if self.effort.checkpoints is None:
            return
        if self._saving is not None:
            self._saving.result()
        arrays = {f"now/{k}": v for k, v in self._arrays(self.net).items()}
        arrays |= {f"average/{k}": v for k, v in self._arrays(self.judge).items()} | {f"best/{k}": v for k, v in self.best.items()}
        for name, p in self.net.named_parameters():
            arrays |= {f"{key}/{name}": _copied(value) for key, value in self.optimizer.state.get(p, {}).items() if key != "step"}
        at = {**asdict(self.at), "best_loss": None if np.isinf(self.at.best_loss) else self.at.best_loss}
        meta = json.dumps({"format": 1, "of": self.fingerprint, **at})
        self._saving = saver.submit(self._written, arrays, meta)

    def _written(self, arrays: Arrays, meta: str) -> None:
        file = io.BytesIO()
        np.savez(file, meta=np.frombuffer(meta.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        write_bytes(self._file(), file.getvalue())

    def _resume(self) -> bool:
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
        kinds: dict[str, Arrays] = {}
        for key, value in arrays.items():
            kind, _, name = key.partition("/")
            kinds.setdefault(kind, {})[name] = value
        load(self.net, kinds.pop("now"))
        load(self.judge, kinds.pop("average"))
        self.best = kinds.pop("best")
        for name, p in self.net.named_parameters():
            state = {kind: torch.from_numpy(found[name]).to(self.device) for kind, found in kinds.items() if name in found}
            if state:
                self.optimizer.state[p] = {"step": torch.tensor(float(self.at.step)), **state}
        return True

    def _file(self) -> Path:
        assert self.effort.checkpoints is not None
        return self.effort.checkpoints / "network.npz"

    @staticmethod
    def _arrays(net: Net) -> Arrays:
        return {name: _copied(value) for name, value in net.state_dict().items()}


def load(net: Net, arrays: Arrays) -> None:
    """Sets all weights and buffers."""
    net.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in net.state_dict()})


def loss_of(scores: Tensor, target: Tensor, weight: Tensor, task: Task, smoothing: float) -> Tensor:
    """Weighted mean loss of (K, B, C) scores, over members and rows."""
    K = len(scores)
    scores = scores.float()
    if task.type == "multiclass":
        each = torch.nn.functional.cross_entropy(scores.flatten(0, 1), target.repeat(K), reduction="none", label_smoothing=smoothing).view(K, -1)
    elif task.type == "binary":
        soft = target * (1 - smoothing) + smoothing / 2
        each = torch.nn.functional.binary_cross_entropy_with_logits(scores[..., 0], soft.expand(K, -1), reduction="none")
    else:
        each = (scores[..., 0] - target) ** 2
    return (each * weight).sum() / (weight.sum() * K).clamp_min(1e-12)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """So many threads (0: as many as torch has); they and chance are afterwards as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


def _moved(batch: Batch, device: "torch.device") -> Batch:
    if device.type == "cpu":
        return batch
    return {k: tuple(one.to(device) for one in v) if isinstance(v, tuple) else v.to(device, non_blocking=True) for k, v in batch.items()}


def _copied(value: Tensor) -> NDArray[Any]:
    return value.detach().cpu().numpy().copy()


__all__ = ["JUDGED_ROWS", "Arrays", "Loop", "Recipe", "load", "loss_of", "threads"]
