"""Cleaning, a cell at a time: the served twin of `data.cleaners`, and the rule that they ask for every cell that needs thought.

A step is the plain settings of a cleaner. A cell is None, text, a number or a flag; what a step cannot take raises `Unreadable` with what was expected.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelinscale.core.measures import PIECE, Unit, convert, find_unit, unit
from modelinscale.core.schema import Column
from modelinscale.package._cell_rules import describe, string_in, typed_by
from modelinscale.package._cell_words import Cell, Habits, Unreadable, decimal_in, written_float

Step = Mapping[str, Any]
Rule = Callable[[Cell], Cell]

_SPACES = re.compile(r"[\s\u200b\ufeff\u2060]+")
LONGEST_CHARS = 500
"""No number with a unit is longer, and a pattern is not tried on more."""


class Chain:
    """From a cell as a client sends it to the value the column holds, through every step.

    ``raw`` is how cells come, ``column`` what they are in the end. A number stays a number where a later step reads numbers from text: ``1.125``
    must not become 1125 because the text has points between thousands. Where a step fills from other columns (``beside``), their cells are given too.
    """

    def __init__(self, raw: Column, steps: Sequence[Step], column: Column) -> None:
        at = next((i for i, step in enumerate(steps) if step.get("beside")), len(steps))
        self._read, self._column, self._text = typed_by(raw), column, Habits(column)
        self._before, self._after = [rule_of(step) for step in steps[:at]], [rule_of(step) for step in steps[at:]]
        self._numbers = raw.type == "string" and any(step["type"] in ("cast", "units") for step in steps)
        self._again = again(steps[:at]) if column.type != "time" else None
        self._beside = [(one["column"]["name"], *_other(one)) for step in steps[at : at + 1] for one in step["beside"]]
        self.beside = tuple(name for name, _, _ in self._beside)
        """The other columns it may need."""

    def __call__(self, cell: Cell, others: Mapping[str, Cell] | None = None) -> Cell:
        """Raises `Unreadable` for a cell that cannot be read, of another column only where it is needed."""
        value = self._read(cell)
        if self._numbers and value is not None and type(cell) in (int, float, bool):
            value = cell
        for rule in self._before:
            value = rule(value)
        if value is None and others is not None:
            value = self._filled(others)
        for rule in self._after:
            value = rule(value)
        column = self._column
        if value is None or column.type == "time":
            return value
        return string_in(value, self._text) if column.type == "string" and type(value) is not str else value

    def _filled(self, others: Mapping[str, Cell]) -> Cell:
        for name, read, expected in self._beside:
            try:
                value = read(others.get(name))
            except Unreadable as error:
                raise Unreadable(f"{str(error) or expected} in column {name!r}, from which a missing cell of this one is filled") from None
            if value is not None and self._again is not None:
                value = self._again(value)
            if value is not None:
                return float(value) + 0.0 if self._column.type == "float" else value
        return None


def _other(one: Mapping[str, Any]) -> tuple[Rule, str]:
    """How another column's cells are read, and what they may be."""
    raw, column = Column.model_validate(one["raw"]), Column.model_validate(one["column"])
    return (Chain(raw, one["steps"], column) if one["steps"] else typed_by(column)), describe(raw)


def again(steps: Sequence[Step]) -> Rule:
    """What steps make of a value that is clean already: a quantity keeps its unit. None where they do not take it."""
    rules = [rule_of(step) for step in steps if step["type"] != "units"]

    def repeat(cell: Cell) -> Cell:
        try:
            for rule in rules:
                cell = rule(cell)
        except Unreadable:
            return None
        return cell

    return repeat


def rule_of(step: Step) -> Rule:
    """What one step does to a cell."""
    return _RULES[step["type"]](step)


def _trim(step: Step) -> Rule:
    case, inner = step.get("case"), step.get("inner", True)

    def trim(cell: Cell) -> Cell:
        return trimmed(cell, case, inner) if type(cell) is str else cell

    return trim


def trimmed(text: str, case: str | None, inner: bool) -> str | None:
    """Without space at the ends, composed (NFC), in the case asked for; ``inner``: runs of any kind of space inside become one blank. Empty is missing."""
    text = unicodedata.normalize("NFC", text)
    if case is not None:
        text = unicodedata.normalize("NFC", text.lower() if case == "lower" else text.upper())
    if inner:
        return _SPACES.sub(" ", text).strip(" ") or None
    found = _SPACES.match(text)
    text = text[found.end() :] if found else text
    end = len(text)
    while end and _SPACES.fullmatch(text, end - 1, end):
        end -= 1
    return text[:end] or None


def _replace(step: Step) -> Rule:
    pairs = [tuple(pair) for pair in step["values"]]
    fold, within = step.get("ignore_case", False), step.get("within", False)
    if within:

        def inside(cell: Cell) -> Cell:
            if type(cell) is str:
                for old, new in pairs:
                    cell = cell.replace(old, new or "")
                return cell or None
            return cell

        return inside
    words = {folded(old, fold): new for old, new in pairs if isinstance(old, str)}
    numbers = {float(old): new for old, new in pairs if not isinstance(old, (str, bool))}
    flags = {old: new for old, new in pairs if isinstance(old, bool)}

    def whole(cell: Cell) -> Cell:
        if cell is None:
            return None
        if type(cell) is bool:
            return flags.get(cell, words.get(str(cell).lower(), cell))
        if type(cell) is str:
            return words.get(folded(cell, fold), cell)
        if type(cell) in (int, float) and abs(cell) <= 2**53:
            return numbers.get(float(cell), words.get(written_float(float(cell)), cell))
        return cell

    return whole


def folded(text: str, fold: bool) -> str:
    """Text as it is compared."""
    return text.lower() if fold else text


def _cast(step: Step) -> Rule:
    column = cast_column("cell", step)
    read = typed_by(column)

    def cast(cell: Cell) -> Cell:
        if type(cell) is bool and column.type in ("int", "float"):
            cell = int(cell)
        return read(cell)

    return cast


def cast_column(name: str, step: Step) -> Column:
    """The column a cast reads its cells as."""
    keys = ("format", "decimal", "thousands", "nulls", "true_words", "false_words")
    given = {key: step[key] for key in keys if step.get(key) is not None}
    return Column(name=name, type=step["to"], **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _fill(step: Step) -> Rule:
    value = step.get("value")  # none: it fills from other columns, see `Chain`
    return lambda cell: value if cell is None else cell


def _outliers(step: Step) -> Rule:
    low, high, to = step.get("low"), step.get("high"), step["to"]

    def judge(cell: Cell) -> Cell:
        if type(cell) not in (int, float) or to == "quarantine":
            return cell  # a row that is asked about is answered as it is: quarantine is for rows to learn from
        if low is not None and cell < low:
            return None if to == "null" else _bound(low, cell, math.ceil)
        if high is not None and cell > high:
            return None if to == "null" else _bound(high, cell, math.floor)
        return cell

    return judge


def _bound(bound: float, cell: Cell, whole: Callable[[float], int]) -> Cell:
    return whole(bound) if type(cell) is int else float(bound)


def _units(step: Step) -> Rule:
    to = unit(step["to"])
    bare = unit(step["bare"]) if step.get("bare") else to
    expected = f"a number with a unit of {to.dimension} ({to.name})"
    habits = Habits(Column(name="cell", type="float", decimal=step.get("decimal", "."), thousands=step.get("thousands", "")))

    def measure(cell: Cell) -> Cell:
        if cell is None:
            return None
        if type(cell) is str:
            found = measured(cell, to, bare, habits)
        else:
            found = convert(float(cell), bare, to) if type(cell) in (int, float) else None
            if found is not None and math.isnan(found):
                return None
        if found is None or not math.isfinite(found):
            raise Unreadable(expected)
        return found + 0.0  # no quantity is -0.0

    return measure


def measured(text: str, to: Unit, bare: Unit, habits: Habits) -> float | None:
    """The quantity in a text in the unit ``to``; None where it is none. ``5 ft 3 in`` adds up; a number alone is in the unit ``bare``."""
    if len(text) > LONGEST_CHARS:
        return None
    text = unicodedata.normalize("NFKC", text.replace("²", "2").replace("³", "3")).replace("\u2212", "-").strip()
    total, at, sign, n = 0.0, 0, 1.0, 0
    while at < len(text):
        found = PIECE.match(text, at)
        if found is None or (n and found["number"][0] in "+-"):
            return None
        try:
            number = decimal_in(habits.number(found["number"].strip()))
        except Unreadable:
            return None
        name = found["unit"]
        of = bare if name is None else find_unit(name, to.dimension)
        if of is None or of.dimension != to.dimension or (name is None and (n or found.end() < len(text))):
            return None
        if n == 0:
            sign = -1.0 if found["number"].startswith("-") else 1.0
            number = abs(number)
        elif to.offset or of.offset:
            return None
        part = convert(sign * number, of, to)
        total = part if n == 0 else total + part
        n, at = n + 1, found.end()
        comma = re.compile(r"\s*,\s*").match(text, at)
        at = comma.end() if comma and comma.end() < len(text) else at
    return total if n else None


def _extract(step: Step) -> Rule:
    pattern, group = re.compile(step["pattern"]), re.compile(group_of(step["pattern"]))

    def extract(cell: Cell) -> Cell:
        if cell is None:
            return None
        text = cell if type(cell) is str else written_float(float(cell)) if type(cell) is float else str(cell)
        if len(text) > LONGEST_CHARS:
            return None
        found = pattern.search(text)
        if found is not None:
            return found[1] or None
        return text if group.fullmatch(text) else None

    return extract


def group_of(pattern: str) -> str:
    """What stands between the parentheses of a pattern with one group.

    >>> group_of(r"no\\. (\\d+)")
    '\\\\d+'
    """
    depth = start = 0
    i, inside = 0, False
    while i < len(pattern):
        c = pattern[i]
        if c == "\\":
            i += 1
        elif c == "[" and not inside:
            inside = True
        elif c == "]":
            inside = False
        elif c == "(" and not inside:
            if depth or pattern[i + 1 : i + 2] != "?":
                if not depth:
                    start = i + 1
                depth += 1
        elif c == ")" and not inside and depth:
            depth -= 1
            if not depth:
                return pattern[start:i]
        i += 1
    return ""


_RULES: dict[str, Callable[[Step], Rule]] = {
    "trim": _trim,
    "replace": _replace,
    "cast": _cast,
    "fill": _fill,
    "outliers": _outliers,
    "units": _units,
    "extract": _extract,
}
