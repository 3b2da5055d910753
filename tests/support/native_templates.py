"""Tokenizers whose chat templates write calls as those of real models do.

The templates in tests/data/templates are short ones of our own; the special tokens are those of the
models, each a single id as in their vocabularies.
"""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tokenizers import AddedToken
from tokenizers import Tokenizer as Fast

from interlace.rollout.tokenizer import Tokenizer
from support.toy_tokenizers import save

TEMPLATES = Path(__file__).parents[1] / "data" / "templates"

_HARMONY = ["start", "end", "message", "channel", "constrain", "return", "call"]
_LLAMA = ["begin_of_text", "start_header_id", "end_header_id", "eot_id", "eom_id", "python_tag"]
_MISTRAL = ["<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
_MISTRAL += ["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"]
_MISTRAL += ["[TOOL_RESULTS]", "[/TOOL_RESULTS]"]
_DEEPSEEK = ["begin▁of▁sentence", "end▁of▁sentence", "User", "Assistant"]
_DEEPSEEK += [f"tool▁{what}▁{which}" for what in ("calls", "call") for which in ("begin", "end")]
_DEEPSEEK += [
    f"tool▁{what}▁{which}" for what in ("outputs", "output") for which in ("begin", "end")
]
_KIMI = ["im_system", "im_user", "im_assistant", "im_middle", "im_end", "tool_call_begin"]
_KIMI += ["tool_call_argument_begin", "tool_call_end"]
_KIMI += ["tool_calls_section_begin", "tool_calls_section_end"]
_GLM = ["endoftext", "system", "user", "assistant", "observation"]
_QWEN = (["<|im_end|>"], ["<|im_end|>"])
_LLAMA_TOKENS = [f"<|{name}|>" for name in _LLAMA]
_DEEPSEEK_TOKENS = [*(f"<｜{name}｜>" for name in [*_DEEPSEEK, "tool▁sep"]), "｜DSML｜"]

NATIVE: dict[str, tuple[list[str], list[str]]] = {
    "qwen3_coder": _QWEN,
    "glm": (
        ["[gMASK]", "<sop>", *(f"<|{name}|>" for name in _GLM)],
        ["<|endoftext|>", "<|user|>", "<|observation|>"],
    ),
    "gpt_oss": ([f"<|{name}|>" for name in _HARMONY], ["<|return|>", "<|call|>"]),
    "llama3": (_LLAMA_TOKENS, ["<|eot_id|>", "<|eom_id|>"]),
    "llama3_python": (_LLAMA_TOKENS, ["<|eot_id|>", "<|eom_id|>"]),
    "mistral": (_MISTRAL, ["</s>"]),
    "mistral_v3": (_MISTRAL, ["</s>"]),
    "deepseek": (_DEEPSEEK_TOKENS, ["<｜end▁of▁sentence｜>"]),
    "deepseek_v3": (_DEEPSEEK_TOKENS, ["<｜end▁of▁sentence｜>"]),
    "deepseek_v3_2": (_DEEPSEEK_TOKENS, ["<｜end▁of▁sentence｜>"]),
    "kimi_k2": ([f"<|{name}|>" for name in _KIMI], ["<|im_end|>"]),
    "minimax_m2": (["]~b]", "[e~[", "<minimax:tool_call>", "</minimax:tool_call>"], ["[e~["]),
}
"""For each format, its special tokens and those that end a turn."""


@cache
def native_tokenizer(name: str, template: str | None = None) -> Tokenizer:
    """The tokenizer of a model that speaks the format `name`; with another template if given."""
    special, ends = NATIVE[name]
    folder = Path(mkdtemp(prefix="native-"))
    save(folder, "qwen", template or (TEMPLATES / f"{name}.jinja").read_text("utf-8"))
    fast = Fast.from_file(str(folder / "tokenizer.json"))
    fast.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    fast.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["eos_token"] = ends[0]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ids = [fast.token_to_id(end) for end in ends]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    return Tokenizer.load(folder)
