"""The short form of a source: a path or an address, its type told by suffix or scheme."""

import os
from collections.abc import Mapping
from glob import has_magic
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
STREAMS = {
    "kafka": "servers: [HOST:9092], topic: NAME",
    "nats": "url: nats://HOST, stream: NAME",
    "redis": "url: redis://HOST, stream: NAME",
}
"""What must be said of a stream besides its type."""
PACKED = (".gz", ".bz2", ".zst", ".xz")
DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "sqlite")
"""Schemes of addresses that `type: sql` reads."""

OBJECTS = ("s3", "gs", "az", "http", "https", "file")
"""Schemes of addresses that `type: objects` reads."""


def settings_of(value: Any) -> Any:
    """``rows.csv.gz`` as ``{"type": "csv", "path": "rows.csv.gz"}``; mappings and anything else as they are."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, list):
        if any(isinstance(v, Mapping) for v in value):
            return _joined(value)
        if not value or not all(isinstance(v, str) for v in value):
            raise SpecError("a list of sources is a list of files of one type, or of sources to join.", fix="See docs/joins.md.")
        types = {type_of(v) for v in value}
        if len(types) > 1:
            raise SpecError(f"the files are of different types ({', '.join(sorted(types))}).", fix="Name files of one type.")
        return _named(types.pop(), value)
    if isinstance(value, str):
        return _named(type_of(value), value)
    if isinstance(value, Mapping) and value.get("type") == "sequences" and "source" in value:
        return {**value, "source": settings_of(value["source"])}
    return value


def _named(type: str, value: Any) -> dict[str, Any]:
    return {"type": type, "url" if type == "objects" else "path": value}


def _joined(sources: list[Any]) -> dict[str, Any]:
    """A list of sources as one: the first, and what the others say of its rows."""
    main, *others = sources
    if isinstance(main, Mapping) and "join" in main:
        raise SpecError("the first source is the one that the others are joined to.", fix="Remove its `join`, or put another source first.")
    if not others:
        raise SpecError("a list of one source joins nothing.", fix="Write it without the list, or add another with `join`.")
    found = []
    for number, other in enumerate(others, 2):
        if not isinstance(other, Mapping) or "join" not in other:
            raise SpecError(f"source {number} does not say how it is joined.", fix="Write `{type: ..., join: {on: COLUMN}}`.")
        found.append({"source": _typed({k: v for k, v in other.items() if k != "join"}), "join": other["join"]})
    return {"type": "joined", "main": _typed(main), "others": found}


def _typed(source: Any) -> Any:
    """A source's settings with its type, which may be told by its path."""
    if isinstance(source, Mapping) and "type" not in source and isinstance(source.get("path"), str):
        return {"type": type_of(source["path"]), **source}
    return settings_of(source)


def type_of(path: str) -> str:
    """The source type that a path or address names. Raises `SpecError` naming the suffixes known."""
    if "://" in path:
        scheme = path.split("://")[0]
        if scheme.lower() in DATABASES:
            # Not shown whole: somebody may have written a password into it.
            raise SpecError(
                "an address alone does not say what to read.", fix=f"Write `source: {{type: sql, url: {scheme}://..., table: NAME, cursor: COLUMN}}`."
            )
        if scheme.lower() in OBJECTS:
            return "objects"
        if scheme.lower() in STREAMS:
            raise SpecError("an address alone does not say what to read.", fix=f"Write `source: {{type: {scheme.lower()}, {STREAMS[scheme.lower()]}}}`.")
        known = ", ".join(f"{one}://" for one in sorted((*OBJECTS, *DATABASES)))
        raise SpecError(f"no source reads {scheme}://.{did_you_mean(scheme, [*OBJECTS, *DATABASES])}", fix=f"Known: files, {known}; and those of `mis kinds`.")
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


def _at(base: Path, path: str | Path) -> str:
    """A path from ``base``; ``..`` is taken out of it where it means the same without: behind a link it leads elsewhere."""
    parts = (base / path).parts
    last = len(parts) - parts[::-1].index("..") if ".." in parts else 0
    long, rest = os.path.join(*parts[:last], ""), parts[last:]  # noqa: PTH118
    short = os.path.normpath(long)
    if not last or has_magic(long) or os.path.realpath(long) != os.path.realpath(short):
        return str(base / path)
    return str(Path(short, *rest))


def located(settings: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Source settings with relative ``path`` and secrets' files taken from ``base``, the folder of model.yaml."""
    moved: dict[str, Any] = anchored(dict(settings), base)
    path = moved.get("path")
    at = _at if moved.get("type") in SUFFIXES.values() else lambda base, path: str(base / path)
    if isinstance(path, (str, Path)):
        moved["path"] = at(base, path)
    elif isinstance(path, (list, tuple)):
        moved["path"] = [at(base, p) for p in path]
    label = moved.get("label")
    if isinstance(label, Mapping) and "table" in label:
        moved["label"] = {**label, "table": str(base / str(label["table"]))}
    if moved.get("type") == "joined":
        moved["main"] = located(moved["main"], base)
        moved["others"] = [{**other, "source": located(other["source"], base)} for other in moved["others"]]
    if moved.get("type") == "sequences":
        moved["source"] = located(moved["source"], base)
    url = moved.get("url")
    if isinstance(url, str) and url.startswith("sqlite:///"):
        moved["url"] = f"sqlite:///{base / url.removeprefix('sqlite:///')}"
    return moved
