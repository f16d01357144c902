"""An encoder of texts whose weights were learned elsewhere: an architecture of `transformers`, from a folder as the Hugging Face hub lays it out.

Training needs transformers; the package does not, as the network becomes part of its graph. Its tokenizer's work is `core.tokenizer`'s.
B rows, T tokens of a text at most, W width of the encoder.
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.elsewhere import CONFIG, TOKENIZER, digest, license_of, read_json, read_text, weight_files
from modelinscale.core.errors import ModelError, did_you_mean, needs
from modelinscale.core.graph import Graph
from modelinscale.core.tokenizer import FIRST, sha256_of
from modelinscale.models._deep.parts import Part, Tensor
from modelinscale.models._deep.pretrained import exported, with_torchvision
from modelinscale.models._deep.sequences import cut
from modelinscale.models._torch import torch

if TYPE_CHECKING:
    from modelinscale.core.encoded import Layout
    from modelinscale.models._pretrained import Language

_BODY = "body."
"""Before the names of arrays that are weights of the architecture."""
_NAMED = 3
"""Of what does not fit, so many are named."""
_LEAST = 2
"""Tokens that are gone through at least: an exported architecture takes any number but one."""
_OWN = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "_attn_implementation", "attn_implementation", "transformers_weights"}
"""Of an architecture's settings, what says nothing about it."""


class _Body(torch.nn.Module):
    """The architecture, as a function of numbers of pieces and of which there are."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: Tensor, there: Tensor) -> Tensor:
        """(B, T) each, to (B, T, W)."""
        found: Tensor = self.inner(input_ids=ids, attention_mask=there).last_hidden_state
        return found


class Reader(Part):
    """int64 (B, T) of `Text`'s tokens, 0 behind the end, to the mean over a text's tokens of what the architecture makes of them, and to that of the first.

    ``share``: how much of the step size its weights move by; 0: not at all, and nothing is left out at random. A text without any token is 0.
    """

    def __init__(self, longest: int, config: str, share: float, known: dict[str, NDArray[Any]]) -> None:
        """``known``: what `weights_of` gave, or nothing where weights are loaded next."""
        super().__init__()
        inner = _built(config)
        self.width, self.longest, self.share, self.pad = 2 * int(inner.config.hidden_size), longest, share, int(inner.config.pad_token_id or 0)
        weights = {name.removeprefix(_BODY): torch.from_numpy(values) for name, values in known.items() if name.startswith(_BODY)}
        if weights:
            inner.load_state_dict(weights)
        self.body = _Body(inner)
        self.body.requires_grad_(share > 0)

    def train(self, mode: bool = True) -> "Reader":
        super().train(mode)
        self.body.train(mode and self.share > 0)
        return self

    def forward(self, x: Tensor) -> Tensor:
        own = x > 0
        ids = torch.where(own, (x - FIRST).clamp_min(0), self.pad)
        seen = own.clone()
        seen[:, 0] = True  # a text without tokens: no attention over nothing
        there = own.to(torch.float32)[:, :, None]
        found = self.body(ids, seen.long()) * there
        return torch.cat([found.sum(1) / there.sum(1).clamp_min(1), found[:, 0]], dim=1)

    def draw(self, graph: Graph, tensor: str) -> str:
        """Through torch's own exporter, whose nodes become nodes of this graph. Raises `ModelError` for what it cannot write."""
        zero, one, steps = graph.constant(0, np.int64), graph.constant(np.float32(1)), graph.constant([1], np.int64)
        there = graph.op("Cast", graph.op("Greater", tensor, zero), to=graph.FLOAT32)
        tensor, there = cut(graph, tensor, graph.op("Unsqueeze", there, graph.constant([2], np.int64)), _LEAST)
        own = graph.op("Greater", tensor, zero)
        numbers = graph.op("Max", graph.op("Sub", tensor, graph.constant(FIRST, np.int64)), zero)
        ids = graph.op("Where", own, numbers, graph.constant(self.pad, np.int64))
        n_steps = graph.op("Squeeze", graph.op("Shape", tensor, start=1, end=2), graph.constant([0], np.int64))
        place = graph.op("Range", zero, n_steps, graph.constant(1, np.int64))
        seen = graph.op("Cast", graph.op("Or", own, graph.op("Equal", place, zero)), to=graph.INT64)
        example = torch.full((2, 4), self.pad, dtype=torch.int64), torch.ones(2, 4, dtype=torch.int64)
        found = graph.op("Mul", exported(self.body, example, (2, 2), graph, ids, seen, extra="transformers", fix=_OTHER), there)  # (N, T, W)
        n = graph.op("Max", graph.op("ReduceSum", there, steps, keepdims=0), one)
        first = graph.op("Gather", found, zero, axis=1)
        return graph.op("Concat", graph.op("Div", graph.op("ReduceSum", found, steps, keepdims=0), n), first, axis=1)


_OTHER = "Choose another encoder for `language`."


def reader_of(language: "Language", name: str, layout: "Layout") -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Settings of the port and weights of an encoder for the tokens of column ``name``.

    Raises `ModelError` for a folder that is not there, lacks a file, holds pickled weights, another architecture's or a decoder's, for tokens of another
    tokenizer, and for texts longer than the architecture has places for.
    """
    folder = language.folder()
    tokenizer = sha256_of(read_text(folder, TOKENIZER, "which cuts texts as the encoder was taught"))
    if layout.names != (tokenizer,):
        pieces = "another tokenizer's pieces" if layout.names else "words or pieces learned here"
        place = json.dumps(language.place if language.hub else language.path)
        raise ModelError(
            f"column {name!r} is cut into {pieces}, and the encoder {language.said!r} knows those of its own tokenizer only.",
            fix=f"Write `features: {{{name}: {{type: text, tokenizer: {place}}}}}`.",
        )
    config = _config(folder)
    body = _loaded(folder, config)
    n_known, longest = int(body.get_input_embeddings().num_embeddings), layout.shape[0]
    if layout.width - FIRST > n_known:
        raise ModelError(f"{language.said}: its tokenizer has {layout.width - FIRST:,} pieces, and its encoder knows {n_known:,}: they do not belong together.")
    if (most := _places(body)) is not None and longest > most:
        raise ModelError(
            f"column {name!r} has up to {longest:,} tokens a text, and {language.said} has places for {most:,}.",
            fix=f"Write `longest: {most}` for the column under `features`.",
        )
    known = {_BODY + key: value.detach().numpy().copy() for key, value in body.state_dict().items()}
    settings = {"encoder": "pretrained", "config": config, "share": language.share, "row_numbers": _row_numbers(body.config, longest)}
    origin = {"column": name, "architecture": body.config.model_type, "source": language.said, "revision": language.revision, "license": license_of(folder)}
    return settings | {"origin": origin | {"sha256": digest(weight_files(folder))}}, known


def _config(folder: Path) -> str:
    """Settings of the architecture in JSON. Raises `ModelError` for what is no encoder, or needs code that came with it."""
    found = read_json(folder, CONFIG, "which says what the encoder is")
    kind = found.get("model_type")
    auto = _auto()
    known = sorted(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    where = f"{str(folder / CONFIG)!r}"
    if kind not in _transformers().CONFIG_MAPPING:
        own = "; it would run code of its own, which is never done" if found.get("auto_map") else ""
        raise ModelError(f"{where}: transformers has no architecture {kind!r}{own}.{did_you_mean(str(kind), known)}")
    if found.get("is_encoder_decoder"):
        raise ModelError(f"{where}: {kind} is an encoder and a decoder.", fix=f"Choose an encoder: {', '.join(_COMMON)}.")
    if kind not in known or found.get("is_decoder"):
        raise ModelError(f"{where}: {kind} is a decoder, which sees a text only up to each word.", fix=f"Choose an encoder: {', '.join(_COMMON)}.")
    return json.dumps({key: value for key, value in found.items() if key not in _OWN}, sort_keys=True)


_COMMON = ("bert", "distilbert", "roberta", "xlm-roberta", "modernbert", "mpnet", "electra", "albert")


def _built(config: str) -> Any:
    """The module without its heads, its weights by chance. Attention is written out, so that it can be exported."""
    with _quiet():
        return _bare(_transformers().AutoModel.from_config(_planned(config), attn_implementation="eager", dtype=torch.float32))


def _planned(config: str) -> Any:
    """The architecture's settings, as the library has them."""
    found = json.loads(config)
    return _transformers().AutoConfig.for_model(found.pop("model_type"), **found)


def _loaded(folder: Path, config: str) -> Any:
    """The module with the weights of the folder. Raises `ModelError` where some are missing, do not fit, or are pickled."""
    files, transformers = weight_files(folder), _transformers()
    try:
        with _quiet():  # of no folder, but of weights that were read here: nothing that lies in the folder besides can become a file to load
            given = {name: value for file in files for name, value in needs("safetensors.torch", extra="transformers").load_file(file).items()}
            made = _planned(config)
            body, told = transformers.MODEL_MAPPING[type(made)].from_pretrained(
                None,
                config=made,
                state_dict=given,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below, all at once
                attn_implementation="eager",
                dtype=torch.float32,
            )
    except Exception as error:  # readers of damaged weights raise nearly everything
        raise ModelError(f"{str(folder)!r}: its weights cannot be read ({_first_line(error)}).") from error
    body = _bare(body)
    own = set(body.state_dict())
    missing = sorted(name for name in told["missing_keys"] if name in own)
    other = sorted({one[0] if isinstance(one, tuple) else one for one in told["mismatched_keys"]} & own)
    wrong = [f"they lack {_few(missing)}"] if missing else []
    wrong += [f"{_few(other)} of another size"] if other else []
    if wrong:
        raise ModelError(f"{str(folder)!r}: its weights are not those of its {CONFIG} ({'; '.join(wrong)}).", fix="Give the folder as it was saved, whole.")
    return body


def _bare(body: Any) -> Any:
    """Without the layer that some put on the first token: its weights are often not in the file."""
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    return body


def _places(body: Any) -> int | None:
    """Tokens of a text that the architecture has places for; None: any number. Some count places from behind that of their padding."""
    tables = [one for name, one in body.named_modules() if name.endswith("position_embeddings") and isinstance(one, torch.nn.Embedding)]
    if not tables:
        return getattr(body.config, "max_position_embeddings", None)
    return int(tables[0].num_embeddings) - (0 if tables[0].padding_idx is None else tables[0].padding_idx + 1)


def _row_numbers(config: Any, longest: int) -> int:
    """About how many numbers the architecture holds of one row at once: a layer's attention, and its widest product."""
    inner = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None) or 4 * config.hidden_size
    return int(2 * config.num_attention_heads * longest**2 + longest * (6 * config.hidden_size + 2 * int(inner)))


def _transformers() -> ModuleType:
    with_torchvision()
    return needs("transformers", extra="transformers")


def _auto() -> ModuleType:
    _transformers()
    return needs("transformers.models.auto.modeling_auto", extra="transformers")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the library tells on the side: what matters is said here."""
    log = logging.getLogger("transformers")
    level, bars = log.level, _transformers().utils.logging
    shown = bars.is_progress_bar_enabled()
    log.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(level)
        if shown:
            bars.enable_progress_bar()


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", (str(error).strip().splitlines() or [type(error).__name__])[0])[:200]
