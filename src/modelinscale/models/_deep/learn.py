"""What `network` does with rows: sizes found from them, a network built and trained, brought up to date, asked, drawn."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.graph import Graph
from modelinscale.core.identity import identity
from modelinscale.core.seeds import derive
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Scores, Weights
from modelinscale.models._borders import borders_of
from modelinscale.models._deep import launch
from modelinscale.models._deep.loop import JUDGED_ROWS, Loop, load, threads
from modelinscale.models._deep.net import Net, Port
from modelinscale.models._deep.plan import LARGE_SIDE, Recipe, Shape
from modelinscale.models._deep.sequences import in_step
from modelinscale.models._deep.strategy import Alone
from modelinscale.models._torch import torch
from modelinscale.models._totals import Middle, base_scores, centre_and_spread, n_with, said
from modelinscale.models._words import rarity

if TYPE_CHECKING:
    from modelinscale.models.network import Network

_SEEN_ROWS = 2_000
"""Rows from which borders of bins and the brightness of images are taken, at least, where there are so many."""
_UPDATE_EPOCHS, _UPDATE_RATE = 3, 0.2
Known = dict[str, dict[str, NDArray[Any]]]


def fit(model: "Network", train: Examples, valid: Examples | None, task: Task, effort: Effort, strategy: Alone | None = None) -> Weights:
    """``strategy``: how this process learns together with others; None: by itself, or with those that ``effort`` or `torchrun` says there are."""
    if strategy is None and effort.workers > 1:
        return launch.fit(model, train, valid, task, effort)
    if strategy is None and launch.here(effort):
        return launch.together(model, train, valid, task, effort)
    ports, known = _ports(model, train)
    center, scale = centre_and_spread(train, task)
    images = any(port.kind == "image" for port in ports)
    shape = Shape(
        width=model.width,
        layers=model.layers if model.layers is not None else 0 if images and len(ports) == 1 else 2,
        members=model.members if model.members is not None else 1 if images else 4,
        dropout=model.dropout,
        n_scores=task.n_scores,
    )
    meta = {"ports": [port.plain() for port in ports], "shape": asdict(shape), "center": said(center), "scale": said(scale)}
    with threads(effort.n_threads):
        torch.manual_seed(derive(effort.seed, "network", "start"))
        net = Net(ports, shape, known)
        _start_at_base_rate(net, train, task)
        recipe = _recipe(model, len(train))
        fingerprint = identity(model, task, effort.seed, meta, _about(train) if effort.checkpoints else "")
        loop = Loop(net, recipe, task, effort, train, valid, center, scale, fingerprint, strategy or Alone())
        best = loop.run()
    return Weights(dict(best), meta | {"curve": loop.at.curve})


def update(model: "Network", weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
    recipe = replace(_recipe(model, len(new)), epochs=_UPDATE_EPOCHS, learning_rate=model.learning_rate * _UPDATE_RATE, fall="none")
    with threads(effort.n_threads):
        loop = Loop(built(weights), recipe, task, replace(effort, checkpoints=None), new, valid, *_middle(weights), "")
        best = loop.run(keep_start=True)
    return Weights(dict(best), weights.meta | {"curve": loop.at.curve})


def predict(weights: Weights, rows: Encoded) -> Scores:
    """(N,) or (N, C): the mean of the members' scores."""
    net = built(weights).eval()
    found = [np.zeros((0, net.shape.n_scores))]
    with torch.no_grad():
        for start in range(0, rows.n_rows, JUDGED_ROWS):
            found.append(net(net.batch(rows.slice(start, start + JUDGED_ROWS))).mean(0).numpy().astype(np.float64))
    center, scale = _middle(weights)
    scores: NDArray[np.float64] = np.concatenate(found) * scale + center
    return scores if scores.shape[1] > 1 else scores[:, 0]


def draw(weights: Weights, task: Task, graph: Graph, blocks: dict[str, str]) -> str:
    x = built(weights).eval().draw(graph, blocks)  # (N, C)
    if task.numbers:
        scale, center = (graph.constant(weights.meta[name], np.float32) for name in ("scale", "center"))
        x = graph.op("Add", graph.op("Mul", x, scale), center)
    return x if task.n_scores > 1 else graph.op("Squeeze", x, graph.constant([1], np.int64))


def built(weights: Weights) -> Net:
    """The network with its weights, on the processor."""
    net = Net(tuple(Port.parse(port) for port in weights.meta["ports"]), Shape(**weights.meta["shape"]))
    load(net, weights.arrays)
    return net


def _middle(weights: Weights) -> tuple[Middle, Middle]:
    """Center and scale of numbers to predict."""
    return np.asarray(weights.meta["center"], np.float64), np.asarray(weights.meta["scale"], np.float64)


def _ports(model: "Network", train: Examples) -> tuple[tuple[Port, ...], Known]:
    """An encoder for each feature, numbers together; and what these have to know of the training rows, by their names."""
    layouts = {name: layout for name, layout in train.layouts.items() if layout.width}
    seen = train.take(np.arange(0, len(train), max(1, len(train) // _SEEN_ROWS))).rows
    ports: list[Port] = []
    facts: list[dict[str, NDArray[Any]]] = []
    dense = {name: layout for name, layout in layouts.items() if layout.role == "dense"}
    if dense:
        numbers = np.concatenate([np.asarray(seen[name], np.float32) for name in dense], axis=1)
        binned, edges = borders_of(numbers, model.bins)
        more = (("binned", list(binned)), ("n_bins", edges.shape[1] - 1))
        ports.append(Port("dense", tuple(dense), tuple(layout.width for layout in dense.values()), settings=more))
        facts.append({"edges": edges})
    steps = {name: np.asarray(seen[name]) for name, layout in layouts.items() if layout.role == "steps"}
    for names in in_step(steps):
        T, D = layouts[names[0]].shape[0], sum(layouts[name].shape[1] for name in names)
        ports.append(Port("steps", names, tuple(layouts[name].width for name in names), (T, D), (*_along(model.sequence, model), ("noise", model.noise))))
        facts.append({})
    for name, layout in layouts.items():
        if layout.role in ("dense", "steps"):
            continue
        ports.append(_port(model, name, layout))
        facts.append({})
        if layout.role == "sparse":
            facts[-1] = {"rarity": rarity(n_with(train, name, layout.width), len(train))}
        elif layout.role == "image":
            values = np.asarray(seen[name], np.float32)
            facts[-1] = {"mean": values.mean((0, 1, 2)), "deviation": np.maximum(values.std((0, 1, 2)), np.float32(1))}
    return tuple(ports), {f"{port.kind}{i}": fact for i, (port, fact) in enumerate(zip(ports, facts, strict=True))}


def _port(model: "Network", name: str, layout: Layout) -> Port:
    settings: tuple[tuple[str, Any], ...] = ()
    if layout.role == "image":
        encoder = model.image if model.image != "auto" else "convnext" if layout.shape[0] >= LARGE_SIDE else "resnet"
        settings = (("encoder", encoder), ("maps", model.maps), ("mirrored", model.flip and model.mirror))
    if layout.role == "tokens":
        settings = _along(model.text, model)
    return Port(layout.role, (name,), (layout.width,), layout.shape, settings)


def _along(kind: str, model: "Network") -> tuple[tuple[str, Any], ...]:
    return (("encoder", kind), ("units", model.units))


def _recipe(model: "Network", n_rows: int) -> Recipe:
    return Recipe(
        epochs=model.epochs,
        batch_rows=model.batch_rows or int(min(512, max(16, 2 ** round(np.log2(max(n_rows, 1) / 60))))),
        learning_rate=model.learning_rate,
        weight_decay=model.weight_decay,
        warm_share=model.warm_share,
        patience=model.patience,
        fall=model.fall,
        smoothing=model.smoothing,
        shift=model.shift,
        flip=model.flip,
        cut_out=model.cut_out,
        mix_up=model.mix_up,
        accumulate=model.accumulate,
        precision=model.precision,
    )


def _start_at_base_rate(net: Net, train: Examples, task: Task) -> None:
    """The first answers say how common each class is."""
    if not task.numbers:
        with torch.no_grad():
            net.head_bias.add_(torch.from_numpy(base_scores(train, task).astype(np.float32)))


def _about(train: Examples) -> str:
    """What the rows are, in short."""
    import hashlib

    found = hashlib.sha256()
    for block in train.blocks():
        found.update(block.target.tobytes())
        for part in block.rows.values():
            found.update(np.ascontiguousarray(getattr(part, "values", part)).tobytes())
    return found.hexdigest()[:32]
