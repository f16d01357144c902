"""The optimiser of networks: AdamW by torch's own fused kernel, without the class around it. Imported only inside functions, as it needs torch.

`torch.optim.AdamW` loads torch's compiler the first time it is made: 69 MiB and 1.8 s of CPU time for something that is never used here. The kernel, and so
every bit of the weights, is the same. Source: Loshchilov, Hutter, Decoupled Weight Decay Regularization, 2019.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from modelinscale.models._torch import torch


@dataclass(frozen=True)
class Moments:
    """What is remembered of one parameter."""

    step: torch.Tensor  # (), float32
    first: torch.Tensor
    """Moving average of its gradients, in its shape."""
    second: torch.Tensor
    """Moving average of their squares."""


class AdamW:
    """Steps of the parameters along their gradients. A parameter that never had a gradient is left alone and has no moments."""

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], weight_decay: float, share: float = 1.0, own: Callable[[torch.Tensor], torch.Tensor] = lambda one: one
    ) -> None:
        """``share``: how much of the step size they move by; ``own``: what this process holds of a parameter or gradient, where several hold a part each."""
        self._parameters, self._weight_decay, self._share, self._own = list(parameters), weight_decay, share, own
        self._known = set(self._parameters)
        self.moments: dict[torch.nn.Parameter, Moments] = {}

    def moves(self, parameter: torch.nn.Parameter) -> bool:
        """Whether this is one of its parameters."""
        return parameter in self._known

    def step(self, rate: float) -> None:
        """Moves every parameter that has a gradient by up to about ``rate``, and lets go of the gradients."""
        moved = [p for p in self._parameters if p.grad is not None]
        held = [self._own(p) for p in moved]
        for p, mine in zip(moved, held, strict=True):
            if p not in self.moments:
                self.moments[p] = Moments(torch.zeros((), device=p.device), torch.zeros_like(mine), torch.zeros_like(mine))
        known = [self.moments[p] for p in moved]
        with torch.no_grad():
            torch._foreach_add_([one.step for one in known], 1)
            torch._fused_adamw_(
                held,
                [self._own(p.grad) for p in moved if p.grad is not None],
                [one.first for one in known],
                [one.second for one in known],
                [],
                [one.step for one in known],
                lr=rate * self._share,
                beta1=0.9,
                beta2=0.999,
                weight_decay=self._weight_decay,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )
        for p in moved:
            p.grad = None
