"""Settings: frozen, closed values whose class is their schema. They check only themselves."""

import ast
import inspect
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class Settings(BaseModel):
    """Base of every settings class: unknown fields are refused, values never change, the string under a field is its help."""

    # What was given is not repeated in pydantic's own words: it may be a secret. Our messages show it where it cannot be (see `spec._mistakes`).
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, hide_input_in_errors=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The JSON Schema with the help of every field."""
        made = handler(schema)
        whole = handler.resolve_ref_schema(made)
        help = field_help(cls)
        for name, field in cls.model_fields.items():
            shown = whole.get("properties", {}).get(field.alias or name)
            if shown is not None and name in help:
                shown.setdefault("description", help[name])
        return made

    def plain(self) -> dict[str, Any]:
        """As JSON-ready plain data, every field with its default filled in."""
        return self.model_dump(mode="json", by_alias=True)

    def but(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked again."""
        return type(self).model_validate({**{field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}, **changes})


@cache
def field_help(cls: type[BaseModel]) -> dict[str, str]:
    """The help of each field: the string under it in the source, of the class itself or of one it is built on.

    Read when it is asked for (JSON Schema, reference page). Pydantic's own way reads the source of every class at every start, a tenth of a second
    in all, which each command would wait for.
    """
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if one is not BaseModel and issubclass(one, BaseModel):
            found |= _strings_under(one)
    return found


def _strings_under(cls: type) -> dict[str, str]:
    body = _classes(inspect.getmodule(cls)).get(cls.__qualname__, [])
    found = {}
    for field, under in pairwise(body):
        named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if named and isinstance(under, ast.Expr) and isinstance(under.value, ast.Constant) and isinstance(under.value.value, str):
            found[field.target.id] = inspect.cleandoc(under.value.value)  # type: ignore[attr-defined]
    return found


@cache
def _classes(module: Any) -> dict[str, list[ast.stmt]]:
    """The bodies of a module's classes by qualified name; none for a module without source."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):
        return {}
    found: dict[str, list[ast.stmt]] = {}

    def walk(statements: list[ast.stmt], prefix: str) -> None:
        for one in statements:
            if isinstance(one, ast.ClassDef):
                found[prefix + one.name] = one.body
                walk(one.body, f"{prefix}{one.name}.")
            elif isinstance(one, ast.FunctionDef):
                walk(one.body, f"{prefix}{one.name}.<locals>.")

    walk(tree.body, "")
    return found


class Also:
    """Says in the JSON Schema that a field has a short form besides its full one: ``Annotated[X, BeforeValidator(...), Also({"type": "string"})]``."""

    def __init__(self, short: dict[str, Any] | Callable[[], dict[str, Any]]) -> None:
        """``short``: the JSON Schema of the short form, or what makes it when asked."""
        self._short = short

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [self._short() if callable(self._short) else self._short, handler(schema)]}
