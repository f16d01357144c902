"""What families of networks do with rows: sizes found from them, a network built and trained, brought up to date, asked, drawn."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout, Role
from modelinscale.core.errors import NotSupportedYet
from modelinscale.core.graph import Graph
from modelinscale.core.identity import identity
from modelinscale.core.seeds import derive
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Scores, Weights
from modelinscale.models._borders import BINNED_COLUMNS, borders_of, varied_columns
from modelinscale.models._deep import launch
from modelinscale.models._deep.earlier import current
from modelinscale.models._deep.loop import Loop, load, threads
from modelinscale.models._deep.net import Net, Port, ready, slice_of
from modelinscale.models._deep.plan import LARGE_SIDE, Recipe, Shape
from modelinscale.models._deep.saved import fingerprint_of
from modelinscale.models._deep.sequences import in_step
from modelinscale.models._deep.size import fitting, shards
from modelinscale.models._deep.strategy import Alone
from modelinscale.models._deep.tables import ID_WIDTH
from modelinscale.models._torch import torch
from modelinscale.models._totals import Middle, base_scores, centre_and_spread, n_with, said
from modelinscale.models._words import rarity

if TYPE_CHECKING:
    from modelinscale.models._deep.family import Deep
    from modelinscale.models.network import Network

_SEEN_ROWS, _EDGE_ROWS = 2_000, 100_000
"""Rows from which the brightness of images and the borders of bins are taken, and of tables by themselves the borders, at least, where there are so many."""
_ONE_THREAD_PRODUCTS = 20_000_000
"""Of a table: up to this many multiplications a step a second thread costs more than it brings (64 rows: 2.7 ms, one thread 2.1 ms)."""
_TABLE: set[Role] = {"dense", "ids", "sparse"}
_UPDATE_EPOCHS, _UPDATE_RATE = 3, 0.2
Known = dict[str, dict[str, NDArray[Any]]]


def fit(model: "Deep", train: Examples, valid: Examples | None, task: Task, effort: Effort, strategy: Alone | None = None) -> Weights:
    """``strategy``: how this process learns together with others; None: by itself, or with those that ``effort`` or `torchrun` says there are."""
    recipe, several = model.recipe(len(train)), launch.world(effort) if strategy is None else strategy.world
    if recipe.accumulate > 1 and several > 1:  # shares of a batch may differ by a row, and would be cut into other numbers of pieces
        raise NotSupportedYet(
            f"`accumulate: {recipe.accumulate}` with {several} processes is not there yet.", fix="Set `accumulate: 1`: each process takes a share anyway."
        )
    if strategy is None and effort.workers > 1:
        return launch.fit(model, train, valid, task, effort)
    if strategy is None and launch.here(effort):
        return launch.together(model, train, valid, task, effort)
    strategy = strategy or Alone()
    ports, known = _ports(model, train, draws=strategy.leader)
    center, scale = centre_and_spread(train, task)
    shape = model.shape([port.kind for port in ports], task.n_scores)
    meta = {"ports": [port.plain() for port in ports], "shape": asdict(shape), "center": said(center), "scale": said(scale)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(effort.seed, model.type, "start"))
        net = Net(ports, shape, known)
    del known  # of an encoder learned elsewhere these are as large as its part of the network
    _start_at_base_rate(net, train, task)
    if strategy.leads(float(shards(recipe, net, train, effort, strategy.world))):
        strategy.shard()
        recipe = fitting(recipe, net, train, effort, strategy.world, parts=strategy.world)
    else:
        recipe = fitting(recipe, net, train, effort, strategy.world)
    with threads(_n_threads(net, recipe, effort)):
        fingerprint = identity(model, task, effort.seed, meta, fingerprint_of(train) if effort.checkpoints else "")
        loop = Loop(net, recipe, task, effort, train, valid, center, scale, fingerprint, strategy, name=model.type)
        best = loop.run()
    return Weights(dict(best), meta | {"curve": loop.at.curve})


def update(model: "Deep", weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
    full, net = model.recipe(len(new)), built(weights)
    recipe = replace(full, epochs=_UPDATE_EPOCHS, learning_rate=full.learning_rate * _UPDATE_RATE, fall="none")
    with threads(_n_threads(net, recipe, effort)):
        loop = Loop(net, recipe, task, replace(effort, checkpoints=None), new, valid, *_middle(weights), "", name=model.type)
        best = loop.run(keep_start=True)
    return Weights(dict(best), current(weights).meta | {"curve": loop.at.curve})


def predict(weights: Weights, rows: Encoded) -> Scores:
    """(N,) or (N, C): the mean of the members' scores."""
    net = built(weights).eval()
    found, blocks = [np.zeros((0, net.shape.n_scores))], net.blocks(rows)
    with torch.inference_mode():
        for start in range(0, rows.n_rows, net.scored_rows):
            some = {name: slice_of(block, start, min(start + net.scored_rows, rows.n_rows)) for name, block in blocks.items()}
            found.append(net(ready(some)).mean(0).numpy().astype(np.float64))
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
    weights = current(weights)
    net = Net(tuple(Port.parse(port) for port in weights.meta["ports"]), Shape(**weights.meta["shape"]))
    load(net, weights.arrays)
    return net


def _middle(weights: Weights) -> tuple[Middle, Middle]:
    """Center and scale of numbers to predict."""
    return np.asarray(weights.meta["center"], np.float64), np.asarray(weights.meta["scale"], np.float64)


def _ports(model: "Deep", train: Examples, *, draws: bool) -> tuple[tuple[Port, ...], Known]:
    """An encoder for each feature, numbers together; and what these have to know of the training rows, by their names.

    ``draws``: encoders learned elsewhere are drawn once, by one process, since what cannot be exported is not to be trained for hours first.
    """
    layouts = {name: layout for name, layout in train.layouts.items() if layout.width}
    some = train.take(np.arange(0, len(train), max(1, len(train) // _seen_rows(layouts, model.bins or model.waves))))
    seen = some.rows
    ports: list[Port] = []
    facts: list[dict[str, NDArray[Any]]] = []
    dense = {name: layout for name, layout in layouts.items() if layout.role == "dense"}
    if dense:
        numbers = np.concatenate([np.asarray(seen[name], np.float32) for name in dense], axis=1)
        binned, edges = borders_of(numbers, model.bins, some if model.borders == "tree" else None)
        more: tuple[tuple[str, Any], ...] = (("binned", list(binned)), ("n_bins", edges.shape[1] - 1))
        if model.waves:
            more += (("waved", list(varied_columns(numbers))), ("n_waves", model.waves), ("frequency", model.frequency))
        ports.append(Port("dense", tuple(dense), tuple(layout.width for layout in dense.values()), settings=more))
        facts.append({"edges": edges})
    steps = {name: np.asarray(seen[name]) for name, layout in layouts.items() if layout.role == "steps"}
    for names in in_step(steps):
        T, D = layouts[names[0]].shape[0], sum(layouts[name].shape[1] for name in names)
        ports.append(Port("steps", names, tuple(layouts[name].width for name in names), (T, D), _of_steps(model)))
        facts.append({})
    if model.together:
        for role in ("ids", "sparse"):
            names = tuple(name for name, layout in layouts.items() if layout.role == role)
            if names:
                ports.append(Port(role, names, tuple(layouts[name].width for name in names), settings=(("width", ID_WIDTH),) if role == "ids" else ()))
                facts.append({"rarity": np.concatenate([_rarity(train, name) for name in names])} if role == "sparse" else {})
    for name, layout in layouts.items():
        if layout.role in ("dense", "steps") or (model.together and layout.role in ("ids", "sparse")):
            continue
        ports.append(_port(cast("Network", model), name, layout))
        facts.append({})
        if layout.role == "sparse":
            facts[-1] = {"rarity": _rarity(train, name)}
        elif layout.role == "image":
            if (network := cast("Network", model)).pretrained is not None:
                ports[-1], facts[-1] = _pretrained(network, ports[-1], draws=draws)
                continue
            values = np.asarray(seen[name], np.float32)
            facts[-1] = {"mean": values.mean((0, 1, 2)), "deviation": np.maximum(values.std((0, 1, 2)), np.float32(1))}
        elif layout.role == "tokens" and cast("Network", model).language is not None:
            ports[-1], facts[-1] = _language(cast("Network", model), ports[-1], layout, draws=draws)
    return tuple(ports), {f"{port.kind}{i}": fact for i, (port, fact) in enumerate(zip(ports, facts, strict=True))}


def _pretrained(model: "Network", port: Port, *, draws: bool) -> tuple[Port, dict[str, NDArray[Any]]]:
    """With weights from elsewhere."""
    from modelinscale.models._deep.pretrained import digest_of, origin_of, weights_of

    assert model.pretrained is not None
    known = weights_of(model.pretrained, port.shape[0])
    settings = {
        "encoder": "pretrained",
        "architecture": model.pretrained.architecture,
        "share": model.pretrained.share,
        "mirrored": dict(port.settings)["mirrored"],
        "origin": {"column": port.features[0], **origin_of(model.pretrained)},
    }
    port = replace(port, settings=(*settings.items(), ("digest", digest_of(known))))
    if draws:
        port.build(known).draw(Graph(), "pixels")
    return port, known


def _language(model: "Network", port: Port, layout: Layout, *, draws: bool) -> tuple[Port, dict[str, NDArray[Any]]]:
    """The same for an encoder of texts."""
    from modelinscale.models._deep.languages import reader_of
    from modelinscale.models._deep.pretrained import digest_of

    assert model.language is not None
    settings, known = reader_of(model.language, port.features[0], layout)
    port = replace(port, settings=(*settings.items(), ("digest", digest_of(known))))
    if draws:
        port.build(known).draw(Graph(), "tokens")
    return port, known


def _port(model: "Network", name: str, layout: Layout) -> Port:
    settings: tuple[tuple[str, Any], ...] = ()
    if layout.role == "image":
        encoder = model.image if model.image != "auto" else "convnext" if layout.shape[0] >= LARGE_SIDE else "resnet"
        settings = (("encoder", encoder), ("maps", model.maps), ("mirrored", model.flip and model.mirror))
    if layout.role == "tokens":
        settings = _along(model.text, model)
    return Port(layout.role, (name,), (layout.width,), layout.shape, settings)


def _of_steps(model: "Deep") -> tuple[tuple[str, Any], ...]:
    model = cast("Network", model)
    return (*_along(model.sequence, model), ("noise", model.noise))


def _along(kind: str, model: "Network") -> tuple[tuple[str, Any], ...]:
    return (("encoder", kind), ("units", model.units))


def _seen_rows(layouts: dict[str, Layout], n_bins: int) -> int:
    """How many rows are looked at before the first step: whole rows are read, and those of images or sequences are large."""
    if any(layout.role not in _TABLE for layout in layouts.values()):
        return _SEEN_ROWS
    n_numbers = sum(layout.width for layout in layouts.values() if layout.role == "dense")
    return _EDGE_ROWS if n_bins and n_numbers <= BINNED_COLUMNS else 1


def _rarity(train: Examples, feature: str) -> NDArray[np.float64]:
    return rarity(n_with(train, feature, train.layouts[feature].width), len(train))


def _n_threads(net: Net, recipe: Recipe, effort: Effort) -> int:
    """As many as were asked for; one where the steps of a table are small."""
    shape = net.shape
    products = recipe.batch_rows * shape.members * shape.width * (net.signs.shape[-1] + shape.width * max(0, shape.layers - 1))
    small = {port.kind for port in net.ports} <= _TABLE and products <= _ONE_THREAD_PRODUCTS
    return 1 if small else effort.n_threads


def _start_at_base_rate(net: Net, train: Examples, task: Task) -> None:
    """The first answers say how common each class is."""
    if not task.numbers:
        with torch.no_grad():
            net.head_bias.add_(torch.from_numpy(base_scores(train, task).astype(np.float32)))
