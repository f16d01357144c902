"""What our loop costs over one written by hand in 40 lines: the same data in memory, batch, precision, optimiser and number of steps.

The hand-written one does nothing for the user: no validation, no checkpoint, no word. ``recipe`` has what ours learns with (a shortened gradient, a moving
average of the weights, a step size that rises and falls), ``bare`` not even that. Rounds alternate; processor seconds of this process, one thread.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch

from modelinscale.core.encoded import Encoded, Layout, Values
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples
from modelinscale.models._deep import learn
from modelinscale.models._deep.loop import Loop
from modelinscale.models._deep.net import Net
from modelinscale.models._deep.plan import Shape
from modelinscale.models.network import Network

TASK = Task(type="binary", target="y", labels=("no", "yes"))


def by_hand(net: Net, batch: dict[str, Any], target: torch.Tensor, n_rows: int, epochs: int, rate: float, decay: float, *, recipe: bool) -> None:
    """The hand-written loop."""
    net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    parameters = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
    average = [p.detach().clone() for p in parameters]
    n_steps, step = epochs * -(-len(target) // n_rows), 0
    for _ in range(epochs):
        deck = torch.randperm(len(target))
        for start in range(0, len(target), n_rows):
            index = deck[start : start + n_rows]
            scores = net({name: part[index] for name, part in batch.items()})
            answers = target[index].expand(len(scores), -1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores[..., 0], answers)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe:
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                share = min(1.0, (step + 1) / (0.1 * n_steps)) * min(1.0, (n_steps - step) / (0.9 * n_steps))
                for group in optimizer.param_groups:
                    group["lr"] = rate * share
            optimizer.step()
            step += 1
            if recipe:
                with torch.no_grad():
                    torch._foreach_lerp_(average, [p.detach() for p in parameters], 0.005)


def tables(n_rows: int) -> tuple[Network, Examples]:
    chance = np.random.default_rng(7)
    numbers = chance.normal(size=(n_rows, 20)).astype(np.float32)
    blocks: dict[str, Values] = {"numbers": numbers}
    target = (numbers[:, 0] + numbers[:, 1] > 0).astype(np.int64)
    names = tuple(f"x{i}" for i in range(20))
    return Network(batch_rows=256), Examples(Encoded({"numbers": Layout("dense", 20, names)}, blocks), target)


def images(n_rows: int) -> tuple[Network, Examples]:
    chance = np.random.default_rng(7)
    pixels = chance.integers(0, 255, (n_rows, 28, 28, 1)).astype(np.uint8)
    return Network(batch_rows=128, maps=16, shift=0.0), Examples(
        Encoded({"p": Layout("image", 784, (), (28, 28, 1))}, {"p": pixels}), (pixels[:, 14, 14, 0] > 127).astype(np.int64)
    )


def steps(kind: str, n_rows: int) -> tuple[Network, Examples]:
    chance = np.random.default_rng(7)
    values = chance.normal(size=(n_rows, 32, 8)).astype(np.float32)
    examples = Examples(Encoded({"s": Layout("steps", 256, (), (32, 8))}, {"s": values}), (values[:, :, 0].mean(1) > 0).astype(np.int64))
    return Network(batch_rows=128, members=1, sequence=kind), examples


CASES: dict[str, Callable[[int], tuple[Network, Examples]]] = {
    "tabular MLP": tables,
    "ResNet-9": images,
    "GRU": lambda n: steps("rnn", n),
    "transformer": lambda n: steps("transformer", n),
}
ROWS = {"tabular MLP": 25_600, "ResNet-9": 1_280, "GRU": 5_120, "transformer": 5_120}


def measured(name: str, rounds: int, scale: float) -> str:
    """A line of the table."""
    model, train = CASES[name](int(ROWS[name] * scale))
    ports, known = learn._ports(model, train, draws=True)
    layers = 0 if name == "ResNet-9" else 2
    torch.manual_seed(7)
    start = Net(ports, Shape(model.width, layers, model.members or (1 if name == "ResNet-9" else 4), model.dropout, 1), known)
    recipe = replace(model.recipe(len(train)), epochs=2, precision="fp32")
    whole = start.batch(train.rows)
    target = torch.from_numpy(train.target.astype(np.float32))

    def ours() -> None:
        Loop(copy.deepcopy(start), recipe, TASK, Effort(), train, None, 0.0, 1.0, "").run()

    def hand(recipes: bool) -> None:
        by_hand(copy.deepcopy(start), whole, target, recipe.batch_rows, recipe.epochs, recipe.learning_rate, recipe.weight_decay, recipe=recipes)

    roads: list[Callable[[], None]] = [ours, lambda: hand(True), lambda: hand(False)]
    took: list[list[float]] = [[], [], []]
    for i in range(rounds + 1):
        for at in (0, 1, 2) if i % 2 else (2, 1, 0):
            since = time.process_time()
            roads[at]()
            took[at].append(time.process_time() - since)
    a, b, c = (np.array(one[1:]) for one in took)  # the first round makes what stays
    n_steps = recipe.epochs * -(-len(train) // recipe.batch_rows)
    spread = f"{np.quantile(a / b, 0.25) - 1:+.1%} to {np.quantile(a / b, 0.75) - 1:+.1%}"
    return (
        f"| {name} | {n_steps} x {recipe.batch_rows} | {median(a) / n_steps * 1e3:.2f} | {median(b) / n_steps * 1e3:.2f} | {median(c) / n_steps * 1e3:.2f} "
        f"| {median(a / b) - 1:+.1%} ({spread}) | {median(a / c) - 1:+.1%} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--scale", type=float, default=1.0, help="of the rows of each case")
    parser.add_argument("--only", choices=[*CASES], action="append")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | steps x rows | ours, CPU ms a step | by hand, same recipe | by hand, bare | ours over same recipe (quartiles) | over bare |")
    print("|---|---|---|---|---|---|---|")
    for name in given.only or CASES:
        print(measured(name, given.rounds, given.scale), flush=True)
