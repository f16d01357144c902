"""Searchers: given what was tried and what came of it, the settings to try next."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from modelinscale.core.kinds import Kind
from modelinscale.tune._space import Point, Space


@dataclass(frozen=True)
class Past:
    """Settings that were tried, or are being tried."""

    point: Point
    loss: float | None
    """On validation rows; None: not known yet, or they could not learn."""
    share: float = 1.0
    """Share of the rows (or passes) it was given."""
    running: bool = False


@dataclass(frozen=True)
class History:
    """What a searcher knows."""

    space: Space
    seed: int
    number: int
    """Of the settings to propose: 0, 1, 2 …"""
    past: tuple[Past, ...] = ()


class Searcher(Kind):
    """Proposes settings. It keeps nothing: the same history gets the same proposal."""

    folder: ClassVar[str] = "tune.searchers"

    learns: ClassVar[bool] = True
    """Whether proposals depend on what came of earlier ones; if not, they are the same however many are tried at once."""

    @abstractmethod
    def propose(self, history: History) -> Point:
        """A point of the space."""

    def most(self, space: Space) -> int | None:
        """How many different proposals there are; None: no end."""
        return None
