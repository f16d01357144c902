"""The features a model.yaml asks for, named or inferred."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import DataError, SpecError
from modelinscale.core.schema import Schema
from modelinscale.core.task import words_of
from modelinscale.pipeline._roles import Roles, choose

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.data.infer import Profile
    from modelinscale.spec import ModelSpec


def overlapping(spec: ModelSpec) -> list[str]:
    """What is to be said where windows of one series are split by chance. Raises `SpecError` where nobody asked for it."""
    data = spec.data
    source: Any = data.source
    while hasattr(source, "main"):
        source = source.main
    kind = data.split.resolved(data.time)
    if source.type != "sequences" or not getattr(source, "history", None) or data.time or kind not in ("hash", "random"):
        return []
    message = f"windows overlap, and a split by {kind} puts neighbours on both sides: the test knows most of what it asks."
    fix = f"Write `time: {source.order_by}` (and `label_delay`, where that holds moments) under `data`."
    if data.split.type == "auto":
        raise SpecError(message, fix=f"{fix} To split by hash all the same: `split: {{type: hash}}`.")
    return [f"{message} {fix}"]


def resolve(spec: ModelSpec, schema: Schema, frame: pl.DataFrame, profiles: Mapping[str, Profile]) -> Roles:
    """Which columns are features, checked against their types. Raises `SpecError` for a feature that cannot read its column, all at once."""
    if spec.features:
        wrong = [
            f"features.{name}: {feature.type} cannot read a column of type {schema[name].type}."
            for name, feature in spec.features.items()
            if not feature.suits(schema[name])
        ]
        if wrong:
            raise SpecError("features do not fit their columns:\n  " + "\n  ".join(wrong), fix="See `mis kinds features`, or leave `features` out.")
        return Roles(dict(spec.features), {n: "not named in `features`" for n in schema.names if n not in spec.features and n not in spec.targets})
    from modelinscale.data.leaks import suspects

    taken = dict.fromkeys(spec.targets, "")
    taken |= dict.fromkeys(spec.data.key, "names the row (`data.key`)")
    taken |= dict.fromkeys(spec.data.leave_out, "in `data.leave_out`")
    taken |= {name: "a pseudonym names one person (`data.personal`)" for name, rule in spec.data.personal.items() if rule.type == "pseudonym"}
    if spec.data.split.column:
        taken[spec.data.split.column] = "says which part a row belongs to"
    taken |= dict.fromkeys(spec.data.split.group, "the group of the split")
    if spec.train.weight:
        taken[spec.train.weight] = "the row weight"
    found: dict[str, str] = {}
    for target in spec.targets:
        alone = frame.drop([other for other in spec.targets if other != target])
        found |= {k: v for k, v in suspects(alone, target, schema).items() if k not in taken}
    roles = choose(schema, profiles, taken, found)
    if not roles.features:
        reasons = "; ".join(f"{c}: {why}" for c, why in roles.left_out.items())
        raise DataError(f"no column is left to predict {words_of(spec.target)!r} from ({reasons}).", fix="Name columns under `features`.")
    return roles
