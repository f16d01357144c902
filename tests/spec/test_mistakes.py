"""A model.yaml with mistakes: every one is told, with its place and what to do."""

import pytest

from modelinscale.core.errors import SpecError
from modelinscale.spec import loads

GOOD = "data: {source: rows.csv}\ntarget: y\n"

CASES = {
    "empty file": ("", r"is empty"),
    "a list": ("- a\n- b\n", r"expected keys such as `data:`"),
    "a bare word": ("hello\n", r"expected keys such as `data:`"),
    "not YAML": ("data: {source: rows.csv\ntarget: y\n", r"line \d+, column \d+: this is not YAML"),
    "tabs": ("data:\n\tsource: rows.csv\n", r"Indent with spaces"),
    "a tag that builds objects": (GOOD + "name: !!python/object/apply:os.system ['true']\n", r"tag .* is not allowed"),
    "an anchor loop": ("data: &a {source: *a}\ntarget: y\n", r"line 1, column \d+: this is not YAML: the alias \*a is not allowed"),
    "no data": ("target: y\n", r"data: this is required and missing"),
    "no source": ("data: {}\ntarget: y\n", r"data.source: this is required and missing"),
    "no target": ("data: {source: rows.csv}\n", r"target: this is required and missing"),
    "unknown key, near": ("data: {source: rows.csv}\ntraget: y\n", r"traget: unknown key. Did you mean 'target'"),
    "unknown key, nested": (GOOD + "train: {buget: 10m}\n", r"model.yaml:3:9: train.buget: unknown key. Did you mean 'budget'"),
    "a key twice": (GOOD + "target: z\n", r":3:1: target: this key is already given in line 2"),
    "a control character": (GOOD + "name: a\x07b\n", r"model.yaml: line 3, column 8: the character U\+0007 is not allowed"),
    "an escape character in a comment": (GOOD + "# \x1b[0m\n", r"line 3, column 3: the character U\+001B is not allowed"),
    "a planned section": (GOOD + "monitor: {window: 1d}\n", r"monitor: drift monitoring is planned and not supported yet"),
    "a section for what is a command": (GOOD + "explain: {method: shap}\n", r"explain: there is no such section: `mis explain` says"),
    "a planned target": (GOOD + "deploy: {target: k8s}\n", r"deploy: deployment to targets is planned and not supported yet"),
    "a section for a page that is always made": (GOOD + "report: true\n", r"report: there is no such section: every evaluation leaves a page"),
    "a source without its place": ("data: {source: {type: kafka, topic: t}}\ntarget: y\n", r"data.source.servers: this is required and missing"),
    "a store in a bucket of one letter": (GOOD + "store: {type: s3, bucket: b}\n", r"store.bucket"),
    "a store somewhere odd": (GOOD + "store: ftp://host/x\n", r"ftp:// is no store"),
    "a compute nobody knows": (GOOD + "compute: rya\n", r"compute: unknown compute type 'rya'. Did you mean 'ray'"),
    "a compute setting nobody knows": (GOOD + "compute: {type: ray, wrokers: 8}\n", r"wrokers: unknown key. Did you mean 'workers'"),
    "a key of a join": (
        "data:\n  source:\n    - {type: csv, path: a.csv}\n    - {path: b.csv, join: {on: k}}\n"
        "    - {type: parquet, path: c.parquet, join: {on: k, asof: t}}\ntarget: y\n",
        r"model.yaml:5:54: data.source\[2\].join.asof: unknown key. Did you mean 'as_of'\? Known here: on, as_of, columns, prefix",
    ),
    "a key of a source that is joined": (
        "data:\n  source:\n    - {type: csv, path: a.csv}\n    - {path: b.csv, seperator: ';', join: {on: k}}\ntarget: y\n",
        r"model.yaml:4:21: data.source\[1\].seperator: unknown key. Did you mean 'separator'\? Known here: path",
    ),
    "a key of the source that others are joined to": (
        "data:\n  source:\n    - {type: csv, path: a.csv, pth: b.csv}\n    - {path: b.csv, join: {on: k}}\ntarget: y\n",
        r"model.yaml:3:32: data.source\[0\].pth: unknown key. Did you mean 'path'\?",
    ),
    "a join without a key": (
        "data:\n  source:\n    - {type: csv, path: a.csv}\n    - {path: b.csv, join: {as_of: t}}\ntarget: y\n",
        r"model.yaml:4:27: data.source\[1\].join.on: this is required and missing",
    ),
    "a source at an address": ("data: {source: 'hdfs://b/rows.csv'}\ntarget: y\n", r"no source reads hdfs://"),
    "a source type nobody knows": ("data: {source: {type: cvs, path: rows.csv}}\ntarget: y\n", r"unknown source type 'cvs'. Did you mean 'csv'"),
    "a suffix nobody knows": ("data: {source: rows.xyz}\ntarget: y\n", r"cannot be told from its suffix"),
    "a source setting nobody knows": (
        "data: {source: {type: csv, path: rows.csv, seperator: ';'}}\ntarget: y\n",
        r"seperator: unknown key. Did you mean 'separator'",
    ),
    "files of two types": ("data: {source: [a.csv, b.parquet]}\ntarget: y\n", r"different types"),
    "a feature type nobody knows": (GOOD + "features: {age: numbr}\n", r"features.age: unknown feature type 'numbr'. Did you mean 'number'"),
    "a feature setting out of range": (GOOD + "features: {age: {type: number, clip: -1}}\n", r"features.age.clip: expected .*greater than 0.*found -1"),
    "a feature without a type": (GOOD + "features: {age: {clip: 5}}\n", r"`type` is missing"),
    "a model nobody knows": (GOOD + "model: tree\n", r"model: unknown model type 'tree'. Did you mean 'trees'"),
    "a model setting nobody knows": (GOOD + "model: {type: trees, leafs: 3}\n", r"model.leafs: unknown key"),
    "a duration without a unit": (GOOD + "train: {budget: ten minutes}\n", r"'ten minutes' is not a duration"),
    "a negative budget": (GOOD + "train: {budget: -5}\n", r"from 0 up, found -5"),
    "a seed of words": (GOOD + "train: {seed: lucky}\n", r"train.seed: expected .*integer"),
    "levels of no quantiles": (GOOD + "levels: [0.1, 0.9]\n", r"`levels` are given, and `task` is not quantiles"),
    "one level": (GOOD + "task: quantiles\nlevels: [0.9]\n", r"levels: expected at least 2 items, found"),
    "a task nobody knows": (GOOD + "task: clustering\n", r"task: expected .*'binary', 'multiclass', 'multilabel', 'regression' or 'quantiles'"),
    "another version": (GOOD + "version: 2\n", r"version: expected .*1.*found 2"),
    "a name with a slash": (GOOD + "name: a/b\n", r"name: expected"),
    "the target as a feature": (GOOD + "features: {y: number}\n", r"the target 'y' is also a feature"),
    "the target left out": ("data: {source: rows.csv, leave_out: [y]}\ntarget: y\n", r"the target 'y' is in `data.leave_out`"),
    "a fill from the target": ("data: {source: rows.csv, clean: {a: {fill: {column: y}}}}\ntarget: y\n", r"fills 'a' from the target: the answer is not known"),
    "a fill from a personal column": (
        "data: {source: rows.csv, personal: {b: drop}, clean: {a: {fill: {column: b}}}}\ntarget: y\n",
        r"fills 'a' from 'b', and 'b' is in `data.personal`: it would be stored under another name",
    ),
    "a fill that learns": ("data: {source: rows.csv, clean: {a: {fill: {with: median, by: b}}}}\ntarget: y\n", r"`fill` learns nothing, so there is no `by`"),
    "a feature left out": ("data: {source: rows.csv, leave_out: [a]}\ntarget: y\nfeatures: {a: number}\n", r"a: named in `features` and in `data.leave_out`"),
    "a check nobody knows": ("data: {source: rows.csv, checks: {a: {betwen: [0, 1]}}}\ntarget: y\n", r"betwen"),
    "a check the wrong way round": ("data: {source: rows.csv, checks: {a: {between: [10, 0]}}}\ntarget: y\n", r"between|low|10"),
    "a column type nobody knows": ("data: {source: rows.csv, columns: {a: integer}}\ntarget: y\n", r"data.columns.a: expected"),
    "a split type nobody knows": ("data: {source: rows.csv, split: {type: tiem}}\ntarget: y\n", r"data.split"),
    "a share above one": ("data: {source: rows.csv, split: {type: hash, test: 1.5}}\ntarget: y\n", r"data.split"),
    "a port out of range": (GOOD + "serve: {port: 70000}\n", r"serve.port: expected"),
    "a metric nobody knows": (GOOD + "evaluate: {main: auc}\n", r"evaluate.main"),
    "nested too deeply": (GOOD + "features: " + "{a: " * 40 + "1" + "}" * 40 + "\n", r"nested too deeply"),
    "a list as a key": (GOOD + "? [a, b]\n: c\n", r"a key must be a word"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_with_what_to_do(name: str) -> None:
    text, expected = CASES[name]
    with pytest.raises(SpecError, match=expected):
        loads(text)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = "data: {source: rows.csv, keey: id}\ntarget: y\nfeatures: {age: numbr}\ntrain: {budget: soon, seed: x}\nserve: {prot: 1}\n"
    with pytest.raises(SpecError) as caught:
        loads(text)
    lines = caught.value.message.splitlines()
    assert lines[0].endswith("has 5 mistakes:")
    assert [line.strip().split(": ")[1] for line in lines[1:]] == ["data.keey", "features.age", "train.budget", "train.seed", "serve.prot"]


def test_words_of_yaml_1_1_stay_words() -> None:
    spec = loads("data: {source: rows.csv}\ntarget: on\nfeatures: {no: flag, yes: number}\n")
    assert spec.target == "on"
    assert list(spec.features) == ["no", "yes"]


def test_a_billion_laughs_are_refused_quickly() -> None:
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12))
    with pytest.raises(SpecError):
        loads(text)
