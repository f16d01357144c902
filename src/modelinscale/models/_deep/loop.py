"""How a network learns: plain PyTorch, a step size that rises and falls, a moving average of the weights, checkpoints that resume to the same bits.

B rows of a batch, K members, C scores.
"""

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import ModelError
from modelinscale.core.memory import check
from modelinscale.core.seeds import derive
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples
from modelinscale.models._adamw import AdamW, Moments
from modelinscale.models._deep.feed import Step, feed
from modelinscale.models._deep.loss import clipped, loss_of
from modelinscale.models._deep.net import Net
from modelinscale.models._deep.parts import Tensor
from modelinscale.models._deep.plan import Recipe
from modelinscale.models._deep.precision import CHECKED_STEPS, device_of, is_candidate, is_worth_compiling, objection
from modelinscale.models._deep.saved import Arrays, Checkpoint
from modelinscale.models._deep.strategy import Alone
from modelinscale.models._deep.vary import varied
from modelinscale.models._deep.watch import Watch
from modelinscale.models._torch import torch
from modelinscale.models._totals import Middle

ROUND_ROWS = 100_000
"""Rows between two looks at the validation rows, at most."""
_AVERAGE = 0.995
"""How much of the moving average of the weights stays at each step."""
_LOOKS_AT_STEPS = 12
"""Steps from which the time of all is guessed, after three to warm up."""
_BUDGET_SHARE = 0.9
"""Of the time there is, what steps are planned for; validation takes the rest."""
_TELL_S = 2.0
"""Seconds between two words about how far it is, at least."""
_SAVES_APART = 10
"""Times what a checkpoint kept the training waiting that it goes on until the next, at least."""


@dataclass
class _Progress:
    """Where training stands: what a checkpoint has to hold besides the arrays."""

    step: int = 0
    n_steps: int = 0
    """In all, as planned; fewer once it is known that the budget does not do for them."""
    looks: int = 0
    best_loss: float | None = None
    """On the validation rows."""
    best_look: int = 0
    seconds: float = 0.0
    """Wall time of all runs so far."""
    precision: str = ""
    loss_sum: float = 0.0
    """Of the steps since the last look."""
    loss_steps: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    """A point each look: ``epoch`` (2.5: in the middle of the third), ``train`` and ``valid`` loss, ``rate`` (the step size)."""


@dataclass
class Loop:
    """One training. Chance is drawn anew at every step from the step's number, so that a resumed one goes on as it would have."""

    net: Net
    recipe: Recipe
    task: Task
    effort: Effort
    train: Examples
    valid: Examples | None
    center: Middle
    scale: Middle
    """What brings a number to predict near 0 and 1; 0 and 1 for classes."""
    fingerprint: str
    strategy: Alone = field(default_factory=Alone)
    at: _Progress = field(default_factory=_Progress)
    name: str = "network"
    """Of the family: its seeds, its checkpoint, its errors."""

    def __post_init__(self) -> None:
        self.device = device_of(self.effort.device)
        self.held, self.learner = self.strategy.holds(self.net, self.device)
        self.net = self.held.net
        self.parameters = [p for p in self.net.parameters() if p.requires_grad]
        shares, groups = self.net.shares(), dict[tuple[float, float], list[torch.nn.Parameter]]()
        for p in self.parameters:
            groups.setdefault((self.recipe.weight_decay if p.ndim > 1 else 0.0, shares.get(p, 1.0)), []).append(p)
        self.optimizers = [AdamW(group, decay, share, self.held.own) for (decay, share), group in groups.items()]
        moving = [name for name, value in self.held.now.items() if value.dtype == torch.float32]
        self._now, self._average = [self.held.now[name] for name in moving], [self.held.average[name] for name in moving]
        self.rows = feed(self.train, self.net, self.task, self.center, self.scale)
        self.held_out = None if self.valid is None else feed(self.valid, self.net, self.task, self.center, self.scale)
        folder = self.effort.checkpoints
        self.checkpoint = None if folder is None else Checkpoint(folder / f"{self.name}.npz", self.fingerprint, self.effort.tell)
        self.best: Arrays = {}
        self._seed = derive(self.effort.seed, self.name)
        self._watch = Watch(self.name, self.net, self.task, self.rows if self.strategy.world == 1 else None, self._seed, self.recipe.batch_rows)
        self._began, self.per_epoch = 0.0, -(-self.rows.n_rows // self.recipe.batch_rows)

    def run(self, *, keep_start: bool = False) -> Arrays:
        """The best weights found. ``keep_start``: those it began with count as a candidate."""
        try:
            best = self._run(keep_start)
            self.optimizers, self._now, self._average = [], [], []
            return self.held.whole(best)
        finally:
            if self.checkpoint is not None:
                self.checkpoint.close()

    def _run(self, keep_start: bool) -> Arrays:
        at, recipe = self.at, self.recipe
        self._began = time.monotonic()
        resumed = self._resume()
        at = self.at
        self.strategy.begins_alike(at.step, self.held.digest)
        self._began -= at.seconds
        if not resumed:
            at.n_steps = recipe.epochs * self.per_epoch
            self.best = self._averaged()
            at.precision = at.precision or self._precision()
            if keep_start and self.held_out is not None:
                at.best_loss = self.judged()
        times: list[float] = []
        saved = told = time.monotonic()
        apart_s, over = self.effort.checkpoint_s, False
        while at.step < at.n_steps and not over and not self._stale():
            epoch, place = divmod(at.step, self.per_epoch)
            for step in self._steps(epoch, place):
                check(f"training {self.name}")
                since = time.monotonic()
                self._step(step)
                now = time.monotonic()
                times = [*times, now - since][-_LOOKS_AT_STEPS:]
                at.seconds = now - self._began
                over = self.strategy.ends(self.effort.budget_s is not None and at.seconds > self.effort.budget_s)
                if at.step == _LOOKS_AT_STEPS:
                    self._plan(median(times[3:] or times), _BUDGET_SHARE)
                    self._compile()
                if over or at.step >= at.n_steps or self._round_ends():
                    self._look(len(step) / max(median(times), 1e-9))
                elif now - told >= _TELL_S:
                    self._tell(f"train loss {at.loss_sum / max(1, at.loss_steps):.4g}", len(step) / max(median(times), 1e-9))
                    told = now
                if self.strategy.saves(now - saved >= apart_s):
                    since = time.monotonic()
                    self._save()
                    saved = time.monotonic()
                    apart_s = max(self.effort.checkpoint_s, _SAVES_APART * (saved - since)) if apart_s else 0.0
                if over or at.step >= at.n_steps or self._stale():
                    break
        if at.step < min(self.per_epoch, recipe.epochs * self.per_epoch) and self.effort.budget_s is not None:
            self.effort.tell(
                f"The time for {self.name} ended within its first epoch, after {at.step:,} of {self.per_epoch:,} steps: most rows were not learned from. "
                "Raise `train.budget`, or lower the size of the network."
            )
        return self.best

    def _steps(self, epoch: int, place: int) -> Iterator[Step]:
        """The rest of an epoch from one of its steps on; of each this process's rows."""
        n = self.recipe.batch_rows
        if self.strategy.world == 1:
            return self.rows.steps(self._seed, epoch, n, place * n)
        return map(self.rows.make.step, self.strategy.batches(self.train, self._seed, epoch, n, place * n))

    def _step(self, step: Step) -> Tensor:
        """Moves the weights once; returns the loss before."""
        at, recipe = self.at, self.recipe
        seed = derive(self.effort.seed, self.name, "step", at.step, *self.strategy.chance)
        # On a processor its generator alone: `torch.manual_seed` also looks for every other device, which takes as long as a small layer.
        (torch.manual_seed if self.device.type != "cpu" else torch.default_generator.manual_seed)(seed)
        if recipe.varies:
            chance = torch.Generator().manual_seed(derive(self.effort.seed, self.name, "varied", at.step, *self.strategy.chance))
            step = varied(step, self.net, recipe, chance)
        step = step.to(self.device)
        loss = self._backward(step)
        gradients = [self.held.own(p.grad) for p in self.parameters if p.grad is not None]
        norm = clipped(gradients, self.held.length)
        losses = self._watch.seen(at.step, step, loss, norm)
        at.loss_sum += sum(losses)
        at.loss_steps += len(losses)
        rate = recipe.rate(at.step, at.n_steps)
        for optimizer in self.optimizers:
            optimizer.step(rate)
        at.step += 1
        keep = min(_AVERAGE, (at.step + 1) / (at.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, self._now, 1 - keep)
        return loss

    def _backward(self, step: Step) -> Tensor:
        """Gradients of the mean loss over the step's rows, which are left in the parameters; returns the loss of this process's rows."""
        weight = torch.ones(len(step)) if step.weight is None else step.weight
        if self.recipe.accumulate == 1:
            loss = self._loss(step)
            self.strategy.weighted(loss, weight).backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        share, total, found = self.strategy.weighted(torch.ones((), device=self.device), weight), weight.sum().clamp_min(1e-12), torch.zeros(())
        for piece in step.pieces(self.recipe.accumulate):
            mine = (len(piece) if piece.weight is None else piece.weight.sum()) / total
            loss = self._loss(piece) * mine
            (loss * share).backward()  # type: ignore[no-untyped-call]
            found = found + loss.detach()
        return found

    def _loss(self, step: Step) -> Tensor:
        with self._autocast():
            scores = self.learner(step.batch)
        loss, other = loss_of(scores, step.target, step.weight, self.task, self.recipe.smoothing), step.other
        if other is None:
            return loss
        # A loss between two answers: their mixed one has the same gradient, and this way no loss has to know of it.
        return loss + other.share * (loss_of(scores, other.target, other.weight, self.task, self.recipe.smoothing) - loss)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.at.precision == "bf16" else nullcontext()

    def _plan(self, step_s: float, share: float) -> None:
        """Fewer steps where the budget does not do for all, so that the step size still falls to 0."""
        if self.effort.budget_s is not None and self.recipe.fall != "none":
            left = self.strategy.leads((self.effort.budget_s - self.at.seconds) * share / max(step_s, 1e-9))
            self.at.n_steps = min(self.recipe.epochs * self.per_epoch, self.at.step + max(1, int(left)))

    def _compile(self) -> None:
        step_s = self.at.seconds / self.at.step
        left_s = step_s * (self.at.n_steps - self.at.step)
        if self.strategy.world == 1 and is_worth_compiling(self.device, left_s):
            self.learner = torch.compile(self.net)

    def _precision(self) -> str:
        """fp32, or bf16 where it was tried and nothing speaks against it."""
        kinds: set[str] = {port.kind for port in self.net.ports}
        if not is_candidate(self.recipe.precision, kinds, self.at.n_steps, self.device):
            return "fp32"
        if self.strategy.world > 1:  # processes would have to agree: only where it is asked for
            return "bf16" if self.recipe.precision == "bf16" else "fp32"
        try:
            why = objection(self._tried("fp32"), self._tried("bf16"))
        except ModelError as error:
            why = error.message
        if why:
            self.effort.tell(f"{self.name} learns with 32 bits, not with bf16: {why}.")
        return "fp32" if why else "bf16"

    def _tried(self, precision: str) -> list[float]:
        """The losses of the first steps with so many bits, on a copy."""
        effort = replace(self.effort, checkpoints=None)
        net = copy.deepcopy(self.net)
        trial = Loop(net, self.recipe, self.task, effort, self.train, None, self.center, self.scale, "", name=self.name)
        trial.at = replace(self.at, precision=precision, curve=[])
        losses: list[float] = []
        while len(losses) < min(CHECKED_STEPS, self.at.n_steps):
            for step in trial._steps(*divmod(len(losses), self.per_epoch)):
                losses.append(float(trial._step(step)))
                if len(losses) >= min(CHECKED_STEPS, self.at.n_steps):
                    break
        return losses

    def _round_ends(self) -> bool:
        """Whether a look is due: at the end of every epoch, and within long ones."""
        place = self.at.step % self.per_epoch
        return place == 0 or place % -(-ROUND_ROWS // self.recipe.batch_rows) == 0

    def _look(self, rows_s: float) -> None:
        """Keeps the averaged weights when the validation rows like them better than any before; without such rows the last ones."""
        at = self.at
        at.looks += 1
        train = self.strategy.mean(at.loss_sum / max(1, at.loss_steps))
        point = {"epoch": at.step / self.per_epoch, "train": train, "rate": self.recipe.rate(at.step - 1, at.n_steps)}
        at.loss_sum, at.loss_steps = 0.0, 0
        note = f"train loss {point['train']:.4g}"
        if self.held_out is None:
            self.best = self._averaged()
        else:
            loss = self.judged()
            point["valid"] = loss if np.isfinite(loss) else float(np.finfo(np.float32).max)
            if at.best_loss is None or loss < at.best_loss:
                at.best_loss, at.best_look = loss, at.looks
                self.best = self._averaged()
            note += f", valid loss {at.best_loss:.4g}"
        at.curve.append(point)
        self._tell(note, rows_s)
        at.seconds = time.monotonic() - self._began
        if at.step > _LOOKS_AT_STEPS and at.step < at.n_steps:
            self._plan(at.seconds / at.step, 1.0)

    def _tell(self, note: str, rows_s: float) -> None:
        at = self.at
        self.effort.progress(min(1.0, at.step / at.n_steps), f"epoch {(at.step - 1) // self.per_epoch + 1}, {note}, {rows_s:,.0f} rows/s")

    def judged(self) -> float:
        """Mean loss of the averaged weights on the validation rows."""
        assert self.held_out is not None
        sums = np.zeros((-(-self.held_out.n_rows // self.net.scored_rows), 2))
        with self.held.judging() as judge:
            for number, block in enumerate(self.held_out.blocks()):
                judges = self.strategy.judges(number, len(sums))
                if judges == "not":
                    continue
                block = block.to(self.device)
                weight = float(len(block) if block.weight is None else block.weight.sum())
                with torch.no_grad():
                    scores = judge(block.batch).mean(0, keepdim=True)
                    if judges == "counts":
                        sums[number] = float(loss_of(scores, block.target, block.weight, self.task)) * weight, weight
        total, weights = (sum(column) for column in self.strategy.summed(sums).T.tolist())
        loss = total / max(weights, 1e-12)
        return loss if np.isfinite(loss) else float("inf")

    def _stale(self) -> bool:
        return self.held_out is not None and self.at.looks > 0 and self.at.looks - self.at.best_look >= self.recipe.patience

    def _save(self) -> None:
        loss_sum = self.strategy.mean(self.at.loss_sum)  # all are here, and each knows of its own rows; what follows only parts need all for
        if self.checkpoint is None or not (self.strategy.sharded or self.strategy.leader):
            return
        moments = {p: found for optimizer in self.optimizers for p, found in optimizer.moments.items()}
        known = {name: moments[p] for name, p in self.held.parameters().items() if p in moments}
        kinds: dict[str, Mapping[str, Tensor | NDArray[Any]]] = {"now": self.held.now, "average": self.held.average, "best": self.best}
        kinds |= {"first": {name: one.first for name, one in known.items()}, "second": {name: one.second for name, one in known.items()}}
        at = asdict(self.at) | {"loss_sum": loss_sum}
        self.held.save(self.checkpoint, kinds, at | {"best_loss": None if self.at.best_loss in (None, float("inf")) else self.at.best_loss})

    def _resume(self) -> bool:
        """Takes up a checkpoint of the very same training, if there is one."""
        found = None if self.checkpoint is None else self.checkpoint.load(self.held.part)
        if found is None:
            return False
        kinds, at = found
        self.at = _Progress(**at)
        for kind, held in (("now", self.held.now), ("average", self.held.average)):
            for name, value in held.items():
                value.copy_(torch.from_numpy(kinds[kind].pop(name)))
        self.best = kinds["best"]
        parameters = self.held.parameters()
        for optimizer in self.optimizers:
            for name in list(kinds.get("first", {})):
                p = parameters[name]
                if optimizer.moves(p):
                    first, second = (_like(self.held.own(p), kinds[kind].pop(name)) for kind in ("first", "second"))
                    optimizer.moments[p] = Moments(torch.tensor(float(self.at.step), device=p.device), first, second)
        return True

    def _averaged(self) -> Arrays:
        """What this process holds of the average, copied."""
        return {name: _copied(value) for name, value in self.held.average.items()}


def load(net: Net, arrays: Arrays) -> None:
    """Sets all weights and buffers."""
    net.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in net.state_dict()})


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


def _copied(value: Tensor) -> NDArray[Any]:
    return value.detach().cpu().numpy().copy()


def _like(p: Tensor, values: NDArray[Any]) -> Tensor:
    """In the same place and order of memory: the optimiser's kernel goes through both side by side."""
    return torch.zeros_like(p, requires_grad=False).copy_(torch.from_numpy(np.ascontiguousarray(values)))


__all__ = ["Arrays", "Loop", "Recipe", "load", "loss_of", "threads"]
