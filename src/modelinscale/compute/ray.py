"""A Ray cluster: the same partition functions as on this machine, each a Ray task wherever there is room."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Annotated, Any

from pydantic import Field

from modelinscale.compute import Compute, Item, Result
from modelinscale.compute._crew import Crew
from modelinscale.compute.local import _name
from modelinscale.core.units import Size, show_bytes

THREADS = {"POLARS_MAX_THREADS": "1", "LANCE_CPU_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1"}
"""The environment of every task: with one thread a task, the tasks of a node do not fight for its CPUs."""


class Ray(Compute):
    """Runs partitions as tasks on a Ray cluster; a lost worker or node costs time, not the answer."""

    address: Annotated[str, Field(min_length=1)] | None = None
    """Left out: a private cluster on this machine, started when first needed and ended with the process. ``auto``: the one at ``RAY_ADDRESS`` or on this
    machine. ``host:6379`` from a machine of the cluster, ``ray://host:10001`` from any other. Its token: ``RAY_AUTH_TOKEN`` or ``RAY_AUTH_TOKEN_PATH``."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Tasks in flight at most. Left out: as many as the cluster has room for; set it for a cluster that grows by itself, which otherwise has no reason to."""

    cpus_per_task: float = Field(1.0, gt=0)
    """CPUs that each task takes of its node; may be a share of one."""

    gpus_per_task: float = Field(0.0, ge=0)
    """GPUs that each task takes of its node; may be a share of one."""

    memory_per_task: Annotated[Size, Field(ge=1)] | None = None
    """Memory that each task takes of its node when Ray places it (``2GiB``). Left out: what ``memory`` allows a process; if neither is said, memory is not
    counted."""

    retries: int = Field(3, ge=0)
    """How often a task is done again when its worker or node is lost. An error of the function itself is never tried again."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        from modelinscale import __version__
        from modelinscale.compute._ray_cluster import connection
        from modelinscale.compute._ray_flight import LOOK_S, Flight, told
        from modelinscale.compute._ray_worker import pack

        source, number, broken, more = iter(items), 0, None, True
        with connection(self.address) as ray:
            flight, task = Flight(ray, self), self._task(ray)
            key, packed = uuid.uuid4().hex, pack(function)
            with told():
                shared = [ray.put(packed)]  # stored once, however many tasks use it
            del packed
            try:
                while True:
                    while more and flight.room():
                        try:
                            item = next(source)
                        except StopIteration:
                            more = False
                        except Exception as error:  # noqa: BLE001  # what came before the items' own error is still worth having
                            broken, more = error, False
                        else:
                            name, travels = _name(item, number), pack(item)
                            with told():
                                flight.add(name, task.remote(key, shared, travels, self.memory, __version__))
                            number += 1
                            del item, travels  # what Ray holds is enough: it may be large
                    if not flight:
                        break
                    if flight.first_is_ready():
                        yield flight.result()
                    flight.wait(0 if flight.first_is_ready() else LOOK_S)
            finally:
                flight.drop()
        if broken:
            raise broken

    def reduce(self, function: Callable[[Item], Result], merge: Callable[[Result, Result], Result], items: Iterable[Item], empty: Result) -> Result:
        # Merged here, in the order of the items: merged on workers in the order of arrival, the last bits of sums would differ.
        total = empty
        for result in self.map(function, items):
            total = merge(total, result)
        return total

    def crew(self) -> Crew:
        from modelinscale.compute._ray_crew import Actors

        return Actors(self)

    def close(self) -> None:
        """Ends this process's connection to Ray now, and the private cluster with it; left out, that happens when the process ends."""
        from modelinscale.compute._ray_cluster import close

        close()

    def fit(self, resources: dict[str, float]) -> int:
        """How many tasks a node with these resources has room for."""
        wishes = {"CPU": self.cpus_per_task, "GPU": self.gpus_per_task, "memory": float(self._memory or 0)}
        return min(int(resources.get(name, 0.0) / wish + 1e-9) for name, wish in wishes.items() if wish)

    def wish(self) -> str:
        """What one task asks of its node, in words."""
        parts = [f"{self.cpus_per_task:g} CPUs"]
        if self.gpus_per_task:
            parts.append(f"{self.gpus_per_task:g} GPUs")
        if self._memory:
            parts.append(f"{show_bytes(self._memory)} of memory")
        return " and ".join(parts)

    @property
    def _memory(self) -> int | None:
        """What a task takes of its node's memory."""
        return self.memory_per_task or self.memory

    def _task(self, ray: ModuleType) -> Any:
        from modelinscale.compute._ray_worker import work

        wishes = {"num_cpus": self.cpus_per_task, "num_gpus": self.gpus_per_task or None, "memory": self._memory}
        return ray.remote(work).options(max_retries=self.retries, scheduling_strategy="SPREAD", runtime_env={"env_vars": THREADS}, **wishes)
