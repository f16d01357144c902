"""The files of a package, put together."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelinscale import __version__
from modelinscale.core.elsewhere import unplaced
from modelinscale.core.encoded import forms_of
from modelinscale.core.files import write_bytes
from modelinscale.core.personal import Treated
from modelinscale.core.schema import Column, Schema
from modelinscale.core.tokenizer import Tokenizer
from modelinscale.export import _card
from modelinscale.features import form_of
from modelinscale.package import InputColumn, Manifest
from modelinscale.package.manifest import FILES, FileFacts, Origin, Tokens

if TYPE_CHECKING:
    from modelinscale.export import Named, Parts
    from modelinscale.export._card import Story
    from modelinscale.export._parity import Truth

REFERENCE_FORMAT = 1
_QUANTILES = np.linspace(0, 1, 21)


Clean = Mapping[str, Mapping[str, Any]]
"""Column -> ``raw``, how its cells come, and ``steps``, what is done to them."""


def manifest(parts: "Parts", named: "Named", schema: Schema, clean: Clean, personal: Mapping[str, Treated]) -> Manifest:
    """The manifest as far as it is known before the files are."""
    return Manifest(
        name=named.name,
        identity=named.identity,
        created=named.created.isoformat(timespec="seconds"),
        family=parts.model.type,
        task=parts.task,
        inputs=tuple(_input(parts, schema, name, clean, personal.get(name)) for name in parts.features),
        ignored=tuple(name for name in dict.fromkeys([*schema.names, *personal]) if name not in parts.features),
        row_bytes=_row_bytes(parts),
        lineage=named.lineage,
        origins=tuple(Origin.model_validate(one) for one in parts.model.origins(parts.weights)),
    )


def tokenizers(parts: "Parts") -> dict[str, Tokenizer]:
    """What the host cuts texts with, by column."""
    forms, states = forms_of(parts.model.form), parts.states
    found = ((name, feature.hosted(states[name], form_of(feature, one))) for one in forms for name, feature in parts.features.items())
    return {name: one for name, one in found if one is not None}


def _row_bytes(parts: "Parts") -> int:
    """Encoded values of one row: float32, up to three copies at a time where words are counted, two elsewhere; and what the model adds."""
    from modelinscale.encode import layouts

    found = layouts(parts.features, parts.states, parts.model.form).values()
    return parts.model.row_bytes(parts.weights) + sum(
        8 if layout.role == "ids" else layout.width * 12 if layout.role == "sparse" else 8 * math.prod(layout.shape or (layout.width,)) for layout in found
    )


def _input(parts: "Parts", schema: Schema, name: str, clean: "Clean", personal: Treated | None) -> InputColumn:
    column, cleaned = schema[name], clean.get(name, {})
    raw = Column.model_validate(cleaned["raw"]) if cleaned else None
    cutter = tokenizers(parts).get(name)
    return InputColumn(
        column=column,
        input=parts.features[name].input,
        required=not column.nullable or _never_missing(parts, name),
        raw=None if raw == (personal.before if personal else column) else raw,
        clean=tuple(cleaned.get("steps", ())),
        personal=personal,
        tokens=None if cutter is None or cutter.longest is None else Tokens(sha256=cutter.sha256, longest=cutter.longest),
    )


def _never_missing(parts: "Parts", name: str) -> bool:
    """An image has to be there unless training rows lacked some: a network has an answer to anything, and says it as surely as any other."""
    state = parts.states[name]
    return parts.features[name].input == "image" and not (state["missing"] or state["broken"])


def measured(story: "Story") -> dict[str, Any]:
    """What the manifest repeats of the evaluation."""
    found = story.evaluation
    return {"main": found.get("main", ""), "metrics": found.get("metrics", {})}


def reference(parts: "Parts", truth: "Truth") -> dict[str, Any]:
    """What training saw, for later comparison: the features' states, and how the answers to the validation rows were spread."""
    from modelinscale.encode import settle_all

    states = settle_all(parts.features, parts.states)
    answers: dict[str, Any] = {"n_rows": len(truth)}
    if len(truth) and truth.probability is None:
        answers |= {"quantiles": np.quantile(truth.decision, _QUANTILES, axis=0).T.tolist()}
    elif len(truth):
        assert truth.probability is not None
        answers |= {
            "decided": truth.decision.sum(0).tolist()
            if truth.decision.ndim == 2
            else np.bincount(truth.decision.astype(np.int64), minlength=len(parts.task.labels)).tolist(),
            "quantiles": np.quantile(truth.probability, _QUANTILES, axis=0).T.tolist(),
        }
    return {
        "format": REFERENCE_FORMAT,
        "features": {name: {"settings": unplaced(feature.plain()), "state": states[name]} for name, feature in parts.features.items()},
        "answers": answers,
    }


def write(folder: Path, found: Manifest, parts: "Parts", model: bytes, golden: dict[str, Any], reference: dict[str, Any], story: "Story") -> Manifest:
    """Fills the folder; returns the manifest with the facts of its files."""
    from modelinscale.encode import layouts

    importance = parts.model.importance(parts.weights, layouts(parts.features, parts.states, parts.model.form))
    inside = _card.Inside(parts.decision, importance, len(model))
    contents = {
        "model.onnx": model,
        "golden.json": _json(golden),
        "reference.json": _json(reference),
        "card.md": _card.card(found, story, inside).encode(),
    }
    assert set(contents) == set(FILES)
    for name, content in contents.items():
        write_bytes(folder / name, content)
    facts = {name: FileFacts(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)) for name, content in contents.items()}
    found = found.but(files=facts, made_by=f"modelinscale {__version__}")
    found.write(folder)
    return found


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode("utf-8", "surrogatepass")
