"""The Ray tasks of one map, in the order of their items: some running, some done and waiting for those before them."""

import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import ComputeError
from modelinscale.core.logs import log

if TYPE_CHECKING:
    from modelinscale.compute.ray import Ray

LOOK_S = 10.0
"""How often the nodes are counted again."""
SCALE_S = 300.0
"""How long a cluster may be without any node that is big enough: one that grows by itself needs minutes."""
HEAD_S = 60.0
"""How long the cluster's head may be gone: one that keeps its books in Redis comes back."""


class Flight:
    """Tasks in flight. Raises `ComputeError` for what is not the function's own fault."""

    def __init__(self, ray: ModuleType, compute: "Ray") -> None:
        self._ray, self._compute = ray, compute
        self._waiting: deque[tuple[str, Any]] = deque()  # each item's name and its result's reference
        self._running: list[Any] = []
        self._workers = 1
        self._unfit: float | None = None  # since when no node is big enough
        self._head, self._gone = _head(ray, compute.address), None
        self._look()

    _gone: float | None
    """Since when the head does not answer."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def room(self) -> bool:
        """Whether another may start. Results may wait for a slow one before them, but not without end: they take memory."""
        return len(self._running) < self._workers and len(self._waiting) < 2 * self._workers

    def add(self, name: str, ref: Any) -> None:
        """``ref``: where its result will be."""
        self._waiting.append((name, ref))
        self._running.append(ref)

    def first_is_ready(self) -> bool:
        """Whether the next result in the order of the items is there."""
        return bool(self._waiting) and self._waiting[0][1] not in self._running

    def wait(self, longest_s: float) -> None:
        """Until another task is done."""
        if self._running:
            with told():
                _, self._running = self._ray.wait(self._running, num_returns=1 if longest_s else len(self._running), timeout=longest_s)
        if time.monotonic() - self._looked > LOOK_S:
            self._look()

    def result(self) -> Any:
        """The next result in the order of the items; an error names its item."""
        name, ref = self._waiting.popleft()
        outcome = self._fetched(name, ref)
        from modelinscale.compute._ray_worker import Failed

        if isinstance(outcome, Failed):
            theirs = outcome.raised()
            theirs.add_note(f"while working on {name}")
            raise theirs
        return outcome.value()

    def _fetched(self, name: str, ref: Any) -> Any:
        """A result that is there; made anew, which takes its time, when its node was lost meanwhile."""
        while True:
            try:
                return self._ray.get(ref, timeout=LOOK_S)
            except self._ray.exceptions.GetTimeoutError:
                self._look()
            except Exception as error:
                mine = explained(error)
                mine.add_note(f"while working on {name}")
                raise mine from error

    def drop(self) -> None:
        """Lets go of what nobody wants any more.

        The few tasks that run end by themselves. They are not cancelled: where that meets a task that is just done, Ray 2.60 aborts this process
        ("Tried to complete task that was not pending"; within sixty maps left in the middle).
        """
        self._waiting.clear()
        self._running.clear()

    def _look(self) -> None:
        """Counts the room on the nodes that are alive."""
        now = time.monotonic()
        if self._head and not self._answers(now):
            self._looked = now
            return
        with told():
            fit = sum(self._compute.fit(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
        self._looked = now
        self._workers = self._compute.workers or max(fit, 1)
        if fit:
            self._unfit = None
            return
        wish = self._compute.wish()
        if self._compute.address is None or (self._unfit is not None and now - self._unfit > SCALE_S):
            raise ComputeError(f"no node of the Ray cluster has {wish}, which each task asks for.", fix="Ask for less in `compute`, or add a bigger node.")
        if self._unfit is None:
            self._unfit = now
            log(__name__).warning("no node of the Ray cluster is big enough for a task; waiting for one", extra={"task": wish, "at_most_s": SCALE_S})

    def _answers(self, now: float) -> bool:
        """Whether the head can be reached; what runs on other nodes goes on for a while without it. Raises `ComputeError` when it stays away."""
        assert self._head is not None
        try:
            socket.create_connection(self._head, timeout=5).close()
        except OSError as error:
            place = ":".join(map(str, self._head))
            if self._gone is None:
                self._gone = now
                log(__name__).warning("the head of the Ray cluster does not answer; waiting for it", extra={"head": place, "at_most_s": HEAD_S})
            elif now - self._gone > HEAD_S:
                raise ComputeError(
                    f"the head of the Ray cluster ({place}) has not answered for {now - self._gone:.0f} s: {error}.",
                    fix="Start the cluster again, then run again: what is done already is kept.",
                ) from error
            return False
        self._gone = None
        return True


def _head(ray: ModuleType, address: str | None) -> tuple[str, int] | None:
    """Where the cluster's head listens; None where only Ray's client server can be reached, which says itself when it is gone."""
    if (address or "").startswith("ray://"):
        return None
    host, _, port = str(ray.get_runtime_context().gcs_address).rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdigit() else None


@contextmanager
def told() -> Iterator[None]:
    """Ray's own errors in a user's words."""
    try:
        yield
    except Exception as error:
        raise explained(error) from error


def explained(error: Exception) -> ComputeError:
    """Why a task could not be done, in a user's words."""
    kind, text = type(error).__name__, " ".join(str(error).split())[:500]
    if kind == "OutOfMemoryError" or "OutOfMemoryError" in text:
        return ComputeError(
            f"a task needed more memory than its node has, and was stopped: {text}",
            fix="Set `memory_per_task` so that fewer tasks share a node, or `memory` so that partitions are smaller.",
        )
    if kind in ("ObjectStoreFullError", "OutOfDiskError"):
        return ComputeError(
            f"Ray's object store is full: {text}", fix="Let fewer tasks run at once (`workers`), or give the nodes more disk for what is spilled."
        )
    if kind in ("WorkerCrashedError", "NodeDiedError", "ObjectLostError", "OwnerDiedError") or "ObjectReconstructionFailed" in kind:
        return ComputeError(
            f"a task's worker was lost each time it was tried: {kind}: {text}",
            fix="Often for want of memory: set `memory_per_task`, or `memory` so that partitions are smaller. Else see Ray's logs on that node.",
        )
    if kind.startswith("RayTaskError") or "No module named" in text:  # ours travel by themselves (`Failed`): this came before them
        return ComputeError(
            f"a node cannot run modelinscale's work: {text}", fix="Install the same version of modelinscale on every node (in the image, for KubeRay)."
        )
    return ComputeError(f"Ray failed: {kind}: {text}", fix="Is the cluster still running (`ray status`)? Run again: what is done already is kept.")
