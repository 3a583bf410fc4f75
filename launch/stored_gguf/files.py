"""GGUF files: what a file states, beside what transformers makes of it.

The conversion of transformers passes over what it has no name for: a pre-tokenizer that it does not
know becomes that of GPT-2, a head size that differs from the usual one is guessed, scaled rotary
positions become plain ones. What can be set right is set right here; for the rest the file is
refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf.errors import UserError

# Names in `tokenizer.ggml.pre` under which llama.cpp takes each digit alone, then splits as GPT-2.
_DIGITS = frozenset(
    ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"]
)
_LIKE_GPT2 = frozenset(["gpt-2", "gpt2", "mpt", "olmo", "jais", "phi-2"])
_COMPOSED = ("qwen2", "deepseek-r1-qwen", "qwen35")  # text in Unicode's form NFC
# Of an architecture, beside what transformers has names for: changes nothing in what is computed.
_HARMLESS = (
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "rope.dimension_sections",
    "tensor_data_layout",
    "leading_dense_block_count",
    "rope.scaling.finetuned",
)
_ROTARY_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """Metadata and tensors of one file."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]  # shapes by name

    @property
    def architecture(self) -> str:
        """Llama, Qwen3, ... as llama.cpp spells them."""
        return str(self.metadata.get("general.architecture"))

    def of_model(self, name: str) -> Any:  # noqa: ANN401 - any value of the format
        """A value that the file states of its architecture, or None."""
        return self.metadata.get(f"{self.architecture}.{name}")

    @property
    def head_dim(self) -> int | None:
        """Numbers of one head's queries and keys."""
        stated = self.of_model("attention.key_length")
        if stated is not None:
            return int(stated)
        hidden, heads = self.of_model("embedding_length"), self.of_model("attention.head_count")
        return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) else None


@dataclass(slots=True)
class Carried:
    """What a conversion did beside copying, in words."""

    repaired: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_gguf(path: Path) -> GgufFile:
    """The metadata and the shapes of a file; nothing of the weights.

    Raises:
        UserError: when it is cut short or broken.
    """
    from gguf import GGUFReader  # noqa: PLC0415 - after the arguments are good

    try:
        reader = GGUFReader(path)
        metadata = {name: one.contents() for name, one in reader.fields.items()}
        tensors = {
            tensor.name: tuple(int(size) for size in tensor.shape) for tensor in reader.tensors
        }
    except Exception as error:  # the reader trusts what it reads
        raise UserError(
            f"input: {path} cannot be read as GGUF ({type(error).__name__}: {error}); fetch the "
            "file again"
        ) from error
    return GgufFile(path=path, metadata=metadata, tensors=tensors)


def check_metadata(file: GgufFile, known: Mapping[str, Any], carried: Carried) -> None:
    """Refuse what changes the computation and would be lost; note what only goes missing.

    `known` are the names that transformers reads of this architecture.

    Raises:
        UserError: naming the keys and tensors.
    """
    if file.metadata.get("split.count", 1) > 1:
        raise UserError(
            f"input: {file.path} is one of {file.metadata['split.count']} parts; join them with "
            "`llama-gguf-split --merge`"
        )
    prefix = f"{file.architecture}."
    unread = [
        name
        for key in file.metadata
        if key.startswith(prefix)
        and (name := key.removeprefix(prefix)) not in known
        and name not in _HARMLESS
    ]
    lost = [
        f"{prefix}{name}={_short(file.of_model(name))}" for name in unread if _matters(file, name)
    ]
    lost += [name for name in _ROTARY_TENSORS if name in file.tensors]
    if lost:
        raise UserError(
            f"input: {file.path} states {', '.join(lost)}, which the conversion of transformers "
            "would leave out, so that the model would compute something else; take the safetensors "
            "of this model"
        )
    carried.left_out += [f"{prefix}{name}" for name in unread]


def _matters(file: GgufFile, name: str) -> bool:
    """Whether a value that nobody reads changes what the model computes."""
    value = file.of_model(name)
    if name == "rope.scaling.type":
        return value not in (None, "none")
    neutral = {"rope.scaling.factor": 1, "attention.causal": True, "expert_count": 0}
    if name in neutral:
        return value != neutral[name]
    parts = ("scal", "softcap", "sliding", "logit", "clamp", "alibi", "expert", "rope.", "ssm.")
    return any(part in name for part in parts) and value not in (None, 0, 0.0, 1.0, False, "none")


def repair_config(file: GgufFile, config: Any, carried: Carried) -> None:  # noqa: ANN401
    """Set the sizes that the file states, where transformers guessed others.

    Raises:
        UserError: for heads whose keys and values differ in size.
    """
    rows = file.tensors.get("token_embd.weight", (0,))[-1]
    if rows and config.vocab_size != rows:
        carried.repaired.append(
            f"vocab_size {rows} (rows of the embedding), not {config.vocab_size}"
        )
        config.vocab_size = rows
    wanted = file.head_dim
    heads = getattr(config, "num_attention_heads", None)
    if wanted is None or not isinstance(heads, int):
        return
    made = getattr(config, "head_dim", None) or config.hidden_size // heads
    value = file.of_model("attention.value_length")
    if value is not None and int(value) != wanted:
        raise UserError(
            f"input: {file.path} has keys of {wanted} and values of {value} numbers a head, and "
            "the conversion of transformers knows one size for both; take the safetensors"
        )
    if made != wanted:
        config.head_dim = wanted
        carried.repaired.append(f"head_dim {wanted} (attention.key_length), not {made}")


def check_weights(file: GgufFile, model: Any, info: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Refuse a model of which a tensor was not filled from the file, or has another shape.

    Raises:
        UserError: naming tensors.
    """
    faults = [
        f"{what}: {', '.join(map(str, sorted(info.get(key) or [], key=str)[:5]))}"
        for key, what in (
            ("missing_keys", "not in the file"),
            ("mismatched_keys", "of another shape"),
            ("unexpected_keys", "without a place"),
        )
        if info.get(key)
    ]
    stated = sum(math.prod(shape) for shape in file.tensors.values())
    made = sum(parameter.numel() for parameter in model.parameters())
    if stated != made:
        faults.append(f"the file holds {stated} numbers, and the model has {made}")
    if faults:
        raise UserError(
            f"input: {file.path} cannot be carried over whole ({'; '.join(faults)}); take the "
            "safetensors of this model"
        )


def repair_tokenizer(
    file: GgufFile,
    tokenizer: Any,  # noqa: ANN401 - tokenizers have no common typed base
    known: Sequence[str],
    carried: Carried,
) -> None:
    """Split text as the file says; `known` are the pre-tokenizers that transformers makes.

    Raises:
        UserError: for a pre-tokenizer that nobody here knows.
    """
    from tokenizers import normalizers, pre_tokenizers  # noqa: PLC0415

    if file.metadata.get("tokenizer.ggml.model") != "gpt2":
        return  # made of pieces, not of bytes: there is no pre-tokenizer to know
    name = file.metadata.get("tokenizer.ggml.pre")
    backend = tokenizer.backend_tokenizer
    if name in _DIGITS:
        parts: Any = [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
        backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
        carried.repaired.append(f"pre-tokenizer {name}: each digit alone, not that of GPT-2")
    elif name not in known and name not in _LIKE_GPT2:
        raise UserError(
            f"input: the pre-tokenizer of {file.path} is {name!r}, which the conversion of "
            "transformers does not know (it would split text as GPT-2 does, into other tokens); "
            "give tokenizer=DIR with the tokenizer.json of this model"
        )
    if name in _COMPOSED and backend.normalizer is None:
        backend.normalizer = normalizers.NFC()
        carried.repaired.append("normaliser NFC, which a GGUF file cannot state")


_PROBES = (
    "def f(xs):\n    return [x * 2 for x in xs if x > 10]\n",
    "if a  ==   12345:\n\tprint('caf\u00e9', 3.14)\r\n\n\n    # don't\n",
    "Stra\u00dfe \u4f60\u597d e\u0301 \U0001f600 x\u00b2",
)


def check_written(tokenizer: Any, target: Path) -> None:  # noqa: ANN401
    """Refuse a directory whose tokenizer, read again, makes other tokens than the converted one.

    For some architectures transformers has a class that splits text by a rule of its own.

    Raises:
        UserError: naming the text.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415

    read: Any = AutoTokenizer.from_pretrained(target)
    for text in _PROBES:
        made = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        if read(text, add_special_tokens=False)["input_ids"] != made:
            raise UserError(
                f"output: the tokenizer of {target} reads {text!r} as other tokens than the file "
                f"states ({type(read).__name__} has a rule of its own); give tokenizer=DIR with "
                "the tokenizer of this model"
            )


def check_vocabulary(file: GgufFile, tokenizer: Any, source: str) -> None:  # noqa: ANN401
    """Refuse a tokenizer of another model: each token has to stand at the same id.

    Raises:
        UserError: naming the first token that differs.
    """
    stated: list[str] = file.metadata.get("tokenizer.ggml.tokens") or []
    for token, index in tokenizer.get_vocab().items():
        if index < len(stated) and _spelled(stated[index]) != _spelled(token):
            raise UserError(
                f"tokenizer: {source} has {token!r} as token {index}, and {file.path} has "
                f"{stated[index]!r}; give the tokenizer of this model"
            )
        if index >= len(stated):
            raise UserError(
                f"tokenizer: {source} has the token {token!r} at {index}, and {file.path} has "
                f"{len(stated)} tokens; give the tokenizer of this model"
            )


def _spelled(token: str) -> str:
    """A token with its spaces as sentencepiece writes them."""
    return token.replace(" ", "\u2581")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
