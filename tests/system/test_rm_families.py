"""Every family of reward models scores in a shard's engine as in plain transformers, float32.

The engine is the one that a shard runs; the reference is the scoring snippet of the model cards
(padded batch, sequence classification) and, for the same checkpoint, what the authors' RL worker
does (token classification, gathered at the last token). A language model that was asked for yes
or no is the reference of the classifier that was made of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForTokenClassification,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
)

from actors.engines.specs import EngineSpec
from actors.engines.vllm_engine import EngineLoop
from launch.import_yes_no import ImportArgs, run
from reward.model.files import ADAPTERS, AdapterName, check_reward_model
from reward.model.text_path import TextPath
from rl.problems import minipy
from rl.problems.tiny_model import CHAT_TEMPLATE, make_tokenizer

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

MAX_TOKENS = 256
SYSTEM = "Judge whether the program is right."
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Family:
    """A class of checkpoints and the adapters that read it."""

    architecture: type
    config: Callable[..., PreTrainedConfig]
    tied: bool
    adapters: tuple[AdapterName, ...]
    begins: bool = False  # the template starts with a beginning-of-sequence token
    words: tuple[str, str] | None = None  # of a language model that is made into a classifier


FAMILIES = {
    "qwen3 tied": Family(
        Qwen3ForSequenceClassification, Qwen3Config, True, ("codescaler", "themis")
    ),
    "qwen3 untied": Family(
        Qwen3ForSequenceClassification, Qwen3Config, False, ("sequence_classifier", "acecoder")
    ),
    "qwen3 token head": Family(Qwen3ForTokenClassification, Qwen3Config, False, ("acecoder",)),
    # What launch/import_value_head.py makes of AceCodeRM.
    "qwen2 token head": Family(Qwen2ForTokenClassification, Qwen2Config, False, ("acecoder",)),
    # What launch/import_yes_no.py makes of a language model.
    "qwen3 yes no": Family(
        Qwen3ForCausalLM, Qwen3Config, True, ("sequence_classifier",), words=("Yes", "No")
    ),
    "llama": Family(
        LlamaForSequenceClassification, LlamaConfig, False, ("sequence_classifier",), begins=True
    ),
    "llama token head": Family(
        LlamaForTokenClassification, LlamaConfig, False, ("acecoder",), begins=True
    ),
}


def make_model(family: Family, directory: Path) -> None:
    """A random checkpoint whose scores spread over about one unit."""
    corpus = ["\n".join(pair) for pair in minipy.warm_start_answers(200, 0.3, 0)]
    tokenizer = make_tokenizer([*corpus, *family.words * 500] if family.words else corpus)
    if family.begins:
        tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
        tokenizer.chat_template = "{{ bos_token }}" + CHAT_TEMPLATE
    heads = {"head_dim": 32} if family.config is Qwen3Config else {}
    config = family.config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=family.tied,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        num_labels=1,
        dtype="float32",
        **heads,
    )
    torch.manual_seed(3)
    model = family.architecture(config)
    with torch.no_grad():
        if family.words:
            for name, parameter in model.named_parameters():
                if "norm" not in name:
                    parameter.normal_(std=0.3)
        else:
            model.score.weight.normal_(std=0.2)
            if model.score.bias is not None:
                model.score.bias.fill_(0.7)
    source = language_model_of(directory) if family.words else directory
    model.save_pretrained(source)
    tokenizer.save_pretrained(source)
    if family.words:
        question = directory.with_suffix(".txt")
        question.write_text("{question}\n{code}\nYes or No?")
        run(ImportArgs(input=str(source), output=str(directory), template=str(question)))


def language_model_of(directory: Path) -> Path:
    """Where the model lies that a classifier was made of."""
    return directory.with_suffix(".lm")


def logit_differences(
    directory: Path, rows: list[np.ndarray], words: tuple[str, str]
) -> np.ndarray:
    """What the language model says of its next token, in plain transformers."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in words)
    with torch.no_grad():
        logits = [model(torch.from_numpy(row.astype(np.int64))[None]).logits[0, -1] for row in rows]
    return torch.stack([one[yes] - one[no] for one in logits]).double().numpy()


@pytest.fixture(scope="module", params=FAMILIES)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path, EngineLoop]]:
    """A family's checkpoint in the engine of a shard."""
    directory = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    make_model(FAMILIES[request.param], directory)
    spec = EngineSpec(
        model=str(directory),
        runner="pooling",
        device="cpu",
        dtype="float32",
        max_model_len=MAX_TOKENS,
        max_num_seqs=32,
        tensor_parallel=1,
        gpu_memory_utilization=0.85,
        kv_cache_gib=0.1,
        cpu_threads=1,
        sleep_mode=False,
        seed=0,
    )
    loop = EngineLoop(spec, request.param)
    yield request.param, directory, loop
    loop.close()


def conversations(system: str | None) -> Iterator[tuple[str, str, list[dict[str, str]]]]:
    rng = random.Random(5)
    specs = minipy.specs("eval", 12, 0)
    for spec in specs:
        for code in (spec.program(rng), rng.choice(specs).program(rng) + "\n# and so on" * 3):
            turns = [] if system is None else [{"role": "system", "content": system}]
            turns += [
                {"role": "user", "content": spec.question},
                {"role": "assistant", "content": code},
            ]
            yield spec.question, code, turns


def snippet(directory: Path, turns_N: list[list[dict[str, str]]], *, tokens: bool) -> np.ndarray:
    """What a model card's snippet computes, in one padded batch."""
    # AutoTokenizer would make Qwen2's own of it, which cuts white space elsewhere than this one.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    texts = [tokenizer.apply_chat_template(turns, tokenize=False) for turns in turns_N]
    batch = tokenizer(
        texts, truncation=True, padding=True, max_length=MAX_TOKENS, return_tensors="pt"
    )
    kind = AutoModelForTokenClassification if tokens else AutoModelForSequenceClassification
    model = kind.from_pretrained(directory, dtype=torch.float32).eval()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = model(**inputs).logits.squeeze(-1)
    if tokens:
        last = batch["attention_mask"].sum(dim=1, keepdim=True) - 1
        logits = logits.gather(1, last).squeeze(1)
    return logits.double().numpy()


def test_an_engine_scores_as_the_model_cards_snippet(
    served: tuple[str, Path, EngineLoop], record: Callable[[str], None]
) -> None:
    name, directory, loop = served
    family = FAMILIES[name]
    for adapter in family.adapters:
        check_reward_model(str(directory), adapter, MAX_TOKENS)
        system = SYSTEM if ADAPTERS[adapter].needs_system else None
        text_path = TextPath.load(str(directory), adapter, MAX_TOKENS, system=system)
        cases = list(conversations(system))
        rows = [text_path.encode(q, code).token_ids for q, code, _ in cases]
        ours = np.array(loop.score_all(rows).result(timeout=120))
        turns_N = [turns for _, _, turns in cases]
        has_token_head = family.architecture.__name__.endswith("ForTokenClassification")
        gaps = {"token": np.abs(ours - snippet(directory, turns_N, tokens=True)).max()}
        if not has_token_head:  # the other way round, the snippet would drop the head's bias
            gaps["sequence"] = np.abs(ours - snippet(directory, turns_N, tokens=False)).max()
        if family.words:
            logits = logit_differences(language_model_of(directory), rows, family.words)
            gaps["language model's"] = np.abs(ours - logits).max()
        shown = ", ".join(f"{kind} head {gap:.1e}" for kind, gap in gaps.items())
        record(f"{name}, {adapter}: max |score difference| {shown}, spread {ours.std():.2f}")
        assert ours.std() > 0.05  # or the agreement would be that of constants
        assert max(gaps.values()) <= TOLERANCE
