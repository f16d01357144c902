"""Small encoders of texts as they are saved elsewhere: a tokenizer trained on a few lines, an architecture of two layers with weights by chance."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

LINES = [
    "the driver was late and the seat was broken",
    "a wonderful ride, friendly people!",
    "Straße, façade and naïve café",
    "cost 12.50 or less; e-mail me at 9:30",
    "unbelievable unhappiness of the unhappy",
    "好的 天气 很 好",
]
LONGEST = 64
"""Tokens that the architectures have places for."""
_WIDTH = 16


def save_tokenizer(folder: Path, kind: str, *, n_pieces: int = 300) -> int:
    """Writes ``tokenizer.json`` with signs for beginning and end; returns how many pieces it has. ``kind``: wordpiece, bytes or unigram."""
    made = MAKERS[kind](n_pieces)
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST - 4}))
    return int(made.get_vocab_size(with_added_tokens=True))


def save_encoder(folder: Path, architecture: str, kind: str = "wordpiece", **settings: Any) -> Path:
    """Writes a whole folder as `save_pretrained` does, with what its README says of the license; returns it. ``settings`` of the architecture's config."""
    import torch
    import transformers

    from modelinscale.models._deep.pretrained import with_torchvision

    with_torchvision()
    n_pieces = save_tokenizer(folder, kind)
    pad = {"wordpiece": 0, "bytes": 1, "unigram": 1}[kind]
    sizes = {"hidden_size": _WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": LONGEST}
    if architecture == "distilbert":
        sizes = {"dim": _WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": LONGEST}
    config = transformers.AutoConfig.for_model(architecture, **{"vocab_size": n_pieces, "pad_token_id": pad, **sizes, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        transformers.AutoModel.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Small\n")
    return folder


def _wordpiece(n_pieces: int) -> Any:
    import tokenizers as t

    made = t.Tokenizer(t.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = t.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = t.pre_tokenizers.BertPreTokenizer()
    signs = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(LINES, t.trainers.WordPieceTrainer(vocab_size=n_pieces, special_tokens=signs, show_progress=False))
    made.post_processor = t.processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 2), ("[SEP]", 3)])
    return made


def _bytes(n_pieces: int) -> Any:
    import tokenizers as t

    made = t.Tokenizer(t.models.BPE())
    made.pre_tokenizer = t.pre_tokenizers.ByteLevel(add_prefix_space=False)
    signs = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = t.pre_tokenizers.ByteLevel.alphabet()
    trainer = t.trainers.BpeTrainer(vocab_size=n_pieces, special_tokens=signs, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(LINES, trainer)
    made.post_processor = t.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return made


def _unigram(n_pieces: int) -> Any:
    import tokenizers as t

    made = t.Tokenizer(t.models.Unigram())
    made.normalizer = t.normalizers.NFKC()
    made.pre_tokenizer = t.pre_tokenizers.Metaspace()
    signs = ["<s>", "<pad>", "</s>", "<unk>"]
    made.train_from_iterator(LINES, t.trainers.UnigramTrainer(vocab_size=n_pieces, special_tokens=signs, unk_token="<unk>", show_progress=False))
    made.post_processor = t.processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", [("<s>", 0), ("</s>", 2)])
    return made


MAKERS: dict[str, Callable[[int], Any]] = {"wordpiece": _wordpiece, "bytes": _bytes, "unigram": _unigram}
