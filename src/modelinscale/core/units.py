"""Units as people write them: ``7d``, ``10m``, ``2GiB``."""

import re
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
        if text < 0:
            raise SpecError(f"a duration cannot be negative, found {text}.")
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
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)\s*", str(text))
    if not match:
        raise SpecError(f"{text!r} is not a size.", fix="Write a number and a unit: 512MiB, 2GiB, 5GB.")
    return int(float(match[1]) * _BYTES[match[2]])


def show_seconds(value: float) -> str:
    """Seconds as a person reads them: ``0.4 s``, ``2 min 5 s``, ``7 d``."""
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60)} s"
    if value < 86400:
        return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"
    return f"{value / 86400:g} d"


def show_bytes(value: float) -> str:
    """Bytes as a person reads them: ``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _duration_text(value: float) -> str:
    for unit in ("w", "d", "h", "m", "s"):
        if value >= _SECONDS[unit] and value % _SECONDS[unit] == 0:
            return f"{int(value / _SECONDS[unit])}{unit}"
    return f"{value:g}s" if value >= 1 or value == 0 else f"{value * 1000:g}ms"


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
