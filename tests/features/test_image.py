"""Images are made one size as Pillow would, in Python and in the graph alike; what cannot be read counts as missing."""

import numpy as np
import polars as pl
import pytest

from modelinscale.core import pixels
from modelinscale.core.seeds import generator
from modelinscale.features._resize import resize
from modelinscale.features.image import Image

pillow = pytest.importorskip("PIL.Image")


def noise(height: int, width: int) -> pixels.Pixels:
    return generator(7, "noise", height, width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width", "size"), [(40, 57, 32), (300, 200, 28), (1024, 700, 64), (20, 20, 64), (1, 9, 8), (31, 32, 32)])
@pytest.mark.parametrize("grey", [False, True])
def test_resizing_agrees_with_pillow_to_one_level(height: int, width: int, size: int, grey: bool) -> None:
    image = noise(height, width)
    found = resize([image], size, "stretch", grey=grey)[0].astype(int)
    oracle = pillow.fromarray(image).convert("L" if grey else "RGB").resize((size, size), pillow.BILINEAR)
    assert np.abs(found - np.asarray(oracle).reshape(size, size, -1)).max() <= 1


def test_cropping_takes_the_square_in_the_middle() -> None:
    image = noise(30, 50)
    cropped, square = resize([image], 12, "crop", grey=False), resize([image[:, 10:40]], 12, "stretch", grey=False)
    assert np.array_equal(cropped[:, 1:-1, 1:-1], square[:, 1:-1, 1:-1]), "at its border a new pixel also sees what was cut off"


def test_an_image_is_resized_the_same_alone_and_among_others() -> None:
    images = [noise(h, w) for h, w in ((9, 9), (30, 50), (9, 9), (8, 8), (30, 50))]
    together = resize(images, 8, "stretch", grey=True)
    assert np.array_equal(together, np.concatenate([resize([one], 8, "stretch", grey=True) for one in images]))


def test_an_image_that_cannot_be_read_counts_as_missing_and_is_counted() -> None:
    column = pl.Series("x", [pixels.png(noise(9, 9)), b"no image", None], dtype=pl.Binary)
    image = Image(size=8)
    state = image.observe(image.empty(), column)
    assert (state["n"], state["missing"], state["broken"], state["coloured"]) == (3, 1, 1, 1)
    found = np.asarray(image.encode(state, column, "deep"))
    assert (found[1:] == 128).all()


def test_grey_images_have_one_channel_unless_told_otherwise() -> None:
    grey = pl.Series("x", [pixels.png(np.full((4, 4, 3), 9, np.uint8))], dtype=pl.Binary)
    for channels, n in (("auto", 1), ("grey", 1), ("colour", 3)):
        image = Image(size=8, channels=channels)
        assert image.layout(image.observe(image.empty(), grey), "deep").shape == (8, 8, n)
