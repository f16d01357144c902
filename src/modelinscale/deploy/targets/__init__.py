"""Targets: places where a project runs. Rendering touches nothing; what is applied can be undone."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from modelinscale.core.kinds import Kind


@dataclass(frozen=True)
class Deployed:
    """A project, as far as a target must know it."""

    name: str
    file: Path
    """Its model.yaml, absolute."""
    text: str
    """What the file says; secrets are references in it, never values."""
    command: tuple[str, ...]
    """The command ``mis`` of this machine: a path, or several words."""
    secrets: tuple[str, ...] = ()
    """Names of the environment variables that the file refers to."""
    secret_files: tuple[str, ...] = ()
    """Paths of the files with secrets that it refers to."""
    memory_bytes: int | None = None
    """What one process may hold, where the file says."""
    local_store: Path | None = None
    """The folder everything lies in; None for an object store."""


@dataclass(frozen=True)
class Rendered:
    """Files by name, and what else must be done."""

    files: dict[str, str]
    notes: tuple[str, ...] = ()


class Target(Kind):
    """A place to deploy to."""

    folder: ClassVar[str] = "deploy.targets"

    @abstractmethod
    def render(self, what: Deployed) -> Rendered:
        """The files. Pure: the same project and settings give the same files. Raises `SpecError` for what the target cannot say."""

    @abstractmethod
    def apply(self, what: Deployed) -> str:
        """Puts the files into force and says what was done; again, it changes nothing. Raises `NotSupportedYet` where that is for other tools to do."""

    @abstractmethod
    def status(self, what: Deployed) -> str:
        """Whether it is in force, in a line."""

    @abstractmethod
    def undo(self, what: Deployed) -> str:
        """Takes back what `apply` did and says so; nothing happens where nothing was applied."""
