"""How hard the simulated payments are: LightGBM and logistic regression on a split in time, for several worlds.

python benchmarks/fraud.py [--seeds 7 8 9]   writes benchmarks/results/fraud.md
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelinscale.data.sources.simulator import Simulator

HERE = Path(__file__).parent
DAY_US = 86_400 * 10**6
NAMES = ("payment_id", "paid_at", "customer_id", "card_id", "terminal_id", "reported_at", "is_fraud")


def rows(seed: int) -> tuple[pl.DataFrame, float]:
    """All labelled payments of a world, and the CPU time they took to make."""
    start = time.process_time()
    source = Simulator(seed=seed)
    frame = pl.concat([pl.DataFrame(pl.from_arrow(chunk.batch)) for chunk in source.read(None, source.columns())])
    return frame, time.process_time() - start


def features(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Numbers as they are, words as codes (their names second), moments as hour and weekday."""
    X = frame.drop(NAMES).with_columns(hour=frame["paid_at"].dt.hour(), weekday=frame["paid_at"].dt.weekday())
    words = [c for c in X.columns if X[c].dtype == pl.String]
    return X.with_columns(pl.col(words).cast(pl.Categorical).to_physical()).cast(pl.Float64), words


def parts(frame: pl.DataFrame) -> tuple[NDArray[np.bool_], ...]:
    """Train, valid and test: 14 days each for the last two, a week left out before them."""
    day = (frame["paid_at"].cast(pl.Int64).to_numpy() - frame["paid_at"].cast(pl.Int64).min()) // DAY_US
    end = int(day.max()) + 1
    return day < end - 42, (day >= end - 35) & (day < end - 21), day >= end - 14


def trees(frame: pl.DataFrame) -> NDArray[Any]:
    """LightGBM's scores on the test rows."""
    import lightgbm as lgb

    X, words = features(frame)
    train, valid, test = parts(frame)
    y, table = frame["is_fraud"].to_numpy().astype(int), X.to_numpy()
    params = {
        **{"objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 40, "min_sum_hessian_in_leaf": 0.5},
        **{"lambda_l2": 5, "metric": "average_precision", "verbosity": -1, "seed": 7, "deterministic": True},
    }
    data = lgb.Dataset(table[train], y[train], feature_name=list(X.columns), categorical_feature=words, params={"verbosity": -1})
    model = lgb.train(params, data, 500, [data.create_valid(table[valid], y[valid])], callbacks=[lgb.early_stopping(50, verbose=False)])
    return np.asarray(model.predict(table[test]))


def logistic(frame: pl.DataFrame) -> NDArray[Any]:
    """Logistic regression's scores on the test rows: standardised, one column a word, a flag for what is missing."""
    from sklearn.linear_model import LogisticRegression

    X, words = features(frame)
    train, _, test = parts(frame)
    gaps = X.select(pl.all().is_null().cast(pl.Float64).name.suffix("_missing"))
    table = pl.concat([X.drop(words), gaps, X.select(words).to_dummies()], how="horizontal").to_numpy().astype(float)
    table = np.where(np.isnan(table), np.nanmean(table[train], axis=0), table)
    table = (table - table[train].mean(0)) / np.maximum(table[train].std(0), 1e-9)
    model = LogisticRegression(C=0.1, max_iter=500).fit(table[train], frame["is_fraud"].to_numpy()[train])
    return np.asarray(model.predict_proba(table[test])[:, 1])


def main() -> None:
    from sklearn.metrics import average_precision_score

    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="*", default=[7, 8, 9])
    lines = ["| seed | payments | frauds | CPU s to simulate | LightGBM, PR-AUC | logistic regression, PR-AUC |", "|---|---|---|---|---|---|"]
    for seed in parser.parse_args().seeds:
        frame, seconds = rows(seed)
        truth = frame["is_fraud"].to_numpy()[parts(frame)[2]]
        scores = [f"{average_precision_score(truth, one(frame)):.2f}" for one in (trees, logistic)]
        lines.append(f"| {seed} | {len(frame):,} | {float(np.mean(frame['is_fraud'].to_numpy())):.2%} | {seconds:.1f} | {' | '.join(scores)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "fraud.md").write_text(f"# How hard the simulated payments are\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
