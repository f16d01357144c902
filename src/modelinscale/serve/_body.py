"""Bodies: unpacked within a limit, read as JSON, every way of being wrong told apart."""

import zlib
from typing import Any, TypeVar

import msgspec

from modelinscale.core.errors import RequestError
from modelinscale.serve._message import Request

T = TypeVar("T")

CODINGS = "gzip, deflate"
"""Content codings that are read."""
_MAX_MEMBERS = 1000


def content(request: Request, limit: int) -> bytes | bytearray:
    """The body, unpacked to at most ``limit`` bytes. Raises `RequestError`: 413 for one that grows beyond it, 400 for a damaged one."""
    coding = request.headers.get(b"content-encoding", b"").strip().lower()
    if coding in (b"", b"identity"):
        return request.body
    if coding in (b"gzip", b"x-gzip"):
        return _inflate(request.body, 31, limit)
    # `deflate` means zlib's format, but some clients send the bare stream: its first byte cannot be mistaken for zlib's header.
    zlib_header = len(request.body) > 1 and request.body[0] & 0x0F == 8 and (request.body[0] << 8 | request.body[1]) % 31 == 0
    return _inflate(request.body, 15 if zlib_header else -15, limit)


def check_coding(request: Request) -> None:
    """Raises `RequestError` (415) for a content coding that is not read."""
    coding = request.headers.get(b"content-encoding", b"").strip().lower()
    if coding and coding not in (b"identity", b"gzip", b"x-gzip", b"deflate"):
        raise RequestError(f"the content coding {_shown(coding)} is not read here.", fix=f"Send one of: {CODINGS}, or none.", status=415)


def _inflate(packed: bytes | bytearray, window: int, limit: int) -> bytes:
    whole = bytearray()
    rest: bytes = bytes(packed)
    try:
        for _ in range(_MAX_MEMBERS):
            machine = zlib.decompressobj(window)
            whole += machine.decompress(rest, limit + 1 - len(whole))
            if len(whole) > limit:
                raise RequestError(f"the unpacked body is larger than {limit} bytes.", fix="Send fewer rows at once, or raise `serve.max_body`.", status=413)
            if not machine.eof:
                raise RequestError("the compressed body ends too early.", fix="Send all of it.")
            rest = machine.unused_data
            if not rest:
                return bytes(whole)
    except zlib.error as error:
        raise RequestError(f"the compressed body is damaged ({error}).", fix=f"Name its coding in Content-Encoding: {CODINGS}.") from error
    raise RequestError(f"the compressed body has more than {_MAX_MEMBERS} parts.", fix="Compress it in one go.")


def check_json_type(request: Request, *, also: tuple[bytes, ...] = ()) -> None:
    """Raises `RequestError` (415) unless the content type is JSON in UTF-8, is left out, or is one of ``also``."""
    given = request.headers.get(b"content-type", b"application/json")
    if given != b"application/json" and (wrong := _wrong_type(given, also)):
        raise wrong


def _wrong_type(given: bytes, also: tuple[bytes, ...]) -> RequestError | None:
    kind, _, parameters = given.partition(b";")
    kind = kind.strip().lower()
    if kind not in (b"application/json", *also) and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        return RequestError(f"the content type {_shown(kind)} is not read here.", fix="Send JSON with the header Content-Type: application/json.", status=415)
    charset = parameters.lower().partition(b"charset=")[2].strip(b' "')
    if charset not in (b"", b"utf-8", b"utf8", b"us-ascii"):
        return RequestError(f"the character set {_shown(charset)} is not read here.", fix="Send UTF-8.", status=415)
    return None


def decode(decoder: msgspec.json.Decoder[T], body: bytes | bytearray | memoryview, example: str) -> T:
    """The body as the decoder's type. Raises `RequestError`: 400 when it is no JSON, 422 when it is another JSON than expected."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(f"the body is not as expected: {error}.", fix=f"Send {example}.", status=422) from error
    except msgspec.DecodeError as error:
        # NaN and Infinity end here too: they are no JSON.
        raise RequestError(f"the body is not JSON: {error}.", fix=f"Send {example}; a missing value is null.", status=400) from error
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8 ({error.reason}).", fix="Send UTF-8.", status=400) from error
    except RecursionError as error:
        raise RequestError("the body is nested too deeply.", fix=f"Send {example}.", status=400) from error


def encode(value: Any) -> bytes:
    """As JSON. A number that is not finite becomes null."""
    return msgspec.json.encode(value)


def _shown(text: bytes) -> str:
    return repr(text[:60].decode("latin-1"))
