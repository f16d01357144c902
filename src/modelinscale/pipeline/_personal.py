"""Columns that look personal, told by their cells or their names, and what could be done to them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelinscale.core.personal import Rule, Treated
from modelinscale.core.schema import NESTED

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.core.schema import Schema
    from modelinscale.pipeline._place import Place

LOOKED_AT = 20_000
"""Present cells of a column that are looked at."""
SURE_SHARE = 0.5
"""From this share of cells that are personal by their look, the column is."""
_WORDS = {
    "email": "e-mail addresses",
    "iban": "bank accounts",
    "card": "card numbers",
    "national": "national numbers",
    "phone": "telephone numbers",
    "ip": "network addresses",
    "name": "names of persons",
    "birth": "dates of birth",
    "address": "addresses",
}
_RULES = {kind: Rule(type="mask") for kind in ("email", "iban", "card", "ip", "birth")}
"""What keeps a use: the domain, four digits, the network, the year. Anything else is dropped. Pseudonyms need a key, which only a person can make."""
_BELIEVED = {"birth": ("string", "time", "int"), "card": ("string", "int"), "national": ("string", "int"), "phone": ("string", "int")}
"""The types of column whose name is believed; other names only those of text."""


@dataclass(frozen=True)
class Finding:
    """A column that looks personal."""

    column: str
    words: str
    """What it seems to hold."""
    rule: Rule
    """What could be done to it."""
    sure: bool
    """Whether its cells say so; otherwise only its name does."""


def look_personal(frame: pl.DataFrame, schema: Schema, known: Collection[str]) -> list[Finding]:
    """Every column, except the ``known`` ones, that looks personal. No value of a row is kept."""
    from modelinscale.data._personal import column_hint, detect

    found = []
    for column in schema.columns:
        if column.name in known or column.type in ("bool", *NESTED):
            continue
        hint, kind, share = column_hint(column.name), None, 0.0
        if column.type in ("string", "int"):
            present = frame[column.name].drop_nulls().head(LOOKED_AT)
            kinds = detect(present, hint).drop_nulls()
            if len(present) and len(kinds) >= SURE_SHARE * len(present):
                kind, share = str(kinds.mode().sort()[0]), len(kinds) / len(present)
        if kind is None and column.type not in _BELIEVED.get(hint or "", ("string",)):
            continue
        kind = kind or hint
        if kind is None:
            continue
        rule = _RULES.get(kind, Rule(type="drop"))
        rule = Rule(type="drop") if rule.objection(column) else rule
        found.append(Finding(column.name, _WORDS[kind], rule, share > 0))
    return found


def treated_of(place: Place, table: str) -> dict[str, Treated]:
    """What the package of a model on this table must do to personal columns of the rows it is asked about."""
    from modelinscale.core.secrets import anchored
    from modelinscale.data.lake import open_table
    from modelinscale.data.privacy import Privacy
    from modelinscale.data.treatment import treated_schema
    from modelinscale.pipeline._collect import treatments_of

    data = place.spec.data
    if not data.personal:
        return {}
    *before, privacy = treatments_of(place)
    assert isinstance(privacy, Privacy), "privacy comes last"
    schema = treated_schema(open_table(place.store.uri("lake", table)).read_schema, before)
    key = {"key": anchored(data.pseudonym_key, place.base), "key_id": privacy.keys.id} if privacy.keys else {}
    return {name: Treated(rule=rule, before=schema[name], **(key if rule.type == "pseudonym" else {})) for name, rule in data.personal.items()}


def told(one: Finding) -> str:
    """What `mis init` says of it."""
    if one.sure:
        return f"{one.column!r} holds {one.words}: {one.rule.type} in `data.personal`, before anything is stored."
    return f"{one.column!r} may hold {one.words} by its name: see `personal` in the file."
