"""Store: where everything lies. The embedded default is a folder; object stores follow the same contract."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from modelinscale.core.kinds import Kind


class Store(Kind):
    """A place for bytes: whole files or nothing, one writer at a time where asked."""

    folder: ClassVar[str] = "store"

    @abstractmethod
    def uri(self, *parts: str) -> str:
        """The address of something inside, as table engines want it."""

    @abstractmethod
    def path(self, *parts: str) -> Path:
        """A local path of something inside; an error for stores that have none."""

    @abstractmethod
    def publish(self, *parts: str) -> AbstractContextManager[Path]:
        """A folder to fill that appears under its name in one step when the block ends well."""

    @abstractmethod
    def lock(self, *parts: str, wait_s: float = 0.0) -> AbstractContextManager[None]:
        """Holds an exclusive lock while the block runs."""

    @abstractmethod
    def list(self, *parts: str) -> Iterator[str]:
        """Names directly inside, sorted, without those still being written."""
