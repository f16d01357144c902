"""Training rows as they might have been as well: images moved, mirrored, a piece covered, two laid over each other; cells of a table from other rows.

All chance is drawn from the generator given, so that the same step can be repeated. B rows, or images of S x S pixels, C channels.

Sources: DeVries, Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017; Zhang et al., mixup: Beyond Empirical Risk
Minimization, 2018; Bahri et al., SCARF, 2022 (cells of other rows).
"""

from dataclasses import replace

import numpy as np

from modelinscale.models._deep.feed import Other, Step
from modelinscale.models._deep.net import Net
from modelinscale.models._deep.parts import Tensor
from modelinscale.models._deep.plan import Recipe
from modelinscale.models._torch import torch


def varied(step: Step, net: Net, recipe: Recipe, chance: torch.Generator) -> Step:
    """The step with other images and cells, and (`mix_up`) with other answers beside its own."""
    step = swapped(step, net, recipe.swap, chance) if recipe.swap else step
    images = {name: port.shape[0] for name, port in zip(net.names, net.ports, strict=True) if port.kind == "image"}
    batch = dict(step.batch)
    for name, side in images.items():
        image = shifted(batch[name], round(side * recipe.shift), chance)
        image = flipped(image, chance) if recipe.flip else image
        blank = net.parts[name].mean
        assert isinstance(blank, torch.Tensor)
        batch[name] = covered(image, round(side * recipe.cut_out), blank, chance)
    step = replace(step, batch=batch)
    return mixed(step, tuple(images), recipe.mix_up, chance) if recipe.mix_up and images else step


def swapped(step: Step, net: Net, share: float, chance: torch.Generator) -> Step:
    """A share of the cells taken from any rows of the step: of numbers and ids, all numbers of one feature together."""
    batch = dict(step.batch)
    for name, port in zip(net.names, net.ports, strict=True):
        if port.kind not in ("dense", "ids"):
            continue
        x = batch[name]
        widths = torch.tensor(port.widths if port.kind == "dense" else [1] * len(port.widths))
        B, n = len(x), len(widths)
        own = torch.arange(B)[:, None].expand(B, n)
        rows = torch.where(torch.rand((B, n), generator=chance) < share, torch.randint(B, (B, n), generator=chance), own)
        rows = rows.repeat_interleave(widths, dim=1).to(x.device)
        batch[name] = x.view(B, -1).gather(0, rows).view(x.shape)
    return replace(step, batch=batch)


def shifted(x: Tensor, most: int, chance: torch.Generator) -> Tensor:
    """Each image moved by up to ``most`` pixels, its border repeated by reflection. (B, S, S, C) of any type."""
    B, S = x.shape[:2]
    most = min(most, S - 1)
    if most <= 0:
        return x
    by = torch.randint(-most, most + 1, (2, B, 1), generator=chance)
    place = (torch.arange(S)[None, None] + by).to(x.device)  # (2, B, S)
    place = torch.where(place < 0, -place, torch.where(place >= S, 2 * (S - 1) - place, place))
    return x[torch.arange(B, device=x.device)[:, None, None], place[0][:, :, None], place[1][:, None, :]]


def flipped(x: Tensor, chance: torch.Generator) -> Tensor:
    """Every second image, by chance, with left and right changed."""
    turn = (torch.rand(len(x), generator=chance) < 0.5).to(x.device)
    return torch.where(turn[:, None, None, None], x.flip(2), x)


def covered(x: Tensor, side: int, blank: Tensor, chance: torch.Generator) -> Tensor:
    """A square of each image replaced by ``blank`` (C,); its centre lies anywhere, so that at a border part of it falls outside."""
    if side <= 0:
        return x
    B, S = x.shape[:2]
    first = torch.randint(0, S, (2, B, 1), generator=chance) - side // 2
    at = torch.arange(S)[None, None]
    inside = ((at >= first) & (at < first + side)).to(x.device)  # (2, B, S)
    return torch.where((inside[0][:, :, None] & inside[1][:, None, :])[..., None], blank.round().to(x.device, x.dtype), x)


def mixed(step: Step, images: tuple[str, ...], alpha: float, chance: torch.Generator) -> Step:
    """Each row's images laid over those of another row of the step, all with one share from Beta(alpha, alpha)."""
    order = torch.randperm(len(step), generator=chance)
    share = float(np.random.Generator(np.random.PCG64(int(torch.randint(0, 2**62, (), generator=chance)))).beta(alpha, alpha))
    batch = dict(step.batch)
    for name in images:
        image = batch[name].float()
        batch[name] = image * share + image[order] * (1 - share)
    return replace(step, batch=batch, other=Other(step.target[order], None if step.weight is None else step.weight[order], 1 - share))
