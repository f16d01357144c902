"""Encoded images become the same pixels everywhere, or an error that says why not."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from modelinscale.core import pixels
from modelinscale.core.seeds import generator

pillow = pytest.importorskip("PIL.Image")


def noise(height: int, width: int, *channels: int) -> NDArray[np.uint8]:
    return generator(7, "noise", height, width).integers(0, 256, (height, width, *channels), np.uint8)


def encoded(values: NDArray[Any], kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    pillow.fromarray(values).save(out, kind, **more)
    return out.getvalue()


def claiming(height: int, width: int) -> bytes:
    """The beginning of a PNG that says it is so large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + struct.pack(">I", 0) + b"IDAT"


def test_png_and_back_is_the_same_image() -> None:
    for shape in ((1, 1), (3, 7), (200, 1)):
        image = noise(*shape, 3)
        assert np.array_equal(pixels.decode(pixels.png(image)), image)


def test_grey_becomes_three_equal_channels() -> None:
    image = noise(5, 6)
    assert np.array_equal(pixels.decode(encoded(image)), image[..., None].repeat(3, axis=2))


def test_sixteen_bits_become_eight() -> None:
    deep = np.array([[0, 128, 129, 257, 65535, 32768]], np.uint16)
    assert pixels.decode(encoded(deep))[0, :, 0].tolist() == [0, 0, 1, 1, 255, 128]


def test_what_is_see_through_lies_on_white() -> None:
    image = np.zeros((1, 3, 4), np.uint8)
    image[0, :, 3] = [0, 255, 128]
    assert pixels.decode(encoded(image))[0, :, 0].tolist() == [255, 0, 127]


@pytest.mark.parametrize(("orientation", "turned"), [(3, lambda x: x[::-1, ::-1]), (6, lambda x: np.rot90(x, 3)), (2, lambda x: x[:, ::-1])])
def test_an_image_is_turned_as_its_camera_said(orientation: int, turned: Any) -> None:
    image = noise(4, 6, 3)
    exif = pillow.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(pixels.decode(encoded(image, exif=exif)), turned(image))


def test_a_long_image_becomes_means_of_whole_blocks() -> None:
    image = noise(10, 2 * pixels.MOST_SIDE + 2, 1)[..., 0]
    found = pixels.decode(encoded(image))
    assert found.shape == (4, 684, 3), "blocks of 3 x 3"
    assert abs(float(found[0, 0, 0]) - float(image[:3, :3].mean())) <= 0.5 + 1e-6


@pytest.mark.slow
def test_eight_thousand_pixels_a_side_are_read_within_a_bounded_size() -> None:
    found = pixels.decode(encoded(np.full((8000, 8000), 77, np.uint8), compress_level=1))
    assert max(found.shape) <= pixels.MOST_SIDE
    assert (found == 77).all()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 bytes that are no readable image"),
        (b"hello", "cannot identify"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot identify"),
        (pixels.png(noise(64, 64, 3))[:500], "no readable image"),
        (encoded(noise(64, 64, 3), "JPEG")[:900], "truncated"),
        (claiming(9435, 9435), "at most 89,000,000 are read"),
        (claiming(60000, 60000), "no readable image"),
        (encoded(np.array([[np.nan, 1.0]], np.float32), "TIFF"), "not finite"),
    ],
    ids=["empty", "text", "drawing", "cut PNG", "cut JPEG", "too many pixels", "a bomb", "not finite"],
)
def test_what_cannot_be_read_is_an_error_that_says_why(data: bytes, why: str) -> None:
    with pytest.raises(pixels.ImageError, match=why):
        pixels.decode(data)


def in_mode(mode: str, kind: str) -> bytes:
    """A plain orange image, stored as so many and such channels; grey where the mode has no colour."""
    image = pillow.new("RGB", (16, 16), (240, 160, 80))
    out = io.BytesIO()
    if mode == "P":
        image.quantize(8).save(out, kind)
    else:
        (image.convert("L") if mode in ("L", "LA", "1") else image).convert(mode).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("RGBA", "WEBP"), ("RGB", "BMP")],
)
def test_colours_stored_in_any_way_are_the_same_colour(mode: str, kind: str) -> None:
    found = pixels.decode(in_mode(mode, kind))
    assert found.shape == (16, 16, 3)
    assert np.abs(found.astype(int) - [240, 160, 80]).max() <= 8


@pytest.mark.parametrize(("mode", "expected"), [("L", 175), ("LA", 175), ("1", (0, 255))])
def test_greys_stored_in_any_way_have_three_equal_channels(mode: str, expected: int | tuple[int, ...]) -> None:
    found = pixels.decode(in_mode(mode, "PNG"))
    assert (found == found[..., :1]).all()
    assert set(np.unique(found).tolist()) <= set(np.atleast_1d(expected).tolist())


@pytest.mark.parametrize("cell", ["a", "ä", "data:image/png;base64,!!!"])
def test_text_that_is_no_base64_is_an_error(cell: str) -> None:
    with pytest.raises(pixels.ImageError, match="no base64"):
        pixels.from_text(cell)


def test_text_carries_an_image_with_or_without_its_kind_before_it() -> None:
    data = pixels.png(noise(3, 3, 3))
    text = pixels.to_text(data)
    assert pixels.from_text(text) == data == pixels.from_text(f"data:image/png;base64,{text}")
