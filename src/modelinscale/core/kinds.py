"""A folder is a registry: ``type: kafka`` is the one public class of ``data/sources/kafka.py``.

Other packages add theirs through an entry point group named ``modelinscale.<folder>`` (``modelinscale.data.sources``).
Listing names imports nothing; only the kinds a spec names are imported.
"""

import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Self, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, model_serializer
from pydantic_core import CoreSchema, core_schema

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.settings import Settings

ROOT = "modelinscale"

PLANNED: dict[str, frozenset[str]] = {
    "data.sources": frozenset(),
}
"""Types of the plan that this version does not know yet, by folder: refused with that reason rather than as a slip of the pen."""


class Kind(Settings):
    """Base of every contract in a kind folder. ``folder`` is set by the contract, ``type`` follows from the module's name."""

    folder: ClassVar[str]
    """Where its implementations live, relative to the package: ``data.sources``."""

    type: ClassVar[str]
    """The word a user writes: the module's name, or the entry point's."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "type" not in cls.__dict__:
            cls.type = cls.__module__.rpartition(".")[2]

    @model_serializer(mode="wrap")
    def _with_type(self, handler: Any) -> dict[str, Any]:
        return {"type": self.type, **handler(self)}

    @classmethod
    def parse(cls, value: object) -> Self:
        """One implementation's settings from ``"number"``, ``{"type": "number", "clip": 5}`` or a ready instance."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, Mapping):
            raise SpecError(f"expected a {cls.word()} type or a mapping with `type`, found {value!r}.", fix=f"Known: {', '.join(names(cls.folder))}.")
        rest = dict(value)
        name = rest.pop("type", None)
        if not isinstance(name, str):
            raise SpecError(f"`type` is missing for this {cls.word()}.", fix=f"Known: {', '.join(names(cls.folder))}.")
        found = load(cls.folder, name)
        return cast(Self, found.model_validate(rest))

    @classmethod
    def word(cls) -> str:
        """What one of these is called in messages: ``source``."""
        return cls.folder.rpartition(".")[2].removesuffix("s")

    def plain(self) -> dict[str, Any]:
        return {"type": self.type, **{k: v for k, v in super().plain().items() if k != "type"}}

    @classmethod
    def _is_contract(cls) -> bool:
        """Whether this is the contract of a folder (it lives in the folder's ``__init__``) rather than one implementation."""
        return cls.__module__ == f"{ROOT}.{getattr(cls, 'folder', '')}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = handler(source)
        if not cls._is_contract():
            return inner
        # A field typed with the contract itself takes any implementation; a concrete class validates as itself.
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(lambda kind: kind.plain())
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        if not cls._is_contract():
            return super().__get_pydantic_json_schema__(schema, handler)
        choices: list[dict[str, Any]] = [{"type": "string", "enum": names(cls.folder)}]
        for name in names(cls.folder):
            one = _whole(load(cls.folder, name).model_json_schema())
            one.setdefault("properties", {})["type"] = {"const": name}
            one["required"] = ["type", *one.get("required", [])]
            one["title"] = name
            choices.append(one)
        return {"anyOf": choices, "description": inspect.getdoc(cls) or ""}


def _whole(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema with what it refers to put in place: inside another one its references would point nowhere."""
    parts = schema.pop("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, list):
            return [put(one) for one in value]
        if not isinstance(value, dict):
            return value
        reference = value.get("$ref", "")
        if reference.startswith("#/$defs/"):
            return put({**parts[reference.removeprefix("#/$defs/")], **{k: v for k, v in value.items() if k != "$ref"}})
        return {k: put(v) for k, v in value.items()}

    return cast("dict[str, Any]", put(schema))


@cache
def names(folder: str) -> list[str]:
    """Every known type of a folder, sorted: ours by file name, others' by entry point. Nothing is imported."""
    package = import_module(f"{ROOT}.{folder}")
    ours = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    return sorted({*ours, *(name for group, name in _theirs() if group == f"{ROOT}.{folder}")})


@cache
def load(folder: str, name: str) -> type[Kind]:
    """The class behind ``type: name``; raises `SpecError` with the nearest known name, or saying that it is planned."""
    point = _theirs().get((f"{ROOT}.{folder}", name))
    if point is not None:
        theirs = cast("type[Kind]", point.load())
        theirs.type = name  # the word a user writes, whatever their module is called
        return theirs
    known = names(folder)
    if name not in known:
        word = folder.rpartition(".")[2].removesuffix("s")
        if name in PLANNED.get(folder, ()):
            raise SpecError(f"{word} type {name!r} is planned and not supported yet.", fix=f"Known: {', '.join(known)}.")
        raise SpecError(f"unknown {word} type {name!r}.{did_you_mean(name, known)}", fix=f"Known: {', '.join(known)}.")
    module = import_module(f"{ROOT}.{folder}.{name}")
    found = [
        c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__ and issubclass(c, Kind) and not c.__name__.startswith("_")
    ]
    assert len(found) == 1, f"{module.__name__} must hold exactly one public kind, found {[c.__name__ for c in found]}"
    return found[0]


@cache
def _theirs() -> dict[tuple[str, str], EntryPoint]:
    """What other packages add, by group and name. Looked up once: it reads the metadata of every installed package."""
    found = entry_points()
    return {(group, point.name): point for group in found.groups if group.startswith(f"{ROOT}.") for point in found.select(group=group)}
