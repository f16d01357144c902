"""On what a network learns, and with how many bits it multiplies: 16 where the machine is made for it and twenty steps show that nothing is lost, else 32."""

from collections.abc import Sequence
from statistics import fmean

from modelinscale.core.errors import ComputeError
from modelinscale.models import Device
from modelinscale.models._deep.plan import Precision
from modelinscale.models._torch import torch

CHECKED_STEPS = 20
"""Steps that are taken both ways before bf16 is used."""
_WORTH_STEPS = 400
"""A training of fewer steps is not worth forty more for the check."""
_GAIN = {"image", "tokens", "steps"}
"""Encoders that gain: convolutions 2.4 times, transformers 1.2 times on a processor with the instructions; a table's own layers nothing."""
_APART = 0.05
"""Mean losses of the last half of the steps may differ by this share."""
_COMPILED_S = 120.0
"""A training on a device for which so long is left is worth compiling, which takes about a minute."""


def device_of(wanted: Device) -> "torch.device":
    """Where a network learns. Raises `ComputeError` where a GPU was asked for and PyTorch sees none."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda or torch.version.hip else f" PyTorch {torch.__version__} is built for processors only."
        raise ComputeError(
            f"`train.device` is gpu, and PyTorch sees no GPU here.{built}",
            fix="Set `device: auto`, or install a PyTorch for the GPU and look at its driver (`nvidia-smi`).",
        )
    return torch.device("cuda")


def has_bf16(device: "torch.device") -> bool:
    """Whether it multiplies 16-bit numbers faster than 32-bit ones."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def is_candidate(wanted: Precision, kinds: set[str], n_steps: int, device: "torch.device") -> bool:
    """Whether bf16 is to be tried: always where it was asked for, else where it brings something."""
    return wanted == "bf16" or (wanted == "auto" and bool(kinds & _GAIN) and n_steps >= _WORTH_STEPS and has_bf16(device))


def objection(full: Sequence[float], half: Sequence[float]) -> str:
    """What speaks against bf16 after the same steps with 32 bits and with 16, or ""; losses a step each.

    >>> objection([1.0, 0.5], [1.0, 0.51])
    ''
    >>> objection([1.0, 0.5], [1.0, 0.7])
    'after 2 steps its loss was 0.7, that of fp32 0.5'
    """
    a, b = (fmean(losses[len(losses) // 2 :]) for losses in (full, half))
    return "" if abs(a - b) <= _APART * max(abs(a), 1e-3) else f"after {len(full)} steps its loss was {b:.3g}, that of fp32 {a:.3g}"


def is_worth_compiling(device: "torch.device", left_s: float) -> bool:
    """On a GPU, where the training is long; on a processor compiling costs more than it brings (a step of 144 ms became one of 193)."""
    return device.type == "cuda" and left_s >= _COMPILED_S
