"""Heat maps over an image: where a network sees what raises the score.

Maps of a convolution times the gradient of the score by them, place by place, added up, negative ones cut; of the last stage that still has seven places
along a side. Sources: Selvaraju et al., Grad-CAM, 2017; Draelos, Carin, HiResCAM, 2020 (place by place); Adebayo et al., Sanity Checks for Saliency
Maps, 2018 (random weights must change them).

N rows, S pixels along a side.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.seeds import derive
from modelinscale.explain import Explained, Explainer, Rows, Subject

_BATCH_ROWS, _LEAST_SIDE = 64, 7
_MOST_COMPARED = 32


class GradCam(Explainer):
    """Networks with an image: heat maps of where the score comes from."""

    overall: ClassVar[bool] = False

    def refuses(self, subject: Subject) -> str:
        if subject.model.type != "network":
            return f"the model is {subject.model.type}, not a network"
        return "" if any(layout.role == "image" for layout in subject.background.encoded.layouts.values()) else "there is no image among the columns"

    def explain(self, subject: Subject, rows: Rows, output: NDArray[np.int64], *, seed: int, overall: bool) -> Explained:
        from modelinscale.models._deep.learn import built
        from modelinscale.models._torch import torch

        net = built(subject.weights).eval()
        name = next(n for n, port in zip(net.names, net.ports, strict=True) if port.kind == "image")
        feature = net.ports[net.names.index(name)].features[0]
        maps = _maps(net, name, rows, output)
        few = np.arange(min(len(rows), _MOST_COMPARED))
        other = built(subject.weights).eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(derive(seed, "explain", "random weights"))
            for p in other.parameters():
                p.copy_(torch.randn_like(p) * p.std(unbiased=False) + p.mean())
        alike = float(np.mean([ssim(a, b) for a, b in zip(maps[few], _maps(other, name, rows.take(few), output[few]), strict=True)]))
        blank = int((maps.reshape(len(maps), -1).max(1) == 0).sum())
        notes = (f"{blank} of {len(maps)} maps are empty: nothing in those images raises the score.",) if blank else ()
        return Explained(maps={feature: maps}, similarity=alike, notes=notes)


def _maps(net: Any, name: str, rows: Rows, output: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N, S, S), not negative, the largest place of each 1 (or all 0)."""
    from modelinscale.models._torch import torch

    part = net.parts[name]
    side = rows.encoded[net.ports[net.names.index(name)].features[0]].shape[1]  # type: ignore[union-attr]
    found = []
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = net.batch(rows.encoded.slice(start, start + _BATCH_ROWS))
        kept: list[torch.Tensor] = []
        hooks = [stage.register_forward_hook(lambda _, __, out, into=kept: into.append(out)) for stage in part.stages]
        try:
            score = net(batch).mean(0)
        finally:
            for hook in hooks:
                hook.remove()
        last = max((i for i, maps in enumerate(kept) if maps.shape[-1] >= _LEAST_SIDE), default=0)
        which = torch.from_numpy(output[start : start + _BATCH_ROWS])[:, None]
        gradient = torch.autograd.grad(score.gather(1, which).sum(), kept[last])[0]
        heat = torch.relu((gradient * kept[last]).sum(1, keepdim=True))
        large = torch.nn.functional.interpolate(heat, size=(side, side), mode="bilinear", align_corners=False)[:, 0].detach()
        maps: NDArray[np.float64] = large.double().numpy()
        found.append(maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-12))
    return np.concatenate(found)


def ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """How alike two maps from 0 to 1 are: 1 where equal, about 0 where they have nothing in common. Over windows of 7 by 7.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    from numpy.lib.stride_tricks import sliding_window_view

    size = min(7, *a.shape)
    x, y = (sliding_window_view(one, (size, size)).reshape(-1, size * size) for one in (a, b))
    mx, my = x.mean(1), y.mean(1)
    both = ((x - mx[:, None]) * (y - my[:, None])).mean(1)
    c1, c2 = 0.01**2, 0.03**2
    return float((((2 * mx * my + c1) * (2 * both + c2)) / ((mx**2 + my**2 + c1) * (x.var(1) + y.var(1) + c2))).mean())
