"""Small real tokenizers and models with random weights, made on the spot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Fast

from interlace.rollout.tokenizer import Tokenizer

EOS = "<|end|>"


def byte_tokenizer(folder: Path, merges: Sequence[tuple[str, str]] = ()) -> Tokenizer:
    """A byte-level tokenizer: the 256 bytes, the merges in order, and an end-of-sequence token.

    Merges are in the byte-level alphabet, where a line feed is `Ċ` and 0xE2 is `â`.
    """
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    fast = Fast(models.BPE({piece: id for id, piece in enumerate(pieces)}, list(merges)))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(EOS, special=True)])
    folder.mkdir(parents=True, exist_ok=True)
    fast.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(f'{{"eos_token": "{EOS}"}}')
    return Tokenizer.load(folder)


def checkpoint(folder: Path, kind: str = "qwen3", seed: int = 0, **config: object) -> Path:
    """A folder with a two-layer model and a byte tokenizer. `kind`: qwen3, qwen2, llama, ..."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = byte_tokenizer(folder, [("h", "e"), ("<", "/"), ("l", "l")])
    settings: dict[str, object] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 96,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "initializer_range": 0.2,  # far from uniform, so that a wrong context shows
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(AutoConfig.for_model(kind, **(settings | config)))
    model.save_pretrained(folder)
    return folder
