"""Encoded images (PNG, JPEG …) to pixels and back: the host's part of reading an image, the same in training, in scoring and in the server.

Everything else (grey or colour, size, scale) is done by the model's graph. Another host (a browser, a device) has to do what `decode` says, step by step.
H height, W width of an image.
"""

import base64
import binascii
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import MisError, needs

Pixels = NDArray[np.uint8]
"""(H, W, 3) red, green, blue."""

MOST_PIXELS = 89_000_000
"""An image of more is refused before it is unpacked: a file of a few kilobytes can claim any size."""
MOST_SIDE = 1024
"""A longer image is made smaller by a whole factor, so that what a graph holds of one row is bounded."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_DEEP = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}


class ImageError(MisError):
    """Bytes that are no image that can be read, and why."""


def missing() -> Pixels:
    """What stands for an image that is not there: one grey pixel."""
    return np.full((1, 1, 3), 128, np.uint8)


def decode(data: bytes) -> Pixels:
    """The pixels of an encoded image, at most `MOST_SIDE` on a side.

    In this order: the first frame; turned as its EXIF orientation says; 16 bits a channel to 8 (divided by 257, rounded); see-through laid on white;
    grey and palettes to red, green, blue. A side beyond `MOST_SIDE`: means of k x k pixels, rounded, k the least whole number that is enough; what is
    left over at the right and lower border makes smaller blocks. Raises `ImageError` for what is no image, damaged, or of more than `MOST_PIXELS`.
    """
    Image, ImageOps = needs("PIL.Image", extra="images"), needs("PIL.ImageOps", extra="images")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ImageError(f"an image of {image.width:,} x {image.height:,} pixels; at most {MOST_PIXELS:,} are read.", fix="Send a smaller one.")
            image.load()
            image = ImageOps.exif_transpose(image)
            rgb = _rgb(image, Image)
            k = -(-max(rgb.size) // MOST_SIDE)
            return np.asarray(rgb.reduce(k) if k > 1 else rgb, np.uint8)
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly everything on damaged bytes (OSError, SyntaxError, struct.error, ValueError …)
        raise ImageError(f"{len(data):,} bytes that are no readable image ({_why(error)}).", fix=f"Formats: {', '.join(FORMATS)}.") from error


def readable(data: bytes) -> bool:
    """Whether `decode` reads it."""
    try:
        decode(data)
    except ImageError:
        return False
    return True


def png(pixels: Pixels) -> bytes:
    """The pixels as PNG: `decode` gives them back exactly, unless they are longer than `MOST_SIDE`."""
    Image = needs("PIL.Image", extra="images")
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def from_text(cell: str) -> bytes:
    """An image as JSON carries it: base64, with or without ``data:image/png;base64,`` before it. Raises `ImageError`."""
    text = cell.partition(",")[2] if cell.startswith("data:") else cell
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ImageError(f"text that is no base64 ({error}).", fix="Send the bytes of the PNG or JPEG file in base64.") from error


def to_text(data: bytes) -> str:
    """An encoded image as JSON carries it."""
    return base64.b64encode(data).decode("ascii")


def _rgb(image: Any, Image: Any) -> Any:
    if image.mode in _DEEP:
        return _from_deep(image, Image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_deep(image: Any, Image: Any) -> Any:
    """Grey of more than 8 bits: 0 to 65,535 becomes 0 to 255; what lies beyond is cut."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("an image of numbers that are not finite.", fix="Send 8 or 16 bits a pixel.")
    grey = np.clip(np.floor(values / 257 + 0.5), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _why(error: Exception) -> str:
    text = str(error).split(" <_io")[0].split("<_io")[0].strip()
    return text[:120] if text and "BytesIO" not in text else type(error).__name__
