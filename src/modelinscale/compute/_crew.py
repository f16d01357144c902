"""Processes that work at the same time and know of each other, such as those that learn one network together: on this machine, or on the nodes of a cluster."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Say = Callable[..., None]
"""Tells who watches, by keywords, in values that JSON has."""
Work = Callable[[Any, Say, Path | None], Any]
"""What each process does: of what there is to do, a way to tell, and the folder of files that are to be kept. Who it is, the environment says, as `torchrun`
would: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, and MASTER_PORT or `MEETING`. None where it failed; it told why."""
MEETING = "MIS_MEETING"
"""In the environment of processes of one machine: the file by which they find each other, in a folder of this user alone."""


@dataclass(frozen=True)
class Ended:
    """How one process ended."""

    well: bool
    why: str = ""
    """Of one that was lost, where that is known."""


class Group(ABC):
    """Processes that were begun together."""

    n: int
    """How many: fewer than were asked for where room was lost meanwhile."""

    @abstractmethod
    def news(self, longest_s: float) -> list[dict[str, Any]]:
        """What they said since, waiting for so long at most."""

    @abstractmethod
    def ended(self) -> list[Ended | None]:
        """Of each; None: it works on, or not all that it said was read."""

    @abstractmethod
    def result(self) -> Any:
        """What the first of them found, once all ended well."""

    @abstractmethod
    def end(self) -> None:
        """None is left afterwards."""


class Crew(ABC):
    """A place where such processes can be begun."""

    @abstractmethod
    def room(self, wanted: int) -> int:
        """For how many of so many there is room now; 0: none yet. Raises `ComputeError` where there will never be."""

    @abstractmethod
    def begin(self, work: Work, job: object, n: int, kept: Path | None) -> Group:
        """``kept``: a folder of this machine; the processes find its files, and what they write there comes back, however they end."""

    @abstractmethod
    def asks(self) -> str:
        """What each needs, in words."""

    @abstractmethod
    def doubts(self, n: int) -> str:
        """A sentence about why so many may not be wise, or ""."""
