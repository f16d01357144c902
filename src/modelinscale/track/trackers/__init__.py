"""Trackers: runs with their numbers, and a registry of package versions whose aliases say which one is in use."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Literal

from modelinscale.core.kinds import Kind

CHAMPION = "champion"
CHALLENGER = "challenger"

Write = Callable[[Path, int], None]
"""Fills an empty folder with the package that gets this version number."""


@dataclass(frozen=True)
class Run:
    """What a finished run leaves for people to compare. Keys and values of rows are never among it."""

    identity: str
    """Content identity of what went in: the same run recorded twice stays one run."""
    started: datetime
    ended: datetime
    params: Mapping[str, str] = field(default_factory=dict)
    """Settings by dotted path: ``model.type`` -> ``trees``."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    """Lineage: table version, spec identity, code version, seed."""
    note: str = ""
    """A few words in Markdown."""


@dataclass(frozen=True)
class Main:
    """The measure by which versions are compared, taken on test rows."""

    metric: str
    value: float
    better: Literal["higher", "lower"]
    constant: float | None = None
    """What always the same answer gets on the same rows, where that is known; not kept with the version."""

    def worse_than(self, other: float) -> bool:
        """Whether ``other`` is the better value."""
        return self.value < other if self.better == "higher" else self.value > other


@dataclass(frozen=True)
class Version:
    """One registered package."""

    number: int
    identity: str
    folder: Path
    created: datetime
    aliases: tuple[str, ...]
    main: Main | None
    run: str | None
    """The tracker's own name of the run it came from."""


@dataclass(frozen=True)
class Registered:
    """What `Tracker.register` did."""

    version: Version
    fresh: bool
    """Whether this call made the version; False: the same content was registered before."""
    because: str
    """Why its alias is what it is."""


class Tracker(Kind):
    """Runs and versions of models, kept in one place. Names of models are letters, digits, ``.``, ``_`` and ``-``.

    Every method raises `StoreError` when its files are locked, read-only, damaged or foreign.
    """

    folder: ClassVar[str] = "track.trackers"

    root: Path
    """A folder of its own inside the store; packages lie beside it, in ``packages/NAME/NUMBER``."""

    @abstractmethod
    def record(self, name: str, run: Run) -> str:
        """Keeps a run; returns the tracker's name for it. Recorded again, it is replaced."""

    @abstractmethod
    def register(
        self, name: str, *, identity: str, write: Write, main: Main | None = None, run: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Registered:
        """Publishes a package under the next number and registers it, whole or not at all; the same identity again gives the version there is.

        ``write`` may be called again after a kill. It becomes champion when `place` says so, else challenger.
        """

    @abstractmethod
    def alias(self, name: str, alias: str, number: int, *, anchor: str = "") -> None:
        """Moves an alias to a version. Moving it to the version it was at before takes the last move back (see `before`).

        ``anchor``: the audit log's newest hash, kept beside the move.
        """

    @abstractmethod
    def aliases(self, name: str) -> dict[str, int]:
        """Where each alias is; empty for a model without versions."""

    @abstractmethod
    def versions(self, name: str) -> tuple[Version, ...]:
        """All versions, oldest first; empty for a model without any."""

    @abstractmethod
    def before(self, name: str, alias: str) -> int:
        """The version an alias was at before. Raises `UsageError` when there was none."""

    @abstractmethod
    def anchors(self, name: str) -> tuple[str, ...]:
        """The audit log's hashes kept at moves of the champion, oldest first."""

    @abstractmethod
    def number(self, name: str, version: str) -> int:
        """The number of a version given as a number or an alias. Raises `UsageError` listing what there is."""

    @abstractmethod
    def resolve(self, name: str, version: str) -> Path:
        """The package folder of a version given as a number or an alias. Raises `UsageError` when there is none."""
