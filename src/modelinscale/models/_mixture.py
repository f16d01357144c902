"""Mixing members' answers: the mean of their probabilities as logits, and which members to mix, chosen greedily on rows none of them learned from.

M members, N rows, C scores. A row's *share* of a member's answer is the probability it gives to the true class; of numbers it is the value itself. The
mean of shares is the share of the mean, so that choosing needs no more than (M, N) numbers.

Source of the choosing: Caruana et al., Ensemble selection from libraries of models, 2004 (with replacement, so that counts become weights).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph
from modelinscale.core.task import Task
from modelinscale.models import Scores

F64 = NDArray[np.float64]

ROUNDS = 25
"""Most picks: weights are then multiples of a twenty-fifth."""
_SURE = 1.0
"""Standard errors by which a new member has to make the mean loss better: less is what chance gives as well."""
_TINY = 1e-12


def mixed(scores: Sequence[Scores], shares: Sequence[float], task: Task) -> Scores:
    """Scores whose probabilities are the weighted mean of the members'; of numbers the weighted mean. (N,) or (N, C), as the members'."""
    if task.type == "regression":
        return np.asarray(sum(share * one for one, share in zip(scores, shares, strict=True)), np.float64)
    logs = np.log(np.asarray(shares, np.float64))
    if task.type == "binary":
        yes, no = (_log_sum([log - np.logaddexp(0.0, sign * one) for one, log in zip(scores, logs, strict=True)]) for sign in (-1.0, 1.0))
        return yes - no
    return _log_sum([log + one - _log_sum(list(one.T))[:, None] for one, log in zip(scores, logs, strict=True)])


def _log_sum(logs: list[F64]) -> F64:
    """The logarithm of the sum of exponentials, without leaving the range of numbers."""
    highest = np.maximum.reduce(logs)
    return np.asarray(highest + np.log(sum(np.exp(one - highest) for one in logs)), np.float64)


def draw_mixed(graph: Graph, scores: Sequence[str], shares: Sequence[float], task: Task) -> str:
    """Draws `mixed` of float32 tensors (N,) or (N, C)."""
    one = np.float32
    if task.type == "regression":
        parts = [graph.op("Mul", tensor, graph.constant(share, one)) for tensor, share in zip(scores, shares, strict=True)]
        return parts[0] if len(parts) == 1 else graph.op("Sum", *parts)
    logs = [graph.constant(np.log(share), one) for share in shares]
    if task.type == "binary":
        no = [graph.op("Sub", log, graph.op("Softplus", tensor)) for tensor, log in zip(scores, logs, strict=True)]
        yes = [graph.op("Add", part, tensor) for part, tensor in zip(no, scores, strict=True)]  # log sigmoid(s) = s + log sigmoid(-s)
        return graph.op("Sub", _draw_log_sum(graph, yes), _draw_log_sum(graph, no))
    return _draw_log_sum(graph, [graph.op("Add", graph.op("LogSoftmax", tensor, axis=1), log) for tensor, log in zip(scores, logs, strict=True)])


def _draw_log_sum(graph: Graph, logs: list[str]) -> str:
    highest = logs[0] if len(logs) == 1 else graph.op("Max", *logs)
    parts = [graph.op("Exp", graph.op("Sub", one, highest)) for one in logs]
    return graph.op("Add", highest, graph.op("Log", parts[0] if len(parts) == 1 else graph.op("Sum", *parts)))


def row_shares(scores: Scores, target: NDArray[np.float64] | NDArray[np.int64], task: Task) -> F64:
    """(N,): see above."""
    if task.type == "regression":
        return np.asarray(scores, np.float64)
    if task.type == "binary":
        return np.asarray(np.exp(-np.logaddexp(0.0, np.where(target == 1, -scores, scores))), np.float64)
    own = scores[np.arange(len(target)), target] - _log_sum(list(scores.T))
    return np.asarray(np.exp(own), np.float64)


def row_losses(shares: F64, target: NDArray[np.float64] | NDArray[np.int64], task: Task) -> F64:
    """(…, N): log loss, of numbers the squared error."""
    return np.asarray((shares - target) ** 2 if task.type == "regression" else -np.log(np.maximum(shares, _TINY)), np.float64)


@dataclass(frozen=True)
class Mixture:
    """Which members are mixed, and what that is worth."""

    shares: tuple[float, ...]
    """(M,): summing to 1; 0 for those left out."""
    loss: float
    """Weighted mean loss of the mixture."""
    single: float
    """The same of the best member by itself; never less than ``loss``."""


def choose(
    found: F64,
    target: NDArray[np.float64] | NDArray[np.int64],
    weight: F64 | None,
    task: Task,
    *,
    costs: Sequence[float] | None = None,
    most: float = np.inf,
) -> Mixture:
    """Members to mix, from their `row_shares` (M, N): the best one, then again and again the one that helps most, the same one more than once if need be.

    A member joins only where it makes the rows' mean loss better by more than its standard error over the rows (what drawing the rows anew would move it
    by); one that is in already counts for more as long as that helps at all. ``costs``, (M,): what each takes at prediction; together at most ``most``,
    except that the cheapest member is always within it.
    """
    share = np.full(found.shape[1], 1.0) if weight is None else weight
    share = share / share.sum()
    price = np.zeros(len(found)) if costs is None else np.asarray(costs, np.float64)
    affordable = price <= max(most, float(price.min()))
    alone = np.array([float(share @ row_losses(one, target, task)) for one in found])
    alone[~affordable] = np.inf
    first = int(alone.argmin())
    picks = np.zeros(len(found), np.int64)
    picks[first] = 1
    total, losses = found[first].copy(), row_losses(found[first], target, task)
    effective = 1.0 / float(share @ share)
    for n in range(1, ROUNDS):
        best: tuple[float, int, F64] | None = None
        spent = float(price[picks > 0].sum())
        for j in range(len(found)):
            if not picks[j] and (not affordable[j] or spent + price[j] > most):
                continue
            now = row_losses((total + found[j]) / (n + 1), target, task)
            gains = losses - now
            gain = float(share @ gains)
            noise = 0.0 if picks[j] else _SURE * float(np.sqrt(max(share @ (gains - gain) ** 2, 0.0) / effective))
            if gain > max(noise, _TINY) and (best is None or gain > best[0]):
                best = (gain, j, now)
        if best is None:
            break
        picks[best[1]] += 1
        total, losses = total + found[best[1]], best[2]
    return Mixture(tuple((picks / picks.sum()).tolist()), float(share @ losses), float(alone[first]))
