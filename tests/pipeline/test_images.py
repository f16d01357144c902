"""From folders of images to a package that answers them: through the lake, a network, the graph, files of images, and a server's JSON."""

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project, predict
from modelinscale.core import pixels
from modelinscale.core.errors import DataError, RequestError
from modelinscale.core.seeds import generator
from modelinscale.package import Package, open_package
from modelinscale.testing.servers import running

pytest.importorskip("PIL")

SPEC = """
name: squares
data: {source: {type: images, path: pictures}, split: {type: hash}, leave_out: [path, width, height, format, size_bytes]}
features: {image: {type: image, size: 12}}
target: label
model: {type: network, maps: 4, epochs: 12, learning_rate: 0.02, batch_rows: 16}
"""


def picture(bright: bool, seed: int) -> bytes:
    """Noise of some size, in one class with a bright square in the middle."""
    chance = generator(7, "picture", seed)
    size = int(chance.integers(10, 20))
    found = chance.integers(0, 120, (size, size), np.uint8)
    if bright:
        found[size // 4 : -size // 4, size // 4 : -size // 4] = 255
    return pixels.png(found[..., None].repeat(3, axis=2))


def damaged(seed: int) -> bytes:
    """A picture with a hole in its data."""
    data = picture(False, seed)
    return data[: len(data) // 2] + bytes(20) + data[len(data) // 2 + 20 :]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("squares")
    for i in range(160):
        folder = root / "pictures" / ("bright" if i % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(picture(bool(i % 2), i))
    (root / "model.yaml").write_text(SPEC)
    Project(root).run()
    return root


@pytest.fixture(scope="module")
def package(project: Path) -> Package:
    return open_package(project / ".mis" / "packages" / "squares" / "1")


def as_row(data: bytes, before: str = "") -> dict[str, str]:
    return {"image": before + base64.b64encode(data).decode()}


def test_what_was_learned_from_folders_answers_images_sent_as_json(package: Package) -> None:
    rows = [as_row(picture(i % 2 == 1, 1000 + i), "data:image/png;base64," if i % 3 else "") for i in range(40)]
    found = [answer["prediction"] for answer in package.predict(rows)]
    assert np.mean([said == ("bright" if i % 2 else "dark") for i, said in enumerate(found)]) > 0.9
    assert [package.predict([row])[0]["prediction"] for row in rows[:6]] == found[:6], "an image answers the same alone and among others of other sizes"


def test_images_damaged_behind_their_header_are_counted_and_do_not_end_the_training(tmp_path: Path) -> None:
    for i in range(60):
        folder = tmp_path / "pictures" / ("bright" if i % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(damaged(i) if i % 10 == 0 else picture(bool(i % 2), i))
    (tmp_path / "model.yaml").write_text(SPEC.replace("epochs: 12", "epochs: 1"))
    Project(tmp_path).run()
    package = open_package(tmp_path / ".mis" / "packages" / "squares" / "1")
    assert package.reference["features"]["image"]["state"]["broken"] > 0


def stored(mode: str, kind: str, **more: Any) -> bytes:
    """A bright square, with so many and such channels."""
    from PIL import Image

    found, out = np.zeros((16, 16), np.uint8), io.BytesIO()
    found[4:-4, 4:-4] = 255
    image = Image.fromarray(found)
    image = Image.fromarray(found.astype(np.uint16) * 257) if mode == "I;16" else image.convert("RGB").convert(mode)
    image.save(out, kind, **more)
    return out.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("1", "PNG"), ("I;16", "PNG"), ("CMYK", "TIFF"), ("RGB", "BMP"), ("RGBA", "WEBP")]
)
def test_channels_of_any_number_are_answered_as_the_same_picture(package: Package, mode: str, kind: str) -> None:
    more = {"lossless": True} if kind == "WEBP" else {}
    same, other = (package.predict([as_row(one)])[0]["probabilities"] for one in (stored("L", "PNG"), stored(mode, kind, **more)))
    assert other == pytest.approx(same, abs=0.02)


def test_a_picture_is_answered_as_its_camera_was_held(package: Package) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    data = picture(True, 11)
    turned = pixels.png(np.rot90(pixels.decode(data)).copy())  # back, as the camera saw it
    out = io.BytesIO()
    Image.open(io.BytesIO(turned)).save(out, "PNG", exif=exif)
    assert package.predict([as_row(out.getvalue())]) == package.predict([as_row(data)])


def test_a_file_that_claims_a_giant_image_is_refused_with_its_row_before_it_is_unpacked(package: Package) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 9435, 9435, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + struct.pack(">I", 0) + b"IDAT"
    with pytest.raises(RequestError, match=r"row 1, column 'image': .*9,435 x 9,435 pixels; at most 89,000,000"):
        package.predict([as_row(picture(True, 1)), as_row(bomb)])


@pytest.mark.slow
def test_eight_thousand_pixels_a_side_are_answered(package: Package) -> None:
    data = pixels.png(np.full((8000, 8000), 9, np.uint8))
    assert sum(package.predict([as_row(data)])[0]["probabilities"].values()) == pytest.approx(1)


def test_a_file_of_images_is_answered_row_for_row_as_the_server_would(project: Path, package: Package, tmp_path: Path) -> None:
    data = [picture(i % 2 == 1, 2000 + i) for i in range(9)]
    pl.DataFrame({"image": pl.Series(data, dtype=pl.Binary)}).write_parquet(tmp_path / "rows.parquet")
    predict(str(tmp_path / "rows.parquet"), package=project / ".mis" / "packages" / "squares" / "1", out=tmp_path / "out.jsonl")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    served = package.predict([as_row(one) for one in data])
    assert [one["prediction"] for one in found] == [one["prediction"] for one in served]
    assert [one["probability_dark"] for one in found] == pytest.approx([one["probabilities"]["dark"] for one in served], abs=1e-6)


def test_a_file_with_an_image_that_cannot_be_read_counts_it_or_stops_where_told_to(project: Path, tmp_path: Path) -> None:
    pl.DataFrame({"image": pl.Series([picture(True, 1), b"no image", None], dtype=pl.Binary)}).write_parquet(tmp_path / "rows.parquet")
    assert predict(str(tmp_path / "rows.parquet"), package=project / ".mis" / "packages" / "squares" / "1", out=tmp_path / "out.csv").n_faults == 2
    pl.DataFrame({"image": pl.Series([picture(True, 1), b"no image"], dtype=pl.Binary)}).write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"row 2 of this part, column 'image': 8 bytes that are no readable image"):
        predict(str(tmp_path / "rows.parquet"), package=project / ".mis" / "packages" / "squares" / "1", out=tmp_path / "strict.csv", strict=True)
    assert not (tmp_path / "strict.csv").exists()


@pytest.mark.parametrize(
    ("cell", "why"),
    [("hello", "no base64"), (base64.b64encode(b"hello").decode(), "no readable image"), (5, "type int"), (None, "no image"), ([1, 2], "type list")],
)
def test_what_is_no_image_is_refused_with_its_row_and_reason(package: Package, cell: object, why: str) -> None:
    with pytest.raises(RequestError, match=rf"row 1, column 'image': found .*{why}.*expected an image"):
        package.predict([as_row(picture(True, 1)), {"image": cell}])


def test_an_image_must_be_there_since_no_training_row_lacked_one(package: Package) -> None:
    with pytest.raises(RequestError, match="column 'image': it is not there, expected an image"):
        package.predict([{}])


def test_sizes_at_the_ends_are_answered(package: Package) -> None:
    for shape in ((1, 1), (1, 900), (3000, 2)):
        answer = package.predict([as_row(pixels.png(np.full((*shape, 3), 9, np.uint8)))])[0]
        assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_a_server_answers_images_as_json_and_as_bytes_and_keeps_none_of_them(project: Path, package: Package, tmp_path: Path) -> None:
    data = picture(True, 5)
    blob = struct.pack("<I", len(data)) + data
    asked = json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}]}).encode()
    expected = package.predict([as_row(data)])[0]["probabilities"]
    with running(project / ".mis" / "packages" / "squares" / "1", log={"folder": str(tmp_path)}) as up:
        plain = up.post("/predict", {"rows": [as_row(data)]}).json()["predictions"][0]["probabilities"]
        header = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(asked))}
        binary = up.post("/v2/models/squares/infer", asked + blob, **header).json()
        broken = up.post("/predict", {"rows": [{"image": "zzz"}]})
        up.stop()
    assert plain == pytest.approx(expected, abs=1e-6)
    assert binary["outputs"][1]["data"] == pytest.approx(list(expected.values()), abs=1e-6)
    assert broken.status_code == 422
    assert "no base64" in broken.json()["error"]["message"]
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"dark" in kept, "answers are logged"
    assert base64.b64encode(data)[:60] not in kept
