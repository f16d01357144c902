"""Whether something is found anywhere in a folder: in the bytes of every file, and in what compressed and encoded files hold."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote


def traces(folder: Path, words: Sequence[str]) -> list[str]:
    """``file: word`` for each word found in each file, hidden ones included; the names of files and folders are looked at as well."""
    found = []
    forms = {word: _forms(word) for word in words}
    for path in sorted(folder.rglob("*")):
        contents = [str(path.relative_to(folder)).encode()]
        if path.is_file():
            contents += _contents(path)
        for word, kinds in forms.items():
            if any(kind in content for content in contents for kind in kinds):
                found.append(f"{path.relative_to(folder)}: {word}")
    return found


def _forms(word: str) -> set[bytes]:
    """How a word may be written: as it is, in JSON, in an address, in two bytes a letter."""
    return {word.encode(), json.dumps(word)[1:-1].encode(), quote(word, safe="").encode(), word.encode("utf-16-le")}


def _contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and once more decoded where it is of a kind that packs them."""
    raw = path.read_bytes()
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    elif path.suffix == ".lance":
        from lance.file import LanceFileReader

        # Every row that the file has, those that a version marks as deleted too.
        for batch in LanceFileReader(str(path)).read_all().to_batches():
            yield from ("\n".join(str(v) for v in column.to_pylist()).encode("utf-8", "replace") for column in batch.columns)
    elif raw[:4] == b"PAR1":
        import pyarrow.parquet as pq

        for column in pq.read_table(path).columns:
            yield "\n".join(str(v) for v in column.to_pylist()).encode("utf-8", "replace")
    elif raw[:6] == b"ARROW1":
        import pyarrow.ipc as ipc

        for column in ipc.open_file(path).read_all().columns:
            yield "\n".join(str(v) for v in column.to_pylist()).encode("utf-8", "replace")
