"""The short form of a source: a path or an address, its type told by suffix or scheme."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.secrets import anchored

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".data": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
PACKED = (".gz", ".bz2", ".zst", ".xz")
DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "sqlite")
"""Schemes of addresses that `type: sql` reads."""


def settings_of(value: Any) -> Any:
    """``rows.csv.gz`` as ``{"type": "csv", "path": "rows.csv.gz"}``; mappings and anything else as they are."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, list):
        if not value or not all(isinstance(v, str) for v in value):
            raise SpecError("a list of sources must be a list of files of one type.", fix="Joining several sources is planned and not supported yet.")
        types = {type_of(v) for v in value}
        if len(types) > 1:
            raise SpecError(f"the files are of different types ({', '.join(sorted(types))}).", fix="Name files of one type.")
        return {"type": types.pop(), "path": value}
    if isinstance(value, str):
        return {"type": type_of(value), "path": value}
    return value


def type_of(path: str) -> str:
    """The source type that a path or address names. Raises `SpecError` naming the suffixes known."""
    if "://" in path:
        scheme = path.split("://")[0]
        if scheme.lower() in DATABASES:
            # Not shown whole: somebody may have written a password into it.
            raise SpecError(
                "an address alone does not say what to read.", fix=f"Write `source: {{type: sql, url: {scheme}://..., table: NAME, cursor: COLUMN}}`."
            )
        raise SpecError(f"sources at {scheme}:// are planned and not supported yet.", fix="Name local files: csv, parquet, jsonl.")
    name = path.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    suffix = Path(name).suffix
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if not suffix and (path in ("simulator", "dataset")):
        raise SpecError(f"{path!r} is a source type, not a file.", fix=f"Write `source: {{type: {path}, ...}}`.")
    near = did_you_mean(suffix, tuple(SUFFIXES))
    raise SpecError(f"the type of {path!r} cannot be told from its suffix.{near}", fix=f"Known: {', '.join(SUFFIXES)}; or write `{{type: csv, path: {path}}}`.")


def located(settings: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Source settings with relative ``path`` and secrets' files taken from ``base``, the folder of model.yaml."""
    moved: dict[str, Any] = anchored(dict(settings), base)
    path = moved.get("path")
    if isinstance(path, (str, Path)):
        moved["path"] = str(base / path)
    elif isinstance(path, (list, tuple)):
        moved["path"] = [str(base / p) for p in path]
    url = moved.get("url")
    if isinstance(url, str) and url.startswith("sqlite:///"):
        moved["url"] = f"sqlite:///{base / url.removeprefix('sqlite:///')}"
    return moved
