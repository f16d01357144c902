"""Processes that work together on the nodes of a Ray cluster: an actor each, placed all at once (a placement group), spread over the nodes.

What they are to do goes through Ray's object store, once whatever their number. Files that they keep, such as checkpoints, come back to the machine that
began them with what they say, so that no folder need be shared and none is lost with its node.
"""

import time
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from modelinscale.compute._crew import Crew, Ended, Group, Work
from modelinscale.compute._ray_cluster import connection
from modelinscale.compute._ray_flight import explained, told
from modelinscale.compute._ray_member import Member, files_of
from modelinscale.compute._ray_worker import Failed, pack
from modelinscale.core.errors import ComputeError
from modelinscale.core.files import write_bytes

if TYPE_CHECKING:
    from modelinscale.compute.ray import Ray

PLACE_S = 120.0
"""How long others may take the room that there is; a node that is gone counts as room for a few seconds, too."""
START_S = 120.0
"""For all processes to begin and to say where they are."""
_NEWS_S = 1.0


class Actors(Crew):
    """The nodes of a cluster."""

    def __init__(self, compute: "Ray") -> None:
        self._compute = compute

    def room(self, wanted: int) -> int:
        with connection(self._compute.address) as ray, told():
            fit = sum(self._compute.fit(node["Resources"]) for node in ray.nodes() if node["Alive"])
        if not fit and self._compute.address is None:
            raise ComputeError(f"no node of the Ray cluster has {self.asks()}, which each process that learns asks for.", fix="Ask for less in `compute`.")
        return min(wanted, fit)

    def asks(self) -> str:
        return self._compute.wish()

    def doubts(self, n: int) -> str:
        return ""

    def begin(self, work: Work, job: object, n: int, kept: Path | None) -> "_Actors":
        with ExitStack() as stack:
            ray = stack.enter_context(connection(self._compute.address))
            group = stack.enter_context(_Actors(ray, self, self._compute, n, kept))
            with told():
                group.start(work, job)
            group.held = stack.pop_all()
            return group


class _Actors(Group):
    held: ExitStack

    def __init__(self, ray: ModuleType, crew: Actors, compute: "Ray", n: int, kept: Path | None) -> None:
        self._ray, self._compute, self._kept = ray, compute, kept
        self._result: Any = None
        self._runs: list[Any] = []
        self._asked: dict[Any, int] = {}
        self._members: list[Any] = []
        self._place: Any = None
        self.n = self._placed(crew, n)
        self._ended: list[Ended | None] = [None] * self.n

    def __enter__(self) -> "_Actors":
        return self

    def __exit__(self, *error: object) -> None:
        self._kill()

    def _placed(self, crew: Actors, n: int) -> int:
        """For how many a place was found: fewer where a node is lost meanwhile."""
        end = time.monotonic() + PLACE_S
        while True:
            bundle = {name: wish for name, wish in self._wishes().items() if wish}
            with told():
                self._place = self._ray.util.placement_group([bundle] * n, strategy="SPREAD")
                while not self._place.wait(1):
                    there = crew.room(n)
                    if there not in (0, n):
                        break
                    if time.monotonic() > end:
                        self._kill()
                        raise ComputeError(
                            f"other work has held the room for {n} processes that learn ({crew.asks()} each) for {PLACE_S:.0f} s.",
                            fix="Lower `train.workers`, ask for less in `compute`, or wait for the other work.",
                        )
                else:
                    return n
                self._kill()
            n = there

    def _wishes(self) -> dict[str, float]:
        return {"CPU": self._compute.cpus_per_task, "GPU": self._compute.gpus_per_task, "memory": float(self._compute._memory or 0)}

    def start(self, work: Work, job: object) -> None:
        """Begins them. One that is lost meanwhile is seen as such later; raises what they refuse, such as another version."""
        from modelinscale import __version__
        from modelinscale.compute.ray import THREADS

        threads = {"OMP_NUM_THREADS": str(max(1, int(self._compute.cpus_per_task)))}
        strategy = self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        actor, wishes = self._ray.remote(Member), self._wishes()
        for i in range(self.n):
            options: dict[str, Any] = {"num_cpus": wishes["CPU"], "num_gpus": wishes["GPU"] or None, "memory": wishes["memory"] or None}
            where = strategy(self._place, placement_group_bundle_index=i)
            options |= {"scheduling_strategy": where, "max_restarts": 0, "max_concurrency": 3, "runtime_env": {"env_vars": THREADS | threads}}
            self._members.append(actor.options(**options).remote())
        try:
            places = self._ray.get([member.place.remote(__version__, wishes["GPU"]) for member in self._members], timeout=START_S)
        except (self._ray.exceptions.RayError, TimeoutError) as error:
            self._ended = [Ended(False, str(explained(error)))] * self.n
            return
        for place in places:
            if isinstance(place, Failed):
                raise place.raised()
        shared, files = [self._ray.put(pack((work, job)))], files_of(self._kept)
        nodes = [node for node, *_ in places]
        for rank, (node, _, _, interface) in enumerate(places):
            who = {"RANK": rank, "LOCAL_RANK": 0 if wishes["GPU"] else nodes[:rank].count(node), "WORLD_SIZE": self.n}  # Ray shows each its own GPU only
            who |= {"MASTER_ADDR": places[0][1], "MASTER_PORT": places[0][2]} | ({"GLOO_SOCKET_IFNAME": interface} if interface else {})
            told_who = {name: str(value) for name, value in who.items()}
            self._runs.append(self._members[rank].run.remote(told_who, shared, files, self._kept is not None))
            self._ask(rank)

    def _ask(self, rank: int) -> None:
        self._asked[self._members[rank].news.remote(_NEWS_S)] = rank

    def news(self, longest_s: float) -> list[dict[str, Any]]:
        waiting = [*self._asked, *(run for run, ended in zip(self._runs, self._ended, strict=True) if ended is None)] if self._runs else []
        if not waiting:
            return []
        with told():
            ready, _ = self._ray.wait(waiting, num_returns=1, timeout=longest_s)
            if ready:  # whatever else is there too
                ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        found: list[dict[str, Any]] = []
        for ref in ready:
            found += self._asked_for(ref) if ref in self._asked else self._run_of(ref)
        return found

    def _asked_for(self, ref: Any) -> list[dict[str, Any]]:
        rank = self._asked.pop(ref)
        try:
            words, files = self._ray.get(ref)
        except self._ray.exceptions.ActorUnavailableError:  # its node does not answer; it may again
            self._ask(rank)
            return []
        except self._ray.exceptions.RayError:  # its run says so as well
            return []
        self._keep(files)
        if self._ended[rank] is None:
            self._ask(rank)
        return list(words)

    def _run_of(self, ref: Any) -> list[dict[str, Any]]:
        rank = self._runs.index(ref)
        try:
            words, files, found = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._ended[rank] = Ended(False, str(explained(error)))
            return []
        self._keep(files)
        if isinstance(found, Failed):
            self._ended[rank] = Ended(False)
            raise found.raised()
        value = found.value()
        self._ended[rank] = Ended(value is not None)
        if rank == 0:
            self._result = value
        return list(words)

    def _keep(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            if self._kept is not None:
                write_bytes(self._kept / name, content)

    def ended(self) -> list[Ended | None]:
        return list(self._ended)

    def result(self) -> Any:
        return self._result

    def end(self) -> None:
        self.held.close()

    def _kill(self) -> None:
        for member in self._members:
            self._ray.kill(member)
        if self._place is not None:
            self._ray.util.remove_placement_group(self._place)
        self._members, self._place = [], None


__all__ = ["Actors"]
