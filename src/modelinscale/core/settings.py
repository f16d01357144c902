"""Settings: frozen, closed values whose class is their schema. They check only themselves."""

from collections.abc import Callable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class Settings(BaseModel):
    """Base of every settings class: unknown fields are refused, values never change, the string under a field is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)

    def plain(self) -> dict[str, Any]:
        """As JSON-ready plain data, every field with its default filled in."""
        return self.model_dump(mode="json", by_alias=True)

    def but(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked again."""
        return type(self).model_validate({**{field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}, **changes})


class Also:
    """Says in the JSON Schema that a field has a short form besides its full one: ``Annotated[X, BeforeValidator(...), Also({"type": "string"})]``."""

    def __init__(self, short: dict[str, Any] | Callable[[], dict[str, Any]]) -> None:
        """``short``: the JSON Schema of the short form, or what makes it when asked."""
        self._short = short

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [self._short() if callable(self._short) else self._short, handler(schema)]}
