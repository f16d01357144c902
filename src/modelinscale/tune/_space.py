"""The space of a search: for each family what its settings may be. A point of it is flat: ``{"family": "trees", "trees.leaves": 31}``."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.kinds import load, names
from modelinscale.core.space import Choices, Range, Span, Value, bounds_of, fixed
from modelinscale.models import Model

Point = dict[str, Value]
FAMILY = "family"


@dataclass(frozen=True)
class Space:
    """Families with the settings that are given, and what the others may be."""

    given: dict[str, dict[str, Any]]
    """By family, in the order they are tried in: settings that stay as they are, with ``type``."""
    spans: dict[str, dict[str, Span]]

    @classmethod
    def of(cls, models: tuple[Model, ...], written: Mapping[str, Span]) -> "Space":
        """What the families' own classes say; settings written in the file stay as they are, unless ``written`` (``trees.leaves``) says otherwise."""
        given, spans = {}, {}
        for model in models:
            own = {name.partition(".")[2]: span for name, span in written.items() if name.partition(".")[0] == model.type}
            kept = {name for name in model.model_fields_set if name not in own}
            spans[model.type] = {name: span for name, span in {**type(model).space(), **own}.items() if name not in kept}
            given[model.type] = {"type": model.type, **{name: value for name, value in model.plain().items() if name in kept}}
        return cls(given, spans)

    @property
    def families(self) -> list[str]:
        return list(self.given)

    def flat(self, family: str) -> dict[str, Span]:
        """What there is to choose once the family is known."""
        return self._flat[family]

    @cached_property
    def _flat(self) -> dict[str, dict[str, Span]]:
        return {family: {f"{family}.{name}": span for name, span in own.items() if not fixed(span)} for family, own in self.spans.items()}

    @cached_property
    def dimensions(self) -> dict[str, Span]:
        """Everything there is to choose, of all families."""
        found: dict[str, Span] = {FAMILY: Choices(tuple(self.families))} if len(self.families) > 1 else {}
        return found | {name: span for family in self.families for name, span in self.flat(family).items()}

    def family(self, point: Mapping[str, Value]) -> str:
        return str(point.get(FAMILY, self.families[0]))

    def complete(self, values: Mapping[str, Value]) -> Point:
        """The point these values mean: those of its own family, each from the middle where it is not among them."""
        family = self.family(values)
        head: Point = {FAMILY: family} if len(self.families) > 1 else {}
        return head | {name: values.get(name, span.first) for name, span in self.flat(family).items()}

    def starts(self) -> list[Point]:
        """The first settings of each family: near its defaults."""
        return [self.complete({FAMILY: family}) for family in self.families]

    def draw(self, chance: np.random.Generator) -> Point:
        """A point at random, every family as likely."""
        family = self.families[int(chance.integers(len(self.families)))]
        return self.complete({FAMILY: family} | {name: span.draw(chance) for name, span in self.flat(family).items()})

    def outside(self, point: Mapping[str, Value]) -> str:
        """Why this is no point of the space, or ""."""
        if FAMILY in point and point[FAMILY] not in self.families:
            return f"{point[FAMILY]} is not among the families"
        spans = self.flat(self.family(point))
        missing, more = set(spans) - set(point), set(point) - set(spans) - {FAMILY}
        if missing or more:
            return f"{', '.join(sorted(missing | more))}: {'missing' if missing else 'unknown'}"
        return "; ".join(f"{name} {point[name]} is not in {span}" for name, span in spans.items() if not span.holds(point[name]))

    def model(self, point: Mapping[str, Value]) -> Model:
        """The family with these settings."""
        family = self.family(point)
        fixed_ones = {name: span.first for name, span in self.spans[family].items() if fixed(span)}
        chosen = {name.partition(".")[2]: point[name] for name in self.flat(family)}
        return Model.parse({**self.given[family], **fixed_ones, **chosen})

    def plain(self) -> dict[str, Any]:
        spans = {family: {name: span.plain() for name, span in found.items()} for family, found in self.spans.items()}
        return {"given": self.given, "spans": spans}


def parse_span(name: str, value: Any) -> Span:
    """What is written under ``tune.space``: ``[8, 256]`` (from, to), a list of choices, ``{low, high, log}``, or one value.

    ``name`` is ``family.setting``. Raises `SpecError` for a name that is not there, or values that the setting would refuse.
    """
    family, _, setting = name.partition(".")
    known = names(Model.folder)
    if family not in known:
        raise SpecError(f"there is no family {family!r}.{did_you_mean(family, known)}", fix=f"Write `family.setting`; families: {', '.join(known)}.")
    cls = load(Model.folder, family)
    fields = list(cls.model_fields)
    if setting not in fields:
        raise SpecError(f"{family} has no setting {setting!r}.{did_you_mean(setting, fields)}", fix=f"Known: {', '.join(fields)}.")
    span = _span(value, cls.space().get(setting))  # type: ignore[attr-defined]
    for one in (span.low, span.high) if isinstance(span, Range) else span.values:
        try:
            cls.model_validate({setting: one})
        except ValueError as error:
            allowed = ", ".join(f"{word} {bound:g}" for word, bound in bounds_of(cls.model_fields[setting]).items())
            raise SpecError(f"{name} cannot be {one!r}{f' (allowed: {allowed})' if allowed else ''}.", fix="Write values that the setting takes.") from error
    return span


def _span(value: Any, own: Span | None) -> Span:
    if isinstance(value, Range | Choices):
        return value
    if isinstance(value, dict):
        unknown = set(value) - {"low", "high", "log"}
        if unknown or not {"low", "high"} <= set(value):
            raise SpecError(f"expected `low`, `high` and perhaps `log`, found {', '.join(map(str, value)) or 'nothing'}.", fix="Write `{low: 8, high: 256}`.")
        return _range(value["low"], value["high"], value.get("log"), own)
    if isinstance(value, list | tuple):
        if not value or any(isinstance(one, list | dict) for one in value):
            raise SpecError("expected a range or choices, found an empty or nested list.", fix="Write `[8, 256]` for a range, `[a, b, c]` for choices.")
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in value)
        return _range(value[0], value[1], None, own) if numbers and len(value) == 2 else Choices(tuple(value))
    return Choices((value,))


def _range(low: Any, high: Any, log: Any, own: Span | None) -> Range:
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in (low, high)) or low > high:
        raise SpecError(f"a range goes from a number up to one that is no smaller, found {low!r} to {high!r}.", fix="Write `[8, 256]`.")
    if log and low <= 0:
        raise SpecError(f"a range that is gone through by factors begins above 0, found {low!r}.", fix="Leave `log` out, or begin higher.")
    of = own if isinstance(own, Range) else None
    if of is not None and not of.whole:
        low, high = float(low), float(high)
    start = of.start if of is not None and of.start is not None and low <= of.start <= high else None
    return Range(low, high, bool(log) if log is not None else (low > 0 and (of.log if of is not None else high / low >= 100)), start)
