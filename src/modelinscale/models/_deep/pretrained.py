"""An encoder of images whose weights were learned elsewhere: an architecture of timm, from a file or (only where asked) from the hub.

Training needs timm; the package does not, as the network becomes part of its graph. B images of S x S pixels, D numbers of the architecture's last layer.
"""

import hashlib
import logging
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.elsewhere import digest
from modelinscale.core.errors import ModelError, did_you_mean, needs
from modelinscale.core.graph import Graph
from modelinscale.models._deep.images import Images
from modelinscale.models._deep.inlined import inlined
from modelinscale.models._deep.parts import Tensor
from modelinscale.models._torch import torch

if TYPE_CHECKING:
    from modelinscale.models._pretrained import Pretrained

_BODY = "body."
"""Before the names of arrays that are weights of the architecture."""
_NAMED = 3
"""Of what does not fit, so many are named."""


class Body(Images):
    """To D numbers. ``share``: how much of the step size its weights move by; 0: not at all, nor what they know of batches."""

    def __init__(self, shape: tuple[int, ...], architecture: str, share: float, known: dict[str, NDArray[Any]], *, mirrored: bool) -> None:
        """``known``: what `weights_of` gave, or nothing where weights are loaded next."""
        super().__init__(known.get("mean", np.zeros(3, np.float32)), known.get("deviation", np.ones(3, np.float32)), mirrored=mirrored)
        self.body, self.share, self.side = _built(architecture, shape[0]), share, shape[0]
        weights = {name.removeprefix(_BODY): torch.from_numpy(values) for name, values in known.items() if name.startswith(_BODY)}
        if weights:
            self.body.load_state_dict(weights)
        self.body.requires_grad_(share > 0)
        self.width = int(self.body.num_features)
        with torch.no_grad():
            self.width = int(self.body.eval()(torch.zeros(1, 3, shape[0], shape[0])).shape[1])  # some have one more layer than their features

    def train(self, mode: bool = True) -> "Body":
        super().train(mode)
        self.body.train(mode and self.share > 0)
        return self

    def see(self, x: Tensor) -> Tensor:
        norms = [one for one in self.body.modules() if isinstance(one, torch.nn.modules.batchnorm._BatchNorm) and one.training] if len(x) == 1 else []
        for norm in norms:  # one row has no spread to normalise by, where sides end at one pixel: what is known so far has to do
            norm.training = False
        found: Tensor = self.body(x)  # of grey images x has three equal channels, but for mean and deviation
        for norm in norms:
            norm.training = True
        return found

    def draw_seen(self, graph: Graph, tensor: str) -> str:
        """Raises `ModelError` for what torch's own exporter cannot write."""
        example = torch.zeros(2, 3, self.side, self.side)
        return exported(self.body, (example,), (1,), graph, tensor, extra="timm", fix="Choose another `pretrained.architecture`.")


def exported(body: Any, example: tuple[Tensor, ...], n_any: Sequence[int], graph: Graph, *tensors: str, extra: str, fix: str) -> str:
    """Calls a module on tensors of a graph, as in evaluation: torch's own exporter writes it, and its nodes become nodes of this graph.

    ``example``: what it may be given; of each, the first ``n_any`` axes may have any size. Raises `ModelError` for what cannot be written.
    """
    needs("onnxscript", extra=extra)
    was = body.training
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript")
    levels = [one.level for one in quiet]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, about itself
            for one in quiet:
                one.setLevel(logging.ERROR)
            sizes = tuple(dict.fromkeys(range(n), torch.export.Dim.DYNAMIC) for n in n_any)
            program = torch.onnx.export(body.eval().cpu(), example, dynamo=True, opset_version=21, dynamic_shapes=sizes, external_data=False, verbose=False)
            assert program is not None
            return inlined(graph, program.model_proto, *tensors)
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(f"{type(body).__name__} cannot be written as an ONNX graph ({_first_line(error)}).", fix=fix) from error
    finally:
        body.train(was)
        for one, level in zip(quiet, levels, strict=True):
            one.setLevel(level)


def weights_of(settings: "Pretrained", side: int) -> dict[str, NDArray[Any]]:
    """The weights, checked against the architecture, and how its pixels are standardised (0 to 255).

    Raises `ModelError` for a file that is not there, cannot be read, or belongs to another architecture or size.
    """
    body = _built(settings.architecture, side, hub=settings.hub)
    if settings.path is not None:
        file = Path(settings.path)
        _fit(body, _read(file), file, settings.architecture)
    mean, deviation = (np.asarray(body.default_cfg[name], np.float32) * 255 for name in ("mean", "std"))
    return {"mean": mean, "deviation": deviation} | {_BODY + name: value.detach().numpy().copy() for name, value in body.state_dict().items()}


def origin_of(settings: "Pretrained") -> dict[str, Any]:
    """Where they are from. Of a file nothing says under which license it came; of the hub's timm knows."""
    known = _timm().get_pretrained_cfg(settings.architecture) if settings.hub else None
    hub = (known and known.hf_hub_id) or "the hub"
    source = Path(settings.path).name if settings.path is not None else hub
    of = {} if settings.path is None else {"sha256": digest([Path(settings.path)])}  # timm does not tell which file it fetched: then of what was in it
    return {"architecture": settings.architecture, "source": source, "license": (known and known.license) or "", **of}


def digest_of(weights: dict[str, NDArray[Any]]) -> str:
    """Which weights these are: a training that was begun with others is another one."""
    found = hashlib.sha256()
    for name, values in sorted(weights.items()):
        found.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()[:16]


def _built(architecture: str, side: int, *, hub: bool = False) -> Any:
    """The module without its last layer. ``hub``: with weights that timm fetches (or has fetched before)."""
    timm = _timm()
    if not timm.is_model(architecture):
        raise ModelError(f"timm {timm.__version__} has no architecture {architecture!r}.{did_you_mean(architecture, timm.list_models())}")
    sized = timm.get_pretrained_cfg(architecture)
    size = {"img_size": side} if sized is not None and sized.fixed_input_size else {}
    try:
        return timm.create_model(architecture, pretrained=hub, num_classes=0, **size)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        what = "its weights cannot be fetched" if hub else f"it cannot be made for images of {side} pixels a side"
        raise ModelError(
            f"pretrained {architecture}: {what} ({_first_line(error)}).", fix="Give the weights as a file: `pretrained.path`." if hub else "Set another `size`."
        ) from error


def _read(file: Path) -> dict[str, Tensor]:
    """Safetensors, or what torch saved; nothing in it is executed."""
    if not file.is_file():
        raise ModelError(f"pretrained.path: there is no file {str(file)!r}.", fix="Give a file of weights: .safetensors, or .pth as torch saves it.")
    try:
        if file.suffix == ".safetensors":
            found = needs("safetensors.torch", extra="timm").load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
            for name in ("state_dict", "model"):
                found = found[name] if isinstance(found.get(name), dict) else found
    except Exception as error:  # both readers raise nearly everything on damaged bytes
        raise ModelError(f"pretrained.path: {str(file)!r} cannot be read as weights ({_first_line(error)}).") from error
    return dict(found)


def _fit(body: Any, given: dict[str, Tensor], file: Path, architecture: str) -> None:
    """Loads all weights; those of the layer left out may be there too."""
    wanted = body.state_dict()
    heads = body.default_cfg.get("classifier") or ()
    heads = tuple(f"{one}." for one in ((heads,) if isinstance(heads, str) else heads))
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    more = [name for name in given if name not in wanted and not name.startswith(heads or ("\0",))]
    other = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    wrong = [f"it lacks {_few(missing)}"] if missing else []
    wrong += [f"it has {_few(more)} besides"] if more else []
    wrong += [f"{name} is {tuple(given[name].shape)}, here {tuple(wanted[name].shape)}" for name in other[:_NAMED]]
    if wrong:
        side = body.default_cfg["input_size"][1]
        raise ModelError(
            f"pretrained.path: {str(file)!r} holds no weights of {architecture}: {'; '.join(wrong)}.",
            fix=f"Name the architecture that it was saved from, as timm calls it, in timm's own naming of weights{_about_size(other, side)}.",
        )
    body.load_state_dict({name: given.get(name, value) for name, value in wanted.items()})


def _about_size(other: list[str], side: int) -> str:
    return f"; this one is usually made for images of {side} pixels: `size: {side}`" if any("pos" in name for name in other) else ""


def _timm() -> ModuleType:
    with_torchvision()
    return needs("timm", extra="timm")


@cache
def with_torchvision() -> None:
    """Makes what imports torchvision on its way importable, also where that was built for a GPU and torch was not. Nothing where it is not installed."""
    if find_spec("torchvision") is None:
        return
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _named_operators()


@cache
def _named_operators() -> Any:
    """Names of operators that torchvision, built for a GPU, cannot load beside a torch without one; on import it wants them by name. None of them is used."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return library


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
