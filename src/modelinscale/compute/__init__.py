"""Compute: where work runs. The same partition functions run on a laptop and on a cluster."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, ClassVar, TypeVar

from pydantic import Field

from modelinscale.compute._crew import Crew
from modelinscale.core.kinds import Kind
from modelinscale.core.units import Size

Item = TypeVar("Item")
Result = TypeVar("Result")


class Compute(Kind):
    """A place to run partition functions."""

    folder: ClassVar[str] = "compute"

    memory: Annotated[Size, Field(ge=256 << 20)] | None = None
    """What one process may hold in memory (``2GiB``): work is cut to fit, and refused beforehand where it cannot. Left out: what the machine has free."""

    @property
    def in_process(self) -> int:
        """Items in work at once in one process, within its memory."""
        return 1

    def crew(self) -> Crew | None:
        """Where processes can be begun that work together; None: as programs of this machine."""
        return None

    @abstractmethod
    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items, a bounded number in flight; an error names its item, one of the items' own comes after their results."""

    @abstractmethod
    def reduce(self, function: Callable[[Item], Result], merge: Callable[[Result, Result], Result], items: Iterable[Item], empty: Result) -> Result:
        """Merges the results of all items, in item order, starting from ``empty``."""
