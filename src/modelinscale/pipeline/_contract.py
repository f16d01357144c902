"""The project's contract as other tools read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelinscale.pipeline._place import Place

if TYPE_CHECKING:
    from modelinscale.data.odcs import Exported
    from modelinscale.spec import ModelSpec


def export_contract(spec: ModelSpec, base: Path) -> Exported:
    """The contract of the table that `mis collect` fills, with the columns it has or would have. Changes nothing."""
    from modelinscale.data.odcs import export
    from modelinscale.pipeline._collect import job

    found = job(Place.of(spec, base))
    personal = {name: {k: v for k, v in rule.plain().items() if v is not None} for name, rule in spec.data.personal.items()}
    return export(spec.name, found.schema, spec.data.checks, spec.data.key, personal)
