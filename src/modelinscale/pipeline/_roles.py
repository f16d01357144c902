"""Which columns become which features, and which are left out and why: decided from types and profiles, pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelinscale.core.schema import Column, Schema
from modelinscale.features import Feature

if TYPE_CHECKING:
    from modelinscale.data.infer import Profile

TEXT_WORDS = 3.0
"""Text columns with more words than this on average are read as text, whatever their number of distinct values."""
OWN_VALUE_SHARE = 0.9
"""A text column in which more than this share of the rows have a value of their own names the rows rather than describes them."""
OWN_VALUE_ROWS = 50
"""Below this many rows nothing is said about identifiers."""


@dataclass(frozen=True)
class Roles:
    """What becomes of the columns that are neither target nor helper."""

    features: dict[str, Feature]
    left_out: dict[str, str]
    """Column → why."""


def choose(schema: Schema, profiles: Mapping[str, Profile], taken: Mapping[str, str], suspects: Mapping[str, str]) -> Roles:
    """A feature for each useful column.

    ``taken``: columns with another use (target, key, split column) → what it is; ``suspects``: columns that must not be seen → why.
    """
    features: dict[str, Feature] = {}
    left_out: dict[str, str] = {}
    for column in schema.columns:
        if column.name in taken:
            if taken[column.name]:
                left_out[column.name] = taken[column.name]
            continue
        why = suspects.get(column.name) or _useless(column, profiles[column.name])
        if why:
            left_out[column.name] = why
        else:
            features[column.name] = Feature.parse(_type(column, profiles[column.name]))
    return Roles(features, left_out)


def _useless(column: Column, profile: Profile) -> str:
    n_present = profile.n_rows - profile.n_missing
    if not n_present:
        return "no row has a value"
    if profile.n_distinct <= 1 and not profile.n_missing:
        return "every row has the same value"
    names_rows = column.type == "string" and profile.mean_words <= TEXT_WORDS and n_present >= OWN_VALUE_ROWS
    if names_rows and profile.n_distinct > OWN_VALUE_SHARE * n_present:
        return "almost every row has a value of its own (an identifier?)"
    return ""


def _type(column: Column, profile: Profile) -> str:
    if column.type == "string":
        return "text" if profile.mean_words > TEXT_WORDS else "category"
    return {"int": "number", "float": "number", "bool": "flag", "time": "moment", "vector": "vector", "sequence": "sequence", "binary": "image"}[column.type]
