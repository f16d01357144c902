"""What the steps of a run will hold in memory, told before any of them begins: from the size of the table, before a row of it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelinscale.core import memory
from modelinscale.core.memory import Need
from modelinscale.core.units import show_bytes

if TYPE_CHECKING:
    from modelinscale.pipeline._place import Facts, Place
    from modelinscale.spec import ModelSpec

TORCH_BYTES = 100 << 20
"""What the process holds beyond `memory.BASE_BYTES` once torch is loaded. Measured: 335 MiB in all after collect and prepare; torch alone 125."""
_FEED_BYTES = 40 << 20
"""Rows on their way to a network: a chunk of them from the disk, batches."""
_COLLECT_BYTES = 16 << 20
"""Chunks between reading and writing, and two commits, at their smallest; much of what every process holds is not there yet."""
_STATE_BYTES = 1 << 19
"""What is learned of a column, usually: bins of numbers, a few thousand words."""
_LEARN_BYTES, _JUDGE_BYTES = 100 << 20, 8 << 20
"""The least that a family learns with, and that answers are judged with."""
_COPIES = 8
"""Of its weights, what a step of a network holds."""
_USUAL_STEPS = 32
"""Of a sequence or text whose length only the rows can tell."""
_WORKER_BYTES = 64 << 20
"""What a process that does trials holds beside rows, torch and what is learned with. Measured after a trial of 540 rows: 43 MiB, with torch 161."""
_HELD_ROWS = 3
"""What it holds of encoded rows, in sizes of them: as read, as the family wants them, a share of them."""
_FEWER = "Name fewer columns under `features`, or lower `compute.workers`."


@dataclass(frozen=True)
class Size:
    """How large a table is."""

    n_rows: int
    n_columns: int
    row_bytes: float
    """Of a row in memory, on average, from a few looks."""


def size_of(place: Place, collected: Facts) -> Size:
    """The size of the table that was collected; reads a few thousand rows of it."""
    from modelinscale.data.lake import open_table
    from modelinscale.data.partitions import measured

    table = open_table(place.store.uri("lake", collected["table"]), collected["version"])
    wanted = [name for name in table.schema.names if not place.spec.features or name in place.spec.needed]
    return Size(table.n_rows, len(wanted), measured(table, wanted))


def learns(spec: ModelSpec, *families: str) -> bool:
    """Whether one of these families may be among those that are trained."""
    members = getattr(spec.model, "members", ())  # an ensemble's; of a network how many
    found = {getattr(one, "type", "") for one in (spec.model, *(members if isinstance(members, tuple) else ()))}
    found |= set(spec.tune.families if spec.tune is not None else ())
    return spec.model == "auto" or not found.isdisjoint(families)


def libraries(spec: ModelSpec) -> int:
    """Bytes that the families' own libraries hold from training on, beyond what every process holds."""
    return TORCH_BYTES if learns(spec, "mlp", "network") else 0


def _step_bytes(spec: ModelSpec, n_columns: int) -> int:
    """The least that a step of a network's training holds; 0 where none is trained. Of images and sequences those count that the file names."""
    from modelinscale.features.image import Image
    from modelinscale.features.sequence import Sequence
    from modelinscale.features.text import Text
    from modelinscale.models.mlp import Mlp
    from modelinscale.models.network import Network

    found = [0]
    if learns(spec, "mlp"):
        found.append((spec.model if isinstance(spec.model, Mlp) else Mlp()).step_bytes(n_columns))
    if learns(spec, "network"):
        named = spec.features.values()
        sides = [one.size for one in named if isinstance(one, Image)]
        lengths = [one.longest or _USUAL_STEPS for one in named if isinstance(one, Sequence) or (isinstance(one, Text) and (one.in_order or one.tokenizer))]
        model = spec.model if isinstance(spec.model, Network) else Network()
        found.append(model.step_bytes(max(0, n_columns - len(sides) - len(lengths)), sides, lengths))
    return max(found)


def _step_share(spec: ModelSpec) -> float:
    """Of a step's bytes, the least that each of several processes holds that learn together: a part of every weight, all of them once at the beginning."""
    parts = 1 if spec.train.strategy == "data_parallel" else spec.train.workers
    return 1.0 if parts == 1 else max(1 / parts, (1 + 2 / parts) / _COPIES)


def trial_bytes(spec: ModelSpec, n_columns: int, rows_bytes: float = 0.0) -> int:
    """What a process that does trials holds, with the families' own settings: larger ones take more. ``rows_bytes``: of the encoded rows that it holds."""
    return _WORKER_BYTES + libraries(spec) + max(_LEARN_BYTES, _FEED_BYTES + _step_bytes(spec, n_columns)) + int(_HELD_ROWS * rows_bytes)


def n_trials_at_once(spec: ModelSpec, trial: int) -> int:
    """As the file says; where it leaves that open, one for each core, as far as they fit into memory with so many bytes each."""
    assert spec.tune is not None
    return spec.tune.workers or max(1, min(memory.cores(), memory.room(spec.compute.memory) // trial))


def trials_need(spec: ModelSpec, trial: int) -> Need:
    """What the trials that are in work at once take, with so many bytes each."""
    n = n_trials_at_once(spec, trial)
    fix = "Set `tune.workers: 1`." if n > 1 else _FEWER
    return Need("tune", n * trial, f"{n} process{'es' if n > 1 else ''} of trials, {show_bytes(trial)} each", fix)


def needs(spec: ModelSpec, size: Size) -> dict[str, Need]:
    """The least that each step takes: below it nothing helps. Steps cut their work to what there is above that."""
    from modelinscale.data.partitions import LEAST_ROWS, SHARE, WORK

    workers = spec.compute.in_process + 1
    part = int(workers * LEAST_ROWS * size.row_bytes * WORK / SHARE)
    state = size.n_columns * _STATE_BYTES
    rows = f"{size.n_rows:,} rows x {size.n_columns} columns, {show_bytes(size.row_bytes)} a row" if size.n_columns else "of any table"
    torch = libraries(spec)
    learn = max(_LEARN_BYTES, _FEED_BYTES + int(_step_bytes(spec, size.n_columns) * _step_share(spec)))
    fewer = _FEWER.replace("features`,", "features`, choose a smaller network,") if torch else _FEWER
    network = "what a network needs, " if torch else ""
    found = {
        "collect": Need("collect", _COLLECT_BYTES, "chunks of rows being read, cleaned and written", "Set `compute.workers: 1`."),
        "prepare": Need("prepare", size.n_rows * 2 + part + state, f"{rows}: two bytes a row, {workers} partitions in work, what is learned of them", _FEWER),
        "train": Need("train", size.n_rows + part + state + torch + learn, f"{rows}: a byte a row, partitions, {network}and a sample to learn from", fewer),
        "evaluate": Need("evaluate", size.n_rows + part + state + torch + _JUDGE_BYTES, f"{rows}: a byte a row, {network}and a sample to judge by", _FEWER),
    }
    if spec.tune is not None and spec.compute.type == "local":
        found["tune"] = trials_need(spec, trial_bytes(spec, size.n_columns))
    return found


def whole(spec: ModelSpec, size: Size) -> str:
    """What it would take to hold all of it at once, in words: above that more memory brings nothing; below it rows are read in partitions."""
    from modelinscale.data.partitions import HELD

    there, all_rows = memory.room(spec.compute.memory), int(size.n_rows * size.row_bytes * HELD)
    found = {step: need.n_bytes for step, need in needs(spec, size).items()}
    if spec.tune is not None and not spec.tune.workers and "tune" in found:
        found["tune"] = trial_bytes(spec, size.n_columns)  # where there is less, fewer trials are in work at once
    least = max(found.values()) + memory.BASE_BYTES
    road = "rows are held in memory" if all_rows <= there else "rows are read in partitions"
    return f"{road} (all at once take about {show_bytes(all_rows)}, {show_bytes(there)} are there for them; {show_bytes(least)} in all is the least)"


def refuse(spec: ModelSpec, size: Size | None, steps: tuple[str, ...]) -> None:
    """Raises `DataError` when one of these steps cannot be done within the memory there is: the one that needs most, before the first of them begins.

    ``size``: of the table; None: not known before it is collected, and what is needed at any size is looked at.
    """
    found = [need for step, need in needs(spec, size or Size(0, 0, 0.0)).items() if step in steps]
    if found:
        memory.refuse(max(found, key=lambda need: need.n_bytes), spec.compute.memory)
