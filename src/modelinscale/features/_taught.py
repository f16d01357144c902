"""The tokenizer of an encoder learned elsewhere, as a text's state keeps it."""

from pathlib import Path
from typing import Any

from modelinscale.core.elsewhere import TOKENIZER, Elsewhere, read_json, read_text
from modelinscale.core.errors import ModelError
from modelinscale.core.tokenizer import sha256_of, tokenizer
from modelinscale.features._lengths import MOST


def read_tokenizer(place: Elsewhere) -> dict[str, Any]:
    """content: the ``tokenizer.json`` whole, so that nothing of the folder is needed again; limit: tokens of a text at most, where nobody says.

    Raises `ModelError` where there is none, or none that can be read.
    """
    folder = place.folder()
    content = read_text(folder, TOKENIZER, "which cuts texts as the encoder was taught")
    tokenizer(content)  # what cannot be read is said before a row is
    return {"content": content, "limit": _limit(folder)}


def same(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, Any] | None:
    """The tokenizer of two samples; none where neither had one yet. Raises `ModelError` where they were cut by different ones: their lengths do not add up."""
    if a is not None and b is not None and a != b:
        raise ModelError(
            f"texts of one column were cut by two tokenizers ({sha256_of(a['content'])} and {sha256_of(b['content'])}).",
            fix="Leave the folder of `tokenizer` as it is while `mis` runs, and run it again.",
        )
    return a or b


def _limit(folder: Path) -> int:
    """What the tokenizer's own settings say; some say a number without meaning (1e30)."""
    if not (folder / "tokenizer_config.json").is_file():
        return MOST
    most = read_json(folder, "tokenizer_config.json", "which says how it is used").get("model_max_length")
    return int(min(MOST, most)) if isinstance(most, int | float) and most > 0 else MOST
