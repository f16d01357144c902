"""How well texts are told apart on real sets, on their test split: accuracy and F1 of the linear model on terms, with the CPU minutes it took.

    python benchmarks/texts.py --set sms-spam
    python benchmarks/texts.py --set 20newsgroups --plain

No setting is chosen on test rows: the strength is the best of the family's own on a fifth of the training rows (so is the threshold for F1), then all training
rows are learned from with it and with the terms of the four fifths, as `model: auto` does in the end. ``--plain``: the settings of ``type: text`` as they are.
sms-spam: 80/20 by chance, each class alike, seed 42. 20newsgroups: by date, headers kept.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

from _real import HOME
from modelinscale.core.encoded import Encoded
from modelinscale.core.task import Task
from modelinscale.features.text import Text
from modelinscale.models import Effort, Examples
from modelinscale.models.linear import Linear

FEATURES: dict[str, dict[str, Any]] = {"sms-spam": {"characters": 4}, "20newsgroups": {"keep": 100_000, "pairs": False}}


@dataclass(frozen=True)
class Set:
    texts: pl.Series
    target: NDArray[np.int64]
    task: Task
    train: NDArray[np.int64]
    test: NDArray[np.int64]


def read(name: str, home: Path) -> Set:
    """The set with its own split, or the one its page recommends."""
    table = pl.read_parquet(home / name / "data.parquet")
    labels = tuple(sorted(table["label"].unique().to_list()))
    target = np.searchsorted(np.array(labels), table["label"].to_numpy()).astype(np.int64)
    task = Task(type="binary" if len(labels) == 2 else "multiclass", target="label", labels=labels)
    if "split" in table.columns:
        train, test = (np.flatnonzero(table["split"] == part) for part in ("train", "test"))
    else:
        train, test = train_test_split(np.arange(len(table)), test_size=0.2, stratify=target, random_state=42)
    return Set(table["text"], target, task, train, test)


def encoded(text: Text, one: Set, seen: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], Examples]:
    """Rows as a model sees them, by what the rows ``seen`` taught of terms."""
    state = text.settled(text.observe(text.empty(), one.texts[seen]))
    layout = text.layout(state, "scaled")
    print(f"{layout.width:,} terms", flush=True)
    return lambda index: Examples(Encoded({"text": layout}, {"text": text.encode(state, one.texts[index], "scaled")}), one.target[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=[*FEATURES], action="append", required=True)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--home", type=Path, default=HOME)
    given = parser.parse_args()
    for name in given.set:
        one, since = read(name, given.home), time.process_time()
        seen, held = train_test_split(one.train, test_size=0.2, stratify=one.target[one.train], random_state=1)
        examples = encoded(Text(**({} if given.plain else FEATURES[name])), one, seen)
        model, effort = Linear(), Effort(seed=7, n_threads=1)
        first = model.fit(examples(seen), examples(held), one.task, effort)
        print(f"strength {first.meta['strength']:.2g}, of {(time.process_time() - since) / 60:.1f} CPU minutes", flush=True)
        weights = model.without_valid([first], one.task).fit(examples(one.train), None, one.task, effort)
        judged, found = model.predict(first, examples(held).rows), model.predict(weights, examples(one.test).rows)
        if one.task.type == "binary":
            borders = np.unique(judged)
            border = max(borders, key=lambda b: (f1_score(one.target[held], judged >= b), b))
            F1, at_half = (f1_score(one.target[one.test], found >= b) for b in (border, 0.0))
            print(f"{name}: F1 {F1:.4f} (threshold chosen on held-out rows), {at_half:.4f} at one half", flush=True)
            found = np.stack([-found + border, found - border], axis=1)
        accuracy = float((found.argmax(1) == one.target[one.test]).mean())
        print(f"{name}: accuracy {accuracy:.4f}, {(time.process_time() - since) / 60:.1f} CPU minutes", flush=True)


if __name__ == "__main__":
    main()
