"""A network learned by several processes: begun, watched, and begun again from the last checkpoint when one is lost, with as many as there is room for.

Where they run is `Effort.crew`'s to say: programs of this machine (`processes`), or actors on the nodes of a Ray cluster. All of them run `worker.work`.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from modelinscale.compute._crew import Crew, Group, Work
from modelinscale.core import errors
from modelinscale.core.errors import ComputeError, MisError
from modelinscale.core.seeds import derive
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Weights, unheard
from modelinscale.models._deep.saved import Counted, counted

if TYPE_CHECKING:
    from modelinscale.models._deep.family import Deep

_LOOK_S = 0.2
_START_S = 300.0
"""To import, meet and look through the rows, before the first step."""
_GRACE_S = 3.0
"""After one process ended badly the others may say what they know for so long; then they are ended."""
_LOST_IN_VAIN = 3
"""Losses without a step forward after which it is given up."""
_ROOM_S = 5.0
"""Seconds between two looks whether there is room for more processes."""
_WAIT_S = 300.0
"""How long there may be no room for even one process: a cluster that grows by itself needs minutes."""


@dataclass
class _Said:
    """What the processes of one group said and how they ended."""

    steps: int = 0
    begun: bool = False
    """Whether the first step was taken."""
    done: bool = False
    grows: bool = False
    """They were ended because there is room for more of them."""
    refusal: MisError | None = None
    """A user's mistake, or the network's: beginning again would not help."""
    failures: list[str] = field(default_factory=list)
    """Of processes that could not go on, often since another was lost."""


def fit(model: "Deep", train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
    """What `learn.fit` finds, by ``effort.workers`` processes. A lost process costs the steps since the last checkpoint (all of them without checkpoints).

    Raises `ComputeError` when processes are lost again and again, and what a process raised itself.
    """
    from modelinscale.models._deep.worker import Job, work

    if not train.held:
        next(iter(train.batches(derive(effort.seed, model.type), 0, 1)), None)  # shuffles rows on disk once, before all would at the same time
    file = None if effort.checkpoints is None else effort.checkpoints / f"{model.type}.npz"
    before = counted(file)

    def job(plain: Effort) -> Job:
        return Job(model.plain(), train, valid, task, replace(plain, budget_s=allowed(plain.budget_s, before, counted(file))))

    found: Weights = supervised(work, job, effort)
    return found


def supervised(work: Work, job: Callable[[Effort], object], effort: Effort) -> Any:
    """What the first process finds of ``effort.workers`` that do ``work`` together; ``job`` makes what they are to do of an effort that can travel."""
    from modelinscale.models._deep.processes import Processes

    crew: Crew = effort.crew or Processes()
    _tell_if(crew.doubts(effort.workers), effort)
    began, wanted, in_vain, kept, before = time.monotonic(), effort.workers, 0, _kept(effort), 0
    while True:
        workers = _there_is_room(crew, wanted, effort)
        if before and workers > before:
            effort.tell(f"there is room for {workers} processes again, which go on from the last checkpoint.")
        elif workers < wanted and workers != before:
            effort.tell(f"there is room for {workers} of {wanted} processes; more join once there is room for them.")
        plain = replace(effort, budget_s=_left(effort, began), workers=1, crew=None, tell=unheard, progress=unheard)
        group = crew.begin(work, job(plain), workers, effort.checkpoints)
        try:
            said = _watched(group, effort, partial(_more_than, group.n, crew, wanted))
            if said.done:
                return group.result()
        finally:
            group.end()
        if said.refusal is not None:
            raise said.refusal
        before = group.n
        if said.grows:
            kept = _kept(effort)
            continue
        in_vain, kept = (1, _kept(effort)) if _kept(effort) != kept else (in_vain + 1, kept)
        if in_vain > _LOST_IN_VAIN:
            why = f" One said: {_short(said.failures[0])}" if said.failures else " The system may have ended them for want of memory."
            raise ComputeError(
                f"processes that learn together were lost {in_vain} times without getting further.{why}",
                fix="Lower `train.workers`, or look at the memory.",
            )
        wanted = fewer(effort.workers, in_vain)
        where = "the last checkpoint" if kept else "the beginning"
        effort.tell(f"one of the processes was lost after {said.steps:,} steps; {min(wanted, crew.room(wanted)) or 'others'} go on from {where}.")


def _there_is_room(crew: Crew, wanted: int, effort: Effort) -> int:
    """For how many there is room, once there is for one."""
    until = time.monotonic() + _WAIT_S
    while not (found := crew.room(wanted)):
        effort.progress(0.0, f"waiting for room for a process, which asks for {crew.asks()}")
        if time.monotonic() > until:
            raise ComputeError(
                f"for {_WAIT_S:.0f} s there was no room for a process that learns, which asks for {crew.asks()}.",
                fix="Ask for less in `compute`, or add a bigger node.",
            )
        time.sleep(_LOOK_S)
    return found


def _more_than(n: int, crew: Crew, wanted: int) -> bool:
    return crew.room(wanted) > n


def _tell_if(doubts: str, effort: Effort) -> None:
    if doubts:
        effort.tell(doubts)


def _short(failure: str) -> str:
    """What a process said, without the stack and the advice that its library adds."""
    return failure.split("\n")[0].split(" This is typically")[0].rsplit("callback: ", 1)[-1][:300]


def fewer(workers: int, in_vain: int) -> int:
    """How many to begin again with: as many, and one less each time they got no further, since there may be no room for so many."""
    return max(1, workers - max(0, in_vain - 1))


def _kept(effort: Effort) -> list[tuple[str, int]]:
    """What checkpoints there are, and when they were written."""
    return [] if effort.checkpoints is None else sorted((one.name, one.stat().st_mtime_ns) for one in effort.checkpoints.glob("*.npz"))


def _left(effort: Effort, began: float) -> float | None:
    return None if effort.budget_s is None else max(effort.budget_s - (time.monotonic() - began), 0.0)


def allowed(left_s: float | None, before: Counted, now: Counted) -> float | None:
    """The budget of a group that takes up the checkpoint there is ``now``, whose seconds it counts as its own, where ``left_s`` are left of the whole.

    ``before``: the checkpoint there was when the first group began. Its seconds, of an earlier run of the same training, are spent.
    """
    return None if left_s is None else left_s + now.seconds - (before.seconds if before.of == now.of else 0.0)


def _watched(group: Group, effort: Effort, more: Callable[[], bool]) -> _Said:
    """Passes on what they say until all have ended; ends early soon after one ended badly, or when nothing was heard for too long, or, just after a checkpoint,
    when there is room for ``more``."""
    said, heard, grace, looked, roomy, kept = _Said(), time.monotonic(), None, time.monotonic(), False, _kept(effort)
    while True:
        for word in group.news(_LOOK_S):
            heard = time.monotonic()
            _hear(word, said, effort)
        ended, now = group.ended(), time.monotonic()
        if all(one is not None and one.well for one in ended):
            said.done = said.refusal is None
            return said
        lost = [one for one in ended if one is not None and not one.well]
        said.failures += [one.why for one in lost if one.why and one.why not in said.failures]
        if lost or said.refusal is not None:
            grace = grace or now + _GRACE_S
        silence_s = 2 * effort.patience_s + (0 if said.begun else _START_S)
        if all(one is not None for one in ended) or now > (grace or heard + silence_s):
            return said
        if now - looked > _ROOM_S and said.begun and not grace and effort.checkpoints is not None:
            looked, before, roomy = now, roomy, more()
            kept = kept if roomy and before else _kept(effort)
        if roomy and _kept(effort) != kept:
            said.grows = True
            return said


def _hear(word: dict[str, Any], said: _Said, effort: Effort) -> None:
    tell: dict[str, Callable[[Any], None]] = {
        "step": lambda n: vars(said).update(steps=max(said.steps, n), begun=True),
        "progress": lambda value: effort.progress(*value),
        "tell": effort.tell,
        "refused": lambda value: setattr(said, "refusal", said.refusal or _error(*value)),
        "failed": lambda why: said.failures.insert(0, why),
    }
    for name, value in word.items():
        tell[name](value)


def _error(kind: str, message: str, fix: str) -> MisError:
    found = getattr(errors, kind, MisError)
    return found(message, fix=fix)


def here(effort: Effort) -> bool:
    """Whether this process is one of several that `torchrun` (or the like) began, and is to learn together with them."""
    return _begun() > 1 and "MASTER_ADDR" in os.environ and effort.workers == 1


def world(effort: Effort) -> int:
    """How many processes are to learn a network together."""
    return _begun() if here(effort) else effort.workers


def _begun() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def together(model: "Deep", train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
    """The same in every process that `torchrun` began: each takes its share, all get the weights."""
    import torch.distributed as dist

    from modelinscale.models._deep import learn
    from modelinscale.models._deep.strategy import Parallel, join

    if not dist.is_initialized():
        join(patience_s=effort.patience_s, device=effort.device)
    strategy = Parallel(compress_above=effort.compress_above, everyone=True)
    if not train.held:  # rows on disk are shuffled once, before all would at the same time
        if strategy.leader:
            next(iter(train.batches(derive(effort.seed, model.type), 0, 1)), None)
        strategy.leads(0.0)
    found = learn.fit(model, train, valid, task, effort if strategy.leader else replace(effort, tell=unheard, progress=unheard), strategy)
    effort.tell(strategy.close())
    return found


__all__ = ["allowed", "fewer", "fit", "here", "supervised", "together", "world"]
