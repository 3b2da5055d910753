"""Three tokenizers like those of real models, trained here on a page of text; chat templates."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Fast

from interlace.rollout.tokenizer import Tokenizer

CORPUS = [
    "A crate holds 4387 bolts. How many bolts are in 296 crates? Let me compute 4387 * 296.",
    "<code>\n```python\nprint(4387 * 296)\n```\n</code>\n<interpreter>\n1298552\n</interpreter>\n",
    "So the answer is <answer>\\boxed{1298552}</answer>. Well done, that is what was asked for.",
    '<tool_call>\n{"name": "python", "arguments": {"code": "print(1 + 1)"}}\n</tool_call>\n',
    "<think>\nI look at the table first.\n</think>\n<intermediate_sql>SELECT name FROM singer",
    "<result>\nname | age\n</result>\n<final_sql>SELECT count(*) FROM singer</final_sql>",
    "<search>tallest tower</search>\n<information>\nThe tower of Dubai\n</information>\n",
    "<step>\n<thought>Look.</thought>\n<action>python</action>\n<action_input>\nx\n</action_input>",
    "Solve the problem step by step. The last part of your response is the final answer.",
    "def f(x):\n    return x + 1\n\n\nfor i in range(10):\n    print(f(i), end=', ')\n",
] * 4

QWEN_LIKE = """\
{%- if tools %}
{{- "<|im_start|>system\\n" }}
{%- if messages[0].role == "system" %}{{- messages[0].content + "\\n\\n" }}{%- endif %}
{{- "# Functions\\nThese can be called:\\n<tools>" }}
{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\\n</tools>\\nA call is JSON in <tool_call></tool_call>.<|im_end|>\\n" }}
{%- elif messages[0].role == "system" %}
{{- "<|im_start|>system\\n" + messages[0].content + "<|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == "user" or message.role == "assistant" %}
{{- "<|im_start|>" + message.role + "\\n" + message.content }}
{%- for call in message.tool_calls or [] %}
{%- set written = {"name": call.function.name, "arguments": call.function.arguments} %}
{{- "<tool_call>\\n" + written | tojson }}
{{- "\\n</tool_call>" }}
{%- endfor %}
{{- "<|im_end|>\\n" }}
{%- elif message.role == "tool" %}
{%- if messages[loop.index0 - 1].role != "tool" %}{{- "<|im_start|>user" }}{%- endif %}
{{- "\\n<tool_response>\\n" + message.content + "\\n</tool_response>" }}
{%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{- "<|im_end|>\\n" }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\\n" }}{%- endif %}
"""

MISTRAL_LIKE = """\
{{- bos_token }}
{%- if messages[0].role == "system" %}
{%- set system = messages[0].content %}{%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
{%- if (message.role == "user") != (loop.index0 % 2 == 0) %}
{{- raise_exception("user and assistant take turns") }}
{%- endif %}
{%- if message.role == "user" %}
{%- if loop.first and system is defined %}
{{- "[INST] " + system + "\\n\\n" + message.content + " [/INST]" }}
{%- else %}{{- "[INST] " + message.content + " [/INST]" }}{%- endif %}
{%- else %}{{- " " + message.content + eos_token }}{%- endif %}
{%- endfor %}
"""

LLAMA3_LIKE = """\
{{- bos_token }}
{%- for message in messages %}
{%- set role = "ipython" if message.role == "tool" else message.role %}
{{- "<|start_header_id|>" + role + "<|end_header_id|>\\n\\n" }}
{%- if message.role == "tool" %}{{- message.content | tojson }}
{%- else %}{{- message.content | trim }}{%- endif %}
{{- "<|eot_id|>" }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}
{%- endif %}
"""

# What Qwen3 and its kin do: thoughts are kept up to the last question only.
STRIPPING = QWEN_LIKE.replace(
    '{%- if message.role == "user" or',
    """\
{%- if message.role == "assistant" and "</think>" in message.content and not loop.last %}
{%- set ns = namespace(later=false) %}
{%- for other in messages[loop.index:] %}
{%- if other.role == "user" %}{%- set ns.later = true %}{%- endif %}
{%- endfor %}
{%- set said = message.content %}
{%- if ns.later %}{%- set said = message.content.split("</think>")[-1].lstrip("\\n") %}{%- endif %}
{{- "<|im_start|>assistant\\n" + said + "<|im_end|>\\n" }}
{%- elif message.role == "user" or""",
)

TEMPLATES = {
    "qwen": QWEN_LIKE,
    "mistral": MISTRAL_LIKE,
    "llama3": LLAMA3_LIKE,
    "stripping": STRIPPING,
    "plain": None,
}


def _qwen() -> tuple[Fast, dict[str, Any]]:
    """Byte-level BPE, split by a pattern as GPT-4's, single digits; tags among the added tokens."""
    fast = Fast(models.BPE())
    fast.normalizer = normalizers.NFC()
    pattern = (
        r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    )
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False),
    )
    fast.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast.add_tokens([AddedToken(t, special=False) for t in ("<tool_call>", "</tool_call>")])
    fast.add_tokens([AddedToken(t, special=False) for t in ("<think>", "</think>")])
    return fast, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def _mistral() -> tuple[Fast, dict[str, Any]]:
    """BPE over words with a blank in front, and bytes for what it does not know."""
    fast = Fast(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    fast.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=special, show_progress=False)
    words = Fast(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Split("\n", "removed")]
    )
    words.train_from_iterator(CORPUS, trainer)
    # The bytes are in the vocabulary, but no control tokens.
    learnt = json.loads(words.to_str())["model"]
    learnt["byte_fallback"] = True
    whole = json.loads(fast.to_str())
    whole["model"] = learnt
    fast = Fast.from_str(json.dumps(whole))
    fast.add_special_tokens(["<unk>", "<s>", "</s>"])
    return fast, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _llama3() -> tuple[Fast, dict[str, Any]]:
    """Byte-level BPE as GPT-2's, with numbers of up to three digits and other merges."""
    fast = Fast(models.BPE(ignore_merges=True))
    pattern = (
        r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(
        CORPUS[2:9],
        trainers.BpeTrainer(vocab_size=640, initial_alphabet=alphabet, show_progress=False),
    )
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    fast.add_special_tokens(names)
    return fast, {"bos_token": names[0], "eos_token": names[3]}


VOCABULARIES = {"qwen": _qwen, "mistral": _mistral, "llama3": _llama3}

_folders = Path(tempfile.mkdtemp(prefix="vocabularies-"))
atexit.register(shutil.rmtree, _folders, ignore_errors=True)


def tokenizer(vocabulary: str, template: str | None = None) -> Tokenizer:
    """`tokenizer("qwen")` has its own chat template, `tokenizer("qwen", "plain")` none."""
    return _tokenizer(vocabulary, template or vocabulary)


@cache
def _tokenizer(vocabulary: str, template: str) -> Tokenizer:
    folder = _folders / f"{vocabulary}-{template}"
    folder.mkdir()
    save(folder, vocabulary, TEMPLATES[template])
    return Tokenizer.load(folder)


def save(folder: Path, vocabulary: str, template: str | None) -> None:
    """Write a tokenizer as Hugging Face does."""
    fast, config = VOCABULARIES[vocabulary]()
    fast.save(str(folder / "tokenizer.json"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
