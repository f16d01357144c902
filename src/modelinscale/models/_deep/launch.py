"""A network learned by several processes of this machine: begun, watched, and begun again from the last checkpoint when one is lost.

Every process runs `modelinscale.models._deep.worker`, as `torchrun` would begin it: the environment says who it is. They meet at a port of loopback that the
system chose. What they have to say comes as lines of JSON through a pipe each; what they are to do goes to them through their standard input, which also
tells them when this process is gone.
"""

import json
import os
import pickle
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core import errors
from modelinscale.core.errors import ComputeError, MisError, NotSupportedYet
from modelinscale.core.files import Scratch
from modelinscale.core.seeds import derive
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Weights, unheard

if TYPE_CHECKING:
    from modelinscale.models.network import Network

_LOOK_S = 0.2
_START_S = 300.0
"""To import, meet and look through the rows, before the first step."""
_GRACE_S = 3.0
"""After one process ended badly the others may say what they know for so long; then they are ended."""
_LOST_IN_VAIN = 3
"""Losses without a step forward after which it is given up."""


@dataclass(frozen=True)
class Job:
    """What each process is to do."""

    model: dict[str, Any]
    train: Examples
    valid: Examples | None
    task: Task
    effort: Effort
    """Without its callables, which stay here."""
    patience_s: float
    compress_above: float | None
    result: Path
    """A folder where the leader puts what was learned."""


@dataclass
class _Said:
    """What the processes of one group said and how they ended."""

    steps: int = 0
    begun: bool = False
    """Whether the first step was taken."""
    done: bool = False
    refusal: MisError | None = None
    """A user's mistake, or the network's: beginning again would not help."""
    failures: list[str] = field(default_factory=list)
    """Of processes that could not go on, often since another was lost."""


def fit(model: "Network", train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
    """What `learn.fit` finds, by ``effort.workers`` processes. A lost process costs the steps since the last checkpoint (all of them without checkpoints).

    Raises `ComputeError` when processes are lost again and again, and what a process raised itself.
    """
    if model.accumulate > 1:
        raise NotSupportedYet(
            f"`accumulate: {model.accumulate}` with {effort.workers} processes is not there yet.", fix="Set `accumulate: 1`: each process takes a share anyway."
        )
    if not train.held:
        next(iter(train.batches(derive(effort.seed, "network"), 0, 1)), None)  # shuffles rows on disk once, before all would at the same time
    began, workers, in_vain, kept = time.monotonic(), effort.workers, 0, _kept(effort)
    with Scratch("learn") as folder:
        while True:
            plain = Effort(effort.seed, _left(effort, began), 1, effort.checkpoints, effort.memory, checkpoint_s=effort.checkpoint_s)
            job = Job(model.plain(), train, valid, task, plain, effort.patience_s, effort.compress_above, folder / "weights")
            job.result.mkdir(exist_ok=True)
            said = _watched(_begun(job, workers), effort)
            if said.refusal is not None:
                raise said.refusal
            if said.done:
                return Weights.load(job.result)
            in_vain, kept = (1, _kept(effort)) if _kept(effort) != kept else (in_vain + 1, kept)
            if in_vain > _LOST_IN_VAIN:
                why = f" One said: {_short(said.failures[0])}" if said.failures else " The system may have ended them for want of memory."
                raise ComputeError(
                    f"processes that learn together were lost {in_vain} times without getting further.{why}",
                    fix="Lower `train.workers`, or look at the memory.",
                )
            workers = fewer(workers, in_vain)
            where = "the last checkpoint" if kept else "the beginning"
            effort.tell(f"one of the processes was lost after {said.steps:,} steps; {workers} go on from {where}.")


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
    return None if effort.budget_s is None else max(effort.budget_s - (time.monotonic() - began), 0.0) if not effort.checkpoints else effort.budget_s


@dataclass
class _Process:
    rank: int
    process: "subprocess.Popen[bytes]"
    news: int
    """The end of its pipe that is read."""
    unread: bytes = b""


def _begun(job: Job, workers: int) -> list[_Process]:
    """All processes of a group, each with its work."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    travels = pickle.dumps(job, protocol=5)
    found: list[_Process] = []
    try:
        for rank in range(workers):
            reads, writes = os.pipe()
            who = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": workers, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
            environment = os.environ | {name: str(value) for name, value in who.items()} | {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
            command = [sys.executable, "-m", "modelinscale.models._deep.worker", str(writes)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, pass_fds=[writes], start_new_session=True)
            os.close(writes)
            os.set_blocking(reads, False)
            found.append(_Process(rank, process, reads))
            assert process.stdin is not None
            process.stdin.write(len(travels).to_bytes(8, "little") + travels)
            process.stdin.flush()
    except BrokenPipeError:
        pass  # it ended already: seen below, like any other loss
    except BaseException:
        _end(found)
        raise
    return found


def _watched(group: list[_Process], effort: Effort) -> _Said:
    """Passes on what they say until all have ended; ends the others soon after one ended badly, or when nothing was heard for too long."""
    said, heard, grace = _Said(), time.monotonic(), None
    try:
        with selectors.DefaultSelector() as ready:
            for one in group:
                ready.register(one.news, selectors.EVENT_READ, one)
            while True:
                for key, _ in ready.select(_LOOK_S):
                    heard = time.monotonic()
                    if not _hear(key.data, said, effort):
                        ready.unregister(key.fd)
                codes = [one.process.poll() for one in group]
                if all(code is not None for code in codes) and not ready.get_map():
                    said.done = said.done and all(code == 0 for code in codes)
                    return said
                if any(codes) or said.refusal is not None:
                    grace = grace or time.monotonic() + _GRACE_S
                silence_s = 2 * effort.patience_s + (0 if said.begun else _START_S)
                if time.monotonic() > (grace or heard + silence_s):
                    said.done = False
                    return said
    finally:
        _end(group)


def _hear(one: _Process, said: _Said, effort: Effort) -> bool:
    """Reads what a process said since; False: it says no more."""
    try:
        found = os.read(one.news, 1 << 16)
    except BlockingIOError:
        return True
    *lines, one.unread = (one.unread + found).split(b"\n")
    tell: dict[str, Callable[[Any], None]] = {
        "step": lambda n: vars(said).update(steps=max(said.steps, n), begun=True),
        "progress": lambda value: effort.progress(*value),
        "tell": effort.tell,
        "done": lambda _: setattr(said, "done", True),
        "refused": lambda value: setattr(said, "refusal", said.refusal or _error(*value)),
        "failed": said.failures.append,
    }
    for line in lines:
        for name, value in json.loads(line).items():
            tell[name](value)
    return bool(found)


def _error(kind: str, message: str, fix: str) -> MisError:
    found = getattr(errors, kind, MisError)
    return found(message, fix=fix)


def _end(group: list[_Process]) -> None:
    """None is left afterwards."""
    for one in group:
        if one.process.poll() is None:
            one.process.kill()
    for one in group:
        one.process.wait()
        os.close(one.news)
        if one.process.stdin is not None:
            try:
                one.process.stdin.close()
            except BrokenPipeError:  # its work never reached it
                continue


def here(effort: Effort) -> bool:
    """Whether this process is one of several that `torchrun` (or the like) began, and is to learn together with them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ and effort.workers == 1


def together(model: "Network", train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
    """The same in every process that `torchrun` began: each takes its share, all get the weights."""
    import torch.distributed as dist

    from modelinscale.models._deep import learn
    from modelinscale.models._deep.strategy import Parallel, join

    if not dist.is_initialized():
        join(patience_s=effort.patience_s)
    strategy = Parallel(compress_above=effort.compress_above)
    if not train.held:  # rows on disk are shuffled once, before all would at the same time
        if strategy.leader:
            next(iter(train.batches(derive(effort.seed, "network"), 0, 1)), None)
        strategy.leads(0.0)
    found = learn.fit(model, train, valid, task, effort if strategy.leader else replace(effort, tell=unheard, progress=unheard), strategy)
    effort.tell(strategy.close())
    return found


__all__ = ["Job", "fewer", "fit", "here", "together"]
