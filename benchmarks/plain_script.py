"""What a practitioner writes by hand: load, fit LightGBM with its defaults, predict, metrics. The peer of `mis run`.

python benchmarks/plain_script.py FILE.parquet TARGET TASK [COLUMN TO LEAVE OUT ...]   prints one JSON object.
"""

import json
import sys
from typing import Literal

import lightgbm
import numpy as np
import polars as pl
from scipy.sparse import hstack
from sklearn import metrics
from sklearn.feature_extraction.text import TfidfVectorizer


def main(path: str, target: str, task: str, leave_out: list[str]) -> dict[str, float]:
    table = pl.read_parquet(path)
    train = (table["split"] == "train").to_numpy()
    columns = [c for c in table.columns if c not in (target, "split", *leave_out)]
    blocks, categories = [], []
    for column in columns:
        values = table[column]
        if values.dtype == pl.String and values.n_unique() > 1000:
            vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2).fit(values.filter(pl.Series(train)).to_list())
            blocks.append(vectorizer.transform(values.to_list()).astype(np.float32))
        elif values.dtype == pl.String:
            categories.append(len(blocks))
            blocks.append(values.cast(pl.Categorical).to_physical().cast(pl.Float64).to_numpy()[:, None])
        else:
            blocks.append((values.cast(pl.Int64) if values.dtype.is_temporal() else values).cast(pl.Float64).to_numpy()[:, None])
    X = hstack(blocks).tocsr() if any(hasattr(b, "tocsr") for b in blocks) else np.hstack(blocks)
    # A constant column of text must not be taken for a category index of the matrix when blocks are wide.
    named: list[int] | Literal["auto"] = categories if not any(hasattr(b, "tocsr") for b in blocks) else "auto"
    if task == "regression":
        y = table[target].cast(pl.Float64).to_numpy()
        model = lightgbm.LGBMRegressor(verbose=-1, n_jobs=2).fit(X[train], y[train], categorical_feature=named)
        answer = model.predict(X[~train])
        return {
            "rmse": float(metrics.root_mean_squared_error(y[~train], answer)),
            "mae": float(metrics.mean_absolute_error(y[~train], answer)),
            "r2": float(metrics.r2_score(y[~train], answer)),
        }
    y = table[target].cast(pl.String).to_numpy()
    labels, y = np.unique(y, return_inverse=True)
    model = lightgbm.LGBMClassifier(verbose=-1, n_jobs=2).fit(X[train], y[train], categorical_feature=named)
    p = np.asarray(model.predict_proba(X[~train]))
    found = {"log_loss": float(metrics.log_loss(y[~train], p)), "accuracy": float(metrics.accuracy_score(y[~train], p.argmax(1)))}
    if len(labels) == 2:
        found["roc_auc"] = float(metrics.roc_auc_score(y[~train], p[:, 1]))
        found["pr_auc"] = float(metrics.average_precision_score(y[~train], p[:, 1]))
    else:
        found["balanced_accuracy"] = float(metrics.balanced_accuracy_score(y[~train], p.argmax(1)))
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])))
