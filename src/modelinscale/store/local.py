"""A folder on this machine."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from modelinscale.core import files
from modelinscale.store import Store


class Local(Store):
    """Files under one folder (the default, ``.mis`` beside model.yaml)."""

    root: Path = Path(".mis")
    """The folder; created when first written to. A relative path is taken from where model.yaml lies."""

    def uri(self, *parts: str) -> str:
        return str(self.path(*parts))

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def publish(self, *parts: str) -> AbstractContextManager[Path]:
        return files.new_folder(self.path(*parts))

    def lock(self, *parts: str, wait_s: float = 0.0) -> AbstractContextManager[None]:
        return files.held(self.path(*parts), wait_s=wait_s, what=str(self.root))

    def list(self, *parts: str) -> Iterator[str]:
        folder = self.path(*parts)
        if folder.is_dir():
            yield from sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
