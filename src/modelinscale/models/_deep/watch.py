"""Whether a network still learns: losses and gradients are looked at, and one that is no number is an error that names the step and its rows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import ModelError
from modelinscale.core.task import Task
from modelinscale.models._deep.feed import Feed, Step
from modelinscale.models._deep.loss import losses_of
from modelinscale.models._deep.net import Net
from modelinscale.models._deep.parts import Tensor
from modelinscale.models._torch import torch

_WATCHED = {"cpu": 1, "cuda": 25}
"""Steps after which their losses are looked at: a GPU would have to wait for each."""


class Watch:
    """Looks at one training."""

    def __init__(self, name: str, net: Net, task: Task, rows: Feed | None, seed: int, batch_rows: int) -> None:
        """``rows``: those that steps are dealt from, in the order that ``seed`` gives; None: this process sees only a share of a step's rows."""
        self._name, self._net, self._task, self._rows, self._seed, self._batch_rows = name, net, task, rows, seed, batch_rows
        self._unseen: list[tuple[int, Tensor, Tensor]] = []

    def seen(self, number: int, step: Step, loss: Tensor, norm: Tensor) -> Sequence[float]:
        """The losses since the last look, none where this is no time for one. Raises `ModelError` once a loss or the length of a gradient is no number."""
        self._unseen.append((number, loss, norm))
        if len(self._unseen) < _WATCHED[loss.device.type]:
            return ()
        numbers = [one for one, _, _ in self._unseen]
        losses: list[float] = torch.stack([one for _, one, _ in self._unseen]).double().tolist()
        norms: list[float] = torch.stack([length for _, _, length in self._unseen]).double().tolist()
        self._unseen = []
        for at, one, length in zip(numbers, losses, norms, strict=True):
            if not np.isfinite(one) or not np.isfinite(length):
                raise self._broken(at, one, length, step if at == number else None)
        return losses

    def _broken(self, number: int, loss: float, length: float, step: Step | None) -> ModelError:
        where, said = f"step {number + 1}", ""
        if self._rows is not None:
            per_epoch = -(-self._rows.n_rows // self._batch_rows)
            epoch, place = divmod(number, per_epoch)
            where += f" (epoch {epoch + 1}, its step {place + 1} of {per_epoch})"
            index = self._rows.rows_of(self._seed, epoch, self._batch_rows, place * self._batch_rows)
            said = f" Rows of that step, counted from 0: {_few(index)}."
            if step is not None:
                with torch.no_grad():
                    each = losses_of(self._net.eval()(step.batch), step.target, self._task).sum(0).cpu().numpy()
                bad = index[~np.isfinite(each)]
                said += f" No number by themselves: {_few(bad)}." if 0 < len(bad) < len(index) else ""
        what = f"the loss of {self._name} is {loss:.3g}" if not np.isfinite(loss) else f"the gradient of {self._name} has the length {length:.3g}"
        return ModelError(f"{what} at {where}: it cannot learn on from there.{said}", fix="Lower `learning_rate`, or look for extreme numbers in these rows.")


def _few(index: NDArray[np.int64]) -> str:
    return ", ".join(str(i) for i in index[:10]) + (f" and {len(index) - 10} more" if len(index) > 10 else "")


__all__ = ["Watch"]
