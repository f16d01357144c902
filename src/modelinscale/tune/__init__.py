"""Tune: a search for the settings a family learns best with, on as many processes or machines as there are, and none of it lost by a kill."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.kinds import names
from modelinscale.core.secrets import Address
from modelinscale.core.settings import Also, Settings
from modelinscale.core.space import Choices, Range, Span
from modelinscale.core.units import Duration
from modelinscale.models import Model
from modelinscale.tune._rungs import Entry, Prune
from modelinscale.tune._space import Space, parse_span
from modelinscale.tune.searchers import Searcher
from modelinscale.tune.searchers.tpe import Tpe

if TYPE_CHECKING:
    from modelinscale.compute import Compute
    from modelinscale.tune._fit import Fitter
    from modelinscale.tune._search import Found
    from modelinscale.tune._study import About

__all__ = ["Choices", "Entry", "Prune", "Range", "Space", "Span", "Tune", "search"]

_SPANS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [
            {"type": "array", "minItems": 1},
            {"type": "object", "properties": {"low": {"type": "number"}, "high": {"type": "number"}, "log": {"type": "boolean"}}, "required": ["low", "high"]},
            {"type": ["string", "number", "boolean", "null"]},
        ]
    },
}


def _prune(value: Any) -> Any:
    return {"how": value} if isinstance(value, str) else value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Tune(Settings):
    """How the best settings are looked for."""

    trials: int = Field(50, ge=1, le=100_000)
    """Settings that are tried; more of them later go on where the search ended."""
    budget: Duration | None = Field(None, gt=0)
    """Wall time of one run of the search; null: until all trials are done."""
    workers: int = Field(0, ge=0)
    """Trials at once, each a process; 0: as many as there are cores, as far as they fit into the memory, or tasks on a cluster as ``compute`` says."""
    searcher: Searcher = Tpe()
    """What proposes settings: ``tpe``, ``random`` or ``grid``."""
    families: Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Also({"type": "string"})] = ()
    """Families to search among; none: the one that ``model`` names, or those that ``auto`` compares."""
    space: Annotated[dict[str, Any], Also(_SPANS)] = {}
    """Settings and what they may be, where the family's own bounds will not do: ``{trees.leaves: [8, 256], trees.l2: [0, 1, 10], mlp.layers: 2}``."""
    prune: Annotated[Prune, BeforeValidator(_prune), Also({"enum": ["top", "asha", "none"]})] = Prune()
    """How settings that do badly are given up early."""
    storage: Address | None = None
    """Where trials are kept: ``postgresql://user:${ENV:PW}@host/db`` or ``redis://host`` to search from several machines; null: a file in the store."""
    warm: int = Field(3, ge=0, le=100)
    """Best settings of earlier searches with the same target and features that are tried first."""

    @field_validator("space")
    @classmethod
    def _spans(cls, value: dict[str, Any]) -> dict[str, Any]:
        spans, wrong = {}, []
        for name, one in value.items():
            try:
                spans[name] = parse_span(name, one)
            except SpecError as error:
                wrong.append(InitErrorDetails(type=PydanticCustomError("span", "{error}", {"error": error}), loc=(name,), input=one))
        if wrong:
            raise ValidationError.from_exception_data("space", wrong)
        return {name: span.plain() for name, span in spans.items()}

    @field_validator("families")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = names(Model.folder)
        for one in value:
            if one not in known:
                raise SpecError(f"there is no family {one!r}.{did_you_mean(one, known)}", fix=f"Known: {', '.join(known)}.")
        return value

    @property
    def spans(self) -> dict[str, Span]:
        """``space`` as spans."""
        return {name: parse_span(name, one) for name, one in self.space.items()}

    def matter(self) -> dict[str, Any]:
        """What of this says which study it is: neither how long, nor where, nor with how many it is done."""
        plain = self.plain()
        return {name: plain[name] for name in ("searcher", "families", "space", "prune")}


def search(
    settings: Tune,
    space: Space,
    fitter: "Fitter",
    *,
    name: str,
    about: "About",
    folder: Path,
    file: Path,
    compute: "Compute | None" = None,
    trial_budget_s: float | None = None,
    news: Callable[[Sequence[Entry]], None] = lambda entries: None,
) -> "Found":
    """The best settings of ``space``, by their loss on the validation rows.

    ``name``: of the study, which goes on if it is there; ``folder``: for the rows that worker processes open; ``file``: of the SQLite storage;
    ``compute``: a cluster to do trials on (None: processes of this machine); ``news`` is called with all trials whenever one begins or ends.
    Raises `ModelError` when no settings could learn.
    """
    from modelinscale.tune._search import search as look

    return look(settings, space, fitter, name=name, about=about, folder=folder, file=file, compute=compute, trial_budget_s=trial_budget_s, news=news)


def models_of(settings: Tune, model: Model | str, auto: Sequence[str]) -> tuple[Model, ...]:
    """The families that are searched, with what the file says of them; ``auto``: those that ``model: auto`` compares."""
    own = {} if isinstance(model, str) else {model.type: model}
    wanted = settings.families or tuple(own) or tuple(auto)
    return tuple(own.get(family) or Model.parse(family) for family in wanted)


def check_space(settings: Tune, families: Mapping[str, Any] | Sequence[str]) -> None:
    """Raises `SpecError` where ``space`` speaks of a family that is not searched."""
    for name in settings.space:
        family = name.partition(".")[0]
        if family not in families:
            raise SpecError(
                f"`tune.space` names {name}, and {family} is not searched ({', '.join(families)} is).", fix=f"Write `tune: {{families: [{family}]}}`."
            )
