"""How many processes learn one network together: each takes its rows of every batch, and all hold the same weights after every step.

B rows of a batch over all processes; W processes. The batch of a step is the same rows whatever W is, so the curve of the loss is too, up to rounding, where
no chance is in a step; what is drawn in it (dropout, moved images) is drawn by each process for itself.

Sources: Li et al., PyTorch Distributed, 2020 (gradients are summed while backward still runs); Ioffe and Szegedy, 2015, for what is normalised over a batch.
"""

import errno
import ipaddress
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from modelinscale import __version__
from modelinscale.compute._crew import MEETING
from modelinscale.core.errors import ComputeError, ModelError
from modelinscale.models import Device, Examples
from modelinscale.models._deep.held import Shards, Whole, called
from modelinscale.models._deep.net import Net
from modelinscale.models._deep.parts import Tensor
from modelinscale.models._deep.precision import device_of
from modelinscale.models._torch import torch

_MEASURED_STEPS = 12
"""Steps after which it is known how much of them is communication."""
_WORD_BYTES = 512
"""Of what processes tell each other of themselves."""


Judges = Literal["counts", "only goes through", "not"]
"""only goes through: so that weights that lie in parts come together in all processes as often; what it finds is another's to count."""


class Alone:
    """One process, which takes all rows."""

    rank, world = 0, 1
    sharded = False
    """Whether each process holds a part of every weight."""
    chance: tuple[int, ...] = ()
    """What a step's seed is told apart by, between processes."""

    @property
    def leader(self) -> bool:
        """Whether this process writes checkpoints and tells how it goes."""
        return self.rank == 0

    def holds(self, net: Net, device: "torch.device") -> tuple[Whole, Callable[[Any], Tensor]]:
        """What this process holds of the network, and what is called in its place in training; the network's own parameters are those that learn."""
        held = Whole(net, device)
        return held, held.net

    def shard(self) -> None:
        """From now on each process holds a part of every weight. For several processes only."""

    def begins_alike(self, step: int, digest: Callable[[], str]) -> None:
        """Raises `ComputeError` where processes do not begin at the same step with the same weights, which ``digest`` tells apart."""

    def batches(self, train: Examples, seed: int, epoch: int, n_rows: int, start: int) -> Iterator[Examples]:
        """This process's rows of each batch of ``n_rows`` rows in all, from row ``start`` of the epoch on."""
        return train.batches(seed, epoch, n_rows, start)

    def weighted(self, loss: Tensor, weight: Tensor) -> Tensor:
        """The mean loss of this process's rows, ``weight`` (its rows,), so that the gradient becomes that of the mean over the whole batch."""
        return loss

    def ends(self, over: bool) -> bool:
        """Whether to end now, where the leader's time is ``over``: the same answer in every process."""
        return over

    def leads(self, value: float) -> float:
        """The leader's value."""
        return value

    def mean(self, value: float) -> float:
        """The mean over the processes."""
        return value

    def saves(self, due: bool) -> bool:
        """Whether it is time for a checkpoint, in which all processes take part, where one is ``due`` by this one's clock."""
        return due

    def judges(self, block: int, n_blocks: int) -> Judges:
        """What this process does with a block of validation rows."""
        return "counts"

    def summed(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n_blocks, 2): what every process found of its blocks, the others being 0."""
        return sums

    def close(self) -> str:
        """Ends it; a sentence about how it went, or ""."""
        return ""


class Parallel(Alone):
    """One of several processes of a group that is made already (`join`): PyTorch's data parallel, over NCCL on GPUs and gloo elsewhere."""

    def __init__(self, *, compress_above: float | None = None, everyone: bool = False, beat: Callable[[int], None] = lambda steps: None) -> None:
        """``compress_above``: gradients travel in 16 bits once communication is found to take a larger share of a step; None: never. ``everyone``: each
        process wants the answer; else the first does. ``beat`` is called with the steps taken so far, at every step and block: who waits for this process
        sees that it is not stuck."""
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.chance = (self.rank,) if self.world > 1 else ()
        self._beat, self._compress_above, self._everyone = beat, compress_above, everyone
        self._words = dist.new_group(backend="gloo")  # for what is on the processor in any case, such as the sum of a batch's weights
        agree(self.told(versions()))
        self._over = self._ended = self._due = self._saves = self.sharded = False
        self._held: Whole | None = None
        self._travel = _Travel()
        self._steps, self._since = 0, time.monotonic()
        self._share: float | None = None

    def told(self, word: str) -> list[str]:
        """What each process says, cut where it is long. As bytes: PyTorch's way to gather objects would unpickle what others send."""
        mine = torch.frombuffer(bytearray(word.encode()[:_WORD_BYTES].ljust(_WORD_BYTES, b"\0")), dtype=torch.uint8)
        found = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(found, mine, group=self._words)
        return [bytes(one.numpy()).rstrip(b"\0").decode(errors="replace") for one in found]

    def shard(self) -> None:
        self.sharded = True

    def holds(self, net: Net, device: "torch.device") -> tuple[Whole, Callable[[Any], Tensor]]:
        across_processes(net)
        for p in net.parameters():
            p.requires_grad_(p.requires_grad and p.numel() > 0)  # a table without numbers has no gradient, and PyTorch's data parallel would wait for it
        if self.sharded:
            self._held = Shards(net, device, self._words, everyone=self._everyone)
            return self._held, called(self._held.net)
        held = Whole(net, device)
        return held, self._wrapped(held.net)

    def _wrapped(self, net: Net) -> Callable[[Any], Tensor]:
        if self.world == 1:
            return net
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the option has another name from PyTorch 2.13 on, which those before do not know
            found = torch.nn.parallel.DistributedDataParallel(net, broadcast_buffers=False, gradient_as_bucket_view=True)
        found.register_comm_hook(self._travel, _sent)
        return found

    def begins_alike(self, step: int, digest: Callable[[], str]) -> None:
        begin_alike(self.told(f"step {step:,} with the weights {digest()}"))

    def batches(self, train: Examples, seed: int, epoch: int, n_rows: int, start: int) -> Iterator[Examples]:
        """A batch of fewer than two rows a process is taken whole by every process, so that none is without: the mean over processes is the same."""
        n, few = len(train), 2 * self.world
        rest = n % n_rows or min(n_rows, n)
        shared = 0 if n_rows < few else n if rest >= few else n - rest
        if start < shared:
            yield from islice(train.batches(seed, epoch, n_rows, start, rank=self.rank, world=self.world), -(-(shared - start) // n_rows))
        if shared < n:
            yield from train.batches(seed, epoch, n_rows, max(start, shared))

    def weighted(self, loss: Tensor, weight: Tensor) -> Tensor:
        self._beat(self._steps)
        mine = float(weight.sum())
        words = torch.tensor([mine, float(self._over and self.leader), float(self._due and self.leader)], dtype=torch.float64)
        dist.all_reduce(words, group=self._words)
        self._ended, self._saves = bool(words[1] > 0), bool(words[2] > 0)
        self._measure()
        return loss * (mine * self.world / max(float(words[0]), 1e-12))  # gradients are averaged over processes, not summed

    def ends(self, over: bool) -> bool:
        # Asked at the next step together with the weights, so that no step waits for it: all end one step later, and together.
        self._over = over
        return self._ended

    def leads(self, value: float) -> float:
        word = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(word, 0, group=self._words)
        return float(word)

    def mean(self, value: float) -> float:
        word = torch.tensor([value / self.world], dtype=torch.float64)
        dist.all_reduce(word, group=self._words)
        return float(word)

    def saves(self, due: bool) -> bool:
        self._due = due and not self._saves  # as with the end: all of them one step later
        return self._saves

    def judges(self, block: int, n_blocks: int) -> Judges:
        self._beat(self._steps)
        if block % self.world == self.rank:
            return "counts"
        without = self.sharded and block == n_blocks - 1 and block % self.world < self.rank
        return "only goes through" if without else "not"

    def summed(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        # Each number is one process's own plus zeros, so to the last bit what one process alone finds.
        found = torch.from_numpy(sums)
        dist.all_reduce(found, group=self._words)
        return sums

    def close(self) -> str:
        if isinstance(self._held, Shards):
            full = " Gradients travelled in full: `compress_above` is for processes that hold all weights." if self._compress_above is not None else ""
            return f"{self.world} processes learned together; each held about {self._held.share:.0%} of the weights and of all that moves with them.{full}"
        share = self._share if self._share is not None else self._travel.seconds / max(time.monotonic() - self._since, 1e-9)
        how = " and travelled in 16 bits from then on" if self._travel.short else ""
        return f"{self.world} processes learned together; gradients were on their way for {share:.0%} of the time of the first steps{how}."

    def _measure(self) -> None:
        """Finds once how much of a step's time gradients are on their way (some of it beside the work), and whether they are to be made shorter."""
        self._steps += 1
        if self._steps == 4:  # the first steps make things that stay
            self._travel.seconds, self._since = 0.0, time.monotonic()
        elif self._steps == 4 + _MEASURED_STEPS:
            self._share = self.leads(self._travel.seconds / max(time.monotonic() - self._since, 1e-9))
            self._travel.short = self._compress_above is not None and self._share > self._compress_above


class _Travel:
    """The gradients' way: for how long some were on it, and whether they go in 16 bits."""

    def __init__(self) -> None:
        self.seconds, self.short = 0.0, False
        self._flying, self._began = 0, 0.0

    def leaves(self) -> None:
        if not self._flying:
            self._began = time.monotonic()
        self._flying += 1

    def arrives(self) -> None:
        self._flying -= 1
        if not self._flying:
            self.seconds += time.monotonic() - self._began


def _sent(travel: _Travel, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
    """Sums a bucket of gradients over the processes: a future of their mean."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook, bf16_compress_hook

    travel.leaves()
    found = bf16_compress_hook(None, bucket) if travel.short else allreduce_hook(None, bucket)  # type: ignore[arg-type]

    def arrived(future: Any) -> Tensor:
        travel.arrives()
        return future.value()[0] if isinstance(future.value(), list) else future.value()  # type: ignore[no-any-return]

    return found.then(arrived)


def versions() -> str:
    """What has to be the same in all processes, in words."""
    return f"modelinscale {__version__}, PyTorch {torch.__version__}"


def agree(told: list[str]) -> None:
    """Raises `ComputeError` where processes have different versions; ``told``: those of each."""
    if others := _others(told):
        raise ComputeError(
            f"processes that learn together have different versions: process 0 {told[0]}; {'; '.join(others[:5])}.",
            fix="Install the same versions on every node (in the image, on Kubernetes).",
        )


def begin_alike(told: list[str]) -> None:
    """Raises `ComputeError` where processes would begin at different places; ``told``: that of each."""
    if others := _others(told):
        raise ComputeError(
            f"processes that learn together found different checkpoints: process 0 would begin at {told[0]}; {'; '.join(others[:5])}.",
            fix="Only the first process writes checkpoints: put `checkpoints` (the project's `store`) on a disk that all processes see.",
        )


def _others(told: list[str]) -> list[str]:
    """Which say something else than the first."""
    return [f"process {rank} {one}" for rank, one in enumerate(told) if one != told[0]]


def join(*, patience_s: float, device: Device = "auto") -> None:
    """Joins the group that the environment names: RANK, WORLD_SIZE, and `MEETING` or, as `torchrun` sets them, MASTER_ADDR and MASTER_PORT.

    ``patience_s``: how long a process waits for the others before it takes them for lost and raises.
    """
    gpu = device_of(device).type == "cuda" and dist.is_nccl_available()
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    backend, timeout, world = "nccl" if gpu else "gloo", timedelta(seconds=patience_s), int(os.environ["WORLD_SIZE"])
    if MEETING in os.environ:
        store = dist.FileStore(os.environ[MEETING], world)  # type: ignore[attr-defined]
        dist.init_process_group(backend, timeout=timeout, store=store, rank=int(os.environ["RANK"]), world_size=world)
    elif os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # `torchrun` has a meeting place already, on every interface
        dist.init_process_group(backend, timeout=timeout)
    else:
        rank, address, port = int(os.environ["RANK"]), os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        dist.init_process_group(backend, timeout=timeout, store=_met(address, port, world, rank, timeout), rank=rank, world_size=world)


def _met(address: str, port: int, world: int, rank: int, timeout: timedelta) -> dist.Store:  # type: ignore[name-defined]
    """The place where processes of several nodes meet. PyTorch by itself listens on every interface."""
    own = None if rank else _listens(address, port)
    more: dict[str, Any] = {"timeout": timeout, "wait_for_workers": False, "master_listen_fd": own}
    return dist.TCPStore(address, port, world, rank == 0, **more)  # type: ignore[attr-defined]


def _listens(address: str, port: int) -> int | None:
    """A socket that listens at this address only; None where that is a name, which may lead others elsewhere, or none of this machine's (a relay's)."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with socket.create_server((address, port), family=family, backlog=128) as listens:
            return listens.detach()
    except ValueError:
        return None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return None
        raise ConnectionError(f"the socket at {address}:{port} where processes were to meet cannot be opened: {error}") from error


def across_processes(net: torch.nn.Module) -> None:
    """Lets layers that normalise over the batch do so over all processes' rows of it.

    timm's one that also drops and activates keeps doing so. Raises `ModelError` for any other that does more than normalise: it would be lost.
    """
    for name, norm in list(net.named_modules()):
        if not isinstance(norm, torch.nn.modules.batchnorm._BatchNorm) or isinstance(norm, AcrossProcesses):
            continue
        with_more = type(norm).__name__ == "BatchNormAct2d" and type(norm).__module__.startswith("timm.")
        if type(norm) not in _PLAIN and not with_more:
            raise ModelError(
                f"{name}: several processes cannot normalise together by {type(norm).__module__}.{type(norm).__name__}, which does more than normalise.",
                fix="Set `train.workers: 1`, or choose another `pretrained.architecture`.",
            )
        net.set_submodule(name, AcrossProcesses(norm, ("drop", "act") if with_more else ()))


class _Summed(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        found = x.clone()
        dist.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        found = gradients[0].clone()
        dist.all_reduce(found)
        return found


_PLAIN = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


class AcrossProcesses(torch.nn.BatchNorm2d):
    """Batch normalisation over the rows of all processes, on any device (PyTorch's own needs GPUs). In evaluation as the one it stands for."""

    def __init__(self, norm: "torch.nn.modules.batchnorm._BatchNorm", followed_by: tuple[str, ...] = ()) -> None:
        """``followed_by``: parts of ``norm`` that are applied to what is normalised, in this order."""
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var, self.num_batches_tracked = norm.running_mean, norm.running_var, norm.num_batches_tracked
        for name in followed_by:  # they keep their names among the weights
            self.add_module(name, norm.get_submodule(name))
        self._followed_by = followed_by
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of places."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, maps, …): the same shape."""
        found = self._normalised(input) if self.training else super().forward(input)
        for name in self._followed_by:
            found = self.get_submodule(name)(found)
        return found

    def _normalised(self, input: Tensor) -> Tensor:
        over = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        x = input.float()
        n = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        first: Tensor = _Summed.apply(torch.cat([x.sum(over), n]))  # type: ignore[no-untyped-call]
        n, mean = first[-1], first[:-1] / first[-1]
        around = x - mean.view(shape)
        variance: Tensor = _Summed.apply((around * around).sum(over)) / n  # type: ignore[no-untyped-call]
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                keep = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, keep)
                self.running_var.lerp_(variance * (n / (n - 1).clamp_min(1)), keep)
        done = around * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            done = done * self.weight.view(shape) + self.bias.view(shape)
        found: Tensor = done.to(input.dtype)
        return found


__all__ = ["AcrossProcesses", "Alone", "Parallel", "across_processes", "agree", "begin_alike", "join", "versions"]
