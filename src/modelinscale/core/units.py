"""Units as people write them: ``7d``, ``10m``, ``2GiB``."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from modelinscale.core.errors import SpecError

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def seconds(text: str | int | float) -> float:
    """Seconds in a duration such as ``7d`` or ``1h30m``; a plain number is seconds.

    >>> seconds("1h30m")
    5400.0
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if not 0 <= text < float("inf"):
            raise SpecError(f"a duration is a number of seconds from 0 up, found {text}.")
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", str(text))
    if not parts or "".join(f"{n}{u}" for n, u in parts) != re.sub(r"\s", "", str(text)):
        raise SpecError(f"{text!r} is not a duration.", fix="Write a number and a unit: 500ms, 30s, 10m, 2h, 7d, 4w.")
    return sum(float(n) * _SECONDS[u] for n, u in parts)


def size_bytes(text: str | int) -> int:
    """Bytes in a size such as ``2GiB``; a plain number is bytes.

    >>> size_bytes("1.5KiB")
    1536
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise SpecError(f"a size cannot be negative, found {text}.")
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)\s*", str(text))
    if not match:
        raise SpecError(f"{text!r} is not a size.", fix="Write a number and a unit: 512MiB, 2GiB, 5GB.")
    return int(float(match[1]) * _BYTES[match[2]])


def show_seconds(value: float) -> str:
    """Seconds as a person reads them: ``0.4 s``, ``2 min 5 s``, ``7 d``."""
    if round(value, 1) < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(value / 60)
    if minutes < 1440:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{round(value / 86400, 1):g} d"


def show_bytes(value: float) -> str:
    """Bytes as a person reads them: ``12.3 MiB``."""
    if value < 1024:
        return f"{value:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if round(value, 1) < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def _duration_text(value: float) -> str:
    """A text that `seconds` reads as exactly ``value``."""
    for unit in ("w", "d", "h", "m", "s", "ms") if value < 1 else ("w", "d", "h", "m", "s"):
        number = round(value / _SECONDS[unit])
        if number > 0 and number * _SECONDS[unit] == value:
            return f"{number}{unit}"
    return f"{Decimal(repr(value)):f}s" if value else "0s"


Duration = Annotated[
    float,
    BeforeValidator(seconds),
    PlainSerializer(_duration_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": ["string", "number"], "examples": ["30s", "10m", "7d"]}),
]
"""A field in seconds that a user writes as ``7d``."""


def _size(value: Any) -> int:
    return size_bytes(value)


Size = Annotated[int, BeforeValidator(_size), WithJsonSchema({"type": ["string", "integer"], "examples": ["512MiB", "2GiB"]})]
"""A field in bytes that a user writes as ``2GiB``."""
