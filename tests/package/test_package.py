import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelinscale.core.errors import PackageError, RequestError
from modelinscale.core.files import write_json
from modelinscale.core.identity import identity
from modelinscale.core.task import TaskType
from modelinscale.package import Package, copy_package, open_package
from modelinscale.package.manifest import FILES, FORMAT, read_manifest, upgraded
from modelinscale.testing.packages import ROWS, write_package

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("package") / "tiny")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "tiny"))


@pytest.fixture(scope="module")
def package(made: Path) -> Package:
    return open_package(made)


def reseal(folder: Path, **changes: Any) -> None:
    """Changes a manifest as somebody would who knows how it is sealed."""
    found = json.loads((folder / "manifest.json").read_text())
    found.pop("seal")
    found |= changes
    write_json(folder / "manifest.json", {**found, "seal": identity(found)})


def test_an_opened_package_answers_rows_of_every_column_type(package: Package) -> None:
    answers = package.predict(ROWS)
    assert [a["prediction"] for a in answers] == [True, True, False, True]
    for answer in answers:
        assert set(answer["probabilities"]) == {"false", "true"}
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    json.dumps(answers, allow_nan=False)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_batch_is_answered_as_its_rows_are_one_by_one(task: TaskType, tmp_path: Path) -> None:
    opened = open_package(write_package(tmp_path / "p", task=task))
    rows = [{**row, "amount": 3.7 * i} for i in range(50) for row in ROWS]
    assert opened.predict(rows) == [opened.predict([row])[0] for row in rows]


def test_threads_get_the_answers_that_one_alone_gets(package: Package) -> None:
    batches = [[{**row, "amount": float(i)} for row in ROWS] for i in range(40)]
    alone = [package.predict(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(package.predict, batches)) == alone


def test_no_rows_are_answered_by_none(package: Package) -> None:
    assert package.predict([]) == []
    assert len(package.run(package.tensors([]))) == 0


def test_an_empty_row_is_a_row_with_everything_missing(package: Package) -> None:
    assert package.predict([{}]) == package.predict([ROWS[2]])


# -- damage


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(PackageError, match=name):
        open_package(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["altered", "cut off", "emptied", "longer"])
def test_a_damaged_file_is_named(folder: Path, name: str, damage: str) -> None:
    content = (folder / name).read_bytes()
    middle = len(content) // 2
    changed = {
        "altered": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "cut off": content[:middle],
        "emptied": b"",
        "longer": content + b"\n",
    }
    (folder / name).write_bytes(changed[damage])
    with pytest.raises(PackageError, match=rf"{name}.*(altered|cut off)"):
        open_package(folder)


def test_every_changed_byte_of_the_manifest_is_noticed(folder: Path) -> None:
    content = (folder / "manifest.json").read_bytes()
    for at in range(0, len(content), 97):
        changed = bytearray(content)
        changed[at] = ord("x") if changed[at] != ord("x") else ord("y")
        (folder / "manifest.json").write_bytes(changed)
        with pytest.raises(PackageError, match=r"manifest\.json"):
            open_package(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not whole JSON"),
        (b"{", "not whole JSON"),
        (b"\xff\xfe", "not whole JSON"),
        (b"[" * 100_000, "not whole JSON"),
        (b"[]", "no format number"),
        (b'{"name": "other tool"}', "no format number"),
        (b'{"format": true}', "no format number"),
        (b'{"format": 999, "whatever": 1}', "format 999; this version of modelinscale reads up to"),
    ],
)
def test_a_foreign_or_newer_manifest_is_told_apart(folder: Path, content: bytes, words: str) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(PackageError, match=words):
        open_package(folder)


def test_a_manifest_of_a_format_never_written_is_refused(folder: Path) -> None:
    reseal(folder, format=0)
    with pytest.raises(PackageError, match="format 0, which no version"):
        open_package(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"surprise": 1}, "surprise"),
        ({"inputs": [{"column": 1}]}, "inputs"),
        ({"task": {"type": "binary", "target": "y"}}, "0 classes"),
        ({"files": {}}, "does not list"),
    ],
)
def test_a_well_sealed_manifest_that_makes_no_sense_is_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    reseal(folder, **changes)
    with pytest.raises(PackageError, match=words):
        open_package(folder)


def test_a_place_that_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no such folder"):
        open_package(tmp_path / "nothing")
    with pytest.raises(PackageError, match=r"no manifest\.json"):
        open_package(tmp_path)


def _replace(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    reseal(folder, files=files)


def test_a_graph_that_is_no_graph_is_refused_in_words(folder: Path) -> None:
    _replace(folder, "model.onnx", b"not a graph")
    with pytest.raises(PackageError, match="cannot run the graph"):
        open_package(folder)


def test_a_graph_with_other_inputs_than_the_manifest_is_refused(folder: Path, tmp_path: Path) -> None:
    other = write_package(tmp_path / "other", n_numbers=2)
    _replace(folder, "model.onnx", (other / "model.onnx").read_bytes())
    with pytest.raises(PackageError, match=r"takes \['x0', 'x1'\]"):
        open_package(folder)


def test_a_golden_row_answered_otherwise_refuses_the_package(folder: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    golden["answers"][1]["probabilities"]["true"] -= 0.01
    _replace(folder, "golden.json", json.dumps(golden).encode())
    with pytest.raises(PackageError, match="golden row 1 is answered"):
        open_package(folder)


def test_a_golden_file_without_answers_is_refused(folder: Path) -> None:
    _replace(folder, "golden.json", b'{"rows": []}')
    with pytest.raises(PackageError, match="rows, answers and tolerance"):
        open_package(folder)


# -- formats and copies


def test_a_package_of_every_format_ever_written_still_opens() -> None:
    found = sorted(GOLDEN.glob("package-*"))
    assert [int(p.name.removeprefix("package-")) for p in found] == list(range(1, FORMAT + 1))
    for path in found:
        opened = open_package(path)
        assert opened.predict(ROWS)[0]["prediction"] is True
        assert opened.manifest.format == FORMAT


def test_formats_are_upgraded_one_step_at_a_time(tmp_path: Path) -> None:
    steps = {1: lambda found: {**found, "format": 2, "a": 1}, 2: lambda found: {**found, "format": 3, "b": found["a"] + 1}}
    assert upgraded({"format": 1}, steps, 3, tmp_path) == {"format": 3, "a": 1, "b": 2}
    with pytest.raises(PackageError, match="format 1, which no version"):
        upgraded({"format": 1}, {}, 2, tmp_path)


def test_a_copy_is_the_same_package_with_a_number(made: Path, tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    copy_package(made, tmp_path / "7", version=7)
    copied = open_package(tmp_path / "7")
    assert copied.version == 7
    assert copied.manifest.but(version=3) == read_manifest(made)


def test_a_damaged_package_is_not_copied(folder: Path, tmp_path: Path) -> None:
    (folder / "card.md").write_text("another card")
    (tmp_path / "7").mkdir()
    with pytest.raises(PackageError, match=r"card\.md"):
        copy_package(folder, tmp_path / "7", version=7)


# -- tensors given directly


def test_ready_tensors_are_checked_before_they_reach_the_graph(package: Package) -> None:
    good = package.tensors(ROWS)
    cases: list[tuple[dict[str, Any], str]] = [
        ({k: v for k, v in good.items() if k != "amount"}, "'amount' is not there"),
        ({**good, "amonut": good["amount"]}, "no input 'amonut'. Did you mean 'amount'"),
        ({**good, "amount": good["amount"].astype(np.float32)}, "holds float32, expected float64"),
        ({**good, "amount": good["amount"][:2]}, "has 4 rows, the ones before it 2"),
        ({**good, "amount": good["amount"][:, None]}, r"shape \[4, 1\], expected \['N'\]"),
        ({**good, "place": good["place"][:, :1]}, r"shape \[4, 1\], expected \['N', 2\]"),
        ({**good, "amount": np.float64(3)}, r"shape \[\]"),
    ]
    for tensors, words in cases:
        with pytest.raises(RequestError, match=words) as found:
            package.run(tensors)
        assert 400 <= found.value.status < 500


def test_a_batch_too_large_for_the_memory_allowed_is_cut_and_answered_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import modelinscale.package as module
    from modelinscale.testing.packages import write_package

    package = open_package(write_package(tmp_path / "p"))
    rows = json.loads((tmp_path / "p" / "golden.json").read_text())["rows"] * 7
    whole = package.predict(rows)
    monkeypatch.setattr(module, "_GRAPH_BYTES", 1)
    assert package.predict(rows) == whole
    answer = package.run(package.tensors(rows))
    assert len(answer) == len(rows)


def test_a_manifest_leaves_out_later_fields_that_say_nothing_so_that_versions_before_read_it(made: Path, tmp_path: Path) -> None:
    written = json.loads((made / "manifest.json").read_text())
    assert "origins" not in written
    assert "targets" not in written["task"]
    assert not any("tokens" in column for column in written["inputs"])
    old = json.loads((GOLDEN / "package-1" / "manifest.json").read_text())
    assert set(old["task"]) <= set(written["task"])
    assert set(old) <= set(written)
    found = read_manifest(made)
    first = found.inputs[0].but(tokens={"sha256": "a", "longest": 3})
    whole = found.but(origins=({"column": "x", "architecture": "bert"},), inputs=(first, *found.inputs[1:]))
    whole.write(tmp_path)
    assert read_manifest(tmp_path) == whole
