"""Content identity: the same inputs give the same name, anything else another one."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

LENGTH = 16
"""Hex digits kept: 64 bits, one collision expected after about 4 billion values."""


def canonical(value: Any) -> str:
    """``value`` as JSON with sorted keys and no spaces; settings count with every default filled in.

    >>> canonical({"b": 1, "a": [True, None, 0.1]})
    '{"a":[true,null,0.1],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def identity(*parts: Any) -> str:
    """A short name that depends on every part and on nothing else.

    >>> identity("a", {"x": 1}) == identity("a", {"x": 1})
    True
    """
    return hashlib.sha256(canonical(list(parts)).encode("utf-8", "surrogatepass")).hexdigest()[:LENGTH]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.plain() if hasattr(value, "plain") else value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no identity: give plain data or settings")
