"""How sources are said to belong together: keys, moments, what is taken, and where that does not fit."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.schema import Schema
from modelinscale.core.settings import Also, Settings
from modelinscale.core.units import Duration
from modelinscale.data.sources import Source


def _pairs(value: Any) -> Any:
    """``customer_id``, ``[a, b]`` or ``{left: right}`` as a mapping from left to right."""
    if isinstance(value, str):
        return {value: value}
    if isinstance(value, list | tuple):
        return {str(name): str(name) for name in value}
    return value


Pairs = Annotated[dict[str, str], BeforeValidator(_pairs), Also({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})]
Any_ = Annotated[
    Any,
    PlainValidator(Source.parse),
    PlainSerializer(lambda source: source.plain(), return_type=dict),
    # Not the contract's own schema: it would hold this one again.
    WithJsonSchema({"type": "object", "required": ["type"]}),
]
"""Any source."""


class Join(Settings):
    """How rows of another source belong to those of the first."""

    on: Pairs = Field(min_length=1)
    """The column (or columns) that both have, or ``{name in the first: name in this one}``."""
    as_of: Annotated[Pairs | None, Field(max_length=1)] = None
    """The moment: of the rows with the same key the newest that is not later than the first source's. Left out: a key names one row."""
    columns: tuple[str, ...] = ()
    """What to take. Left out: all but the key and the moment."""
    prefix: str = ""
    """Put before the names of the columns taken."""
    within: Duration | None = Field(None, gt=0)
    """Rows older than this by then count as unknown."""
    allow_exact: bool = True
    """Whether a row of the very same moment was known by then."""
    wait: Duration = Field(0.0, ge=0)
    """Rows of the first source younger than this are left for a later collect: so late may what was known of them arrive."""
    correct: Duration = Field(0.0, ge=0)
    """Rows of the first source up to this old are joined again when a late row of this one changes what was known of them (needs ``write: upsert``)."""

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_word(cls, value: Any) -> Any:
        """YAML 1.1 readers other than that of model.yaml take ``on`` for true, and write it so."""
        return {"on" if k in (True, "true") else k: v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _needs_a_moment(self) -> Self:
        if self.as_of is None and (self.within is not None or self.wait or self.correct or not self.allow_exact):
            raise SpecError("`within`, `wait`, `correct` and `allow_exact` are about moments.", fix="Name them: `as_of: COLUMN`.")
        return self


class Other(Settings):
    """A further source."""

    source: Any_
    """Where its rows are."""
    join: Join
    """How they belong to those of the first."""

    @property
    def label(self) -> str:
        """What it is called in messages."""
        settings = self.source.plain()
        path = settings.get("path")
        files = ", ".join(Path(str(p)).name for p in ([path] if isinstance(path, str) else path or ())[:3])
        return str(settings.get("table") or settings.get("topic") or files or settings["type"])


def lookups(join: Join) -> dict[str, str]:
    """The columns of the first source by which another is looked up, by their names there."""
    return dict(zip((*(f"k{i}" for i in range(len(join.on))), "moment"), (*join.on, *(join.as_of or {})), strict=False))


def unread(join: dict[str, Any]) -> dict[str, Any]:
    """Without what changes no row that is read: a table goes on when it is switched on."""
    return {name: value for name, value in join.items() if name != "correct"}


def misfits(other: Other, main: Schema, theirs: Schema) -> list[str]:
    """Columns that are not there, and keys and moments of different types."""
    join, found = other.join, []
    for left, right in [*join.on.items(), *(join.as_of or {}).items()]:
        if left not in main:
            found.append(f"the first source has no column {left!r}.{did_you_mean(left, main.names)}")
        if right not in theirs:
            found.append(f"{other.label} has no column {right!r}.{did_you_mean(right, theirs.names)}")
        if left in main and right in theirs and main[left].type != theirs[right].type:
            what = f"{left!r} is {main[left].type} in the first source, {right!r} is {theirs[right].type} in {other.label}"
            found.append(f"{what}: cast one of them where it is read, so that equal values are equal.")
    for left in join.as_of or {}:
        if left in main and main[left].type not in ("time", "int", "float"):
            found.append(f"{left!r} holds no moments ({main[left].type}).")
        if join.correct and left in main and main[left].type != "time":
            found.append(f"`correct` needs moments in time, and {left!r} is {main[left].type}.")
    found += [f"{other.label} has no column {n!r}.{did_you_mean(n, theirs.names)}" for n in join.columns if n not in theirs]
    return found
