"""What a network learns to make small, and how long a step may be.

B rows of a batch, K members, C scores, W numbers of an answer.
"""

from collections.abc import Callable

from modelinscale.core.task import Task
from modelinscale.models._deep.parts import Tensor
from modelinscale.models._torch import torch

_LONGEST = 1.0
"""Length that a gradient is cut to."""


def loss_of(scores: Tensor, target: Tensor, weight: Tensor | None, task: Task, smoothing: float = 0.0) -> Tensor:
    """Weighted mean loss of (K, B, C) scores, over members and rows; ``weight`` None: all rows weigh the same."""
    each = losses_of(scores, target, task, smoothing)
    return each.mean() if weight is None else (each * weight).sum() / (weight.sum() * len(scores)).clamp_min(1e-12)


def losses_of(scores: Tensor, target: Tensor, task: Task, smoothing: float = 0.0) -> Tensor:
    """(K, B): of each member and row."""
    K = len(scores)
    scores = scores.float()
    if task.type == "multiclass":
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1), target.repeat(K), reduction="none", label_smoothing=smoothing).view(K, -1)
    if task.type == "binary":
        soft = target * (1 - smoothing) + smoothing / 2 if smoothing else target
        return torch.nn.functional.binary_cross_entropy_with_logits(scores[..., 0], soft.expand(K, -1), reduction="none")
    if task.type == "multilabel":
        soft = target * (1 - smoothing) + smoothing / 2 if smoothing else target
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, soft.expand(K, -1, -1), reduction="none").mean(-1)
    if task.levels:  # pinball loss; levels that cross are put in order by the decision, which never makes it worse
        level = scores.new_tensor(task.levels)
        off = target[:, None] - scores  # (K, B, Q)
        return torch.maximum(level * off, (level - 1) * off).mean(-1)
    if task.width is not None:
        return ((scores - target) ** 2).mean(-1)  # (K, B, W)
    return (scores[..., 0] - target) ** 2


def clipped(gradients: list[Tensor], of_all: Callable[[Tensor], Tensor]) -> Tensor:
    """Shortens the gradients, together one vector, to a length of at most 1; returns the length they had. ``of_all``: the length of the vector that these
    are a part of, from theirs."""
    length = of_all(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
    torch._foreach_mul_(gradients, (_LONGEST / (length + 1e-6)).clamp(max=1.0))
    return length
