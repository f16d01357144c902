"""What runs on a Ray worker: one function on one item; and how function, item and result travel between processes.

Everything travels as a pickle with its large buffers (NumPy, Arrow) beside it, so that Ray keeps those in its object store instead of copying them
into the pickle. What arrives is a copy of one's own: it may be changed, and the store is free again.
"""

import pickle
import platform
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import ComputeError, needs
from modelinscale.core.memory import check, guarded
from modelinscale.core.secrets import veil


@dataclass(frozen=True)
class Packed:
    """A value on its way."""

    head: bytes
    buffers: tuple[NDArray[np.uint8], ...]
    """Its large parts, kept beside the pickle."""

    def value(self, *, shared: bool = False) -> Any:
        """The value again. ``shared``: its arrays lie in Ray's store, cannot be written to and are not copied."""
        buffers = self.buffers if shared else [bytearray(buffer) for buffer in self.buffers]
        return pickle.loads(self.head, buffers=buffers)  # noqa: S301  # our own processes, behind Ray's token


@dataclass(frozen=True)
class Failed:
    """A function's own error, on its way."""

    error: Packed | None
    """None: it cannot travel, or holds a secret."""
    text: str
    """Its type and message."""
    where: str
    """Its traceback on the worker."""

    def raised(self) -> Exception:
        """The error, as if it had happened here, with the worker's traceback as its cause."""
        try:
            error = self.error.value() if self.error else None
        except Exception:  # noqa: BLE001  # its class is not installed on this side
            error = None
        if not isinstance(error, Exception):
            error = ComputeError(f"a worker failed with {self.text}")
        error.__cause__ = WorkerTraceback(self.where)
        return error


class WorkerTraceback(Exception):
    """Where on a worker an error happened."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def pack(value: object) -> Packed:
    """A value made ready to travel; functions may be lambdas. Raises what pickling raises."""
    cloudpickle = needs("ray.cloudpickle", extra="ray")  # not the plain one: it sends only the rows that a slice of an Arrow table shows
    buffers: list[pickle.PickleBuffer] = []
    head = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    # As arrays of bytes: the server of `ray://` pickles what passes through once more, and cannot do that with Ray's own buffers.
    return Packed(head, tuple(np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers))


def work(key: str, function: list[Any], item: Packed, memory: int | None, version: str) -> Packed | Failed:
    """One function on one item. ``function``: the one reference to it in Ray's store, under a list so that it is fetched once a worker, not once an item.

    ``memory``: what this process may hold; above it the work ends with a reason rather than by the kernel's hand. ``version``: the driver's modelinscale.
    """
    try:
        _same(version)
        try:
            call, value = _function(key, function[0]), item.value()
        except (ImportError, AttributeError) as error:
            raise ComputeError(
                f"the node {platform.node()!r} cannot load the work: {error}.",
                fix="Install the same versions of modelinscale and of your own packages on every node (in the image, for KubeRay).",
            ) from error
        del item
        with guarded(memory):
            result = call(value)
            check("working on it")
            return pack(result)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is raised again where the results are wanted
        return _failed(error)


def _same(version: str) -> None:
    """Refuses to work for another version: its states and bytes may be others."""
    from modelinscale import __version__

    if __version__ != version:
        raise ComputeError(
            f"the node {platform.node()!r} has modelinscale {__version__}, and {version} runs here.",
            fix=f"Install modelinscale=={version} on every node (in the image, for KubeRay).",
        )


@lru_cache(maxsize=1)
def _function(key: str, function: Any) -> Callable[[Any], Any]:
    packed: Packed = needs("ray", extra="ray").get(function)
    return packed.value(shared=True)  # type: ignore[no-any-return]


def _failed(error: Exception) -> Failed:
    text = veil(f"{type(error).__name__}: {error}")
    where = veil("".join(traceback.format_exception(error)))
    told = f"{error.args} {vars(error)}"
    if veil(told) != told:  # only this process knows what was revealed in it: what leaves it must not hold it
        return Failed(None, text, where)
    try:
        packed = pack(error)
        packed.value()  # some pickle well and cannot be read back
    except Exception:  # noqa: BLE001
        return Failed(None, text, where)
    return Failed(packed, text, where)
