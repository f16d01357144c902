"""Store: where everything lies. The embedded default is a folder; object stores follow the same contract."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar

from modelinscale.core.errors import StoreError
from modelinscale.core.kinds import Kind


class Located(str):
    """An address on an object store, with what it takes to open it: whoever is handed the address can."""

    options: Mapping[str, str]
    """In object_store's words; secrets by reference."""
    beside: Path
    """A folder of this machine for what belongs to it and can be made again."""

    def __new__(cls, text: str, options: Mapping[str, str], beside: Path) -> "Located":
        found = super().__new__(cls, text)
        found.options, found.beside = options, beside
        return found

    def __getnewargs__(self) -> tuple[str, Mapping[str, str], Path]:  # type: ignore[override]
        return str(self), self.options, self.beside


class Store(Kind):
    """A place for bytes: whole files or nothing, one writer at a time where asked."""

    folder: ClassVar[str] = "store"

    @abstractmethod
    def uri(self, *parts: str) -> str:
        """The address of something inside, as table engines want it."""

    @abstractmethod
    def path(self, *parts: str) -> Path:
        """A local path of something inside; a store elsewhere brings what is published there first."""

    @abstractmethod
    def publish(self, *parts: str) -> AbstractContextManager[Path]:
        """A folder to fill that appears under its name in one step when the block ends well."""

    @abstractmethod
    def lock(self, *parts: str, wait_s: float = 0.0) -> AbstractContextManager[None]:
        """Holds an exclusive lock while the block runs."""

    @abstractmethod
    def list(self, *parts: str) -> Iterator[str]:
        """Names directly inside, sorted, without those still being written."""

    @abstractmethod
    def discard(self, *parts: str) -> None:
        """Takes a published folder back: no part of it is found from then on."""

    def shared(self, wait_s: float = 600.0) -> AbstractContextManager[None]:
        """Around a change of what machines share (the registry, the audit log), where the store is not locked anyway."""
        return nullcontext()


def checked(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The parts of a name. They may come from outside (a version's name over HTTP): `StoreError` for one that could lead out of the store."""
    for part in parts:
        if not part or part.startswith("/") or {".", ".."} & set(part.split("/")) or "\\" in part or "\0" in part:
            raise StoreError(f"{part!r} is not a name in a store.", fix="Use a plain name, without .. and \\.")
    return parts
