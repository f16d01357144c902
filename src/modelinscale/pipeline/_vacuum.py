"""Vacuum: old versions of the project's tables leave; what a model was trained on stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from modelinscale.pipeline import _collect
from modelinscale.pipeline._place import Place
from modelinscale.spec import ModelSpec


@dataclass(frozen=True)
class Table:
    """What became of one table."""

    name: str
    removed: tuple[int, ...]
    """Versions that were removed, or would be."""
    kept: Mapping[int, str]
    """Versions that stay, and why."""
    bytes_freed: int


@dataclass(frozen=True)
class Vacuum:
    """What became of the project's tables: the one with the rows and its quarantine."""

    tables: tuple[Table, ...]
    dry_run: bool
    """Whether nothing was done yet."""

    @property
    def bytes_freed(self) -> int:
        return sum(one.bytes_freed for one in self.tables)

    def plain(self) -> dict[str, Any]:
        return {"bytes_freed": self.bytes_freed, **asdict(self)}


def vacuum(spec: ModelSpec, base: Path, *, older_than_s: float, keep_versions: int, dry_run: bool) -> Vacuum:
    """Removes versions that are older than that, in no use, and named by no model. Raises `StoreError` while a run is at work."""
    place = Place.of(spec, base)
    with place.store.lock("lock"):
        return Vacuum(vacuumed(place, older_than_s=older_than_s, keep_versions=keep_versions, dry_run=dry_run), dry_run)


def vacuumed(place: Place, *, older_than_s: float, keep_versions: int = 1, dry_run: bool = False) -> tuple[Table, ...]:
    """What became of the table with the rows and of its quarantine. The caller holds the project's lock: a run may be about to name a version."""
    from modelinscale.data.lake import open_table, table_exists

    name, found = _collect.table_name(place), list[Table]()
    for one in (name, _collect.quarantine_name(name)):
        uri = place.store.uri("lake", one)
        if table_exists(uri):
            done = open_table(uri).vacuum(older_than=timedelta(seconds=older_than_s), keep_versions=keep_versions, dry_run=dry_run)
            found.append(Table(one, done.removed, done.kept, done.bytes_freed))
    return tuple(found)
