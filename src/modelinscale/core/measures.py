"""Units of measure: what one is of its dimension's base unit. Both sides read it: the rows that are collected and the row that is asked about."""

import re
from typing import NamedTuple

from modelinscale.core.errors import SpecError, did_you_mean


class Unit(NamedTuple):
    """A unit: ``base = value * factor + offset``."""

    name: str
    dimension: str
    factor: float
    offset: float = 0.0


_LB, _FT = 0.45359237, 0.3048  # exact by definition (international yard and pound agreement, 1959)
_DIMENSIONS: dict[str, dict[str, float]] = {
    # Base units: kilogram, metre, second, square metre, litre, byte.
    "mass": {
        **{"kg kilo kilos kilogram kilograms": 1.0, "g gr gram grams gramme": 1e-3, "mg milligram milligrams": 1e-6, "µg μg ug mcg microgram": 1e-9},
        **{"t tonne tonnes": 1e3, "lb lbs pound pounds #": _LB, "oz ounce ounces": _LB / 16, "st stone stones": _LB * 14},
    },
    "length": {
        **{"m metre metres meter meters": 1.0, "km kilometre kilometres kilometer kilometers": 1e3, "cm centimetre centimeter centimeters": 1e-2},
        **{"mm millimetre millimeter millimeters": 1e-3, "µm μm um micron": 1e-6, "nm nanometre nanometer": 1e-9, "ft foot feet ′ '": _FT},
        **{'in inch inches ″ ′′ "': _FT / 12, "yd yard yards": _FT * 3, "mi mile miles": _FT * 5280, "nmi": 1852.0},
    },
    "duration": {
        **{"s sec secs second seconds": 1.0, "ms millisecond milliseconds msec": 1e-3, "µs μs us microsecond microseconds": 1e-6, "ns nanosecond": 1e-9},
        **{"min mins minute minutes": 60.0, "h hr hrs hour hours": 3600.0, "d day days": 86400.0, "w wk week weeks": 604800.0},
    },
    "area": {"m² m2 sqm": 1.0, "km² km2": 1e6, "cm² cm2": 1e-4, "ha hectare hectares": 1e4, "ft² ft2 sqft": _FT**2, "acre acres": 4046.8564224},
    "volume": {
        **{"l litre litres liter liters": 1.0, "ml millilitre milliliter": 1e-3, "cl": 1e-2, "dl": 1e-1, "m³ m3": 1e3, "cm³ cm3 cc": 1e-3},
        **{"gal gallon gallons": 3.785411784, "qt quart": 0.946352946, "pt pint": 0.473176473, "fl.oz floz": 0.0295735295625},
    },
    "size": {
        **{"B byte bytes": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15},
        **{"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40, "PiB": 2.0**50, "bit bits": 0.125},
    },
}
_TEMPERATURES = {"K kelvin": (1.0, 0.0), "°C C celsius degC": (1.0, 273.15), "°F F fahrenheit degF": (5 / 9, 459.67 * 5 / 9)}

UNITS: dict[str, Unit] = {
    name: Unit(names.split()[0], dimension, factor) for dimension, units in _DIMENSIONS.items() for names, factor in units.items() for name in names.split()
} | {name: Unit(names.split()[0], "temperature", *how) for names, how in _TEMPERATURES.items() for name in names.split()}
"""Every spelling."""
_LOWER: dict[str, set[Unit]] = {}
for _name, _unit in UNITS.items():
    _LOWER.setdefault(_name.lower(), set()).add(_unit)

PIECE = re.compile(
    r"\s*(?P<number>[+-]?(?:\d(?:(?:[., _]|'(?=\d{3}(?!\d)))?\d)*\.?|\.\d+)(?:[eE][+-]?\d+)?)"
    r"\s*(?P<unit>[^\d\s+.,-][^\d\s]*?[23]?\.?)?(?=[\s\d,+-]|$)"
)
"""A number and its unit; several make ``5 ft 3 in``."""


def unit(name: str) -> Unit:
    """The unit of a spelling written by a user. Raises `SpecError` for an unknown one."""
    found = find_unit(name)
    if found is None:
        raise SpecError(
            f"there is no unit {name!r}.{did_you_mean(name, tuple(UNITS))}", fix=f"Known: {', '.join(dict.fromkeys(u.name for u in UNITS.values()))}."
        )
    return found


def find_unit(name: str, dimension: str | None = None) -> Unit | None:
    """The unit of a spelling: as it stands, else whatever its case where that leaves one (``KG``, ``Lbs.``, but never ``mb`` for MB or Mb)."""
    name = name.strip().removesuffix(".") if name not in UNITS else name
    found = {UNITS[name]} if name in UNITS else _LOWER.get(name.lower(), set())
    if dimension is not None:
        found = {u for u in found if u.dimension == dimension} or {u for u in _LOWER.get(name.lower(), set()) if u.dimension == dimension}
    return next(iter(found)) if len(found) == 1 else None


def convert(value: float, of: Unit, to: Unit) -> float:
    """The value in another unit of the same dimension; exactly itself in its own.

    >>> convert(3.0, unit("lb"), unit("kg")), convert(20.0, unit("C"), unit("F"))
    (1.36077711, 68.0)
    """
    if of == to:
        return value
    if not of.offset and not to.offset:
        return value * of.factor / to.factor
    return round((value * of.factor + of.offset - to.offset) / to.factor, 9)
