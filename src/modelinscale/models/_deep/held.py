"""What one process holds of a network and of its moving average: all of it, or a part of every weight (fully sharded).

W processes. In parts, the weights of a layer come together for the moment in which it computes, and its gradients go apart again at once. What moves with them
(the average, the best, both moments of AdamW) is never together, but for the answer: one array at a time for a checkpoint, all at the end.

Sources: Rajbhandari et al., ZeRO, 2020; Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, 2023.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from modelinscale.core.allocators import keep_pages
from modelinscale.core.errors import ModelError
from modelinscale.models._deep.net import Batch, Hidden, Net
from modelinscale.models._deep.parts import Tensor
from modelinscale.models._deep.pretrained import digest_of
from modelinscale.models._deep.saved import Arrays, Checkpoint
from modelinscale.models._torch import torch

_UNIT_SHARE, _UNIT_BYTES = 1 / 32, 1 << 20
"""A layer in a list whose weights are so much of the network's, or so many bytes, whichever is less, comes together by itself."""

_KEPT_OF = 16 << 20
"""As if that were all the memory there is: weights of a layer that went apart go back to the system at once. Kept, they took as much again as all that is held
(measured: 8.7 times the weights, 4.3 without)."""


_SINCE = (2, 8)
"""The first PyTorch whose `fully_shard` lays the outermost weights apart again after each pass, and knows of parameters to leave out."""


class Whole:
    """All of it."""

    def __init__(self, net: Net, device: "torch.device") -> None:
        self.net: Net = net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self._judge = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.now: dict[str, Tensor] = self.net.state_dict()
        """What this process holds of each weight and buffer; shares their memory."""
        self.average: dict[str, Tensor] = self._judge.state_dict()
        """The same of the moving average."""

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Of the network, by their names in `now`."""
        return dict(self.net.named_parameters())

    def own(self, tensor: Tensor) -> Tensor:
        """What this process holds of a parameter or gradient; shares its memory."""
        return tensor

    def part(self, kind: str, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """What this process holds of an array that is whole; ``kind``: now, average, best, first, second."""
        return values

    def length(self, mine: Tensor) -> Tensor:
        """Of a vector that all processes have a part of, from the length of this one's."""
        return mine

    @contextmanager
    def judging(self) -> Iterator[Callable[[Batch], Tensor]]:
        """The network with averaged weights, as it is in evaluation."""
        yield self._judge

    def digest(self) -> str:
        """Which weights it began with, or those of the checkpoint that was taken up."""
        return digest_of({name: _array(value) for name, value in self.now.items()})

    def save(self, checkpoint: Checkpoint, kinds: Mapping[str, Mapping[str, Tensor | NDArray[Any]]], at: dict[str, Any]) -> None:
        """Copies all and goes on while it is written. Arrays must not change afterwards."""
        checkpoint.save({kind: {name: _array(one).copy() if isinstance(one, Tensor) else one for name, one in of.items()} for kind, of in kinds.items()}, at)

    def whole(self, kept: Arrays) -> Arrays:
        """What all processes hold of these, together; nothing where no one asks for it."""
        return kept


class Shards(Whole):
    """A part of every weight, cut along its first side (or the first that can be cut evenly); buffers, which are small, whole. Made of a whole network."""

    def __init__(self, net: Net, device: "torch.device", words: Any, *, everyone: bool) -> None:
        """``words``: a group of all processes for what is on the processor; ``everyone``: whether each wants the answer, and not the first process alone."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import DTensor

        self._rank, self._world, self._words, self._everyone = dist.get_rank(), dist.get_world_size(), words, everyone
        self._digest = digest_of({name: _array(value) for name, value in net.state_dict().items()})
        self._taken: Any = None
        keep_pages(_KEPT_OF)
        mesh, names = init_device_mesh(device.type, (self._world,)), list(net.state_dict())
        apart(net)
        empty = {p for p in net.parameters() if not p.numel()}  # such as the bins of numbers without any
        for unit in [*units(net), net]:
            fully_shard(unit, mesh=mesh, reshard_after_forward=True, shard_placement_fn=self._side, ignored_params=empty)
        found = {_name(name): value for name, value in net.state_dict().items()}
        self.net, state = net.train(), {name: found[name] for name in names}
        self._shapes = {name: tuple(value.shape) for name, value in state.items()}
        self._sides = {name: value.placements[0].dim for name, value in state.items() if isinstance(value, DTensor)}  # type: ignore[attr-defined]
        self.now = {name: self.own(value) for name, value in state.items()}
        self.average = {name: value.clone() for name, value in self.now.items()}

    @property
    def share(self) -> float:
        """Of the bytes of weights and buffers, those that this process holds."""
        held = sum(value.numel() * value.element_size() for value in self.now.values())
        return held / max(1, sum(int(np.prod(self._shapes[name])) * value.element_size() for name, value in self.now.items()))

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return {_name(name): p for name, p in self.net.named_parameters()}

    def own(self, tensor: Tensor) -> Tensor:
        with torch.no_grad():
            return tensor.to_local() if hasattr(tensor, "to_local") else tensor

    def part(self, kind: str, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if kind == "now":
            self._taken = self._taken or hashlib.sha256()
            self._taken.update(name.encode() + np.ascontiguousarray(values).tobytes())  # as `digest_of` does
            self._digest = self._taken.hexdigest()[:16]
        return values[self._places(name, self._rank)].copy() if name in self._sides else values

    def length(self, mine: Tensor) -> Tensor:
        squared = mine.square()
        dist.all_reduce(squared)
        return squared.sqrt()

    @contextmanager
    def judging(self) -> Iterator[Callable[[Batch], Tensor]]:
        """Puts the average in the place of the weights meanwhile: a second network would need memory for its own."""
        self._swap()
        self.net.eval()
        try:
            yield self.net
        finally:
            self._apart_again()
            self._swap()
            self.net.train()

    def digest(self) -> str:
        return self._digest

    def save(self, checkpoint: Checkpoint, kinds: Mapping[str, Mapping[str, Tensor | NDArray[Any]]], at: dict[str, Any]) -> None:
        """The first process writes one array after the other, and the others wait."""
        checkpoint.write(self._together(kinds), at, writes=self._rank == 0)

    def whole(self, kept: Arrays) -> Arrays:
        found: Arrays = {}
        self.average = {}
        for key, values in self._together({"best": kept}):
            if self._everyone:
                name = key.partition("/")[2]
                told = torch.empty(self._shapes[name], dtype=self.now[name].dtype) if values is None else torch.from_numpy(values)
                dist.broadcast(told, 0, group=self._words)
                values = told.numpy()
            if values is not None:
                found[key.partition("/")[2]] = values
        return found

    def _together(self, kinds: Mapping[str, Mapping[str, Tensor | NDArray[Any]]]) -> Iterator[tuple[str, NDArray[Any] | None]]:
        """Every array as a whole, one after the other, at the first process; None at others. All of them have to go through all."""
        for kind, of in kinds.items():
            for name, mine in of.items():
                mine = torch.from_numpy(mine) if isinstance(mine, np.ndarray) else mine.detach().cpu().contiguous()
                yield f"{kind}/{name}", self._gathered(name, mine)

    def _gathered(self, name: str, mine: Tensor) -> NDArray[Any] | None:
        if name not in self._sides:
            return mine.numpy().copy() if self._rank == 0 else None
        if self._rank:
            if mine.numel():
                dist.send(mine, 0, group=self._words)
            return None
        found = torch.empty(self._shapes[name], dtype=mine.dtype)
        for rank in range(self._world):
            place = found[self._places(name, rank)]
            if rank and place.numel():
                came = torch.empty(place.shape, dtype=place.dtype)
                dist.recv(came, rank, group=self._words)
                place.copy_(came)
            elif place.numel():
                place.copy_(mine)
        return found.numpy()

    def _places(self, name: str, rank: int) -> tuple[slice, ...]:
        """Which part of an array is a process's: PyTorch's own cut, so that all but the last have as much."""
        side, shape = self._sides[name], self._shapes[name]
        each = -(-shape[side] // self._world)
        return (*[slice(None)] * side, slice(min(rank * each, shape[side]), min((rank + 1) * each, shape[side])))

    def _side(self, parameter: torch.nn.Parameter) -> Any:
        from torch.distributed.tensor import Shard

        return Shard(next((side for side, n in enumerate(parameter.shape) if n % self._world == 0), 0))

    def _apart_again(self) -> None:
        """What is still together would be taken for the weights at the next pass, whatever their parts have become."""
        from torch.distributed.fsdp import FSDPModule

        for module in self.net.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _swap(self) -> None:
        with torch.no_grad():
            for name, value in self.now.items():
                before = value.clone()
                value.copy_(self.average[name])
                self.average[name].copy_(before)


def is_too_old(version: str) -> bool:
    """Whether a PyTorch of this version cannot lay weights in parts, such as 2.7.1+cpu."""
    return tuple(int(part) for part in version.split(".")[:2]) < _SINCE


def apart(net: Net) -> None:
    """Makes each hidden layer of the trunk one that is called, so that its weights come together by themselves; `_name` knows what they were called."""
    net.apart.extend(Hidden(*both) for both in zip(net.weights, net.biases, strict=True))
    net.weights, net.biases = torch.nn.ParameterList(), torch.nn.ParameterList()


def _name(name: str) -> str:
    """In a network that is whole."""
    of, _, rest = name.partition(".")
    number, _, what = rest.partition(".")
    return f"{'weights' if what == 'weight' else 'biases'}.{number}" if of == "apart" else name


def units(net: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers that come together one at a time, inner ones first: what stands in lists and is large. A list's layers are called, which nothing else is sure
    to be: weights of a layer that its owner takes for itself would not be there."""
    return _units(net, listed=False, least=min(_UNIT_BYTES, _UNIT_SHARE * _bytes(net)))


def _units(module: torch.nn.Module, *, listed: bool, least: float) -> list[torch.nn.Module]:
    holds = isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential))
    found = [one for child in module.children() for one in _units(child, listed=holds, least=least)]
    never_called = isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict))
    return [*found, module] if listed and not never_called and _bytes(module) >= least else found


def together_bytes(net: torch.nn.Module) -> int:
    """The most that is together at once: encoders and the head until the end of a step, and of the layers within encoders and trunk the largest."""
    hidden = [p.numel() * p.element_size() for p in getattr(net, "weights", ())]
    inner, outer, seen = max(hidden, default=0), -sum(hidden), set[int]()
    parts = {id(part) for part in getattr(net, "parts", {}).values()}
    for unit in [*units(net), net]:
        own = sum(p.numel() * p.element_size() for p in unit.parameters() if id(p) not in seen)
        seen |= {id(p) for p in unit.parameters()}
        inner, outer = (inner, outer + own) if unit is net or id(unit) in parts else (max(inner, own), outer)
    return int(inner + outer)


def called(net: Net) -> Callable[[Any], Tensor]:
    """The network, whose layers come together as they are called. Raises `ModelError` where one uses weights of another without calling it."""

    def answer(batch: Any) -> Tensor:
        try:
            found: Tensor = net(batch)
        except (RuntimeError, AssertionError) as error:
            if "DTensor" not in str(error):
                raise
            raise ModelError(
                f"this network cannot be learned with its weights in parts: a layer takes weights that are not together ({str(error).splitlines()[0][:200]}).",
                fix="Set `train.strategy: data_parallel`, or choose another encoder (`pretrained.architecture`).",
            ) from error
        return found

    return answer


def _bytes(module: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _array(value: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = value.detach().cpu().numpy()
    return found


__all__ = ["Shards", "Whole", "called", "is_too_old", "together_bytes", "units"]
