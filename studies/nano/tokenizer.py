"""The nano policy's tokenizer: byte-level BPE, small, with the traps of the real ones.

Digits stand alone, words and punctuation never share a token: so `</code>` is three tokens, as in
real vocabularies, and a stop may fall inside a token (`>` and a line break are one). Only the three
control tokens are single tokens by decree.
"""

import json
from collections.abc import Iterable
from pathlib import Path

__all__ = ["CONTROL", "build_tokenizer"]

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# Words with the blank before them; single digits; punctuation with line breaks behind it; blanks.
PIECES = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

TEMPLATE = """\
{%- if messages[0].role == 'system' %}
    {%- set told = messages[0].content %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set told = '' %}
    {%- set rest = messages %}
{%- endif %}
{%- if told or tools %}
    {{- '<|im_start|>system\\n' + told }}
    {%- if tools %}
        {{- '\\n\\n' if told else '' }}
        {{- 'You may call a tool, with JSON between tags:\\n' }}
        {{- '<tool_call>\\n{"name": "...", "arguments": {...}}\\n</tool_call>\\nTools:' }}
        {%- for tool in tools %}
            {{- '\\n' + tool.function.name }}
            {{- '(' + tool.function.parameters.properties | join(', ') + '): ' }}
            {{- tool.function.description }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in rest %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- call.function.arguments | tojson + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def build_tokenizer(texts: Iterable[str], size: int, folder: Path) -> None:
    """Learn a vocabulary of exactly `size` from `texts`; write it as a Hugging Face tokenizer.

    Raises ValueError where the texts hold too few different words for that size.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != size:
        raise ValueError(f"the texts give {tokenizer.get_vocab_size()} tokens, not {size}")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    end, start, im_end = CONTROL
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": im_end,
        "pad_token": end,
        "additional_special_tokens": [start],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
