"""One peer of `automl.py` on one table, in whatever environment it is installed; prints one JSON object.

python benchmarks/automl_peer.py SIDE FILE.parquet TARGET TASK BUDGET FOLDER [COLUMN TO LEAVE OUT ...]
"""

import json
import pickle
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from sklearn import metrics


def read(path: str, target: str, leave_out: list[str]) -> tuple[Any, Any]:
    """Training and test rows; times as seconds, words as categories."""
    table = pandas.read_parquet(path).drop(columns=leave_out)
    for name in table.columns:
        if "datetime" in str(table[name].dtype):
            table[name] = table[name].astype("int64")
        elif name not in (target, "split") and table[name].dtype.kind not in "biuf":
            table[name] = table[name].astype("category")
    test = table["split"] == "test"
    return table[~test].drop(columns="split"), table[test].drop(columns="split")


def judged(task: str, truth: Any, answer: Any, labels: list[Any]) -> dict[str, float]:
    if task == "regression":
        return {"rmse": float(metrics.root_mean_squared_error(truth, answer)), "mae": float(metrics.mean_absolute_error(truth, answer))}
    index = np.searchsorted(labels, np.asarray(truth))
    p = np.asarray(answer, np.float64)
    found = {"log_loss": float(metrics.log_loss(index, p, labels=range(len(labels)))), "accuracy": float((p.argmax(1) == index).mean())}
    return found | ({"roc_auc": float(metrics.roc_auc_score(index, p[:, 1]))} if len(labels) == 2 else {})


def lightgbm(train: Any, target: str, task: str, budget: float, folder: Path) -> tuple[Any, Any]:
    import lightgbm as library

    model = (library.LGBMRegressor if task == "regression" else library.LGBMClassifier)(verbose=-1)
    model.fit(train.drop(columns=target), train[target])
    return model, model.predict if task == "regression" else model.predict_proba


def catboost(train: Any, target: str, task: str, budget: float, folder: Path) -> tuple[Any, Any]:
    import catboost as library

    X = train.drop(columns=target)
    categories = [name for name in X.columns if str(X[name].dtype) == "category"]

    def plain(table: Any) -> Any:
        return table.assign(**{name: table[name].astype(object).where(table[name].notna(), "missing").astype(str) for name in categories})

    model = (library.CatBoostRegressor if task == "regression" else library.CatBoostClassifier)(verbose=0, allow_writing_files=False, cat_features=categories)
    model.fit(plain(X), train[target])
    ask = model.predict if task == "regression" else model.predict_proba
    return model, lambda table: ask(plain(table))


def autogluon(preset: str) -> Any:
    def fit(train: Any, target: str, task: str, budget: float, folder: Path) -> tuple[Any, Any]:
        from autogluon.tabular import TabularPredictor

        # The trial of stacking that good_quality begins with fails in 1.6.3 ("Learner is already fit"); without it all of the budget is for the models.
        more = {"dynamic_stacking": False} if preset == "good_quality" else {}
        predictor = TabularPredictor(label=target, path=str(folder), verbosity=0).fit(train, time_limit=budget, presets=preset, num_cpus=2, **more)
        predictor.delete_models(models_to_keep="best", dry_run=False)
        predictor.save_space()
        predictor.persist()
        return predictor, predictor.predict if task == "regression" else lambda X: predictor.predict_proba(X).to_numpy()

    return fit


def flaml(train: Any, target: str, task: str, budget: float, folder: Path) -> tuple[Any, Any]:
    from flaml import AutoML

    model = AutoML()
    kind = "regression" if task == "regression" else "classification"
    metric = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}[task]
    model.fit(
        train.drop(columns=target),
        train[target],
        task=kind,
        metric=metric,
        time_budget=budget,
        verbose=0,
        n_jobs=2,
        estimator_list=["lgbm", "catboost", "rf", "extra_tree"],
    )
    return model, model.predict if task == "regression" else model.predict_proba


SIDES = {
    "lightgbm": lightgbm,
    "catboost": catboost,
    "flaml": flaml,
    "autogluon-medium_quality": autogluon("medium_quality"),
    "autogluon-good_quality": autogluon("good_quality"),
}


def main(side: str, path: str, target: str, task: str, budget: str, folder: str, *leave_out: str) -> dict[str, Any]:
    train, test = read(path, target, list(leave_out))
    model, ask = SIDES[side](train, target, task, float(budget), Path(folder))
    X = test.drop(columns=target)
    found = judged(task, test[target], ask(X), sorted(set(train[target])))
    row, times = X.head(1), []
    for i in range(5 + 100):  # as automl.row_us: warm, one raw row, until the answer is there
        began = time.perf_counter()
        ask(row)
        if i >= 5:
            times.append((time.perf_counter() - began) * 1e6)
    size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()) if Path(folder).is_dir() else len(pickle.dumps(model))
    return {"metrics": found, "artefact_bytes": size, "row_us": statistics.median(times), "row_us_p99": float(np.quantile(times, 0.99))}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
