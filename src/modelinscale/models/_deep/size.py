"""How many bytes a network holds: of one row in its graph."""

from modelinscale.models import Weights
from modelinscale.models._deep.earlier import current


def row_bytes(weights: Weights) -> int:
    """About how many bytes the graph holds of one row at once, beyond the encoded blocks: what each encoder gives, and two layers of every member."""
    meta, arrays = current(weights).meta, current(weights).arrays
    through = 3 * sum(len(port["settings"]["binned"]) * port["settings"]["n_bins"] for port in meta["ports"] if port["kind"] == "dense")
    n_inputs = arrays["signs"].shape[-1]  # numbers by bin: what is over the border, its share, that within 0 and 1
    return int(4 * (through + 2 * n_inputs + meta["shape"]["members"] * (n_inputs + 2 * meta["shape"]["width"])))
