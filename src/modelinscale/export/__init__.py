"""Export: one graph from raw columns to the decision, proved to answer as the training code does before anything is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelinscale.core.clock import now
from modelinscale.core.decision import Decision
from modelinscale.core.personal import Treated
from modelinscale.core.schema import Schema
from modelinscale.core.settings import Settings
from modelinscale.core.task import Task
from modelinscale.features import Feature, State
from modelinscale.models import Model, Scores, Weights

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.export._card import Story
    from modelinscale.package import Lineage, Manifest

Progress = Callable[[float, str], None]
"""Called with the share done (0 to 1) and a few words."""

BOUNDS = {"mlp": 1e-4, "network": 1e-4, "ensemble": 1e-4}
"""Largest difference of a probability allowed by family, where `Export.bound` does not say: float32 sums of a network round more than `BOUND`."""
BOUND = 1e-5


class Export(Settings):
    """What a package must prove before it is written, and what it carries."""

    bound: float | None = Field(None, gt=0, le=0.01)
    """Largest difference allowed between the graph's and the training code's probabilities (of numbers: relative to their size).
    Left out: 1e-5 for linear and trees, 1e-4 for mlp, network and ensemble. Decisions must be the same on every row, whatever the bound."""
    golden_rows: int = Field(20, ge=1, le=1000)
    """Rows kept in the package with their answers, replayed whenever it is opened."""
    odd_rows: int = Field(1500, ge=0)
    """Most rows tried with odd values: missing, empty, unseen, extreme. Every odd value of every feature is tried at least once."""
    edge_rows: int = Field(6000, ge=0)
    """Most rows tried exactly on and one float32 step either side of tree thresholds. Every threshold is tried at least once."""


@dataclass(frozen=True)
class Parts:
    """What becomes one graph. ``features`` and ``states`` have the same keys: names of columns."""

    features: Mapping[str, Feature]
    states: dict[str, State]
    model: Model
    weights: Weights
    task: Task
    decision: Decision


@dataclass(frozen=True)
class Proving:
    """Rows on which graph and training code are compared, N of them: the validation rows."""

    frame: "pl.DataFrame"
    """(N,) rows of the table, with at least the columns of the features."""
    scores: Scores | None = None
    """(N,) or (N, C): what `Model.predict` gave for these rows, where it is known already. None: computed."""


@dataclass(frozen=True)
class Named:
    """What the package is called and where it comes from."""

    name: str
    identity: str
    lineage: "Lineage"
    created: datetime = field(default_factory=now)


def export(
    folder: Path,
    parts: Parts,
    proving: Proving,
    named: Named,
    *,
    schema: Schema,
    story: "Story",
    clean: Mapping[str, Mapping[str, Any]] | None = None,
    personal: Mapping[str, Treated] | None = None,
    settings: Export | None = None,
    progress: Progress = lambda share, note: None,
) -> "Manifest":
    """Draws the graph, proves it, writes the package folder (whole or not at all; it must not exist yet) and returns its manifest.

    ``schema`` is the table's; ``clean`` says for cleaned columns how their cells come and what is done to them,
    ``personal`` what is done to personal ones after that.
    Raises `ExportError` showing the worst row when the graph decides otherwise than the training code on any row tried
    or its probabilities differ by more than the bound; nothing is written then. Where validation rows lie on the border of the decision, the border is
    moved by a hair first (see `_settle`), so the package's threshold may differ from the one given in its sixth digit.
    """
    from modelinscale.core.files import new_folder
    from modelinscale.export import _golden, _write
    from modelinscale.export._draw import draw
    from modelinscale.export._parity import Proof, answerable, scores_of
    from modelinscale.export._settle import settled
    from modelinscale.export.proto import to_bytes
    from modelinscale.package import Package, start

    settings = settings or Export()
    bound = settings.bound or BOUNDS.get(parts.model.type, BOUND)
    progress(0.0, "drawing the graph")
    proving = answerable(parts, proving)
    scores = scores_of(parts, proving)
    parts = replace(parts, decision=settled(parts.decision, scores, parts.task, bound / 10))
    model = to_bytes(draw(parts), name=named.name, metadata={"identity": named.identity})
    manifest = _write.manifest(parts, named, schema, clean or {}, personal or {})
    package = Package(manifest, start(model, n_threads=0), tokenizers=_write.tokenizers(parts))
    proof = Proof(package, parts, bound)
    progress(0.2, f"comparing {len(proving.frame):,} rows")
    truth = proof.rows(proving.frame, scores)
    progress(0.6, "odd values and thresholds")
    proof.odd(settings.odd_rows)
    proof.edges(settings.edge_rows)
    golden = _golden.choose(package, parts, proving.frame, truth, settings.golden_rows, bound, schema)
    manifest = manifest.but(parity=proof.report(), **_write.measured(story))
    progress(0.9, "writing")
    with new_folder(folder) as side:
        manifest = _write.write(side, manifest, parts, model, golden, _write.reference(parts, truth), story)
    progress(1.0, f"{proof.report().largest_difference:.1e} off at most")
    return manifest


def __getattr__(name: str) -> Any:
    if name == "Story":  # kept out of the way: model.yaml is read without it
        from modelinscale.export._card import Story

        return Story
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Export", "Named", "Parts", "Proving", "Story", "export"]
