"""Settings: frozen, closed values whose class is their schema. They check only themselves."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of every settings class: unknown fields are refused, values never change, the string under a field is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)

    def plain(self) -> dict[str, Any]:
        """As JSON-ready plain data, every field with its default filled in."""
        return self.model_dump(mode="json", by_alias=True)

    def but(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked again."""
        return type(self).model_validate({**{field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}, **changes})
