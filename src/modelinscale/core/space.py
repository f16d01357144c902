"""What a search may try: a range of numbers, or a choice among values; and how both follow from the fields of a settings class."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Value = str | int | float | bool | None
"""One setting as it is tried."""

DECADES = 100.0
"""A range whose ends are further apart than this, as a ratio, is gone through by factors instead of by steps."""
_AROUND = 10.0
"""A number with one bound is searched up to this many times below and above its default."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones where both are ``int``."""

    low: float
    high: float
    log: bool = False
    """Whether factors count instead of steps: 0.001 to 0.01 is then as far as 0.01 to 0.1."""
    start: float | None = None
    """Where a search begins; None: in the middle."""

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def first(self) -> Value:
        """The value a search begins with."""
        return self.at(0.5) if self.start is None else min(max(self.start, self.low), self.high)

    def at(self, share: float) -> Value:
        """The value at a share (0 to 1) of the way from ``low`` to ``high``."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        way = low + share * (high - low)
        value = min(max(math.exp(way) if self.log else way, self.low), self.high)
        return round(value) if self.whole else value

    def _share(self, value: float) -> float:
        if self.high == self.low:
            return 0.0
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def share(self, value: Value) -> float:
        """How far along the range a value of it lies, 0 to 1."""
        assert isinstance(value, int | float)
        return self._share(value)

    def holds(self, value: Value) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.whole or isinstance(value, int))  # type: ignore[operator]

    def draw(self, chance: np.random.Generator) -> Value:
        """One at random."""
        if not self.whole:
            return self.at(chance.random())
        if not self.log:
            return int(chance.integers(int(self.low), int(self.high) + 1))
        # Each whole number with the length of the logarithm that rounds to it.
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(max(round(math.exp(low + chance.random() * (high - low))), int(self.low)), int(self.high))

    def grid(self, n: int) -> list[Value]:
        """``n`` values spread evenly over the range, ends included; fewer where there are no more."""
        if self.high == self.low:
            return [self.at(0.0)]
        return list(dict.fromkeys(self.at(i / (n - 1)) if n > 1 else self.first for i in range(n)))

    def plain(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, **({"log": True} if self.log else {})}

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' by factors' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """One of some values; a single one is fixed."""

    values: tuple[Value, ...]
    start: Value = None
    """The one a search begins with, where it is among them; else the first."""

    @property
    def first(self) -> Value:
        return self.start if self.holds(self.start) else self.values[0]

    @property
    def fixed(self) -> bool:
        return len(self.values) == 1

    def at(self, share: float) -> Value:
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def share(self, value: Value) -> float:
        """How far along the list a value of it lies, 0 to 1."""
        return next(i for i, one in enumerate(self.values) if _same(one, value)) / max(1, len(self.values) - 1)

    def holds(self, value: Value) -> bool:
        return any(_same(one, value) for one in self.values)

    def draw(self, chance: np.random.Generator) -> Value:
        return self.values[int(chance.integers(len(self.values)))]

    def grid(self, n: int) -> list[Value]:
        """All of them: what lies between two words nobody knows."""
        return list(self.values)

    def plain(self) -> list[Value]:
        return list(self.values)

    def __str__(self) -> str:
        return ", ".join("null" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in self.values)


Span = Range | Choices
"""What one setting may be."""


def fixed(span: Span) -> bool:
    """Whether there is nothing to choose."""
    return span.fixed if isinstance(span, Choices) else span.low == span.high


def derived(cls: type[BaseModel]) -> dict[str, Span]:
    """The space that follows from the fields of a settings class: bounds become ranges, literals and flags choices.

    A number with one bound is searched around its default, by factors; one without a bound, or without a default where that is needed, is left out, and
    so is what is neither number, flag nor literal.
    """
    found: dict[str, Span] = {}
    for name, field in cls.model_fields.items():
        span = span_of(field)
        if span is not None:
            found[field.alias or name] = span
    return found


def span_of(field: FieldInfo) -> Span | None:
    """What one field may be, as far as its type and bounds say; None: they do not say."""
    options = [one for one in _options(field.annotation) if one is not NoneType]
    if len(options) != 1:
        return None
    kind = options[0]
    if get_origin(kind) is Literal:
        return Choices(tuple(get_args(kind)), field.default)
    if kind is bool:
        return Choices((False, True), field.default)
    return _numbers(kind, field) if kind in (int, float) else None


def _options(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType):
        for one in get_args(annotation):
            yield from _options(one)
    else:
        yield annotation


def _numbers(kind: type, field: FieldInfo) -> Range | None:
    bounds = bounds_of(field)
    default = field.default if isinstance(field.default, int | float) and not isinstance(field.default, bool) else None
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if low is None and high is None:
        return None
    if kind is int:
        low = None if low is None else int(low) + ("ge" not in bounds)
        high = None if high is None else int(high) - ("le" not in bounds)
    if low is None or high is None:
        if not default:
            return None
        low = max(low if low is not None else -math.inf, default / _AROUND if default > 0 else default * _AROUND)
        high = min(high if high is not None else math.inf, default * _AROUND if default > 0 else default / _AROUND)
        low, high = (math.ceil(low), math.floor(high)) if kind is int else (low, high)
        return Range(low, high, log=low > 0, start=default)
    if kind is float:  # a bound that is not itself allowed is not reached
        span = high - low
        low = low if "ge" in bounds else (high / 1000 if low == 0 and high > 0 else low + span / 1000)
        high = high if "le" in bounds else high - span / 1000
        low, high = float(low), float(high)
    return Range(low, high, log=low > 0 and high / low >= DECADES, start=default)


def bounds_of(field: FieldInfo) -> dict[str, float]:
    """``ge``, ``gt``, ``le`` and ``lt`` of a field, as far as they are given."""
    return {name: value for one in field.metadata for name in ("ge", "gt", "le", "lt") if isinstance(value := getattr(one, name, None), int | float)}


def narrowed(space: Mapping[str, Span], by: Mapping[str, Span | None]) -> dict[str, Span]:
    """A space with some settings searched elsewhere, or (None) not at all."""
    return {name: span for name, span in {**space, **by}.items() if span is not None}


def _same(a: Value, b: Value) -> bool:
    """Equal and of one type: 1 is not true."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)
