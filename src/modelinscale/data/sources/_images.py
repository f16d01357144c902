"""What the header of an encoded image says: format, width and height; the picture itself is never decoded here."""

import io
import struct
import warnings
from functools import cache
from typing import Any, NamedTuple

from modelinscale.core.errors import needs

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".gif", ".bmp", ".tif", ".tiff", ".webp")
DICOM = (".dcm", ".dicom")
MOST_PIXELS = 1 << 28
"""Width times height: a header that says more is one of a decompression bomb, or of an image that no model takes whole."""
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)
_ENDS = {"png": b"IEND\xaeB`\x82", "jpeg": b"\xff\xd9"}
"""What the end of a whole image has in it."""
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ")


class Header(NamedTuple):
    """What is known of an image without decoding it."""

    format: str
    width: int
    height: int


class BadImageError(Exception):
    """These bytes are no image that can be read, in words."""


def header(data: bytes) -> Header:
    """The header of an encoded image. Raises `BadImageError`."""
    format = _format(data)
    try:
        with warnings.catch_warnings(action="ignore"), _plugin(format)(io.BytesIO(data)) as image:  # damaged headers make Pillow talk
            width, height = image.size
    except (SyntaxError, OSError, ValueError, KeyError, IndexError, TypeError, EOFError, OverflowError, struct.error, AttributeError) as error:
        raise BadImageError(f"a damaged {format} image") from error
    if width <= 0 or height <= 0:
        raise BadImageError(f"a damaged {format} image without width or height")
    if width * height > MOST_PIXELS:
        raise BadImageError(f"more than {MOST_PIXELS:,} pixels (a decompression bomb?)")
    end = _ENDS.get(format)
    if end is not None and end not in data:
        raise BadImageError(f"a {format} image that ends too early")
    return Header(format, width, height)


def _format(data: bytes) -> str:
    if not data:
        raise BadImageError("an empty file")
    for magic, format in _MAGIC:
        if data.startswith(magic):
            return format
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[128:132] == b"DICM":
        raise BadImageError("a DICOM image, which is not supported yet")
    if data.startswith(_ARCHIVES):
        raise BadImageError("an archive under the name of an image")
    raise BadImageError("not an image of a known format (png, jpeg, gif, bmp, tiff, webp)")


@cache
def _plugin(format: str) -> Any:
    """Pillow's reader of one format: what `Image.open` would choose, without trying the others on bytes from anywhere."""
    from importlib import import_module

    needs("PIL", extra="images")
    name = {"png": "Png", "jpeg": "Jpeg", "gif": "Gif", "bmp": "Bmp", "tiff": "Tiff", "webp": "WebP"}[format]
    return getattr(import_module(f"PIL.{name}ImagePlugin"), "JpegImageFile" if format == "jpeg" else f"{name}ImageFile")
