"""Shapley values of trees, exact along their paths, as LightGBM gives them; a feature's columns are added up.

Source: Lundberg et al., From local explanations to global understanding with explainable AI for trees, 2020.
"""

from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from modelinscale.explain import Explained, Explainer, Rows, Subject


class TreeShap(Explainer):
    """Boosted trees: what each column adds to a row's score; contributions and base add up to it."""

    additive: ClassVar[bool] = True

    def refuses(self, subject: Subject) -> str:
        return "" if subject.model.type == "trees" else f"the model is {subject.model.type}, not trees"

    def explain(self, subject: Subject, rows: Rows, output: NDArray[np.int64], *, seed: int, overall: bool) -> Explained:
        from modelinscale.models._lightgbm import lightgbm
        from modelinscale.models._matrix import Block, as_matrix

        meta = subject.weights.meta
        blocks = tuple(Block.parse(block) for block in meta["blocks"])
        booster = lightgbm().Booster(model_str=subject.weights.arrays["trees"].tobytes().decode())
        N, C, D = len(rows), int(meta["n_scores"]), sum(block.n_columns for block in blocks)
        found = _dense(booster.predict(as_matrix(rows.encoded, blocks), pred_contrib=True)).reshape(N, C, D + 1)[np.arange(N), output]  # (N, D + 1)
        columns = np.repeat(np.arange(len(blocks)), [block.n_columns for block in blocks])
        names = list(subject.features)
        effects = np.zeros((N, len(names)))
        for column, block in enumerate(columns):
            effects[:, names.index(blocks[block].feature)] += found[:, column]
        scale, center = float(meta["scale"]), float(meta["center"])
        return Explained(effects=effects * scale, base=found[:, -1] * scale + center)


def _dense(found: Any) -> NDArray[np.float64]:
    """LightGBM gives sparse contributions for sparse rows, a matrix for each class."""
    parts = found if isinstance(found, list) else [found]
    return cast("NDArray[np.float64]", np.concatenate([np.asarray(part.todense() if hasattr(part, "todense") else part, np.float64) for part in parts], axis=1))
