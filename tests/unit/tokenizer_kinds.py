"""Small tokenizers of the kinds that models come with, trained here, each with its chat template.

The templates say what the published ones do, in fewer words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from rl.problems import minipy

POSITIONS = 1024
SYSTEM_RAISES = (
    "{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}{% set content = m.content %}{% set thought = '' %}"
    "{% if m.role == 'assistant' and '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n"
    "{{ content.lstrip('\n') }}{% else %}{{ content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA32 = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\n"
    "Today Date: {{ strftime_now('%d %b %Y') }}\n\n<|eot_id|>"
    + LLAMA3.removeprefix("{{ bos_token }}")
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'system' %}"
    "{{ bos_token }}[INST] <<SYS>>\n{{ m.content }}\n<</SYS>>\n\n{% elif m.role == 'user' %}"
    "{% if loop.first %}{{ bos_token }}[INST] {% endif %}{{ m.content.strip() }} [/INST]"
    "{% else %} {{ m.content.strip() }} {{ eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = SYSTEM_RAISES + (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
GEMMA = SYSTEM_RAISES + (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "### Instruction:\n{{ m.content }}\n### Response:\n"
    "{% else %}{{ m.content }}\n{{ eos_token }}\n{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True)
class Kind:
    """A tokenizer with a template; `refused` is what a reward model of it is refused with."""

    build: Callable[[], Tokenizer]
    template: str
    specials: tuple[str, ...]
    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    added: tuple[str, ...] = ()  # not special
    rstrip: bool = False  # special tokens swallow the white space behind them
    named: str | None = None  # tokenizer_class in tokenizer_config.json
    config: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    takes_system: bool = True


@lru_cache(maxsize=1)
def corpus() -> tuple[str, ...]:
    """What all are trained on."""
    answers = ["\n".join(pair) for pair in minipy.warm_start_answers(200, 0.3, seed=0)]
    return (*answers, "[INST] [/INST] <<SYS>> ### Instruction:\n### Response:\n user assistant")


def _trained(tokenizer: Tokenizer, alphabet: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def byte_level(*before: Any) -> Tokenizer:
    """GPT-2's way: every byte is a letter of the alphabet."""
    tokenizer = Tokenizer(models.BPE())
    steps = [*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not before)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)  # pyright: ignore[reportAttributeAccessIssue]  # incomplete stubs
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    return _trained(tokenizer, pre_tokenizers.ByteLevel.alphabet())


def llama3_split() -> Tokenizer:
    """Byte-level behind a split of its own, as Llama-3 and Qwen."""
    pattern = Regex(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+")
    return byte_level(pre_tokenizers.Split(pattern, "isolated"))


def digits() -> Tokenizer:
    """Byte-level behind single digits, as SmolLM2."""
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), gpt2])  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    return _trained(tokenizer, pre_tokenizers.ByteLevel.alphabet())


def _with_bytes(tokenizer: Tokenizer, *, strips: int) -> Tokenizer:
    """SentencePiece's way to say every byte: tokens <0x00> to <0xFF>."""
    state = json.loads(tokenizer.to_str())
    model, names = state["model"], [f"<0x{byte:02X}>" for byte in range(256)]
    if isinstance(model["vocab"], dict):
        model["vocab"] |= {name: len(model["vocab"]) + i for i, name in enumerate(names)}
        model["unk_token"] = "<unk>"
        model["fuse_unk"] = True
    else:
        model["vocab"] += [[name, -20.0] for name in names]
    model["byte_fallback"] = True
    made = Tokenizer.from_str(json.dumps(state))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if strips:
        steps.append(decoders.Strip(" ", strips, 0))
    made.decoder = decoders.Sequence(steps)  # pyright: ignore[reportAttributeAccessIssue]
    return made


def metaspace_first() -> Tokenizer:
    """A word begins with ▁ only at the start of the text: Llama and Mistral v1 in new files."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)  # pyright: ignore[reportAttributeAccessIssue]
    return _with_bytes(_trained(tokenizer, ["▁"]), strips=1)


def prepended() -> Tokenizer:
    """▁ before every piece between special tokens: Llama-2 and Phi-3 in old files."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)  # pyright: ignore[reportAttributeAccessIssue]
    return _with_bytes(_trained(tokenizer, ["▁"]), strips=1)


def replaced() -> Tokenizer:
    """▁ for each space and nothing before the first word, as Gemma."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")  # pyright: ignore[reportAttributeAccessIssue]
    return _with_bytes(_trained(tokenizer, ["▁"]), strips=0)


def unigram() -> Tokenizer:
    """Pieces with probabilities; the letters of a special token are a piece of the vocabulary."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="never", split=False)  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return _with_bytes(tokenizer, strips=0)


def lower_case_words() -> Tokenizer:
    """BERT's way: what a program means is not kept."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.WordPiece()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["<unk>"])
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA3_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_PHI3_TOKENS = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
KINDS = {
    "chatml": Kind(byte_level, CHATML, _CHATML_TOKENS, eos="<|im_end|>", pad="<|endoftext|>"),
    "smollm2": Kind(
        digits, CHATML, _CHATML_TOKENS, eos="<|im_end|>", pad="<|endoftext|>", named="GPT2Tokenizer"
    ),
    "qwen3": Kind(
        llama3_split,
        QWEN3,
        _CHATML_TOKENS,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        added=("<think>", "</think>"),
    ),
    "llama3": Kind(
        llama3_split,
        LLAMA3,
        _LLAMA3_TOKENS,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        config={"clean_up_tokenization_spaces": True},
    ),
    "llama3.2": Kind(
        llama3_split,
        LLAMA32,
        _LLAMA3_TOKENS,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        refused="writes the date of the day",
    ),
    "llama2": Kind(prepended, LLAMA2, ("<s>", "</s>"), bos="<s>", eos="</s>"),
    "llama": Kind(metaspace_first, LLAMA2, ("<s>", "</s>"), bos="<s>", eos="</s>", pad="</s>"),
    "mistral": Kind(
        metaspace_first, MISTRAL, ("<s>", "</s>"), bos="<s>", eos="</s>", takes_system=False
    ),
    "phi3": Kind(
        prepended, PHI3, _PHI3_TOKENS, eos="<|endoftext|>", pad="<|endoftext|>", rstrip=True
    ),
    "gemma": Kind(
        replaced,
        GEMMA,
        ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        pad="<pad>",
        takes_system=False,
    ),
    "deepseek": Kind(
        llama3_split,
        DEEPSEEK,
        ("<|begin|>", "<|EOT|>"),
        bos="<|begin|>",
        eos="<|EOT|>",
        pad="<|EOT|>",
        named="LlamaTokenizerFast",
    ),
    "zephyr unigram": Kind(unigram, ZEPHYR, ("</s>", "<|user|>", "<|assistant|>"), eos="</s>"),
    "bert": Kind(lower_case_words, CHATML, _CHATML_TOKENS, refused="cannot say what it reads"),
}


def write_tokenizer(kind: Kind, directory: Path) -> Any:
    """The tokenizer of a kind in a directory; returns what its tokenizer.json says."""
    made = kind.build()
    made.add_special_tokens([AddedToken(t, rstrip=kind.rstrip) for t in kind.specials])
    made.add_tokens([AddedToken(token, special=False) for token in kind.added])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=kind.bos,
        eos_token=kind.eos,
        pad_token=kind.pad,
        chat_template=kind.template,
        **({"clean_up_tokenization_spaces": False} | kind.config),
    )
    tokenizer.save_pretrained(directory)
    if kind.named is not None:
        file = directory / "tokenizer_config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"tokenizer_class": kind.named}))
    return tokenizer


def write_classifier(kind: Kind, directory: Path) -> Any:
    """A randomly initialised reward model of a kind, whose scores spread over about a unit."""
    tokenizer = write_tokenizer(kind, directory)
    torch.manual_seed(3)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=POSITIONS,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
            dtype="float32",
            id2label={0: "LABEL_0"},
        )
    )
    with torch.no_grad():
        model.score.weight.normal_(std=0.2)
    model.save_pretrained(directory)
    return tokenizer
