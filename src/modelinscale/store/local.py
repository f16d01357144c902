"""A folder on this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import field_validator

from modelinscale.core import files
from modelinscale.store import Store, checked


class Local(Store):
    """Files under one folder (the default, ``.mis`` beside model.yaml)."""

    root: Path = Path(".mis")
    """The folder; created when first written to. A relative path is taken from where model.yaml lies."""

    @field_validator("root")
    @classmethod
    def _home(cls, root: Path) -> Path:
        return root.expanduser()

    def uri(self, *parts: str) -> str:
        return str(self.path(*parts))

    def path(self, *parts: str) -> Path:
        checked(parts)
        return self.root.joinpath(*parts)

    def publish(self, *parts: str) -> AbstractContextManager[Path]:
        return files.new_folder(self.path(*parts))

    def lock(self, *parts: str, wait_s: float = 0.0) -> AbstractContextManager[None]:
        return files.held(self.path(*parts), wait_s=wait_s, what=str(self.root))

    def list(self, *parts: str) -> Iterator[str]:
        folder = self.path(*parts)
        with files.told(folder, "read"):
            names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        yield from (name for name in names if not name.startswith("."))

    def discard(self, *parts: str) -> None:
        folder = self.path(*parts)
        side = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        with files.told(folder, "remove"):
            folder.rename(side)
            shutil.rmtree(side)
