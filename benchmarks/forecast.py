"""Forecasts of ETTh1 as they are published: 96 hours of 7 variables, from every hour of the test months; length of history chosen on the validation months.

    python benchmarks/forecast.py --home DATA

Numbers are in deviations of the training months, as everywhere in the literature. Published for 96 hours: DLinear 0.374, NLinear and Linear 0.375,
FEDformer 0.376 (mean squared error). Each variable of each hour is a row; the model sees history and nothing else.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from _real import HOME
from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples
from modelinscale.models.forecast import Forecast

TRAIN, VALID, TEST, HORIZON, DAY = 8_640, 11_520, 14_400, 96, 24
PUBLISHED = "| DLinear, published | | | 0.374 | 0.394 | |"


def windows(values: NDArray[np.float64], start: int, stop: int, history: int) -> Examples:
    """All that are forecast within rows ``start`` to ``stop``, their history before that where there is any."""
    seen = values[max(0, start - history) : stop]
    both = np.lib.stride_tricks.sliding_window_view(seen, history + HORIZON, axis=0).reshape(-1, history + HORIZON)  # (windows * variables, T + H)
    x = both[:, :history].astype(np.float32)
    layout = Layout("dense", history, tuple(str(i) for i in range(history)))
    rows = Encoded({"plain/history": layout, "scaled/history": layout}, {"plain/history": x, "scaled/history": x})
    return Examples(rows, both[:, history:])


def errors(found: NDArray[Any], wanted: NDArray[Any]) -> tuple[float, float]:
    return float(((found - wanted) ** 2).mean()), float(np.abs(found - wanted).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=HOME)
    parser.add_argument("--histories", type=int, nargs="+", default=[96, 192, 336, 512, 720])
    given = parser.parse_args()
    raw = pl.read_parquet(given.home / "etth1" / "data.parquet").select(pl.exclude("date")).to_numpy()
    values = (raw - raw[:TRAIN].mean(axis=0)) / raw[:TRAIN].std(axis=0)
    task = Task(type="regression", target="future", width=HORIZON)
    print("| model | history | validation MSE | test MSE | test MAE | CPU s |\n|---|---|---|---|---|---|")
    test = windows(values, VALID, TEST, DAY)
    last_day = np.tile(np.asarray(test.rows["plain/history"], np.float64), (1, HORIZON // DAY))
    print("| the last day again | 24 | | {:.4f} | {:.4f} | 0 |".format(*errors(last_day, test.target)))
    print(PUBLISHED)
    found = []
    for history in given.histories:
        since = time.process_time()
        train, valid, test = (windows(values, a, b, history) for a, b in ((0, TRAIN), (TRAIN, VALID), (VALID, TEST)))
        model = Forecast()
        weights = model.fit(train, valid, task, Effort())
        cpu_s = time.process_time() - since
        on_valid, on_test = (errors(model.predict(weights, part.rows), part.target) for part in (valid, test))
        found.append((on_valid[0], history, on_test))
        print(f"| forecast | {history} | {on_valid[0]:.4f} | {on_test[0]:.4f} | {on_test[1]:.4f} | {cpu_s:.0f} |", flush=True)
    best = min(found)
    print(
        f"\nChosen on the validation months: a history of {best[1]}. Test MSE {best[2][0]:.4f}, MAE {best[2][1]:.4f} over {len(test) // raw.shape[1]:,} hours."
    )


if __name__ == "__main__":
    main()
