"""Does the order an explanation gives matter to the model? Features come in and go out in that order, and in random ones.

Source: Petsiuk, Das, Saenko, RISE, 2018 (deletion and insertion). N rows, F features (or places of an image), K orders, B background rows.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded
from modelinscale.core.seeds import generator
from modelinscale.explain import Check, Rows, Subject, swapped

Said = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
N_RANDOM, N_BACKGROUND = 8, 4
N_STEPS = 12
"""Steps in which features come and go, at most: of many, several at a time."""
GRID = 7
"""Places along a side of an image."""


def check(subject: Subject, rows: Rows, output: NDArray[np.int64], effects: NDArray[np.float64], seed: int) -> Check:
    """``effects`` (N, F): what each feature adds to the score of ``output``."""
    blocks, N, F = list(subject.features.values()), len(rows), len(subject.features)
    chance = generator(seed, "explain", "check")
    others = subject.background.take(chance.integers(0, len(subject.background), N_BACKGROUND)).encoded
    row, other = np.repeat(np.arange(N), N_BACKGROUND), N + np.tile(np.arange(N_BACKGROUND), N)  # (N B,)

    def said(there: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(N,): the score with only these features (N, F) of the row, the rest from background rows."""
        take = {name: np.where(np.repeat(there[:, f], N_BACKGROUND), row, other) for f, names in enumerate(blocks) for name in names}
        found = subject.said(swapped(rows.encoded, others, take, len(row)), output[row])
        return np.asarray(found.reshape(N, N_BACKGROUND).mean(1))

    return _compared(said, effects, chance, F)


def check_maps(subject: Subject, rows: Rows, output: NDArray[np.int64], maps: dict[str, NDArray[np.float64]], seed: int) -> Check:
    """``maps`` by feature, (N, height, width): places go to the mean image of the background rows."""
    name, heat = next(iter(maps.items()))
    block = next(one for one in subject.features[name] if subject.background.encoded.layouts[one].role == "image")
    image = np.asarray(rows.encoded[block])
    blank = np.asarray(subject.background.encoded[block], np.float64).mean(0).round().astype(np.uint8)  # (height, width, channels)
    N, height, width = heat.shape
    place = (np.arange(height) * GRID // height)[:, None] * GRID + (np.arange(width) * GRID // width)[None, :]  # (height, width)
    effects = np.stack([heat[:, place == p].mean(1) if (place == p).any() else np.zeros(N) for p in range(GRID * GRID)], axis=1)

    def said(there: NDArray[np.bool_]) -> NDArray[np.float64]:
        pixels = np.where(there[:, place][..., None], image, blank)
        return subject.said(Encoded(rows.encoded.layouts, {**rows.encoded.blocks, block: pixels}), output)

    return _compared(said, effects, generator(seed, "explain", "check"), GRID * GRID)


def _compared(said: Said, effects: NDArray[np.float64], chance: np.random.Generator, F: int) -> Check:
    N = len(effects)
    full, empty = said(np.ones((N, F), np.bool_)), said(np.zeros((N, F), np.bool_))
    spread = max(float(np.std(np.concatenate([full, empty]))), 1e-12)
    steps = np.unique(np.linspace(0, F, min(F, N_STEPS) + 1).round().astype(np.int64))[1:-1]

    def gap(order: NDArray[np.int64]) -> float:
        """``order`` (N, F): features, the weightiest first."""
        rank = order.argsort(1)
        came, left = [empty, full], [full, empty]
        for k in steps:
            came.append(said(rank < k))
            left.append(said(rank >= k))
        return float(np.mean(came) - np.mean(left)) / spread

    own = gap(np.argsort(-effects, axis=1, kind="stable"))
    random = np.array([gap(chance.random((N, F)).argsort(1)) for _ in range(N_RANDOM)])
    mean, deviation = float(random.mean()), float(random.std(ddof=1))
    return Check(gap=own, random=mean, random_spread=deviation, better=bool(own > mean + 2 * deviation and own > 0))
