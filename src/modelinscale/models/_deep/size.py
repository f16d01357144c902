"""How many bytes a network holds: of a step of training before it is taken, and of one row in its graph; and pieces that a step fits into memory in.

B rows of a batch.
"""

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from modelinscale.core.encoded import Encoded, Layout, Sparse, Values
from modelinscale.core.errors import ModelError, UsageError
from modelinscale.core.units import show_bytes
from modelinscale.models import Effort, Examples, Weights
from modelinscale.models._deep.along import looks
from modelinscale.models._deep.earlier import current
from modelinscale.models._deep.held import is_too_old, together_bytes
from modelinscale.models._deep.net import Net
from modelinscale.models._deep.plan import Recipe
from modelinscale.models._torch import torch

_COPIES = 8
"""Of the weights: as they are now, their average, the best, the gradient, both moments, and what a checkpoint copies."""
_MOVED = _COPIES - 1
"""Of these, those of which several processes may hold a part each (`held.Shards`); nothing is copied there for a checkpoint."""
_BESIDE = 1.5
"""Times what is kept for the gradients of a row, with what passes. With `_PASSING`, what is said is 0.9 (recurrent, 128 rows of 100 steps) to 2.2 times
(8 images of 224 x 224) what was held."""
_TOGETHER = 4
"""Copies of what comes together of weights that lie in parts: as it came, as it is used, and the same of its gradient."""
_PASSING = 40 << 20
"""Rows on their way, and what torch and its allocator hold besides."""
_SHARE = 0.85
"""Of the memory there is; the rest is for what is read."""
_FEWEST_ROWS = 2
"""A piece of fewer rows has nothing to normalise over."""


def shards(recipe: Recipe, net: Net, train: Examples, effort: Effort, world: int) -> bool:
    """Whether each of ``world`` processes is to hold a part of every weight: as the user says, or where a step with all of them does not fit.

    Raises `UsageError` where the user says so and PyTorch is too old for it; without that it is told, and they hold all.
    """
    if world == 1 or effort.strategy == "data_parallel" or (effort.strategy == "auto" and effort.memory is None):
        return False
    old = is_too_old(torch.__version__)
    if effort.strategy == "fully_sharded":
        if old:
            raise UsageError(
                f"`train.strategy: fully_sharded` needs PyTorch 2.8 or newer, and {torch.__version__} is installed.",
                fix="pip install 'torch>=2.8', or set `train.strategy: data_parallel`.",
            )
        return True
    (fixed, row), rows = measured(net, train), -(-recipe.batch_rows // world)
    there = _left(effort, train)
    if fixed + rows * row <= there:
        return False
    needs = f"a step needs about {show_bytes(fixed + rows * row)} in each process that holds all weights, and {show_bytes(max(there, 0))} are left for it"
    if old:
        effort.tell(f"{needs}. With PyTorch 2.8 or newer each of {world} could hold a part of them; {torch.__version__} is installed.")
        return False
    effort.tell(f"{needs}: each of {world} holds a part of them (`train.strategy: fully_sharded`).")
    return True


def fitting(recipe: Recipe, net: Net, train: Examples, effort: Effort, world: int, *, parts: int = 1) -> Recipe:
    """The recipe with as many pieces a step as bring it within ``effort.memory``, which the user is told; as it is where there is no limit.

    ``parts``: in how many the weights lie. What a row takes is measured by going through the network with two and four of them. Raises `ModelError` where
    not even pieces of two rows fit.
    """
    if effort.memory is None or len(train) < 2 * _FEWEST_ROWS:
        return recipe
    fixed, row = measured(net, train, parts)
    there = _left(effort, train)
    rows, fits = -(-recipe.batch_rows // world), int((there - fixed) / max(row, 1.0))
    pieces = -(-rows // max(fits, 1))
    if pieces <= recipe.accumulate:
        return recipe
    needs = f"a step of {rows:,} rows needs about {show_bytes(fixed + rows * row)}, of that {show_bytes(row)} a row"
    if fits < _FEWEST_ROWS or world > 1:
        raise ModelError(
            f"{needs}; {show_bytes(max(there, 0))} are left for it.",
            fix=f"Lower `batch_rows` or the size of the network, or raise `compute.memory`{' or `train.workers`' if world > 1 else ''}.",
        )
    effort.tell(f"{needs}: within `compute.memory` each goes through the network in {pieces} pieces.")
    return replace(recipe, accumulate=pieces)


def _left(effort: Effort, train: Examples) -> float:
    """Bytes that a step may take."""
    return (effort.memory or 0) * _SHARE - (len(train) * train.encoded_bytes if train.held else 0)


def measured(net: Net, train: Examples, parts: int = 1) -> tuple[float, float]:
    """Bytes of training: whatever the batch, and for each row of it. ``parts``: in how many the weights lie, which are whole at the beginning all the same."""
    few, more = (_kept(net, train.layouts, n) for n in (_FEWEST_ROWS, 2 * _FEWEST_ROWS))
    weights = sum(value.numel() * value.element_size() for value in net.state_dict().values())
    copies = _COPIES * weights if parts == 1 else max((1 + 2 / parts) * weights, _MOVED * weights / parts + _TOGETHER * together_bytes(net))
    return float(_PASSING + copies), _BESIDE * max(0.0, more - few) / _FEWEST_ROWS + train.encoded_bytes


def _kept(net: Net, layouts: dict[str, Layout], n_rows: int) -> int:
    """Bytes that are kept for the gradients of so many rows, sequences as long as they may be."""
    copied = copy.deepcopy(net, {id(p): p for p in net.parameters()}).train()  # its own buffers: what it knows of batches stays as it is
    own = {value.untyped_storage().data_ptr() for value in (*copied.parameters(), *copied.buffers())}
    kept: dict[int, int] = {}

    def keep(value: Any) -> Any:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    batch = copied.batch(_full(layouts, n_rows))
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        found = copied(batch).sum()  # holds what was kept, so that no place is counted twice
    del found
    return sum(kept.values())


def _full(layouts: dict[str, Layout], n: int) -> Encoded:
    """So many rows without a gap."""
    blocks: dict[str, Values] = {}
    for name, layout in layouts.items():
        if layout.role == "sparse":
            blocks[name] = Sparse(np.arange(n + 1), np.zeros(n, np.int32), np.ones(n, np.float32), layout.width)
        elif layout.role in ("ids", "tokens"):
            blocks[name] = np.ones((n, *layout.shape), np.int32)
        else:
            zeros = np.zeros((n, *(layout.shape or (layout.width,))), np.float32)
            blocks[name] = zeros.astype(np.uint8) if layout.role == "image" else zeros
    return Encoded(layouts, blocks)


def _row_numbers(port: dict[str, Any]) -> int:
    """What an encoder along steps holds of a row while each step looks at all others, and one learned elsewhere."""
    settings, T = port["settings"], (port["shape"] or [0])[0]
    if settings.get("encoder") == "transformer":
        return looks(T, settings["units"])
    return int(settings.get("row_numbers", 0))


def row_bytes(weights: Weights) -> int:
    """About how many bytes the graph holds of one row at once, beyond the encoded blocks: what each encoder gives, and two layers of every member."""
    meta, arrays = current(weights).meta, current(weights).arrays
    dense = [port["settings"] for port in meta["ports"] if port["kind"] == "dense"]
    through = 3 * sum(len(one["binned"]) * one["n_bins"] + len(one.get("waved", ())) * one.get("n_waves", 0) for one in dense)
    through += sum(_row_numbers(port) for port in meta["ports"])
    n_inputs = arrays["signs"].shape[-1]  # numbers by bin: what is over the border, its share, that within 0 and 1
    return int(4 * (through + 2 * n_inputs + meta["shape"]["members"] * (n_inputs + 2 * meta["shape"]["width"])))
