"""Contracts in the Open Data Contract Standard (ODCS v3): a model.yaml's part about valid rows written as one, and read from one.

What the other side cannot say is told, never dropped. Source: github.com/bitol-io/open-data-contract-standard, v3.1.0.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column, ColumnType, Schema
from modelinscale.core.units import seconds
from modelinscale.data.checks import Check

API_VERSION = "v3.1.0"
READ = ("v3.0.0", "v3.0.1", "v3.0.2", "v3.1.0")
ENGINE = "modelinscale"
"""The engine of quality rules that only we can run."""
EVERY = "*"

_LOGICAL: dict[ColumnType, str] = {
    "int": "integer", "float": "number", "bool": "boolean", "string": "string", "time": "timestamp", "vector": "array", "sequence": "array", "binary": "string",
}  # fmt: skip
_TYPES: dict[str, ColumnType] = {"integer": "int", "number": "float", "boolean": "bool", "string": "string", "timestamp": "time", "date": "time"}
_PERSONAL = ("personal", "pii", "sensitive", "confidential", "restricted")
_SECONDS = {
    **dict.fromkeys(("y", "yr", "year", "years"), 365.25 * 86400),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
}
_MISSING_WORDS = {"None", "", "N/A", "n/a", "NA", "null"}
_ABOUT_ROWS = ("schema", "slaProperties", "apiVersion", "kind", "id", "name", "version", "status")


@dataclass(frozen=True)
class Exported:
    """A contract document, and what it leaves out."""

    document: dict[str, Any]
    told: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """What a contract says, as the ``data`` part of a model.yaml, and what it says besides."""

    columns: dict[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    checks: dict[str, list[Any]] = field(default_factory=dict)
    personal: dict[str, Any] = field(default_factory=dict)
    told: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As it stands in model.yaml, parts without content left out."""
        parts = {"columns": self.columns, "key": list(self.key), "checks": self.checks, "personal": self.personal}
        return {name: part for name, part in parts.items() if part}


# Writing


def export(
    name: str, schema: Schema, checks: Mapping[str, Sequence[Check]], key: tuple[str, ...], personal: Mapping[str, Mapping[str, Any]], *, version: str = "1.0.0"
) -> Exported:
    """The contract of a table. ``personal``: rules by column, as plain data."""
    told: list[str] = []
    found: dict[str, Any] = {"name": name, "logicalType": "object", "physicalType": "table", "properties": []}
    sla: list[dict[str, Any]] = []
    for column in schema.columns:
        found["properties"].append(_property(column, checks.get(column.name, ()), key, personal.get(column.name), name, sla))
    quality = [rule for check in checks.get(EVERY, ()) for rule in _of_table(check)]
    if quality:
        found["quality"] = quality
    gone = [n for n in personal if n not in schema]
    if gone:
        told.append(f"not in the table, so not in the contract: {', '.join(gone)} (personal, dropped).")
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "DataContract", "id": f"urn:modelinscale:{name}", "name": name, "version": version}
    document |= {"status": "active", "schema": [found]} | ({"slaProperties": sla} if sla else {})
    return Exported(document, tuple(told))


def _property(
    column: Column, checks: Sequence[Check], key: tuple[str, ...], personal: Mapping[str, Any] | None, table: str, sla: list[dict[str, Any]]
) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "logicalType": _LOGICAL[column.type]}
    if column.type == "vector":
        found |= {"items": {"logicalType": "number"}, "logicalTypeOptions": {"minItems": column.width, "maxItems": column.width}}
    if column.type == "sequence":
        step: dict[str, Any] = {"logicalType": "number"}
        if column.width != 1:
            step = {"logicalType": "array", "items": step, "logicalTypeOptions": {"minItems": column.width, "maxItems": column.width}}
        found |= {"items": step}
    if column.type == "binary":
        found |= {"logicalTypeOptions": {"format": "binary"}}
    if column.name in key:
        found |= {"primaryKey": True, "primaryKeyPosition": key.index(column.name) + 1}
    if not column.nullable:
        found["required"] = True
    if personal is not None:
        found |= {"classification": "personal", "customProperties": [{"property": f"{ENGINE}.personal", "value": dict(personal)}]}
    options: dict[str, Any] = {}
    quality: list[dict[str, Any]] = []
    for check in checks:
        if check.severity is not None or not _say(check, column, found, options, quality, sla, table):
            quality.append(_custom(check))
    if options:
        found["logicalTypeOptions"] = {**found.get("logicalTypeOptions", {}), **options}
    return found | ({"quality": quality} if quality else {})


def _say(
    check: Check, column: Column, found: dict[str, Any], options: dict[str, Any], quality: list[dict[str, Any]], sla: list[dict[str, Any]], table: str
) -> bool:
    """Puts a check in the standard's own words; whether there are some."""
    plain = check.plain()
    match check.type:
        case "present":
            found["required"] = True
        case "unique":
            found["unique"] = True
        case "positive" if "minimum" not in options:
            options["exclusiveMinimum"] = 0
        case "at_least" if "minimum" not in options and "exclusiveMinimum" not in options:
            options["minimum"] = plain["bound"]
        case "at_most" if "maximum" not in options:
            options["maximum"] = plain["bound"]
        case "between" if not options:
            options |= {"minimum": plain["low"], "maximum": plain["high"]}
        case "matches":
            options["pattern"] = f"^(?:{plain['pattern']})$"
        case "one_of":
            quality.append({"type": "library", "metric": "invalidValues", "arguments": {"validValues": plain["values"]}, "mustBe": 0})
        case "fresh":
            sla.append({"property": "latency", "value": seconds(plain["within"]), "unit": "s", "element": f"{table}.{column.name}"})
        case _:
            return False
    return True


def _custom(check: Check) -> dict[str, Any]:
    rest = {k: v for k, v in check.plain().items() if k != "type" and v is not None}
    shown = {"warn": "warning", "quarantine": "error", "stop": "error"}[check.weighs]
    return {"type": "custom", "engine": ENGINE, "implementation": {check.type: rest or True}, "severity": shown, "description": check.demand()}


def _of_table(check: Check) -> Iterator[dict[str, Any]]:
    plain = check.plain()
    if check.type != "rows" or check.severity is not None or plain["change"] is not None:
        yield _custom(check)
        return
    low, high = plain["min"], plain["max"]
    rule = {"type": "library", "metric": "rowCount", "unit": "rows"}
    if low is not None and high is not None and low < high:
        yield {**rule, "mustBeBetween": [low, high]}
    elif low is not None and high is not None:
        yield {**rule, "mustBe": low}
    else:
        yield {**rule, **({"mustBeGreaterOrEqualTo": low} if low is not None else {"mustBeLessOrEqualTo": high})}


# Reading


def load(document: Any, table: str | None = None) -> Imported:
    """What a contract document says of one table (the one it has, or the one named). Raises `SpecError` when it is not one, or has several tables."""
    if not isinstance(document, Mapping) or document.get("kind") != "DataContract":
        raise SpecError("this is not a contract of the Open Data Contract Standard: `kind: DataContract` is not there.", fix="Name an .odcs.yaml file.")
    if document.get("apiVersion") not in READ:
        raise SpecError(f"the contract has version {document.get('apiVersion')!r} of the standard.", fix=f"Known: {', '.join(READ)}.")
    tables = {str(t.get("name")): t for t in document.get("schema") or () if isinstance(t, Mapping)}
    if not tables or (table is not None and table not in tables) or (table is None and len(tables) > 1):
        raise SpecError(
            f"the contract has {len(tables)} tables ({', '.join(tables)}).",
            fix="Name one of them with `--table`, or under `contract: {file: ..., table: ...}`.",
        )
    name = table if table is not None else next(iter(tables))
    return _Reading(document, name, tables[name]).done()


class _Reading:
    """One table's contract while it is read."""

    def __init__(self, document: Mapping[str, Any], name: str, table: Mapping[str, Any]) -> None:
        self._document, self._name, self._table = document, name, table
        self.columns: dict[str, str] = {}
        self.checks: dict[str, list[Any]] = {}
        self.personal: dict[str, Any] = {}
        self.keys: list[tuple[int, str]] = []
        self.told: list[str] = []

    def done(self) -> Imported:
        for one in self._table.get("properties") or ():
            self._property(one)
        key = tuple(name for _, name in sorted(self.keys))
        key = self._table_quality(key)
        for one in self._document.get("slaProperties") or ():
            self._sla(one)
        aside = [k for k in self._document if k not in _ABOUT_ROWS]
        if aside:
            self.told.append(f"not about rows, so not taken over: {', '.join(aside)}.")
        return Imported(self.columns, key, self.checks, self.personal, tuple(self.told))

    def _add(self, column: str, check: Any) -> None:
        if check not in self.checks.setdefault(column, []):
            self.checks[column].append(check)

    def _property(self, one: Mapping[str, Any]) -> None:
        name = str(one.get("name"))
        kind = one.get("logicalType")
        if kind in _TYPES:
            self.columns[name] = _TYPES[kind]
        elif kind is not None and kind != "array":
            self.told.append(f"{name}: the logical type {kind!r} has no type here; its cells are read as they come.")
        if one.get("primaryKey"):
            position = one.get("primaryKeyPosition")
            self.keys.append((position if isinstance(position, int) and position > 0 else len(self.keys) + 1, name))
        if one.get("required"):
            self._add(name, "present")
        if one.get("unique"):
            self._add(name, "unique")
        if kind != "array":
            self._options(name, dict(one.get("logicalTypeOptions") or {}), kind)
        elif (one.get("logicalTypeOptions") or {}).get("minItems") != (one.get("logicalTypeOptions") or {}).get("maxItems"):
            self.told.append(f"{name}: lists of different lengths cannot be held.")
        self._classified(name, one)
        for rule in one.get("quality") or ():
            self._quality(name, rule)
        for other in one.get("relationships") or ():
            self.told.append(f"{name}: refers to {other.get('to')}: say where that is, `{name}: {{refers: {{file: ..., column: ...}}}}`.")

    def _classified(self, name: str, one: Mapping[str, Any]) -> None:
        ours = [p.get("value") for p in one.get("customProperties") or () if p.get("property") == f"{ENGINE}.personal"]
        if ours:
            self.personal[name] = ours[0]
        elif str(one.get("classification", "")).lower() in _PERSONAL:
            self.personal[name] = "mask"
            self.told.append(f"{name} is classified as {one['classification']}: masked; choose `drop` or `pseudonym` if that fits better.")

    def _options(self, name: str, options: dict[str, Any], kind: Any) -> None:
        low, high, above, below = (options.pop(n, None) for n in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
        if kind == "integer":  # the next whole number is the bound
            if isinstance(above, int) and above != 0:
                low, above = above + 1, None
            if isinstance(below, int):
                high, below = below - 1, None
        if low is not None and high is not None:
            self._add(name, {"between": [low, high]})
        elif low is not None or high is not None:
            self._add(name, {"at_least": low} if low is not None else {"at_most": high})
        if above == 0 and kind in ("integer", "number"):
            self._add(name, "positive")
        elif above is not None:
            self.told.append(f"{name}: above {above} (the bound itself not allowed) cannot be said here.")
        if below is not None:
            self.told.append(f"{name}: below {below} (the bound itself not allowed) cannot be said here.")
        if "pattern" in options:
            self._pattern(name, str(options.pop("pattern")))
        fewest, most = options.pop("minLength", None), options.pop("maxLength", None)
        if fewest is not None or most is not None:
            if any(isinstance(c, dict) and "matches" in c for c in self.checks.get(name, ())):
                self.told.append(f"{name}: a length beside a pattern cannot be said here: put it into the pattern.")
            else:
                self._add(name, {"matches": f"(?s).{{{fewest or 0},{'' if most is None else most}}}"})
        for option, value in options.items():
            if (option, value) not in (("timezone", False), ("defaultTimezone", "Etc/UTC")) and not (option == "format" and kind in ("integer", "number")):
                self.told.append(f"{name}: `{option}: {value}` cannot be said here.")

    def _pattern(self, name: str, pattern: str) -> None:
        """The standard's patterns are searched for, ours fit the whole cell."""
        whole = re.fullmatch(r"\^\(\?:(.*)\)\$", pattern, re.DOTALL)
        if whole is not None:
            pattern = whole[1]
        elif pattern.startswith("^") and pattern.endswith("$") and "|" not in pattern:
            pattern = pattern[1:-1]
        else:
            pattern = f"(?s).*(?:{pattern}).*"
        self._add(name, {"matches": pattern})

    def _quality(self, name: str, rule: Mapping[str, Any]) -> None:
        """A rule of a column."""
        if rule.get("type") == "custom" and rule.get("engine") == ENGINE and isinstance(rule.get("implementation"), Mapping):
            for check, settings in rule["implementation"].items():
                self._add(name, check if settings is True else {check: settings})
            return
        none_allowed = rule.get("mustBe") == 0
        arguments = rule.get("arguments") or {}
        metric = rule.get("metric") or rule.get("rule")
        usual = not set(map(str, arguments.get("missingValues") or ())) - _MISSING_WORDS
        if none_allowed and (metric in ("nullValues", "nullCheck") or (metric == "missingValues" and usual)):
            self._add(name, "present")
        elif metric in ("duplicateValues", "duplicateCount") and none_allowed:
            self._add(name, "unique")
        elif metric == "invalidValues" and none_allowed and arguments.get("validValues"):
            self._add(name, {"one_of": list(arguments["validValues"])})
        elif metric == "invalidValues" and none_allowed and arguments.get("pattern"):
            self._pattern(name, str(arguments["pattern"]))
        else:
            self.told.append(f"{name}: {_words(rule)}")

    def _table_quality(self, key: tuple[str, ...]) -> tuple[str, ...]:
        for rule in self._table.get("quality") or ():
            metric, columns = rule.get("metric") or rule.get("rule"), (rule.get("arguments") or {}).get("properties") or ()
            bounds = _bounds(rule)
            if rule.get("type") == "custom" and rule.get("engine") == ENGINE:
                self._quality(EVERY, rule)
            elif metric == "rowCount" and bounds:
                self._add(EVERY, {"rows": bounds})
            elif metric == "duplicateValues" and rule.get("mustBe") == 0 and columns and (not key or tuple(columns) == key):
                key = tuple(map(str, columns))
            else:
                self.told.append(f"the table: {_words(rule)}")
        return key

    def _sla(self, one: Mapping[str, Any]) -> None:
        table, _, column = str(one.get("element", "")).rpartition(".")
        scale, value = _SECONDS.get(str(one.get("unit", "s")).lower()), one.get("value")
        timely = one.get("property") in ("latency", "freshness", "ly") and table in ("", self._name) and column in self.columns
        if timely and scale is not None and isinstance(value, int | float):
            self._add(column, {"fresh": f"{value * scale:g}s"})
        elif table in ("", self._name):
            self.told.append(
                f"the service level {one.get('property')!r} ({one.get('value')} {one.get('unit') or ''}) cannot be checked here.".replace(" )", ")")
            )


def _bounds(rule: Mapping[str, Any]) -> dict[str, int]:
    """What a rule allows, as whole numbers; empty where it says something else."""
    if rule.get("unit") not in (None, "rows"):
        return {}
    if isinstance(rule.get("mustBeBetween"), list | tuple):
        return {"min": int(rule["mustBeBetween"][0]), "max": int(rule["mustBeBetween"][1])}
    ways = {"mustBeGreaterOrEqualTo": ("min", 0), "mustBeGreaterThan": ("min", 1), "mustBeLessOrEqualTo": ("max", 0), "mustBeLessThan": ("max", -1)}
    found = {side: int(rule[word]) + shift for word, (side, shift) in ways.items() if word in rule}
    return {"min": int(rule["mustBe"]), "max": int(rule["mustBe"])} if "mustBe" in rule else found


def _words(rule: Mapping[str, Any]) -> str:
    """A rule that has no check here, in a few words."""
    kind = rule.get("type", "library")
    what = rule.get("description") or rule.get("query") or rule.get("metric") or rule.get("rule") or rule.get("implementation") or rule
    return f"a quality rule of type {kind} cannot be checked here: {' '.join(str(what).split())[:160]}"


def as_plain(value: Any) -> Any:
    """Moments as ISO 8601, tuples as lists: what YAML should show."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {k: as_plain(v) for k, v in value.items()}
    return [as_plain(v) for v in value] if isinstance(value, list | tuple) else value
