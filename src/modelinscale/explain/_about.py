"""An explainer's findings as an explanation, with the checks that say whether they hold."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError, UsageError
from modelinscale.core.seeds import generator
from modelinscale.explain import Attribution, Effect, Explained, Explainer, Explanation, Rows, Subject
from modelinscale.explain._check import check, check_maps

if TYPE_CHECKING:
    from modelinscale.explain import Check

MOST_CHECKED = 50
"""Rows whose order of features is tried, at most."""
ADDITIVE = {"tree_shap": 1e-6, "integrated_gradients": 0.05}
"""How far contributions may miss the score, as a share of the scores' size: exact sums, and an integral by 64 steps through kinks."""
ALIKE = 0.5
"""Heat maps more alike (SSIM) than this to those of a model with random weights say nothing about the model."""
N_RESAMPLES = 200


def about(explainer: Explainer, subject: Subject, rows: Rows, *, local: bool, seed: int) -> tuple[Explanation, Explained]:
    """See `modelinscale.explain.about`."""
    why = explainer.refuses(subject)
    if not why and not (explainer.local if local else explainer.overall):
        why = "it explains many rows together, not one" if local else "it explains rows one by one: name some"
    if why:
        raise UsageError(f"{explainer.type} cannot explain this: {why}.", fix="Name another way with --by; `mis kinds explain` lists them.")
    if not len(rows):
        raise DataError("there are no rows to explain.", fix="Give a file with rows, or a split with test rows.")
    output = subject.outputs(rows.encoded)
    found = explainer.explain(subject, rows, output, seed=seed, overall=not local)
    score = subject.said(rows.encoded, output)
    tried, error = None, None
    few = np.arange(min(len(rows), MOST_CHECKED))
    if found.maps:
        tried = check_maps(subject, rows.take(few), output[few], {name: maps[few] for name, maps in found.maps.items()}, seed)
    elif found.effects is not None and len(subject.features) > 1:
        tried = check(subject, rows.take(few), output[few], found.effects[few], seed)
    if explainer.additive and found.effects is not None and found.base is not None:
        error = float(np.abs(found.base + found.effects.sum(1) - score).max() / max(1.0, float(np.abs(score).max())))
    faithful, notes = _judged(explainer, tried, error, found)
    importance, unit = found.importance, found.unit
    if not importance and found.effects is not None and not local:
        importance, unit = _overall(list(subject.features), found.effects, seed), "mean size of its contribution to the score"
    explanation = Explanation(
        by=explainer.type,
        model=subject.model.type,
        target=subject.task.target,
        n_rows=len(rows),
        importance=importance,
        unit=unit,
        rows=tuple(_rows(subject, rows, output, score, found)) if local else (),
        error=error,
        check=tried,
        similarity=found.similarity,
        faithful=faithful,
        notes=(*found.notes, *notes),
    )
    return explanation, found


def _judged(explainer: Explainer, tried: "Check | None", error: float | None, found: Explained) -> tuple[bool | None, list[str]]:
    """Whether it stood its checks, and where not."""
    notes = []
    if tried is not None and not tried.better:
        notes.append("Not faithful: changing features in the order given moves the score no more than in random order.")
    if error is not None and error > ADDITIVE.get(explainer.type, 1e-6):
        notes.append(f"Not faithful: contributions miss the score by {error:.1e} of its size.")
    if found.similarity is not None and found.similarity >= ALIKE:
        notes.append(f"Not faithful: a model with random weights gives much the same maps (SSIM {found.similarity:.2f}): they show the images, not the model.")
    if tried is None and error is None and found.similarity is None:
        return None, notes
    return not notes, notes


def _overall(names: list[str], effects: NDArray[np.float64], seed: int) -> tuple[Effect, ...]:
    """Mean sizes with percentile intervals over resampled rows, the largest first."""
    size, n = np.abs(effects), len(effects)
    chance = generator(seed, "explain", "rows")
    counts = np.stack([np.bincount(chance.integers(0, n, n), minlength=n) for _ in range(N_RESAMPLES)])
    low, high = np.quantile(counts @ size / n, [0.025, 0.975], axis=0)
    mean = size.mean(0)
    return tuple(Effect(feature=names[k], value=float(mean[k]), low=float(low[k]), high=float(high[k])) for k in np.argsort(-mean, kind="stable"))


def _rows(subject: Subject, rows: Rows, output: NDArray[np.int64], score: NDArray[np.float64], found: Explained) -> list[Attribution]:
    names = list(subject.features)
    decided = answers(subject, subject.scores(rows.encoded))
    cells = rows.frame.select([name for name in names if name in rows.frame.columns]).to_dicts()
    told = []
    for i in range(len(rows)):
        changes, would_be = found.changes[i] if found.changes else (None, "")
        told.append(
            Attribution(
                row=i,
                answer=decided[i],
                output=_output(subject, int(output[i])),
                score=float(score[i]),
                base=None if found.base is None else float(found.base[i]),
                effects={} if found.effects is None else dict(zip(names, map(float, found.effects[i]), strict=True)),
                cells={name: cell(value) for name, value in cells[i].items()},
                changes=changes,
                would_be=would_be,
            )
        )
    return told


def answers(subject: Subject, scores: NDArray[np.float64]) -> list[str]:
    """(N,) of (N, C): the decisions in words."""
    decided, _ = subject.decision.answer(scores if subject.task.n_scores > 1 else scores[:, 0], subject.task)
    if subject.task.type == "regression":
        return [f"{number:.6g}" for number in decided]
    return [cell(subject.task.labels[int(k)]) for k in decided]


def _output(subject: Subject, k: int) -> str:
    task = subject.task
    return task.target if task.type == "regression" else cell(task.labels[1 if task.type == "binary" else k])


def cell(value: Any) -> str:
    """A cell as a short text."""
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    if isinstance(value, list):
        return f"({len(value):,} values)"
    shown = "(missing)" if value is None else str(value).lower() if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
