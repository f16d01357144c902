"""Images in folders and archives: bytes as they were, each once, and nothing in an archive that does harm."""

import bz2
import gzip
import hashlib
import io
import json
import os
import random
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from modelinscale.core.errors import NotSupportedYet, SourceError, SpecError
from modelinscale.data.arrow import BROKEN
from modelinscale.data.clean import clean
from modelinscale.data.collect import collect
from modelinscale.data.contract import contract
from modelinscale.data.lake import open_table
from modelinscale.data.sources import Cursor, Source
from modelinscale.testing import sources as suite


def image(seed: int = 0, format: str = "PNG", width: int = 9, height: int = 6) -> bytes:
    """An encoded image of noise."""
    noise = random.Random(seed).randbytes(width * height * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (width, height), noise).save(out, format)
    return out.getvalue()


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image(zlib.crc32(path.name.encode())) if data is None else data)
    return path


def images(path: Path | list[Path], **settings: Any) -> Source:
    return Source.parse({"type": "images", "path": [str(p) for p in path] if isinstance(path, list) else str(path), **settings})


def read(source: Source, after: Cursor | None = None) -> tuple[list[dict[str, Any]], list[str], Cursor | None]:
    """Good rows, why others are broken, and the cursor as it comes back from where it was kept."""
    schema = source.columns()
    rows, broken = [], []
    for chunk in source.read(after, schema):
        found = clean(chunk.batch, schema).batch.to_pylist()
        why = chunk.batch.column(BROKEN).to_pylist() if BROKEN in chunk.batch.schema.names else [None] * len(found)
        rows += [r for r, w in zip(found, why, strict=True) if w is None]
        broken += [w for w in why if w is not None]
        after = json.loads(json.dumps(chunk.cursor))
    return rows, broken, after


def paths(source: Source, after: Cursor | None = None) -> list[str]:
    return [r["path"] for r in read(source, after)[0]]


def many(folder: Path) -> Path:
    for i in range(24):
        put(folder / "photos" / ("cat", "dog", "cat/old")[i % 3] / f"{i:02d}.png")
    put(folder / "photos" / "root.jpg", image(1, "JPEG"))
    return folder / "photos"


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as out:
        for i in reversed(range(24)):
            out.writestr(f"{'cat' if i % 2 else 'dog'}/{i:02d}.png", image(i))
    return folder / "a.zip"


def tarred(folder: Path, name: str = "a.tar.gz") -> Path:
    with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as out:
        for i in range(24):
            add(out, f"{'cat' if i % 2 else 'dog'}/{i:02d}.png", image(i))
    return folder / name


def add(out: tarfile.TarFile, name: str, data: bytes = b"", **about: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in about.items():
        setattr(info, key, value)
    out.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("make", [many, zipped, tarred, lambda folder: tarred(folder, "b.tar")], ids=["folder", "zip", "tar.gz", "tar"])
def test_folders_and_archives_keep_the_contract(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = images(make(tmp_path), block=1500)
    suite.from_every_cursor_the_rest_comes_once(source)
    suite.reading_twice_gives_the_same_chunks(source)
    suite.chunks_match_the_schema(source)
    suite.only_asked_columns_come(source)
    suite.at_the_end_nothing_comes(source)
    suite.the_fingerprint_is_plain_and_still(source)
    suite.settings_round_trip(source)


def test_a_row_says_what_the_header_says_and_keeps_the_bytes(tmp_path: Path) -> None:
    for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        put(tmp_path / "all" / "x" / f"{format}.{format.lower()}", image(3, format, 12, 7))
    rows, broken, _ = read(images(tmp_path / "all"))
    assert not broken
    for row in rows:
        data = (tmp_path / row["path"]).read_bytes()
        assert row == {
            "path": row["path"], "image": data, "label": "x", "width": 12, "height": 7, "format": row["path"].rpartition(".")[2], "size_bytes": len(data),
        }  # fmt: skip


def test_labels_come_from_the_folder_a_table_or_nowhere(tmp_path: Path) -> None:
    root = many(tmp_path)
    by_path = {r["path"]: r["label"] for r in read(images(root))[0]}
    assert (by_path["photos/root.jpg"], by_path["photos/cat/00.png"], by_path["photos/cat/old/02.png"]) == (None, "cat", "old")
    (tmp_path / "labels.csv").write_text("file,label\ncat/00.png,by path\nroot.jpg,by name\n02.png,name alone\n")
    by_path = {r["path"]: r["label"] for r in read(images(root, label={"table": str(tmp_path / "labels.csv")}))[0]}
    assert (by_path["photos/root.jpg"], by_path["photos/cat/00.png"], by_path["photos/cat/old/02.png"]) == ("by name", "by path", "name alone")
    assert by_path["photos/dog/01.png"] is None
    assert "label" not in images(root, label="none").columns()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"name,label\n", "has no column 'file'; it has name, label"),
        (b"", "has no column 'file'"),
        (b"file,label\na.png,x\na.png,y\n", "line 3: 'a.png' has another label than before"),
        (b"file,label\n\xff,x\n", "no CSV in UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_table_of_labels_that_cannot_be_used_is_told(tmp_path: Path, text: bytes | None, says: str) -> None:
    if text is not None:
        (tmp_path / "l.csv").write_bytes(text)
    with pytest.raises(SourceError, match=says):
        read(images(many(tmp_path), label={"table": str(tmp_path / "l.csv")}))


def test_new_images_come_once_whatever_their_names(tmp_path: Path) -> None:
    root = many(tmp_path)
    source = images(root, block=400)

    def grow() -> int:
        for name in ("cat/-.png", "cat/99.png", "aaa/1.png", "dog/10b.png", "0.png"):
            put(root / name)
        return 5

    suite.new_rows_come_once(source, grow)


def test_images_that_come_at_any_moment_come_once(tmp_path: Path) -> None:
    """Every chunk by a reader of its own from the cursor before, images arriving meanwhile under random names and with odd times of writing."""
    chance = random.Random(5)
    root, n = many(tmp_path), 0
    seen: list[str] = []
    after: Cursor | None = None
    source = images(root, block=1)
    schema = source.columns()
    while (chunk := next(iter(source.read(after, schema)), None)) is not None:
        seen += chunk.batch.column("path").to_pylist()
        after = json.loads(json.dumps(chunk.cursor))
        if n < 30 and chance.random() < 0.6:
            for _ in range(chance.randint(1, 3)):
                n += 1
                new = put(root / chance.choice(["", "cat", "dog", "new"]) / f"{chance.randrange(10**9)}.png", image(n))
                os.utime(new, ns=(0, chance.randrange(10**18)))
    assert len(seen) == len(set(seen)) == 25 + n
    assert sorted(seen) == sorted(f"photos/{p.relative_to(root).as_posix()}" for p in root.rglob("*.*"))


def test_images_taken_away_are_no_error_but_changed_ones_are(tmp_path: Path) -> None:
    root = many(tmp_path)
    source = images(root)
    _, _, after = read(source)
    (root / "cat" / "00.png").unlink()
    assert paths(source, after) == []
    time.sleep(0.05)
    put(root / "dog" / "01.png", image(77))
    with pytest.raises(SourceError, match=r"dog: of 8 files that were read some were changed"):
        read(source, after)


def test_an_archive_that_changed_is_told(tmp_path: Path) -> None:
    source = images(zipped(tmp_path))
    _, _, after = read(source)
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as out:
        out.writestr("x.png", image(99))
    with pytest.raises(SourceError, match=r"a\.zip changed after 24 of its members were read"):
        read(source, after)


def test_chunks_are_bounded_by_bytes(tmp_path: Path) -> None:
    for i in range(12):
        put(tmp_path / "big" / f"{i}.bmp", image(i, "BMP", 200, 100))  # 60 kB each
    source = images(tmp_path / "big", block=130_000)
    assert [c.batch.num_rows for c in source.read(None, source.columns())] == [3, 3, 3, 3]


def test_the_lake_holds_the_bytes_of_the_files_and_other_engines_read_them(tmp_path: Path) -> None:
    import polars as pl

    source = images([many(tmp_path), zipped(tmp_path)], block=2000)
    schema = source.columns()
    found = collect(source, lake=str(tmp_path / "t"), quarantine=str(tmp_path / "q"), contract=contract(schema, key=("path",)), commit_bytes=4000)
    assert (found.n_rows, found.n_quarantined) == (49, 0)
    again = collect(source, lake=str(tmp_path / "t"), quarantine=str(tmp_path / "q"), contract=contract(schema, key=("path",)))
    assert (again.n_rows, again.n_added) == (49, 0)
    frame = pl.from_arrow(pa.Table.from_batches(open_table(str(tmp_path / "t")).blocks(["path", "image"])))
    assert isinstance(frame, pl.DataFrame)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        for path, data in frame.iter_rows():
            name, _, within = path.partition("/")
            whole = archive.read(within) if name == "a.zip" else (tmp_path / path).read_bytes()
            assert hashlib.sha256(data).digest() == hashlib.sha256(whole).digest()
    assert Image.open(io.BytesIO(frame["image"][0])).size == (9, 6)


# What is broken, in folders and archives alike


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header says a size that its few bytes do not show."""
    data = image()
    head = struct.pack(">II", width, height) + data[24:29]
    import zlib

    return data[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + data[33:]


BAD_IMAGES: list[tuple[str, bytes, str]] = [
    ("a.png", b"", "an empty file"),
    ("a.png", b"plain text", "not an image of a known format"),
    ("a.png", image()[:20], "a damaged png image"),
    ("a.png", image()[:-20], "a png image that ends too early"),
    ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "a damaged png image"),
    ("a.jpg", image(0, "JPEG")[:-2], "a jpeg image that ends too early"),
    ("a.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 10, "a damaged jpeg image"),
    ("a.gif", b"GIF89a", "a damaged gif image"),
    ("a.bmp", b"BM" + b"\xff" * 30, "a damaged bmp image"),
    ("a.tif", b"II*\0" + b"\xff" * 30, "a damaged tiff image"),
    ("a.webp", b"RIFF\0\0\0\0WEBPVP8 ", "a damaged webp image"),
    ("a.png", bomb(50_000, 50_000), "more than 268,435,456 pixels (a decompression bomb?)"),
    ("a.png", bomb(0, 5), "a damaged png image"),
    ("a.png", b"PK\x03\x04" + b"\0" * 40, "an archive under the name of an image"),
    ("a.png", b"\0" * 128 + b"DICM" + b"\0" * 40, "a DICOM image, which is not supported yet"),
    ("a.png", b"\0" * 3000, "not an image of a known format"),
    ("a.bmp", image(0, "BMP", 60, 60), "larger than 4.0 KiB (`max_image`)"),
    ("b.zip", b"PK", "an archive in a"),
    ("b.tar.xz", b"x", "an archive in a"),
]


@pytest.mark.parametrize(("name", "data", "why"), BAD_IMAGES)
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_what_is_no_good_image_is_a_broken_row_that_names_it(tmp_path: Path, kind: str, name: str, data: bytes, why: str) -> None:
    root = tmp_path / "box"
    if kind == "folder":
        put(root / "x" / name, data)
        put(root / "x" / "good.png")
    elif kind == "zip":
        root = tmp_path / "box.zip"
        with zipfile.ZipFile(root, "w") as zip:
            zip.writestr(f"x/{name}", data)
            zip.writestr("x/good.png", image())
    else:
        root = tmp_path / "box.tar"
        with tarfile.open(root, "w") as tar:
            add(tar, f"x/{name}", data)
            add(tar, "x/good.png", image())
    source = images(root, max_image=4096)
    suite.a_broken_row_names_itself(source, f"{root.name}/x/{name}", 2)
    assert read(source)[1][0].startswith(why)


def test_links_in_a_folder_lead_to_files_only(tmp_path: Path) -> None:
    root = tmp_path / "box"
    put(root / "x" / "good.png")
    (root / "x" / "loop").symlink_to(root)
    (root / "x" / "circle.png").symlink_to("circle.png")
    (root / "x" / "gone.png").symlink_to("nothing.png")
    (root / "x" / "same.png").symlink_to("good.png")
    os.mkfifo(root / "x" / "pipe.png")
    rows, broken, after = read(images(root))
    assert [r["path"] for r in rows] == ["box/x/good.png", "box/x/same.png"]
    assert broken == [
        "a link that leads nowhere, or in a circle: box/x/circle.png",
        "a link that leads nowhere, or in a circle: box/x/gone.png",
        "a link to a folder, which is not followed: box/x/loop",
        "neither a file nor a folder: box/x/pipe.png",
    ]
    assert read(images(root), after)[:2] == ([], [])


def test_names_that_are_no_text_are_broken_rows(tmp_path: Path) -> None:
    put(tmp_path / "box" / "good.png")
    Path(os.fsdecode(os.fsencode(tmp_path / "box") + b"/caf\xe9.png")).write_bytes(image())
    assert read(images(tmp_path / "box"))[1] == [r"a name that is no text: box/caf\\udce9.png"]


def test_what_is_no_image_by_its_name_is_passed_over(tmp_path: Path) -> None:
    for name in ("good.png", "notes.txt", "Thumbs.db", ".hidden.png", "__MACOSX/a.png", "sub/.git/a.png"):
        put(tmp_path / "box" / name)
    assert paths(images(tmp_path / "box")) == ["box/good.png"]
    assert paths(images(many(tmp_path), only=["dog/0*.png"])) == ["photos/dog/01.png", "photos/dog/04.png", "photos/dog/07.png"]


def test_medical_images_are_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path / "box" / "a.dcm")
    with pytest.raises(NotSupportedYet, match=r"box/a\.dcm: DICOM images are not supported yet.*only: "):
        images(tmp_path / "box").columns()
    put(tmp_path / "box" / "b.png")
    assert paths(images(tmp_path / "box", only="*.png")) == ["box/b.png"]


# What archives may hold

BAD_NAMES = [
    ("../x.png", "a name that leads out of the archive"),
    ("a/../../x.png", "a name that leads out of the archive"),
    ("/etc/x.png", "a name that leads out of the archive"),
    ("C:/x.png", "a name that leads out of the archive"),
    ("..\\x.png", "a name that leads out of the archive"),
    ("a\\x.png", "a name with a backslash"),
    ("a\nb.png", "a name that is empty or has control characters"),
]


@pytest.mark.parametrize(("name", "why"), BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_whose_name_does_harm_is_a_broken_row(tmp_path: Path, kind: str, name: str, why: str) -> None:
    root = tmp_path / f"box.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(root, "w") as zip:
            zip.writestr(name, image())
            zip.writestr("good.png", image())
    else:
        with tarfile.open(root, "w") as tar:
            add(tar, name, image())
            add(tar, "good.png", image())
    rows, broken, _ = read(images(root))
    assert [r["path"] for r in rows] == [f"box.{kind}/good.png"]
    assert len(broken) == 1
    assert broken[0].startswith(why)
    assert list(tmp_path.iterdir()) == [root]


def test_links_and_devices_in_archives_are_broken_rows(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        add(tar, "good.png", image())
        for name, type in (("sym.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE)):
            add(tar, name, type=type, linkname="/etc/passwd")
        for name, type in (("chr.png", tarfile.CHRTYPE), ("blk.png", tarfile.BLKTYPE), ("fifo.png", tarfile.FIFOTYPE)):
            add(tar, name, type=type)
    info = zipfile.ZipInfo("sym.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as zip:
        zip.writestr(info, "/etc/passwd")
        zip.writestr("good.png", image())
    rows, broken, _ = read(images([tmp_path / "t.tar", tmp_path / "z.zip"]))
    assert len(rows) == 2
    special = [f"neither a file nor a folder: t.tar/{n}.png" for n in ("chr", "blk", "fifo")]
    assert broken == ["a link: t.tar/sym.png", "a link: t.tar/hard.png", *special, "a link: z.zip/sym.png"]


def test_a_name_that_occurs_twice_is_a_broken_row(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as zip:
        zip.writestr("a.png", image(1))
        with pytest.warns(UserWarning, match="Duplicate"):
            zip.writestr("a.png", image(2))
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        add(tar, "a.png", image(1))
        add(tar, "a.png", image(2))
    rows, broken, _ = read(images([tmp_path / "z.zip", tmp_path / "t.tar"]))
    assert [r["image"] for r in rows] == [image(1), image(1)]
    assert broken == ["a name that occurs twice: t.tar/a.png", "a name that occurs twice: z.zip/a.png"]


def test_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as zip:
        zip.writestr("bomb.png", b"\0" * (20 << 20))
        zip.writestr("good.png", image())
    rows, broken, _ = read(images(tmp_path / "z.zip"))
    assert len(rows) == 1
    assert broken == ["packed more than 200 times, as no image is (a zip bomb?): z.zip/bomb.png"]
    with pytest.raises(SourceError, match=r"z\.zip unpacks to more than 4\.0 MiB"):
        images(tmp_path / "z.zip", max_total="4MiB").columns()
    with tarfile.open(tmp_path / "t.tgz", "w:gz") as tar:
        add(tar, "a.png", image())
        add(tar, "b.png", b"\0" * (90 << 20))
    with pytest.raises(SourceError, match=r"t\.tgz is packed more than 200 times"):
        read(images(tmp_path / "t.tgz"))
    with pytest.raises(SourceError, match=r"t\.tgz unpacks to more than 4\.0 MiB"):
        read(images(tmp_path / "t.tgz", max_total="4MiB"))


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        add(tar, "good.png", image())
        add(tar, "pax", b" " * (20 << 20), type=tarfile.XHDTYPE)
    with pytest.raises(SourceError, match=r"a header of 20,971,520 bytes"):
        read(images(tmp_path / "t.tar"))


def patched(path: Path, change: Callable[[bytearray], None]) -> Path:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))
    return path


def test_members_that_cannot_be_unpacked_are_broken_rows(tmp_path: Path) -> None:
    def flags(data: bytearray, value: int, local: int, central: int) -> None:
        at, there = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
        data[at + local], data[there + central] = value, value

    cases: list[tuple[Callable[[bytearray], None], str]] = [
        (lambda d: flags(d, 1, 6, 8), "encrypted"),
        (lambda d: flags(d, 99, 8, 10), "damaged in its archive (That compression method is not supported)"),
        (lambda d: d.__setitem__(slice(60, 70), b"0123456789"), "damaged in its archive (Bad CRC-32"),
        (lambda d: d.__setitem__(slice(0, 2), b"XX"), "damaged in its archive (Bad magic number"),
        (lambda d: d.__setitem__(slice(d.index(b"PK\x01\x02") + 24, d.index(b"PK\x01\x02") + 28), b"\xff\xff\xff\x7f"), "larger than 64.0 MiB"),
    ]
    for change, why in cases:
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as zip:
            zip.writestr("a.png", image())
            zip.writestr("b.png", image())
        rows, broken, _ = read(images(patched(tmp_path / "z.zip", change)))
        assert ([r["path"] for r in rows], len(broken)) == (["z.zip/b.png"], 1)
        assert broken[0].startswith(why)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_archives_cut_anywhere_are_told_and_keep_what_was_read(tmp_path: Path, name: str) -> None:
    whole = (zipped(tmp_path) if name == "a.zip" else tarred(tmp_path, name)).read_bytes()
    for share in (0.0, 0.02, 0.3, 0.6, 0.75):
        cut = int(len(whole) * share) if share else 0
        (tmp_path / name).write_bytes(whole[:cut])
        with pytest.raises(SourceError, match=r"is damaged or cut short|ends within a member"):
            read(images(tmp_path / name))
    (tmp_path / name).write_bytes(whole)
    assert len(paths(images(tmp_path / name))) == 24


def test_a_damaged_header_within_a_tar_does_not_end_it_in_silence(tmp_path: Path) -> None:
    data = tarred(tmp_path, "a.tar").read_bytes()
    at = data.index(b"dog/10.png")
    (tmp_path / "a.tar").write_bytes(data[:at] + b"\xff" * 20 + data[at + 20 :])
    with pytest.raises(SourceError, match="a header in it is damaged"):
        read(images(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nothing", "there is no folder or archive"),
        ("*.zip", "no folder or archive matches"),
        ("file.png", "neither a folder nor an archive"),
        ("empty", "there is no image in"),
        ("a.7z", "archives of this kind are not read yet"),
        ("a.tar.bz2", "archives of this kind are not read yet"),
        ("no.zip", "is damaged or cut short"),
        ("no.tar", "is damaged or cut short"),
        ("no.tgz", "is damaged or cut short"),
    ],
)
def test_a_path_that_cannot_be_read_is_told(tmp_path: Path, path: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    for name, data in (("file.png", image()), ("a.7z", b""), ("a.tar.bz2", bz2.compress(b"")), ("no.tgz", gzip.compress(b"no tar" * 200))):
        (tmp_path / name).write_bytes(data)
    for name in ("no.zip", "no.tar"):
        if name == path:
            (tmp_path / name).write_bytes(b"not an archive" * 99)
    with pytest.raises((SourceError, NotSupportedYet), match=says):
        images(tmp_path / path).columns()


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a" / "x" / "1.png")
    put(tmp_path / "b" / "x" / "1.png")
    with pytest.raises(SourceError, match="two folders or archives are called 'x'"):
        images([tmp_path / "a" / "x", tmp_path / "b" / "x"]).columns()


def test_raw_bytes_take_no_part_where_values_are_compared(tmp_path: Path) -> None:
    schema = images(many(tmp_path)).columns()
    with pytest.raises(SpecError, match="`key` names 'image', raw bytes"):
        contract(schema, key=("image",))


def test_a_column_of_images_is_learned_from_by_itself(tmp_path: Path) -> None:
    from modelinscale.data.infer import profile
    from modelinscale.pipeline._roles import choose

    source = images(many(tmp_path))
    schema = source.columns()
    table = pa.Table.from_batches([clean(c.batch, schema).batch for c in source.read(None, schema)])
    seen = profile(table)
    assert (seen["image"].n_rows, seen["image"].n_distinct, seen["image"].top) == (25, 25, ())
    roles = choose(schema, seen, {"label": ""}, {})
    assert roles.features["image"].type == "image"


@pytest.mark.real
def test_real_images_in_parquet_reach_the_lake_as_they_are(real_data: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from modelinscale.data.sources._images import header

    source = Source.parse({"type": "parquet", "path": str(real_data / "pneumonia-mnist" / "data.parquet"), "rows": 1000})
    schema = source.columns()
    assert schema["image"].type == "binary"
    found = collect(source, lake=str(tmp_path / "t"), quarantine=str(tmp_path / "q"), contract=contract(schema))
    stored = pa.Table.from_batches(open_table(str(tmp_path / "t")).blocks(["image"])).column("image").to_pylist()
    assert found.n_rows == len(stored) == 5856
    assert stored == pq.read_table(real_data / "pneumonia-mnist" / "data.parquet", columns=["image"]).column("image").to_pylist()
    assert {header(data)[:3] for data in stored} == {("png", 28, 28)}
