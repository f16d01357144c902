"""From what pydantic refused to what a person can mend: one line a mistake, with its place and the nearest known word."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from modelinscale.core.errors import MisError, did_you_mean
from modelinscale.core.kinds import Kind, load, names
from modelinscale.core.secrets import is_telling, veil
from modelinscale.spec._source import type_of
from modelinscale.spec._yaml import Document, Mistake, Path, show

PLANNED: dict[Path, str] = {
    ("data", "windows"): "aggregates per key and time",
    ("monitor",): "drift monitoring",
    ("update",): "updates behind gates",
    ("federated",): "training across sites",
    ("deploy",): "deployment to targets",
}
"""Sections of the plan that this version does not know yet: refused with that reason rather than as a slip of the pen."""

UNASKED: dict[Path, str] = {
    ("explain",): "`mis explain` says what answers rest on",
    ("report",): "every evaluation leaves a page",
}
"""What needs no section."""


def gather(error: ValidationError, document: Document, root: type[BaseModel], base: Path = ()) -> list[Mistake]:
    """Every mistake inside a validation error, errors raised by nested kinds unfolded."""
    return [mistake for one in error.errors() for mistake in _unfold(one, document, root, base)]


def _unfold(one: Any, document: Document, root: type[BaseModel], base: Path) -> Iterator[Mistake]:
    path = _inside(document, (*base, *one["loc"]))
    inner = one.get("ctx", {}).get("error")
    if isinstance(inner, ValidationError):
        for deeper in inner.errors():
            yield from _unfold(deeper, document, root, path)
        return
    if one["type"] == "too_short" and len(one["input"]) >= one["ctx"]["min_length"]:
        return  # it is long enough: pydantic does not count entries that have mistakes, and each of those is told
    extra = one["type"] == "extra_forbidden"
    place = document.place(path, key=extra)
    if extra and path in PLANNED:
        yield Mistake(*place, show(path), f"{PLANNED[path]} is planned and not supported yet.", "Leave it out for now.")
    elif extra and path in UNASKED:
        yield Mistake(*place, show(path), f"there is no such section: {UNASKED[path]} without one.", "Leave it out.")
    elif extra:
        known = _fields(root, path[:-1], document.data)
        fix = f"Known here: {', '.join(known)}." if known else ""
        yield Mistake(*place, show(path), f"unknown key.{did_you_mean(str(path[-1]), known)}", fix)
    elif isinstance(inner, MisError):
        yield Mistake(*place, show(path), inner.message, inner.fix)
    elif one["type"] == "missing":
        yield Mistake(*place, show(path), "this is required and missing.", _missing(path))
    else:
        message = one["msg"][:1].lower() + one["msg"][1:]
        message = message.removeprefix("value error, ").removeprefix("input should be ")
        if one["type"] == "too_short":
            message = f"at least {one['ctx']['min_length']} items"
        found = _short(one.get("input"), path)
        yield Mistake(*place, show(path), f"expected {message}, found {found}." if not one["type"].startswith("value_error") else f"{message}", "")


def _missing(path: Path) -> str:
    words: dict[Path, str] = {
        ("data",): "Say where the rows are, for example `data: {source: rows.csv}`.",
        ("data", "source"): "Say where the rows are, for example `source: rows.csv`.",
        ("target",): "Name the column to predict, for example `target: price`.",
    }
    return words.get(path, "")


def _inside(document: Document, path: Path) -> Path:
    """The path without what pydantic adds for unions and validators (names that the file does not hold), except the last part."""
    kept: Path = ()
    path = _as_listed(document, path)
    for i, part in enumerate(path):
        last = i == len(path) - 1
        if (*kept, part) in document.values or (last and not _is_marker(part)):
            kept = (*kept, part)
    return kept


_SOURCE: Path = ("data", "source")


def _as_listed(document: Document, path: Path) -> Path:
    """The path within joined sources as they are written: a list, of which what pydantic calls ``main`` is the first and ``others[0]`` the second."""
    parts = path[2:]
    if path[:2] != _SOURCE or not isinstance(_at(_at(document.data, "data"), "source"), list) or not parts:
        return path
    if parts[0] == "main":
        return (*_SOURCE, 0, *parts[1:])
    if parts[0] == "others" and len(parts) > 1 and isinstance(parts[1], int):
        return (*_SOURCE, parts[1] + 1, *parts[3 if parts[2:3] == ("source",) else 2 :])
    return path


def _is_marker(part: str | int) -> bool:
    """Whether a part of a location is pydantic's name of a union member rather than a key of the file."""
    return isinstance(part, str) and ("[" in part or "-" in part or part in {"str", "int", "float", "bool", "none", "constrained-str"} or part[:1].isupper())


def _fields(root: type[BaseModel], path: Path, data: Any) -> list[str]:
    """The keys allowed at ``path``, as far as the classes, and the types named in ``data``, say."""
    cls: Any = root
    if path[:2] == _SOURCE and path[3:4] == ("join",) and isinstance(path[2], int):  # written beside the settings of the source that it is about
        from modelinscale.data.sources.joined import Join

        cls, data, path = Join, _at(_at(_at(_at(data, "data"), "source"), path[2]), "join"), path[4:]
    for part in path:
        data = _at(data, part)
        if isinstance(cls, type) and issubclass(cls, BaseModel) and part in cls.model_fields:
            cls = cls.model_fields[str(part)].annotation
        found = next(iter(_models_in(cls)), None)
        if found is not None and issubclass(found, Kind):
            cls = _named(found, data) or cls
        elif found is not None and not isinstance(part, int):
            cls = found
    if not (isinstance(cls, type) and issubclass(cls, BaseModel)):
        return []
    return [f.alias or n for n, f in cls.model_fields.items()]


def _at(data: Any, part: str | int) -> Any:
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None


def _named(contract: type[Kind], data: Any) -> type[Kind] | None:
    """The implementation that ``data`` names by its type."""
    name = data.get("type") if isinstance(data, dict) else None
    if name is None and isinstance(data, dict) and isinstance(data.get("path"), str) and contract.folder == "data.sources":
        name = type_of(data["path"])
    return load(contract.folder, name) if isinstance(name, str) and name in names(contract.folder) else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    from typing import get_args

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _short(value: Any, path: Path) -> str:
    """A value as a message shows it; what may hold a secret is not shown."""
    if isinstance(value, dict | list) or any(is_telling(part) for part in path):
        kind = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else f"a {type(value).__name__}"
        return f"{kind} (not shown)" if any(is_telling(part) for part in path) or "://" in repr(value) else _cut(repr(value))
    return _cut(veil(repr(value)))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
