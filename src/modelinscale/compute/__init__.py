"""Compute: where work runs. The same partition functions run on a laptop and on a cluster."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, TypeVar

from modelinscale.core.kinds import Kind

Item = TypeVar("Item")
Result = TypeVar("Result")


class Compute(Kind):
    """A place to run partition functions."""

    folder: ClassVar[str] = "compute"

    @abstractmethod
    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items, a bounded number in flight; an error names its item, one of the items' own comes after their results."""

    @abstractmethod
    def reduce(self, function: Callable[[Item], Result], merge: Callable[[Result, Result], Result], items: Iterable[Item], empty: Result) -> Result:
        """Merges the results of all items, in item order, starting from ``empty``."""
